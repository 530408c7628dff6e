"""A class's docstring, taken apart into its sections."""

import inspect
import re
import textwrap
from dataclasses import dataclass

_HEADING = re.compile(r"^(Args|Returns|Raises|Cost|Source|Example):[ ]*(.*)$")
_ARGUMENT = re.compile(r"^(\w+): (.*)$")


@dataclass(frozen=True)
class Docstring:
    """The text before the sections, and the sections by their heading.

    Args:
        summary: the first paragraph, on one line.
        body: the paragraphs and formulas after it, as Markdown.
        sections: what stands under each heading, as Markdown.
        arguments: what `Args` says of each argument, on one line.
    """

    summary: str
    body: str
    sections: dict[str, str]
    arguments: dict[str, str]


def read_docstring(kind: type) -> Docstring:
    """Takes the docstring of a class apart."""
    lines = (inspect.getdoc(kind) or "").splitlines()
    heads = [number for number, line in enumerate(lines) if _HEADING.match(line)]
    first = heads[0] if heads else len(lines)
    summary, _, body = "\n".join(lines[:first]).partition("\n\n")
    raw: dict[str, str] = {}
    for start, end in zip(heads, [*heads[1:], len(lines)], strict=True):
        found = _HEADING.match(lines[start])
        if found:
            rest = textwrap.dedent("\n".join(lines[start + 1 : end]))
            raw[found[1]] = f"{found[2]}\n{rest}".strip("\n")
    sections = {name: markdown(text) for name, text in raw.items()}
    return Docstring(" ".join(summary.split()), markdown(body), sections, _arguments(raw.get("Args", "")))


def markdown(text: str) -> str:
    """Paragraphs on one line each, so that no line begins with what Markdown takes for a list; formulas as they are."""
    blocks = [block for block in re.split(r"\n[ ]*\n", text.strip("\n")) if block.strip()]
    return "\n\n".join(block.rstrip() if block.startswith("    ") else " ".join(block.split()) for block in blocks)


def _arguments(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        match = _ARGUMENT.match(line)
        if match:
            name = match[1]
            found[name] = match[2]
        elif name and line.strip():
            found[name] += " " + line.strip()
    return found
