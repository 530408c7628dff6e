"""What the split says of each task."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TaskReading:
    """How one task stands to the others: a diagnosis.

    Args:
        task: its name.
        rows: labelled rows that it was learned from.
        share: how much of it the far side answers, 0 to 1; the far side is the one that fewer tasks are on.
        gain_percent: how much its loss on the stop rows rises, in percent, if it is answered by the near side instead;
            None without stop rows of this task.
        outlier: whether it stands apart: a share above one half that pays on the stop rows, in a split that as a whole
            saves 5% of their loss or more. Two groups of like size are no outliers, but a split as well.
    """

    task: str
    rows: int
    share: float
    gain_percent: float | None
    outlier: bool
