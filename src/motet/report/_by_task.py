"""The sections of a run with a task column: all tasks together, each task, and the verdict on them."""

from collections.abc import Sequence
from dataclasses import replace

from motet.report._figures import Whisker, gains_figure
from motet.report._html import Html, paragraph, section, table, tag
from motet.report._read import Run
from motet.report._results import Guard, Result, mapping, number, read_results
from motet.report._verdict import Verdict, harm_sentences, is_worse, leak_sentence, weak_sentences
from motet.report._words import (
    count,
    decimal,
    decimals,
    gain,
    guard_words,
    listed,
    model_name,
    percent,
    plain,
    plural,
    score,
)

_SHOWN = 40  # tasks in the figure of gains: the lowest and the highest


def overall_result(run: Run) -> Result:
    """The target over all tasks.

    Raises:
        RunError: metrics.json does not say its kind or metric.
    """
    name = str(run.metrics.get("target") or "target")
    (result,) = read_results({"tasks": {name: run.metrics.get("overall")}})
    return replace(result, guard=Guard(own="own_lightgbm", margin=None, gain=None, interval=None, verdict="by task"))


def judge_tasks(run: Run, overall: Result, results: Sequence[Result]) -> Verdict:
    """The verdict: who serves how many tasks, what it is worth over all rows, and which task is worse off.

    Only tasks with test rows enough for an interval are called worse or not worse: the gain of a task with three test
    rows is luck.
    """
    measured = [result for result in results if result.interval is not None]
    harm = harm_sentences(measured)
    if is_worse(overall):
        whole = gain(overall.gain, overall.interval)
        harm.append(f"Over all test rows it is worse than the tasks' own models: {whole}.")
    leaks = [leak_sentence(leak) for leak in run.rows("leaks")]
    weak = weak_sentences([overall])
    sentences = [_served(run, results), _worth(run, overall)]
    if measured and not harm:
        few = len(results) - len(measured)
        rest = f" The other {few} have too few to tell one by one." if few else ""
        sentences.append(f"Of {plural(len(measured), 'task')} with 20 test rows or more none is worse off.{rest}")
    return Verdict(not (harm or weak or leaks), sentences, harm + weak, leaks)


def _served(run: Run, results: Sequence[Result]) -> str:
    column, target = run.metrics.get("task_column"), run.metrics.get("target")
    kept = [result.name for result in results if result.served_by == "own_lightgbm"]
    blends = [result.name for result in results if result.served_by == "mean"]
    new = [result.name for result in results if result.served_by == "common"]
    shared = sum(result.is_shared for result in results)
    said = f"{plural(len(results), 'task')} of `{column}`, one target: `{target}`. "
    stands = model_name(str(run.metrics.get("served_by")))
    said += f"Of all models for all tasks, {stands} stands; it serves {shared} of them."
    if kept:
        said += f" Served by their own models: {listed(kept)}."
    if blends:
        said += f" By the mean of both: {listed(blends)}."
    if new:
        said += f" Without labels to learn from, and served by what the others have in common: {listed(new)}."
    return said


def _worth(run: Run, overall: Result) -> str:
    over_pooled = number(run.metrics.get("gain_percent"))
    pooled = mapping(mapping(run.metrics.get("learners")).get("pooled"))
    said = (
        f"Over all test rows {overall.metric} is {score(overall.motet, overall)}; each task's own model has "
        f"{score(overall.single, overall)} (gain {gain(overall.gain, overall.interval)})"
    )
    if run.metrics.get("served_by") == "pooled" and not over_pooled:
        return f"{said}."
    return f"{said}, LightGBM on all rows {score(number(pooled.get('test')), overall)} (gain {percent(over_pooled)})."


def together_section(run: Run, overall: Result) -> Html:
    """Every learner over all test rows, and which stands for all tasks."""
    learners = mapping(run.metrics.get("learners"))
    values = {candidate.name: candidate.score for candidate in overall.candidates}
    places = decimals(list(values.values()))
    rows = []
    for name, value in values.items():
        chosen = mapping(learners.get(name))
        low_high = chosen.get("choose_ci95")
        ends = [number(end) for end in low_high] if isinstance(low_high, list) else [None, None]
        span = (ends[0], ends[1]) if len(ends) == 2 and ends[0] is not None and ends[1] is not None else None
        over_pooled = gain(number(chosen.get("choose_gain_percent")), span)
        stands = "stands for all tasks" if name == run.metrics.get("served_by") else ""
        rows.append([model_name(name), decimal(value, places), over_pooled, stands])
    lead = (
        "Scores are of all test rows together. LightGBM on all rows, with the task as a category, stands for all tasks "
        "unless another model is proven better on the choose rows; then each task's own model is asked."
    )
    head = ["model", overall.metric, "gain over LightGBM on all rows, choose rows", ""]
    return section("together", "All tasks together", paragraph(lead), table(head, rows, numeric=(1, 2)))


def each_task_section(run: Run, results: Sequence[Result]) -> Html:
    """A row for each task, and the gains of those whose test rows tell."""
    told = sorted((r for r in results if r.gain is not None), key=lambda result: result.gain or 0.0)
    shown = told if len(told) <= _SHOWN else [*told[: _SHOWN // 2], *told[-_SHOWN // 2 :]]
    whiskers = [Whisker(r.name, r.gain, r.interval, "worse" if is_worse(r) else _side(r)) for r in shown]
    margin = max((result.margin for result in results), default=0.0)
    lead = (
        "Scores are of each task's own test rows; the gain is against its own LightGBM. A task with fewer than 20 test "
        "rows has no gain: it would be luck."
    )
    if len(told) > len(shown):
        lead += f" The figure shows the {_SHOWN // 2} lowest and the {_SHOWN // 2} highest gains of {len(told)}."
    figure = [tag("figure", gains_figure(whiskers, margin, "What is served against the own model, test rows"))]
    mean = number(run.metrics.get("delta_m_percent"))
    lead += f" Mean gain over the tasks that have one: {percent(mean)}." if mean is not None else ""
    head = ["task", "train rows", "test rows", "constant", "own model", "motet", "gain (95 % interval)"]
    head += ["served by", "guard's verdict"]
    return section(
        "targets", "Each task", paragraph(lead), table(head, [_row(run, r) for r in results], numeric=range(1, 7)),
        *(figure if shown else []),
    )  # fmt: skip


def _row(run: Run, result: Result) -> list[str]:
    data = mapping(mapping(run.metrics.get("tasks")).get(result.name))
    scores = [score(value, result) for value in (result.constant, result.single, result.motet)]
    counts = [count(data.get(key)) for key in ("train_rows", "rows")]
    by = tag("span", model_name(result.served_by), class_=f"tag {_side(result)}")
    guard = guard_words(result) if result.guard else "no labels to learn from"
    return [result.name, *counts, *scores, gain(result.gain, result.interval), by, guard]


def readings_section(run: Run) -> Html | None:
    """Which tasks robust boosting set apart; nothing where it did not split."""
    found = [row for row in run.rows("readings") if row.get("outlier") is True]
    if not found:
        return None
    rows = [
        [str(row.get("task")), count(row.get("rows")), plain(100 * (number(row.get("share")) or 0.0)),
         percent(number(row.get("gain_percent")))]
        for row in found
    ]  # fmt: skip
    lead = (
        "Robust boosting put these on a side of their own. It is a diagnosis: see what is different about a task "
        "before you trust it. It is proven only where robust boosting is better than LightGBM on all rows."
    )
    head = ["task", "train rows", "test rows", "constant", "own model", "motet", "gain (95 % interval)"]
    head += ["served by", "guard's verdict"]
    return section("apart", "Tasks that stand apart", paragraph(lead), table(head, rows, numeric=(1, 2, 3)))


def _side(result: Result) -> str:
    return result.served_by if result.served_by in ("shared", "own_lightgbm") else "own"
