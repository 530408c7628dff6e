"""HTML and SVG as escaped text: whatever is not already `Html` is escaped when it enters an element."""

import html
import re
from collections.abc import Iterable, Sequence

_VOID = {"meta", "br", "hr"}


class Html(str):
    """Text that is markup already and is not escaped again. A plain string is escaped: names may hold anything."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: str | float | bool) -> Html:
    """One element. An attribute loses its trailing underscore (`class_`), others become dashes; False leaves it out."""
    head = "".join(_attribute(key, value) for key, value in attributes.items() if value is not False)
    if name in _VOID:
        return Html(f"<{name}{head}>")
    return Html(f"<{name}{head}>{join(children)}</{name}>")


def _attribute(key: str, value: str | float) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else "" if value is True else f"{value}"
    return f' {key.rstrip("_").replace("_", "-")}="{html.escape(text)}"'


def join(parts: Iterable[str]) -> Html:
    """Parts one after the other, escaped unless they are Html."""
    return Html("".join(part if isinstance(part, Html) else html.escape(part) for part in parts))


def prose(text: str) -> Html:
    """A sentence in which backticks mark names: they become code, the rest is escaped.

    A name that holds a backtick itself only ends the code early; it is escaped all the same.
    """
    pieces = re.split(r"`([^`]*)`", text)
    return join(tag("code", piece) if index % 2 else piece for index, piece in enumerate(pieces))


def paragraph(text: str, class_: str = "") -> Html:
    """A paragraph of prose."""
    return tag("p", prose(text), class_=class_ or False)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: Iterable[int] = ()) -> Html:
    """A table in a box that scrolls sideways; columns in `numeric` are set to the right."""
    right = set(numeric)

    def cells(kind: str, row: Sequence[str]) -> Html:
        return tag("tr", *(tag(kind, cell, class_="n" if index in right else False) for index, cell in enumerate(row)))

    body = tag("tbody", *(cells("td", row) for row in rows))
    return tag("div", tag("table", tag("thead", cells("th", head)), body), class_="scroll")


def section(anchor: str, title: str, *children: str) -> Html:
    """A section with a heading that can be linked to."""
    return tag("section", tag("h2", title), *children, id=anchor)


def details(summary: str, *children: str, is_open: bool = False) -> Html:
    """A part that folds."""
    return tag("details", tag("summary", summary), *children, open=is_open)
