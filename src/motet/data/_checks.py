"""What is refused in any table, wherever it comes from."""

from collections.abc import Iterable, Sequence

from motet._errors import RequestError, suggest


def refuse_duplicates(names: Iterable[str], called: str) -> None:
    """Raises RequestError where a column name comes twice."""
    names = list(names)
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        listed = ", ".join(f"'{name}'" for name in repeated[:5])
        message = f"{called} has more than one column called {listed}. Column names must differ; rename or drop one."
        raise RequestError(message)


def refuse_mixed(name: str, values: Sequence[object]) -> None:
    """Raises RequestError where a column of Python values mixes types; whole and broken numbers go together."""
    kinds: dict[str, int] = {}
    seen = dict.fromkeys(map(type, values))
    if len(seen) < 2:
        return
    for kind in seen:
        if kind is type(None):
            continue
        label = "number" if kind.__name__.startswith(("int", "float", "uint")) else kind.__name__
        kinds.setdefault(label, next(row for row, value in enumerate(values) if type(value) is kind))
    if len(kinds) > 1:
        (first, _), (second, row) = list(kinds.items())[:2]
        message = (
            f"Column '{name}' mixes types: {', '.join(kinds)}; it begins with {first}, and row {row} holds "
            f"{values[row]!r} ({second}). A column has one type; convert or empty the others."
        )
        raise RequestError(message)


def check_columns(present: Sequence[str], asked: Sequence[str] | None) -> None:
    """Raises RequestError where an asked-for column is not there."""
    for name in asked or ():
        if name not in present:
            message = f"The table has no column '{name}'.{suggest(name, present)} Check the name."
            raise RequestError(message)


def first_line(error: BaseException) -> str:
    """What an error of another library says, in one line without its full stop."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
