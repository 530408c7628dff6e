"""The later sections: how training went, who conflicts, what the schema decided, what it cost, and the notes."""

import itertools
from collections.abc import Mapping, Sequence

from motet.report._conflict import conflict_sentences, conflicts, heat_map, norm_sentence
from motet.report._curves import Series, learning_curves
from motet.report._figures import curves_figure, pair_lines
from motet.report._html import Html, details, join, paragraph, prose, section, table, tag
from motet.report._read import Run
from motet.report._results import Result
from motet.report._words import model_name, plural

_SHOWN_CURVES = 12
_SHOWN_COLUMNS = 40
_LOWEST_PAIRS = 4


def curves_section(run: Run, results: Sequence[Result]) -> Html:
    """A small plot for each target: its score on the stop rows while training went on."""
    curves, axis = learning_curves(run.log, results)
    if not curves:
        return section("curves", "Learning curves", paragraph("The log holds no evaluations."))
    plots = [curves_figure(name, series, axis) for name, series in curves.items()]
    lead = f"Each target's main metric on the stop rows, by {axis}. The dot marks the best."
    stages = {one.stage for series in curves.values() for one in series}
    keys = (
        _task_keys(curves)
        if run.has_tasks
        else tag(
            "p",
            *(
                tag("span", class_="key shared"),
                "shared model",
                tag("span", class_="key own_network dash"),
                "own network",
            ),
            *(tag("span", class_="key own_lightgbm dash"), "best of own LightGBM"),
            *((tag("span", class_="key own_catboost dash"), "of own CatBoost") if "own_catboost" in stages else ()),
            *((tag("span", class_="key distilled"), model_name("distilled")) if "distilled" in stages else ()),
            class_="soft",
        )
    )
    rest = plots[_SHOWN_CURVES:]
    more = [details(f"The other {len(rest)}", tag("div", *rest, class_="grid"))] if rest else []
    grid = tag("div", *plots[:_SHOWN_CURVES], class_="grid")
    return section("curves", "Learning curves", paragraph(lead), keys, grid, *more)


def _task_keys(curves: Mapping[str, Sequence[Series]]) -> Html:
    stages = dict.fromkeys(one.stage for series in curves.values() for one in series)
    return tag("p", *(tag("span", model_name(stage), class_=f"key {stage}") for stage in stages), class_="soft")


def conflict_section(run: Run, results: Sequence[Result]) -> Html:
    """The heat map of mean cosines, the lowest pairs over training, and the sentences that read them."""
    title = "Who conflicts with whom"
    pairs = conflicts(run.log, [result.name for result in results])
    if not pairs:
        why = "There is one target, so nothing can conflict." if len(results) < 2 else "The log holds no cosines."
        return section("conflicts", title, paragraph(why))
    meaning = (
        "A gradient is the direction in which a target wants to move the shared model. The cosine of two of them is 1 "
        "when they agree, 0 when they do not touch each other, and below 0 when one's gain is the other's loss."
    )
    said = [sentence for sentence in [*conflict_sentences(pairs), norm_sentence(run.log)] if sentence]
    measured = {name for pair in pairs for name in (pair.first, pair.second)}
    names = [result.name for result in results if result.name in measured]
    figures = [tag("figure", heat_map(pairs, names))]
    lowest = [pair for pair in pairs[:_LOWEST_PAIRS] if len(pair.points) > 1]
    if lowest:
        lines = pair_lines([(f"{pair.first} and {pair.second}", pair.points) for pair in lowest])
        keys = join(
            tag("div", tag("span", class_=f"key p{index}"), f"{pair.first} and {pair.second}")
            for index, pair in enumerate(lowest)
        )
        caption = tag("figcaption", "The lowest pairs over training", keys)
        figures.append(tag("figure", lines, caption))
    return section(
        "conflicts", title, paragraph(" ".join(said)), paragraph(meaning, "soft"), tag("div", *figures, class_="pair")
    )


def schema_section(run: Run) -> Html:
    """What each column was taken for, and why."""
    columns = run.rows("schema")
    used = [column for column in columns if column.get("used")]
    roles = sorted(str(column.get("role")) for column in used)
    kinds = ", ".join(f"{len(list(group))} {role}" for role, group in itertools.groupby(roles))
    rest = len([column for column in columns if not column.get("used") and column.get("role") != "target"])
    left = f"{rest} {'was' if rest == 1 else 'were'} left out"
    lead = f"{plural(len(used), 'column')} of {len(columns)} are features ({kinds or 'none'}); {left}."
    rows = [
        [str(c.get("name")), str(c.get("role")), "yes" if c.get("used") else "no", str(c.get("reason") or "")]
        for c in columns
    ]
    shown = table(["column", "role", "feature", "reason"], rows)
    leaks = [
        tag("li", prose(f"`{leak.get('feature')}` for `{leak.get('task')}`: {leak.get('reason') or 'suspected leak'}"))
        for leak in run.rows("leaks")
    ]
    warned = [tag("h3", "Suspected leaks"), tag("ul", *leaks)] if leaks else []
    many = details(f"All {len(columns)} columns", shown) if len(columns) > _SHOWN_COLUMNS else shown
    return section("schema", "What the schema decided", paragraph(lead), *warned, many if columns else "")


def notes_section(run: Run) -> Html:
    """What the run itself says that a reader should know."""
    listed = run.about.get("notes")
    notes = [str(note) for note in listed] if isinstance(listed, list) else []
    if run.torn:
        notes.append(f"log.jsonl: {plural(run.torn, 'line')} could not be read and left out; curves may have gaps.")
    body = tag("ul", *(tag("li", prose(note)) for note in notes)) if notes else paragraph("None.")
    return section("notes", "Notes", body)
