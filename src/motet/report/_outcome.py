"""The first sections: the verdict, the table and figure of targets, and one part for each target."""

from collections.abc import Sequence

from motet.report._figures import Whisker, calibration_figure, gains_figure
from motet.report._html import Html, details, join, paragraph, section, table, tag
from motet.report._read import Run
from motet.report._results import Candidate, Result, number
from motet.report._verdict import Verdict, is_uncompared, is_worse, serves_against_guard, weak_sentences
from motet.report._words import (
    METRICS,
    count,
    decimal,
    decimals,
    gain,
    guard_words,
    model_name,
    percent,
    plain,
    score,
)

_OPEN_PARTS = 6  # with more targets than this, the parts of each start folded


def verdict_section(run: Run, results: Sequence[Result], verdict: Verdict) -> Html:
    """What to take away, before any number."""
    data = run.part("data")
    source = f"{data.get('source', 'a table')}, {count(data.get('rows'))} rows, {count(data.get('columns'))} columns"
    lead = verdict.sentences[0]
    boxes = [_box("good" if verdict.good else "warn", [lead, *verdict.sentences[1:]])]
    if verdict.warnings:
        worse = any(map(is_worse, results))
        boxes.append(_box("bad" if worse else "warn", ["Needs attention", *verdict.warnings]))
    if verdict.leaks:
        boxes.append(_box("bad", ["Suspected leaks", *verdict.leaks]))
    return tag("section", tag("h1", f"Report on {run.name}"), tag("p", source, class_="soft"), *boxes, id="verdict")


def _box(tone: str, lines: Sequence[str]) -> Html:
    return tag("div", paragraph(lines[0], "lead"), *(paragraph(line) for line in lines[1:]), class_=f"box {tone}")


def results_section(run: Run, results: Sequence[Result]) -> Html:
    """The table of targets, the two figures of gains, and what the words mean."""
    head = [
        "target",
        "metric",
        "constant",
        "own model",
        "motet",
        "gain (95 % interval)",
        "served by",
        "guard's verdict",
    ]
    mean = number(run.metrics.get("delta_m_percent"))
    average = f"Mean gain over the targets: {percent(mean)}." if mean is not None else ""
    return section(
        "targets",
        "What was predicted, and how well",
        paragraph(f"Every score below was measured on test rows that took no part in training or choosing. {average}"),
        table(head, [_row(index, result) for index, result in enumerate(results)], numeric=(2, 3, 4, 5)),
        _gains(results),
        details("What the words mean", _legend(results)),
    )


def _row(index: int, result: Result) -> list[str]:
    arrow = "↑" if result.higher_is_better else "↓"
    return [
        tag("a", result.name, href=f"#target-{index}"),
        f"{result.metric} {arrow}",
        score(result.constant, result),
        score(result.single, result),
        score(result.motet, result),
        gain(result.gain, result.interval),
        _served(result),
        guard_words(result),
    ]


def _served(result: Result) -> Html:
    return tag("span", model_name(result.served_by), class_=f"tag {_css(result.served_by)}")


def _css(name: str) -> str:
    known = ("shared", "own_network", "own_lightgbm", "own_catboost", "own_linear", "blend", "distilled")
    return name if name in known else "own"


def _gains(results: Sequence[Result]) -> Html:
    margin = max((result.margin for result in results), default=0.0)
    chosen = [
        Whisker(r.name, r.guard.gain if r.guard else None, r.guard.interval if r.guard else None, _side(r))
        for r in results
    ]
    tested = [Whisker(r.name, r.gain, r.interval, "worse" if is_worse(r) else _css(r.served_by)) for r in results]
    left = gains_figure(chosen, margin, "Shared model against the best own model, choose rows")
    right = gains_figure(tested, margin, "What motet serves against the best own model, test rows")
    caption = (
        "Dots are gains, whiskers 95 % intervals. Left: what the guard saw when it chose. Right: what came of it on "
        "fresh rows; a target that is served by its own model sits at zero."
    )
    keys = join(
        join([tag("span", class_=f"key {name}"), words])
        for name, words in [
            ("shared", "shared model serves"),
            ("own_network", "own network serves"),
            ("own_lightgbm", "own LightGBM serves"),
            *([("own_catboost", "own CatBoost serves")] if any(r.served_by == "own_catboost" for r in results) else []),
            *([("own_linear", "a linear model serves")] if any(r.served_by == "own_linear" for r in results) else []),
            *([("blend", "a blend serves")] if any(r.served_by == "blend" for r in results) else []),
            *([("distilled", "a small one serves")] if any(r.served_by == "distilled" for r in results) else []),
            ("worse", "worse by more than the margin"),
        ]
    )
    return tag("figure", tag("div", left, right, class_="pair"), tag("figcaption", keys, tag("br"), caption))


def _side(result: Result) -> str:
    return "worse" if result.guard and result.guard.verdict == "worse" else _css(result.served_by)


def _legend(results: Sequence[Result]) -> Html:
    terms = {
        "constant": "what the best constant answer scores, such as the mean or the most frequent share",
        "own model": "the best model for this target alone: the same network, or boosted trees (LightGBM, and CatBoost "
        "where it was tried), or a linear model",
        "shared model": "one network trained on all targets together",
        "motet": "the model that this run serves for the target: the shared model, the target's own, a blend, or one "
        "small network that these taught",
        "gain": "relative change of the score against the own model; positive is always better",
        "95 % interval": "the range of gains that resampling the rows gives 95 times out of 100",
        "guard": "lets the shared model serve only if it is not worse than the own model by more than the "
        "margin; “not proven” means that the rows do not settle it, and the own model is kept",
        "stop, choose, test rows": "stop rows ended the training, choose rows calibrated and chose, test rows measured",
    }
    used = {name for result in results for candidate in result.candidates for name in candidate.metrics}
    used |= {result.metric for result in results}
    terms |= {name: METRICS[name] for name in sorted(used) if name in METRICS}
    arrows = {"↑ ↓": "higher is better, lower is better"}
    return tag("dl", *(join([tag("dt", term), tag("dd", words)]) for term, words in (terms | arrows).items()))


def tasks_section(results: Sequence[Result], title: str = "Each target") -> Html:
    """One foldable part for each target: its candidates, its calibration, its interval."""
    is_open = len(results) <= _OPEN_PARTS
    return section("each", title, *(_part(i, result, is_open=is_open) for i, result in enumerate(results)))


def _part(index: int, result: Result, *, is_open: bool) -> Html:
    kind = tag("span", f" {result.kind}" + (f", in {result.unit}" if result.unit else ""), class_="soft")
    words = [paragraph(sentence) for sentence in (_story(result), *weak_sentences([result]))]
    scores = tag("div", *words, _candidates(result), *_coverage(result))
    body = [tag("div", scores, *_calibration(result), class_="part")]
    summary = join([result.name, kind])
    return tag("div", details(summary, *body, is_open=is_open), id=f"target-{index}")


def _story(result: Result) -> str:
    guard = result.guard
    if guard is None:
        return f"The {model_name(result.served_by)} serves it. The shared model was not compared with an own model."
    whose = f"choose rows of {guard.tasks} tasks together" if guard.tested == "together" else "choose rows"
    how = f"On the {whose} the shared model's gain against the {model_name(guard.own)} was "
    how += gain(guard.gain, guard.interval)
    margin = f"; the margin is {plain(guard.margin)} %" if guard.margin is not None else ""
    therefore = "Even so," if serves_against_guard(result) else "So"
    if result.served_by == "blend":
        therefore = "But mixing the candidates came out better, and not worse than the own model, so"
    if result.served_by == "mean":
        therefore = "But half of each was found not worse than the own models, so"
    if result.served_by == "distilled":
        therefore = "One small network was then taught what would have served, and found not worse than it, so"
    unproven = " Note: no comparison on the test rows." if is_uncompared(result) else ""
    return (
        f"{how}{margin}. Verdict: {guard.verdict}. {therefore} the {model_name(result.served_by)} serves it.{unproven}"
    )


def _candidates(result: Result) -> Html:
    names = [result.metric]
    for candidate in result.candidates:
        names += [name for name in candidate.metrics if name not in names]
    if not result.candidates:
        return paragraph("No candidate was scored.", "soft")
    values = [_values(candidate, result, names) for candidate in result.candidates]
    places = [decimals(column) for column in zip(*values, strict=True)]
    rows: list[list[str]] = []
    for candidate, row in zip(result.candidates, values, strict=True):
        name = model_name(candidate.name) + (" (serves)" if candidate.name == result.served_by else "")
        skipped = candidate.score is None and not candidate.metrics
        rows.append(
            [name, *(decimal(v, p) for v, p in zip(row, places, strict=True)), "not trained" if skipped else ""]
        )
    note = any(row[-1] for row in rows)
    head = ["candidate", *names, *([""] if note else [])]
    return table(head, [row if note else row[:-1] for row in rows], numeric=range(1, len(names) + 1))


def _values(candidate: Candidate, result: Result, names: Sequence[str]) -> list[float | None]:
    return [candidate.metrics.get(name, candidate.score if name == result.metric else None) for name in names]


def _calibration(result: Result) -> list[Html]:
    curve = result.calibration.get("curve")
    figure = calibration_figure(curve, result.name) if isinstance(curve, dict) else None
    before, after = number(result.calibration.get("error_before")), number(result.calibration.get("error_after"))
    if figure is None and (before is None or after is None):
        return []
    said = ""
    if before is not None and after is not None:
        said = (
            f"Probabilities were off by {plain(before)} on average before calibration and by {plain(after)} after it."
        )
    legend = "A dot on the grey diagonal means that the probability is right. Bars: how many rows have it."
    caption = tag("figcaption", " ".join([said, legend] if figure else [said]).strip())
    return [tag("figure", *([figure] if figure else []), caption)]


def _coverage(result: Result) -> list[Html]:
    level, coverage = number(result.coverage.get("level")), number(result.coverage.get("coverage"))
    width = number(result.coverage.get("mean_width"))
    if level is None or coverage is None:
        return []
    wide = f" On average they are {plain(width)}{' ' + result.unit if result.unit else ''} wide." if width else ""
    short = " That is short of the level: read these intervals as too narrow." if coverage < level - 0.02 else ""
    held = f"Intervals: {plain(100 * level)} % intervals hold {100 * coverage:.1f} % of the test rows."
    return [paragraph(f"{held}{wide}{short}")]
