"""The tables inside the page that helps to choose; the words around them are written by hand."""

import re
from collections.abc import Sequence

from generator._facts import Facts
from generator._measured import MODES, Measured, shown
from generator._table import table

_BLOCK = re.compile(r"(<!-- methods: ([\w\-+, ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_MEASURED = re.compile(r"(<!-- measured -->\n).*?(<!-- end -->)", re.DOTALL)


def chooser(text: str, facts: Sequence[Facts], measured: Measured) -> str:
    """The page with a fresh table in each block `<!-- methods: a, b --> … <!-- end -->`.

    Raises:
        ValueError: a block names a method that there is not.
    """
    known = {fact.name: fact for fact in facts}

    def filled(block: re.Match[str]) -> str:
        names = [name.strip() for name in block[2].split(",")]
        missing = [name for name in names if name not in known]
        if missing:
            message = f"docs/choose.md names the method '{missing[0]}', which does not exist. Mend the name there."
            raise ValueError(message)
        return f"{block[1]}\n{_table([known[name] for name in names], measured)}\n\n{block[3]}"

    text = _MEASURED.sub(lambda block: f"{block[1]}\n{_how(measured)}\n\n{block[2]}", text)
    return _BLOCK.sub(filled, text)


def listed(text: str) -> set[str]:
    """The methods that the page names in its blocks."""
    return {name.strip() for _, names, _ in _BLOCK.findall(text) for name in names.split(",")}


def _table(facts: Sequence[Facts], measured: Measured) -> str:
    columns = ["method", "what you get", "cost", *(["Δm %", "time"] if measured.quality else [])]
    return table(columns, [_row(fact, measured) for fact in facts])


def _row(fact: Facts, measured: Measured) -> list[str]:
    gain, time = measured.overall(fact.name)
    numbers = [shown(gain, "+.2f"), shown(time, ".2f")] if measured.quality else []
    cost = re.split(r"(?<=[.;])\s", fact.docstring.sections.get("Cost", ""))[0].rstrip(".;")
    steps = [
        f"{cell['ratio']:.2f} at T = {cell['tasks']}" + ("" if mode == MODES[""] else f" with {mode}")
        for mode, cell in measured.cost_cells(fact.name)
        if cell["net"] == "mlp" and cell["tasks"] in {8, 40}
    ]
    shown_cost = f"{cost} (measured: {', '.join(steps)})" if steps else cost
    return [f"[{fact.label}](methods/{fact.name}.md)", fact.docstring.summary, shown_cost, *numbers]


def _how(measured: Measured) -> str:
    parts = [f"Measured costs are {measured.cost_words}, on the network `mlp`."] if measured.cost else []
    if measured.quality:
        parts += [f"{measured.quality_words} Here Δm is the mean over problems; a dash: not measured on all."]
    return " ".join(parts)
