"""The page of one adapter, and the table of all in the page about them."""

import inspect
import re
import sys

from generator._docstring import read_docstring
from generator._table import table
from motet.models.adapters import Adapter, methods

_MARKED = re.compile(r"(<!-- adapters -->\n).*?(<!-- end -->)", re.DOTALL)


def adapter_pages() -> dict[str, str]:
    """The text of each adapter's page, by its name."""
    return {name: adapter_page(kind) for name, kind in methods().items()}


def adapter_page(kind: type[Adapter]) -> str:
    """The page as Markdown."""
    text = read_docstring(kind)
    file = f"src/{kind.__module__.replace('.', '/')}.py"
    title = (sys.modules[kind.__module__].__doc__ or "").splitlines()[0]
    raises = text.sections.get("Raises", "").replace("RequestError:", "`RequestError`:")
    parts = [
        f"# {kind.__name__}",
        f"*{title}*",
        f"<!-- Made by `make generate` from {file}: edit that file. -->",
        text.summary,
        text.body,
        "## Use it",
        _example(kind),
        _options(kind, text.arguments),
        f"Raises: {raises}" if raises else "",
        "## Cost",
        _sentence(text.sections.get("Cost", "")),
        "## Source",
        _sentence(text.sections.get("Source", "")),
        f"Code: `{file}`. [All adapters](../adapters.md).",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def adapter_table(text: str) -> str:
    """The page about adapters with a fresh table between its markers."""
    rows = [_row(name, kind) for name, kind in methods().items()]
    found = table(["adapter", "what you get", "cost", "source"], rows)
    return _MARKED.sub(lambda block: f"{block[1]}\n{found}\n\n{block[2]}", text)


def _row(name: str, kind: type[Adapter]) -> list[str]:
    text = read_docstring(kind)
    cost = re.split(r"[;.]\s", text.sections["Cost"])[0].rstrip(".;")
    return [f"[{kind.__name__}](adapters/{name}.md)", text.summary, cost, text.sections["Source"].split(",")[0]]


def _example(kind: type[Adapter]) -> str:
    return (inspect.getdoc(kind) or "").partition("Example:\n")[2].rstrip()


def _options(kind: type[Adapter], says: dict[str, str]) -> str:
    rows = [
        (f"`{name}`", "" if option.default is option.empty else f"`{option.default!r}`", says.get(name, ""))
        for name, option in inspect.signature(kind).parameters.items()
    ]
    return table(["argument", "default", "meaning"], rows)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
