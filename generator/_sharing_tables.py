"""What was measured of sharing architectures, in the page about them: `bench_sharing.json`, `sharing_peers.json`."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from generator._measured import shown, shown_gain
from generator._table import table

_BLOCK = re.compile(r"(<!-- measured: (sharing|claims|peers) -->\n).*?(<!-- end -->)", re.DOTALL)
_FILES = {"sharing": "bench_sharing.json", "claims": "bench_sharing.json", "peers": "sharing_peers.json"}


def sharing_tables(text: str, results: Path) -> str:
    """The page with fresh tables in its blocks; a block without results stays empty.

    Args:
        text: the page.
        results: the folder of results.
    """
    writers: dict[str, Callable[[dict[str, Any]], str]] = {"sharing": _quality, "claims": _claims, "peers": _peers}

    def filled(block: re.Match[str]) -> str:
        path = results / _FILES[block[2]]
        if not path.exists():
            return f"{block[1]}{block[3]}"
        found = writers[block[2]](json.loads(path.read_text(encoding="utf-8")))
        return f"{block[1]}\n{found}\n\n{block[3]}"

    return _BLOCK.sub(filled, text)


def _quality(document: dict[str, Any]) -> str:
    problems, base = list(document["problems"]), document["costs_against"]
    overall = document["overall"]
    gains = {name: _mean(overall[name]) for name in document["methods"]}
    order = sorted(gains, key=lambda name: (math.isnan(gains[name]), -gains[name]))
    rows = [
        [
            f"`{name}`", *(shown_gain(_gain(document, name, problem)) for problem in problems),
            shown(overall[name]["mean_delta_m"], "+.2f"), shown(_size(document, name, base), ".1f"),
            shown(overall[name]["cpu_ratio"], ".2f"),
        ]
        for name in order
    ]  # fmt: skip
    words = (
        f"Δm is the gain over training each task alone in percent, over {len(document['seeds'])} seeds, with its 95% "
        f"interval; size is the geometric mean over problems of the numbers trained, and time that of the processor's "
        f"in training, both as a ratio to `{base}` (`{document['command']}`). A dash: not measured there."
    )
    return "\n\n".join([words, table(["sharing", *problems, "mean Δm", "size", "time"], rows), *_left_out(document)])


def _mean(entry: dict[str, Any]) -> float:
    found = entry["mean_delta_m"]
    return math.nan if found is None else found


def _gain(document: dict[str, Any], name: str, problem: str) -> dict[str, Any] | None:
    return document["methods"][name].get(problem, {}).get("delta_m")


def _size(document: dict[str, Any], name: str, base: str) -> float | None:
    """The geometric mean of the sizes as ratios to the base, over the problems on which both were measured."""
    one, other = document["methods"][name], document["methods"][base]
    pairs = [(one[problem]["parameters"], other[problem]["parameters"]) for problem in one]
    known = [math.log(mine / theirs) for mine, theirs in pairs if mine and theirs]
    return math.exp(sum(known) / len(known)) if known else None


def _left_out(document: dict[str, Any]) -> list[str]:
    by_reason: dict[tuple[str, str], list[str]] = {}
    for problem, reasons in document["left_out"].items():
        for name, reason in reasons.items():
            by_reason.setdefault((name, reason), []).append(problem)
    lines = [f"`{name}` on {', '.join(where)}: {reason}" for (name, reason), where in by_reason.items()]
    return [f"Left out: {'; '.join(lines)}."] if lines else []


def _claims(document: dict[str, Any]) -> str:
    problems = list(document["problems"])
    found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for claim in document["claims"]:
        found.setdefault((claim["better"], claim["worse"]), {})[claim["problem"]] = claim
    rows = []
    for (better, worse), by_problem in found.items():
        first = next(iter(by_problem.values()))
        figures = first["published"]
        published = f"{figures[0]:g} against {figures[1]:g}: " if figures else ""
        rows.append([
            f"`{better}` over `{worse}`", f"{published}{first['measured_on']} ({first['source']})",
            *(_verdict(by_problem.get(problem)) for problem in problems),
        ])  # fmt: skip
    return table(["claim", "published", *problems], rows)


def _verdict(claim: dict[str, Any] | None) -> str:
    if claim is None or claim["difference"] is None:
        return "–"
    return f"{claim['verdict']} ({claim['difference']['mean']:+.2f})"


def _peers(document: dict[str, Any]) -> str:
    versions = document["peers"]
    names = list(dict.fromkeys(cell["what"].removeprefix("ours / ") for cell in document["cells"]))
    rows: dict[tuple[str, int], list[str]] = {}
    for cell in document["cells"]:
        experts = "experts" if cell["kind"] == "mmoe" else "a task and shared"
        what = f"{cell['kind']}, {cell['tasks']} tasks, {cell['experts']} {experts}, {tuple(cell['dims'])}"
        row = rows.setdefault((what, cell["batch"]), [what, str(cell["batch"])])
        row.append(f"{1.0 / cell['ratio']:.2f}")
    kept = {
        (cell["kind"], cell["tasks"], cell["batch"], cell["what"]): cell["second_kept_mb"] / cell["first_kept_mb"]
        for cell in document["cells"]
    }
    columns = [f"{name} {way}" for name in names for way in ("forward", "with backward")]
    sizes = sorted(kept.values())
    words = (
        f"Processor time of a peer over that of ours, more than 1 where ours is faster (`{document['command']}`; "
        f"{', '.join(f'{name} {version}' for name, version in versions.items() if name in _NAMED)}). With the peer's "
        "weights ours gives the peer's numbers and gradients to 1e-6, checked in the same run; for a backward pass the "
        f"peers keep {sizes[0]:.1f} to {sizes[-1]:.1f} times as much memory."
    )
    return f"{words}\n\n{table(['architecture', 'rows', *columns], rows.values())}"


_NAMED = {"deepctr-torch", "torch-rechub", "deepctr_torch", "torch_rechub"}
