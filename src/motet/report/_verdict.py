"""The verdict on a run: sentences that the numbers support, and no others."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from motet.report._read import Run
from motet.report._results import Result, number
from motet.report._words import decimals, gain, listed, minus, model_name, plain, plural

_MOST_SENTENCES = 6  # of one kind: past it the names are listed in one sentence


@dataclass(frozen=True)
class Verdict:
    """Sentences for the top of the report; backticks mark names.

    Args:
        good: nothing needs the reader's attention before use.
        sentences: who serves what, and whether any target is worse than its own model.
        warnings: targets that are worse, not compared, without a score, or not predictable.
        leaks: features that alone predict a target almost perfectly.
    """

    good: bool
    sentences: list[str]
    warnings: list[str]
    leaks: list[str]


def judge(run: Run, results: Sequence[Result]) -> Verdict:
    """The verdict on `run`, from its results and its leaks."""
    harm = harm_sentences(results)
    weak = weak_sentences(results)
    leaks = [leak_sentence(leak) for leak in run.rows("leaks")]
    sentences = [_served(results)]
    if results and not harm:
        sentences.append(_no_harm(results))
    wide = [result.name for result in results if _reaches_below(result)]
    if wide:
        sentences.append(
            f"For {listed(wide)} the interval on the test rows reaches below the margin, "
            "so a loss somewhat larger than the margin is not excluded there."
        )
    return Verdict(not (harm or weak or leaks), sentences, harm + weak, leaks)


def is_worse(result: Result) -> bool:
    """Whether what serves came out below the target's own model by more than the margin on the test rows."""
    return result.gain is not None and result.gain < -result.margin


def is_uncompared(result: Result) -> bool:
    """Whether the shared model serves without a comparison against an own model on both sets of rows."""
    return result.is_shared and (result.single is None or result.gain is None or result.guard is None)


def harm_sentences(results: Sequence[Result]) -> list[str]:
    """What contradicts "no target is worse than its own model": losses, and comparisons that were not made."""
    worse = list(filter(is_worse, results))
    sentences = [_loss(result) for result in worse[:_MOST_SENTENCES]]
    if len(worse) > _MOST_SENTENCES:
        rest = [result.name for result in worse[_MOST_SENTENCES:]]
        sentences.append(f"So did {len(rest)} more, which the table shows: {listed(rest)}.")
    against = [result.name for result in results if serves_against_guard(result)]
    if against:
        sentences.append(f"{listed(against)}: the shared model serves although the guard did not find it harmless.")
    missing = [result.name for result in results if is_uncompared(result)]
    if missing:
        sentences.append(
            f"{listed(missing)}: the shared model serves without a comparison against an own model, so nothing is "
            "proven there. A longer --time-limit leaves room for own models."
        )
    return sentences


def _loss(result: Result) -> str:
    sure = result.interval is not None and result.interval[1] < -result.margin
    chance = "" if sure else " The interval does not exclude that this is chance."
    return (
        f"`{result.name}` is served by the {model_name(result.served_by)} and came out worse than its own model by "
        f"more than the margin of {plain(result.margin)} % on the test rows: {gain(result.gain, result.interval)}."
        f"{chance}"
    )


def serves_against_guard(result: Result) -> bool:
    """Whether the shared model serves although the guard's verdict is another than "not worse"."""
    return result.is_shared and result.guard is not None and result.guard.verdict != "not worse"


def weak_sentences(results: Sequence[Result]) -> list[str]:
    """Which tasks have no score, and which are not predictable."""
    sentences = []
    unscored = [result.name for result in results if result.motet is None]
    if unscored:
        have = "has" if len(unscored) == 1 else "have"
        sentences.append(f"{listed(unscored)} {have} no score on the test rows: too few labels, or only one class.")
    weak = [result.name for result in results if result.motet is not None and result.predictable is False]
    if weak:
        sentences.append(
            f"{listed(weak)} is not predictable from these columns: the served model does not beat a constant."
            if len(weak) == 1
            else f"{listed(weak)} are not predictable from these columns: the served models do not beat a constant."
        )
    return sentences


def _served(results: Sequence[Result]) -> str:
    shared = [result.name for result in results if result.is_shared]
    blends = [result.name for result in results if result.served_by == "blend"]
    taught = [result.name for result in results if result.served_by == "distilled"]
    own = [result.name for result in results if not result.is_shared and result.name not in {*blends, *taught}]
    start = f"{plural(len(results), 'target')}. "
    if taught:
        start += f"Served by one small network that the others taught: {listed(taught)}."
        start += f" By the shared model: {listed(shared)}." if shared else ""
        return start + (f" By their own models: {listed(own)}." if own else "")
    if blends:
        start += f"Served by a blend of the shared and own models: {listed(blends)}."
        start += f" By the shared model alone: {listed(shared)}." if shared else ""
        return start + (f" By their own models: {listed(own)}." if own else "")
    if not own:
        return start + (
            "The shared model serves it." if len(shared) == 1 else f"The shared model serves all {len(shared)}."
        )
    kept = f"Served by {'its' if len(own) == 1 else 'their'} own model: {listed(own)}."
    if not shared:
        return start + f"The shared model serves none of them. {kept}"
    return start + f"The shared model serves {len(shared)}. {kept}"


def _no_harm(results: Sequence[Result]) -> str:
    margins = sorted({result.guard.margin for result in results if result.guard and result.guard.margin is not None})
    shown = " or ".join(f"{plain(margin)} %" for margin in margins)
    by = f" by more than the margin ({shown} of the score)" if shown else ""
    return f"No target is worse than its own model{by}."


def _reaches_below(result: Result) -> bool:
    return not is_worse(result) and result.interval is not None and (result.interval[0] < -result.margin)


def leak_sentence(leak: dict[str, object]) -> str:
    """A feature that alone predicts a target almost perfectly, and how to drop it."""
    feature, task = str(leak.get("feature")), str(leak.get("task"))
    score = number(leak.get("score"))
    measured = (
        f" ({leak.get('metric') or 'score'} {minus(f'{score:.{decimals([score])}f}')})" if score is not None else ""
    )
    return (
        f"`{feature}` alone predicts `{task}` almost perfectly{measured}. If it is not known at prediction time, "
        f"drop it and fit again: `--ignore {shlex.quote(feature)}`"
    )
