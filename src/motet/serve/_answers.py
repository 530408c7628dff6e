"""What serves a target as nodes of a graph: its candidates' mixture, calibrated."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from motet.serve._graph import Graph
from motet.tasks import Calibration

if TYPE_CHECKING:
    from motet.tabular._served import Answer

FLOAT, DOUBLE = 1, 11
TINY, NEARLY_ONE = 1e-300, 1.0 - 2.0**-53


def answer_nodes(graph: Graph, answer: "Answer", cuts: Sequence[Mapping[str, str]]) -> str:
    """Adds the mixture and the calibration; gives the name of the estimates as float32.

    Args:
        graph: gets the nodes.
        answer: whose shares and calibration these are.
        cuts: the name of each candidate's estimates, for each cut of the rows that something was trained on.
    """
    mixed = [_mixed(graph, parts, answer.shares) for parts in cuts]
    if len(mixed) > 1:
        weighted = [_times(graph, part, 1.0 / len(mixed)) for part in mixed]
        mixed = [_added(graph, weighted)]
    return graph.add("Cast", [calibrated(graph, answer.calibration, mixed[0])], {"to": FLOAT})


def _mixed(graph: Graph, parts: Mapping[str, str], shares: Mapping[str, float]) -> str:
    if len(shares) == 1:
        return parts[next(iter(shares))]
    return _added(graph, [_times(graph, parts[name], share) for name, share in shares.items()])


def _times(graph: Graph, estimates: str, share: float) -> str:
    exact = graph.add("Cast", [estimates], {"to": DOUBLE})
    return graph.add("Mul", [exact, graph.constant(np.array(share))])


def _added(graph: Graph, parts: Sequence[str]) -> str:
    total = parts[0]
    for part in parts[1:]:
        total = graph.add("Add", [total, part])
    return total


def calibrated(graph: Graph, calibration: Calibration, estimates: str) -> str:
    """The same map as `Calibration.apply`, in float64 as there."""
    if calibration.method == "identity":
        return estimates
    exact = graph.add("Cast", [estimates], {"to": DOUBLE})
    bounds = [graph.constant(np.array(bound)) for bound in (TINY, NEARLY_ONE)]
    clipped = graph.add("Clip", [exact, *bounds])
    logs = graph.add("Log", [clipped])
    if calibration.method == "platt":
        rest = graph.add("Sub", [graph.constant(np.array(1.0)), clipped])
        logs = graph.add("Sub", [logs, graph.add("Log", [rest])])
    scaled = graph.add("Mul", [logs, graph.constant(_row(calibration.slopes))])
    moved = graph.add("Add", [scaled, graph.constant(_row(calibration.offsets))])
    if calibration.method == "platt":
        return graph.add("Sigmoid", [moved])
    return graph.add("Softmax", [moved], {"axis": 1})


def _row(values: tuple[float, ...]) -> np.ndarray:
    """One number for all rows, or one for each column."""
    return np.array(values[0] if len(values) == 1 else values)
