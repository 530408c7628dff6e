"""What a task demands of its labels, said once: numbers, classes, variation, and the errors that name the task."""

import numbers
from collections.abc import Iterable
from decimal import Decimal

import numpy as np

from motet._errors import RequestError, suggest

# A class label survives JSON: a numpy scalar becomes the Python one.
Label = str | bool | int | float

_LARGEST = float(np.finfo(np.float32).max)


def label_numbers(name: str, values: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels as float64 (N,), zero where absent, and `present` without the rows whose label is None or NaN.

    Raises:
        RequestError: a present label is not a number, or is infinite.
    """
    values, present = check_rows(name, values, present)
    chosen = _floats(name, values[present])
    too_large = np.abs(chosen) > _LARGEST
    if too_large.any():
        message = (
            f"Task '{name}' has the label {float(chosen[too_large][0])!r} ({int(too_large.sum())} such rows); finite "
            "numbers within the range of float32 were expected. Make these labels null, or rescale the column."
        )
        raise RequestError(message)
    known = ~np.isnan(chosen)
    result = np.zeros(len(values))
    narrowed = present.copy()
    narrowed[present] = known
    result[narrowed] = chosen[known]
    return result, narrowed


def _floats(name: str, chosen: np.ndarray) -> np.ndarray:
    if chosen.dtype.kind in "biuf":
        return chosen.astype(np.float64)
    bad = [value for value in chosen.tolist() if not _is_number(value)]
    if chosen.dtype.kind == "O" and not bad:
        return np.array([np.nan if value is None else float(value) for value in chosen], dtype=np.float64)
    if len(chosen) == 0:
        return np.zeros(0)
    example = str(chosen[0]) if chosen.dtype.kind in "mM" else bad[0]
    message = (
        f"Task '{name}' has labels that are not numbers, such as {example!r}; this kind of task expects numbers. "
        "Convert the column to numbers, or declare the task as multiclass."
    )
    raise RequestError(message)


def _is_number(value: object) -> bool:
    return value is None or isinstance(value, (numbers.Real, np.bool_, Decimal))


def check_rows(name: str, values: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) and a boolean `present` (N,).

    Raises:
        RequestError: the shapes do not fit.
    """
    values, present = np.asarray(values), np.asarray(present, dtype=bool)
    if values.ndim != 1 or present.shape != values.shape:
        message = (
            f"Task '{name}' has labels of shape {values.shape} and present of shape {present.shape}; "
            "(N,) was expected for both. Pass one column of labels and one boolean for each row."
        )
        raise RequestError(message)
    return values, present


def check_any(name: str, present: np.ndarray) -> None:
    """Refuses a task that no row has a label for.

    Raises:
        RequestError: `present` is false everywhere.
    """
    if not present.any():
        message = (
            f"Task '{name}' has no label in any of the {len(present)} rows; at least two different labels were "
            "expected. Leave the task out, or give rows that have its label."
        )
        raise RequestError(message)


def check_varies(name: str, labels: np.ndarray) -> None:
    """Refuses labels (N,) that are all the same once they are float32.

    Raises:
        RequestError: nothing varies, so nothing can be learned.
    """
    narrow = labels.astype(np.float32)
    if narrow.min() == narrow.max():
        raise constant_label(name, labels.tolist()[0], len(labels))


def constant_label(name: str, label: object, num_rows: int) -> RequestError:
    """The error for a task whose rows all have one label."""
    message = (
        f"Task '{name}' has the label {label!r} in all of its {num_rows} labelled rows; at least two different "
        "labels were expected. Leave the task out, or give rows in which it varies."
    )
    return RequestError(message)


def center_and_scale(name: str, labels: np.ndarray) -> tuple[float, float]:
    """The mean and the standard deviation of labels (N,), of which the second is positive.

    Raises:
        RequestError: the labels are constant.
    """
    check_varies(name, labels)
    return float(labels.mean()), float(labels.std())


def python_labels(name: str, values: np.ndarray) -> list[Label | None]:
    """Present labels as plain Python values, None for a NaN.

    Raises:
        RequestError: a label is not text, a boolean or a finite number.
    """
    items: list[object] = [item.item() if isinstance(item, np.generic) else item for item in values.tolist()]
    items = [None if isinstance(item, float) and item != item else item for item in items]
    if len(values) and values.dtype.kind in "mM":  # nanoseconds become whole numbers in tolist, which would pass below
        raise _not_a_label(name, values[0])
    try:
        distinct = set(items)
    except TypeError as error:
        first = next((item for item in items if isinstance(item, (list, dict, set, np.ndarray))), items[0])
        raise _not_a_label(name, first) from error
    for item in distinct:
        if item is not None and not _is_label(item):
            raise _not_a_label(name, item)
    return [item if isinstance(item, (str, bool, int, float)) else None for item in items]


def _is_label(item: object) -> bool:
    return isinstance(item, (str, bool, int)) or (isinstance(item, float) and bool(np.isfinite(item)))


def _not_a_label(name: str, label: object) -> RequestError:
    shown = str(label) if isinstance(label, np.generic) else repr(label)
    message = (
        f"Task '{name}' has the label {shown} of type {type(label).__name__}; text, booleans and finite numbers "
        "were expected as classes. Convert the column, for instance to text."
    )
    return RequestError(message)


def find_classes(
    name: str, values: np.ndarray, present: np.ndarray, declared: tuple[Label, ...] | None
) -> tuple[Label, ...]:
    """The classes in sorted order, or those declared once the labels are seen to be among them.

    Raises:
        RequestError: no label, one class only, labels that cannot be sorted, or a label that was not declared.
    """
    values, present = check_rows(name, values, present)
    labels = python_labels(name, values[present])
    known = [label for label in labels if label is not None]
    check_any(name, present if known else np.zeros_like(present))
    distinct = list(dict.fromkeys(known))
    if declared is not None:
        _check_declared(name, distinct, declared)
    if len(distinct) < 2:
        raise constant_label(name, distinct[0], len(known))
    return declared if declared is not None else sort_labels(name, distinct)


def _check_declared(name: str, distinct: list[Label], declared: tuple[Label, ...]) -> None:
    strange = [label for label in distinct if label not in declared]
    if strange:
        message = (
            f"Task '{name}' has the label {strange[0]!r}, which is not among its declared classes."
            f"{suggest(str(strange[0]), map(str, declared))} Add it to classes, or make these labels null."
        )
        raise RequestError(message)


def sort_labels(name: str, labels: Iterable[Label]) -> tuple[Label, ...]:
    """The labels in sorted order.

    Raises:
        RequestError: text and numbers are mixed.
    """
    labels = list(labels)
    words = [label for label in labels if isinstance(label, str)]
    if words and len(words) < len(labels):
        number = next(label for label in labels if not isinstance(label, str))
        message = (
            f"Task '{name}' mixes text and numbers in its labels, such as {words[0]!r} and {number!r}; labels of one "
            "type were expected. Convert the column to one type."
        )
        raise RequestError(message)
    return tuple(sorted(labels))


def check_classes(name: str, classes: tuple[Label, ...] | None) -> None:
    """Refuses declared classes that are fewer than two, repeated, or not labels.

    Raises:
        RequestError: see above.
    """
    if classes is None:
        return
    for label in classes:
        if not _is_label(label):
            raise _not_a_label(name, label)
    if len(set(classes)) < len(classes) or len(classes) < 2:
        message = (
            f"Task '{name}' has classes={classes!r}; at least two different classes were expected. "
            "List each class once, or leave classes out to learn them from the rows."
        )
        raise RequestError(message)


def class_indices(
    name: str, classes: tuple[Label, ...], values: np.ndarray, present: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Class indices int64 (N,), zero where absent, and `present` without the rows whose label is not a class."""
    values, present = check_rows(name, values, present)
    lookup = {label: index for index, label in enumerate(classes)}
    labels = python_labels(name, values[present])
    found = np.fromiter((-1 if label is None else lookup.get(label, -1) for label in labels), np.int64, len(labels))
    indices = np.zeros(len(values), dtype=np.int64)
    narrowed = present.copy()
    narrowed[present] = found >= 0
    indices[narrowed] = found[found >= 0]
    return indices, narrowed


def label_array(labels: tuple[Label, ...]) -> np.ndarray:
    """Class labels (C,) in an array of their own type, or of objects where types are mixed."""
    one_type = len({type(label) for label in labels}) == 1
    return np.array(labels) if one_type else np.array(labels, dtype=object)
