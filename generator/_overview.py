"""The table of all methods."""

from collections.abc import Sequence

from generator._facts import FAMILIES, Facts
from generator._measured import Measured, shown
from generator._table import table
from motet.balance import LAWS

_START = """# All balancing methods

<!-- Made by `make generate` from the files in src/motet/balance: edit those. -->

{count} methods, a page each, made from the method's file. [Which one to choose](../choose.md) goes by what you have;
[the laws](#the-laws) are those that the test suite tries to break."""


def overview(facts: Sequence[Facts], measured: Measured) -> str:
    """The page as Markdown."""
    parts = [_START.format(count=len(facts))]
    for family, title in FAMILIES.items():
        members = [fact for fact in facts if fact.family == family]
        if members:
            parts += [f"## {title}", table(_columns(measured), [_row(fact, measured) for fact in members])]
    if measured.quality:
        parts += [f"{measured.quality_words} Here Δm is the mean over problems; a dash: not measured on all."]
    parts += ["## The laws", _laws(facts)]
    return "\n\n".join(parts) + "\n"


def _columns(measured: Measured) -> list[str]:
    return ["method", "by name", "what you get", *(["Δm %", "time"] if measured.quality else [])]


def _row(fact: Facts, measured: Measured) -> list[str]:
    gain, time = measured.overall(fact.name)
    numbers = [shown(gain, "+.2f"), shown(time, ".2f")] if measured.quality else []
    return [f"[{fact.label}]({fact.name}.md)", f"`{fact.name}`", fact.docstring.summary, *numbers]


def _laws(facts: Sequence[Facts]) -> str:
    """Who keeps which law."""
    plain = [fact for fact in facts if fact.family != "wrapper"]
    numbers = [str(number) for number in range(1, len(LAWS) + 1)]
    meanings = "\n".join(f"{number}. **{law}**: {text}" for number, (law, text) in enumerate(LAWS.items(), 1))
    rows = [
        [f"[{fact.label}]({fact.name}.md)", *("yes" if law in fact.kind.claims else "no" for law in LAWS)]
        for fact in plain
    ]
    return f"{meanings}\n\n{table(['method', *numbers], rows)}"
