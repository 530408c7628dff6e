"""From a column's name to a task of the right kind."""

from collections.abc import Sequence

import polars as pl

from motet._errors import RequestError, suggest
from motet.tasks import KINDS, Task, parse_target

MOST_CLASSES = 100
FEW_INTEGERS = 10


def infer_task(frame: pl.DataFrame, name: str, kind: str | None = None) -> Task:
    """The task of one target column, of the kind that is asked for or that its values suggest.

    Two distinct values make a binary task; text and categories up to 100 classes make a multiclass one; lists of text
    a multilabel one; whole numbers from 0 up with at most 10 distinct values a multiclass one; any other numbers a
    regression. Counts, orders and quantiles are never guessed: ask for them.

    Args:
        frame: the table.
        name: the target's column.
        kind: one of `motet.tasks.KINDS`, or None to look at the values.

    Raises:
        RequestError: no such column or kind, a column without values, with one value only, with too many classes, or
            of a type that cannot be a target.
    """
    if name not in frame.columns:
        message = f"The table has no column '{name}' to predict.{suggest(name, frame.columns)} Check the target's name."
        raise RequestError(message)
    if kind is not None and kind not in KINDS:
        message = f"Target '{name}' was asked for as '{kind}', which is no kind of task.{suggest(kind, KINDS)}"
        message += f" Choose one of {', '.join(KINDS)}."
        raise RequestError(message)
    known = _known(frame.get_column(name))
    _check_varied(known)
    return KINDS[kind or _guess(known)](name)


def infer_tasks(frame: pl.DataFrame, targets: Sequence[str | Task]) -> list[Task]:
    """Tasks from names, `name:kind` texts and ready tasks.

    Args:
        frame: the table.
        targets: a name may hold a colon itself; a column of exactly that name comes first.

    Raises:
        RequestError: no target, one given twice, or one that `infer_task` refuses.
    """
    tasks = []
    for target in targets:
        if isinstance(target, Task):
            tasks.append(target)
        elif target in frame.columns or ":" not in target:
            tasks.append(infer_task(frame, target))
        else:
            tasks.append(infer_task(frame, *parse_target(target)))
    names = [task.name for task in tasks]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated or not names:
        found = f"Target '{repeated[0]}' is named twice" if repeated else "No target was named"
        message = f"{found}. Expected one or more targets that differ. Name each once."
        raise RequestError(message)
    return tasks


def _known(column: pl.Series) -> pl.Series:
    if column.dtype.is_float():
        return column.filter(column.is_finite().fill_null(value=False))
    return column.drop_nulls()


def _check_varied(known: pl.Series) -> None:
    if len(known) == 0:
        message = (
            f"Target '{known.name}' has no value in any row. A target needs labels in some rows; check the column."
        )
        raise RequestError(message)
    if known.dtype.is_temporal() or known.dtype in (pl.Binary, pl.Object, pl.Struct):
        message = f"Target '{known.name}' holds {known.dtype}; a target is true or false, a number, text or a list of "
        message += "text. Convert the column first, for example a date to a number of days."
        raise RequestError(message)
    if known.n_unique() == 1:
        message = f"Target '{known.name}' has the one value {known.to_list()[0]!r} in every row that has any. There is "
        message += "nothing to predict; drop the target or check the column."
        raise RequestError(message)


def _guess(known: pl.Series) -> str:
    if isinstance(known.dtype, pl.List | pl.Array):
        return "multilabel"
    distinct = known.n_unique()
    if distinct == 2:
        return "binary"
    if known.dtype.is_numeric():
        whole = bool((known.cast(pl.Float64) % 1 == 0).all())
        few = distinct <= FEW_INTEGERS and float(known.min()) >= 0  # type: ignore[arg-type]
        return "multiclass" if whole and few else "regression"
    if distinct > MOST_CLASSES:
        texts = known.cast(pl.String)
        number = texts.cast(pl.Float64, strict=False)
        message = f"Target '{known.name}' has {distinct} distinct texts, for example '{texts[0]}'; expected at most "
        message += f"{MOST_CLASSES} classes. "
        message += (
            f"{number.is_not_null().mean():.0%} of them are numbers: empty the other ones for a regression."
            if (number.is_not_null().mean() or 0) > 0.5  # type: ignore[operator]
            else "Group the rare ones under one name, or say 'multiclass' to keep them all."
        )
        raise RequestError(message)
    return "multiclass"
