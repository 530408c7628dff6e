"""`motet export`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from motet.cli._output import Common, print_json, print_table, print_text


def export(
    run: Path,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="Folder to make; new, or empty.")],
    format: Annotated[Literal["onnx"], Parameter(help="Of the model.")] = "onnx",  # noqa: A002
    target: Annotated[list[str] | None, Parameter(negative="", help="Export only this target; repeat it.")] = None,
    table: Annotated[str | None, Parameter(help="Compare on this table's first thousand rows.")] = None,
    weights: Annotated[Literal["float32", "int8"], Parameter(help="int8: a quarter of a network's bytes.")] = "float32",
    tolerance: Annotated[
        float | None, Parameter(help="Largest difference, in a number's scale or as a probability; 1e-4, int8 0.1.")
    ] = None,
    common: Common = Common(),  # noqa: B008
) -> None:
    """Write a run as one ONNX graph: the table's columns in, calibrated estimates of every target out.

    Parameters
    ----------
    run
        Folder that motet fit made.
    """
    from motet.serve import export_onnx

    found = export_onnx(run, output, tasks=target, table=table, weights=weights, tolerance=tolerance, seed=common.seed)
    if common.json:
        print_json({"output": str(found.path), "format": format, **found.document})
        return
    check = found.document["check"]
    rows = [
        (one["name"], one["kind"], one["served_by"], f"{check['largest_difference'][one['name']]:.1e}")
        for one in found.document["outputs"]
    ]
    print_table(["target", "kind", "served by", "largest difference"], rows)
    drawn = "made-up rows" if check["made_up"] else f"rows of {table}"
    print_text(
        f"Wrote {found.path / 'model.onnx'}, {found.document['bytes'] / 1e6:.2f} MB, compared with the run on "
        f"{check['rows']:,} {drawn}; model.json says what goes in and what comes out."
    )
