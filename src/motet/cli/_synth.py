"""`motet synth`."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from cyclopts import Parameter

from motet._errors import RequestError
from motet.cli._output import Common, print_json, print_table, print_text

if TYPE_CHECKING:
    from motet.bench import SynthSettings, SynthTruth

Value = TypeVar("Value", int, float, str)


def synth(
    out: Path,
    /,
    *,
    rows: Annotated[int, Parameter(help="How many.")] = 2000,
    features: Annotated[int, Parameter(help="Standard normal columns.")] = 16,
    tasks: Annotated[int, Parameter(help="How many.")] = 4,
    correlation: Annotated[float, Parameter(help="Of any two ordinary tasks.")] = 0.4,
    match: Annotated[
        Literal["directions", "labels"], Parameter(help="What has that correlation; labels on average.")
    ] = "directions",
    degree: Annotated[str, Parameter(help="Of each task's polynomial, such as 1,2,3; a short list repeats.")] = "2",
    kinds: Annotated[
        str, Parameter(help="Of the tasks, of regression, binary, multiclass, count; a short list repeats.")
    ] = "regression",
    noise: Annotated[float, Parameter(help="In standard deviations of the signal.")] = 0.1,
    missing: Annotated[str, Parameter(help="Share of labels missing, such as 0,.5; a short list repeats.")] = "0",
    mechanism: Annotated[
        Literal["mcar", "mar", "mnar"], Parameter(help="Missing by chance, because of a feature, or of the label.")
    ] = "mcar",
    outliers: Annotated[int, Parameter(help="Tasks unrelated to the others, the last ones.")] = 0,
    adversarial: Annotated[int, Parameter(help="Tasks against the others, before the outliers.")] = 0,
    scale_ratio: Annotated[float, Parameter(help="The largest number label's scale over the smallest.")] = 1.0,
    rows_per_task: Annotated[str | None, Parameter(help="Labelled rows of each task, such as 300,50.")] = None,
    drift: Annotated[float, Parameter(help="Right angles by which directions turn over time, 0 to 1.")] = 0.0,
    classes: Annotated[int, Parameter(help="Of multiclass tasks.")] = 3,
    positive_share: Annotated[float, Parameter(help="Of binary tasks.")] = 0.5,
    form: Annotated[
        Literal["wide", "long"], Parameter(help="A column for each task, or one label and a column with its task.")
    ] = "wide",
    common: Common = Common(),  # noqa: B008
) -> None:
    """Write a synthetic table with several tasks whose truth is known, and print that truth.

    The printed `motet fit` line learns the table on the split that was drawn with it.

    Parameters
    ----------
    out
        File to write: .parquet, .csv, .arrow or .ndjson.
    """
    from motet.bench import SynthSettings, synthesise
    from motet.data import write_table

    if out.exists():
        message = f"'{out}' is there already; a new file was expected, so that no table is lost. Name another."
        raise RequestError(message)
    settings = SynthSettings(
        rows=rows, features=features, tasks=tasks, correlation=correlation, match=match,
        degree=_values("--degree", degree, int), kinds=_values("--kinds", kinds, str), noise=noise,
        missing=_values("--missing", missing, float), mechanism=mechanism, outliers=outliers, adversarial=adversarial,
        scale_ratio=scale_ratio,
        rows_per_task=None if rows_per_task is None else _values("--rows-per-task", rows_per_task, int),
        drift=drift, classes=classes, positive_share=positive_share, form=form,
    )  # fmt: skip
    frame, truth = synthesise(settings, seed=common.seed)
    write_table(frame, out)
    if common.json:
        print_json({"table": str(out), "rows": frame.height, **truth.to_dict(), "fit": fit_line(out, settings)})
        return
    _show(truth, frame.height, out)
    print_text(f"Fit it: {fit_line(out, settings)}")


def fit_line(table: Path, settings: "SynthSettings") -> str:
    """The `motet fit` that learns the table, on its own split."""
    run = str(table.with_suffix("")) + "-run"
    words = ["motet", "fit", str(table)]
    if settings.form == "long":
        words += ["--target", f"label:{settings.kinds[0]}", "--task-column", "task"]
    else:
        for name, kind in zip(settings.names, settings.each(settings.kinds), strict=True):
            words += ["--target", f"{name}:{kind}"]
    if settings.drift:
        words += ["--split", "time", "--split-column", "time", "--ignore", "split"]
    else:
        words += ["--split", "given", "--split-column", "split"]
    return shlex.join([*words, "--out", run])


def _show(truth: "SynthTruth", num_rows: int, out: Path) -> None:
    document = truth.to_dict()
    found = document["correlation"]
    print_text(f"Wrote {num_rows:,} rows to {out}")
    columns = ["task", "kind", "role", "degree", "scale", "labelled", "missing asked", "missing"]
    keys = ("name", "kind", "role", "degree", "scale", "labelled_rows", "missing_asked", "missing_achieved")
    print_table(columns, [[task[key] for key in keys] for task in document["tasks"]])
    if found["labels_mean"] is not None:
        low, high = found["labels_range"]
        print_text(
            f"Correlation of ordinary tasks: {found['asked']:g} of {found['of']} asked for; "
            f"{found['directions_mean']:.3f} between their directions; {found['labels_mean']:.3f} between their labels "
            f"({low:.3f} to {high:.3f})."
        )
    if found["directions_worst_miss"] > 0.005:
        print_text(
            f"Note: {truth.settings.tasks} directions in {truth.settings.features} dimensions cannot all be as alike "
            f"as asked for; the worst pair misses by {found['directions_worst_miss']:.3f}. More features mend that."
        )


def _values(option: str, text: str, kind: Callable[[str], Value]) -> tuple[Value, ...]:
    try:
        return tuple(kind(part.strip()) for part in text.split(","))
    except ValueError as error:
        example = "1,2,3" if kind is int else "0,.5"
        message = f"{option} {text!r} was given; numbers joined by commas were expected, such as {option} {example}."
        raise RequestError(message) from error
