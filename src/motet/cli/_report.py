"""`motet report`."""

from pathlib import Path

from motet.cli._output import Common, print_json, print_text


def report(run: Path, *, common: Common = Common()) -> None:  # noqa: B008
    """Write report.html and card.md of a finished run again.

    Parameters
    ----------
    run
        Folder that motet fit made.
    """
    from motet.report import write_report

    path = write_report(run)
    if common.json:
        print_json({"report": str(path), "card": str(path.with_name("card.md"))})
    else:
        print_text(f"Report: {path}")
