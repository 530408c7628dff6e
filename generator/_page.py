"""The page of one method."""

from typing import Any

from generator._counterexamples import counterexample, vector
from generator._facts import Facts
from generator._measured import Measured, shown, shown_gain
from generator._table import table
from motet.balance import LAWS, Golden

LOOKS_AT = {
    "losses": "the losses alone",
    "gramian": "the inner products of the tasks' gradients (the Gramian)",
    "features": "gradients at the shared features",
    "coordinates": "the tasks' gradients, number by number",
    "wrapper": "what the method inside does",
}
INSIDE = "CAGrad"
YES_OR_NO = (
    "Yes: the test suite tries to break the law with random gradients, and does not. No: it is not promised; beside it "
    "stands a small case in which the first step breaks it, where one is known."
)


def page(facts: Facts, measured: Measured) -> str:
    """The page as Markdown."""
    text = facts.docstring
    parts = [
        f"# {facts.label}",
        f"*{facts.title}*",
        f"<!-- Made by `make generate` from {facts.file}: edit that file. -->",
        text.summary,
        text.body,
        "## Use it",
        _use(facts),
        _options(facts),
        _section("Raises: ", text.sections.get("Raises", "").replace("RequestError:", "`RequestError`:")),
        *_laws(facts),
        *_golden(facts.golden),
        "## Cost",
        _sentence(text.sections.get("Cost", "")),
        *_cost(facts.name, measured),
        *_quality(facts.name, measured),
        *_claims(facts.name, measured),
        "## Source",
        _sentence(text.sections.get("Source", "")),
        f"Code: `{facts.file}`. [All methods](index.md), [which one to choose](../choose.md).",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _section(start: str, text: str) -> str:
    return start + text if text else ""


def _use(facts: Facts) -> str:
    return f"{_code(facts)}\n\n{_traits(facts)}\n\n{_by_name(facts)}"


def _code(facts: Facts) -> str:
    wrapper = facts.family == "wrapper"
    names = sorted([facts.label, INSIDE], key=str.lower) if wrapper else [facts.label]
    inside = f"{INSIDE}()" if wrapper else '["depth", "normals"]' if "tasks" in facts.options else ""
    lines = [f"from motet.balance import {', '.join(names)}", "", f"balancer = {facts.label}({inside})"]
    if facts.learns:
        lines += ["optimizer = torch.optim.Adam([*model.parameters(), *balancer.parameters()])"]
    lines += ["...", f"step = balancer.backward({_arguments(facts)}"]
    return "\n".join(f"    {line}".rstrip() for line in lines)


def _arguments(facts: Facts) -> str:
    if facts.kind.needs_closure:
        return "closure, shared=trunk.parameters())   # closure() runs the forward pass and returns the losses"
    if facts.kind.needs_features:
        return "losses, features=z)"
    if facts.family == "losses":
        return "losses)"
    if facts.family == "wrapper" or facts.kind.place == "parameters":
        return "losses, shared=trunk.parameters())"
    return "losses, features=z)   # or shared=trunk.parameters(): exact, and dearer"


def _by_name(facts: Facts) -> str:
    if facts.family == "wrapper":
        name = f"{facts.name}+{INSIDE.lower()}"
        return f'By name: `from_name("{name}")`, `motet bench balance --methods {name}`.'
    return (
        f'On the command line: `motet fit TABLE … --balance {facts.name}`. By name: `from_name("{facts.name}")`, '
        f"`motet bench balance --methods {facts.name}`."
    )


def _traits(facts: Facts) -> str:
    keeps = "nothing"
    if facts.learns:
        keeps = "weights that the optimiser learns"
    elif facts.has_state:
        keeps = "state, which `state_dict` saves"
    if facts.family == "wrapper":
        keeps = "what the method inside keeps" + (f", and {keeps}" if facts.has_state else "")
    draws = "draws random numbers from its `seed`" if facts.is_random else "draws no random numbers"
    return f"It looks at {LOOKS_AT[facts.family]}. From step to step it keeps {keeps}. It {draws}."


def _options(facts: Facts) -> str:
    rows = [
        (f"`{name}`", "" if option.default is option.empty else f"`{option.default!r}`", _says(facts, name))
        for name, option in facts.options.items()
    ]
    return table(["argument", "default", "meaning"], rows) if rows else ""


def _says(facts: Facts, name: str) -> str:
    plain = {"skip_bad": "leave a task with a NaN or infinite loss out of the step instead of raising."}
    return facts.docstring.arguments.get(name, plain.get(name, ""))


def _laws(facts: Facts) -> list[str]:
    if facts.family == "wrapper":
        return []
    rows = [(law, meaning, _kept(facts, law)) for law, meaning in LAWS.items()]
    return [
        "## What it promises",
        YES_OR_NO,
        table(["law", "that is", "kept"], rows),
    ]


def _kept(facts: Facts, law: str) -> str:
    if law in facts.kind.claims:
        return "yes"
    case = counterexample(facts.kind, law)
    return f"no: {case}" if case else "no"


def _golden(cases: tuple[Golden, ...]) -> list[str]:
    if not cases:
        return []
    rows = [
        (
            ", ".join(map(vector, case.gradients)),
            vector(case.losses) if case.losses else "all 1",
            vector(case.direction),
            case.source,
        )
        for case in cases
    ]
    return ["## Known answers", table(["gradients", "losses", "direction", "found"], rows)]


def _cost(name: str, measured: Measured) -> list[str]:
    rows = [
        (
            cell["net"], str(cell["tasks"]), mode, f"{cell['ratio']:.2f}",
            f"{cell['low']:.2f} to {cell['high']:.2f}", f"{cell['added_mb']:.0f} MB",
        )
        for mode, cell in measured.cost_cells(name)
    ]  # fmt: skip
    if not rows:
        return []
    return [
        f"Measured: {measured.cost_words}; the median, its range, and what it adds to memory.",
        table(["network", "tasks", "call", "ratio", "range", "added memory"], rows),
    ]


def _quality(name: str, measured: Measured) -> list[str]:
    rows = [
        (f"`{method}`", problem, shown_gain(entry["delta_m"]), shown(entry["cpu_ratio"], ".2f"))
        for method, by_problem in measured.entries(name).items()
        for problem, entry in by_problem.items()
    ]
    if not rows:
        return []
    return [
        "## Measured quality",
        f"{measured.quality_words} Intervals: {measured.quality['interval']}.",
        table(["method", "problem", "Δm [95%]", "time"], rows),
    ]


def _claims(name: str, measured: Measured) -> list[str]:
    rows = [
        (
            f"`{claim['better']}` over `{claim['worse']}`", _published(claim),
            claim["problem"], shown_gain(claim["difference"]), claim["verdict"],
        )
        for claim in measured.claims(name)
    ]  # fmt: skip
    if not rows:
        return []
    broken = [f"{row[0]} on {row[2]}" for row in rows if row[4] == "not held"]
    return [
        "Published claims, tried here. The difference of both methods' Δm is taken seed by seed.",
        f"**A published claim does not hold here**: {'; '.join(broken)}." if broken else "",
        table(["claim", "published", "tried on", "difference here", "verdict"], rows),
    ]


def _published(claim: dict[str, Any]) -> str:
    figures = claim["published"]
    said = "better" if figures is None else f"{figures[0]:g} against {figures[1]:g}"
    return f"{said}: {claim['measured_on']} ({claim['source']})"
