"""`motet bench`."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from motet._errors import RequestError
from motet.cli._output import Common, print_json, print_table, print_text

if TYPE_CHECKING:
    from motet.bench import Grid


def bench(
    what: Literal["balance", "sharing"],
    /,
    *,
    problems: Annotated[str | None, Parameter(help="Names joined by commas; all if not given.")] = None,
    methods: Annotated[
        str | None, Parameter(help="Names joined by commas, such as cagrad,f-mtl+cagrad or mmoe,ple.")
    ] = None,
    seeds: Annotated[str, Parameter(help="Whole numbers joined by commas, one training each.")] = "0,1,2",
    data: Annotated[Path | None, Parameter(help="Folder of the images and tables that no package brings.")] = None,
    cache: Annotated[Path, Parameter(help="Folder of finished cells, from which a stopped run goes on.")] = Path(
        ".cache/bench"
    ),
    out: Annotated[Path | None, Parameter(name=["--out"], help="JSON file for the whole result.")] = None,
    budget: Annotated[
        Literal["quick", "full", "long"], Parameter(help="quick takes a twentieth of the steps, long ten times them.")
    ] = "full",
    threads: Annotated[int, Parameter(help="Of each process.")] = 1,
    jobs: Annotated[int, Parameter(help="Processes at once.")] = 1,
    common: Common = Common(),  # noqa: B008
) -> None:
    """Compare balancing methods, or sharing architectures, on real problems, each against training every task alone.

    Every method trains on the same rows for the same number of steps: balancing methods the same network, sharing
    architectures between the same encoder and the same heads. --seed draws the rows, --seeds are of the trainings.

    Parameters
    ----------
    what
        What is compared: balance or sharing.
    """
    chosen = _numbers(seeds)
    _check_out(out)
    from motet.bench import BUDGETS, COMPARISONS, Grid, Store, problem_loaders, result, run_grid
    from motet.train import write_json

    loaders = problem_loaders(_names(problems), data=data, seed=common.seed)
    comparison = COMPARISONS[what]
    grid = Grid(comparison.contenders(_names(methods)), chosen, BUDGETS[budget], threads, comparison)
    measured = run_grid(loaders, grid, Store(cache), jobs=jobs, tell=_tell)
    document = result(measured, grid, command=_command(what, list(loaders), grid, common.seed), jobs=jobs)
    if out is not None:
        write_json(out, document)
    if common.json:
        print_json(document)
    else:
        _show(document, out)


def _show(document: dict[str, Any], out: Path | None) -> None:
    from motet.bench import claim_counts, summary_rows

    columns, rows = summary_rows(document)
    print_text(
        "Gain over training each task alone in percent, with its 95% interval over seeds; processor time against "
        f"{document['costs_against']}."
    )
    print_table(columns, rows)
    counts = claim_counts(document["claims"])
    if counts:
        print_text("Published claims here: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    for problem, reasons in document["left_out"].items():
        for method, reason in reasons.items():
            print_text(f"Note: {method} on {problem} was left out: {reason}")
    for method, by_problem in document["methods"].items():
        for problem, entry in by_problem.items():
            for failure in entry["failures"]:
                print_text(f"Note: {method} on {problem}, {failure}")
    if out is not None:
        print_text(f"Result: {out}")


def _tell(cell: dict[str, Any], done: int, total: int) -> None:
    scores = list(cell["scores"].values())
    outcome = f"{sum(scores) / len(scores):.4f}" if scores else cell["status"]
    words = f"{cell['problem']} {cell['method']} seed {cell['seed']}"
    print(f"[{done}/{total}] {words}: {outcome} ({cell['wall_seconds']:.1f} s)", file=sys.stderr, flush=True)


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _numbers(text: str) -> list[int]:
    words = _names(text) or []
    if not words or not all(word.isdecimal() for word in words):
        message = f"--seeds {text!r} was given; whole numbers joined by commas were expected, such as --seeds 0,1,2."
        raise RequestError(message)
    return list(dict.fromkeys(int(word) for word in words))


def _check_out(out: Path | None) -> None:
    """Refuses before hours of work what could not be written after them."""
    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        reason = "is a folder" if out.is_dir() else "lies in a folder that does not exist"
        message = f"--out '{out}' {reason}; the path of a JSON file was expected. Make the folder, or choose another."
        raise RequestError(message)


def _command(what: str, problems: list[str], grid: "Grid", seed: int) -> str:
    """The words that repeat the comparison, without folders of this machine."""
    words = [
        "motet", "bench", what, "--problems", ",".join(problems), "--methods", ",".join(grid.methods), "--seeds",
        ",".join(map(str, grid.seeds)), "--seed", str(seed), "--budget", grid.budget.name, "--threads",
        str(grid.threads), "--data", "DIR",
    ]  # fmt: skip
    return shlex.join(words)
