"""The codes of numbers in a graph: one small tree a column finds in a few comparisons which edges are reached."""

import numpy as np

from motet.serve._graph import Graph
from motet.serve._trees import DEFAULT_LEFT, NAN, Ensemble

INT64 = 7


def bin_nodes(graph: Graph, edges: np.ndarray, numbers: str) -> str:
    """Adds what `LookupEncoder.bins` does, to the bit; gives the name of the codes (rows, Fn) int64.

    Args:
        graph: gets the nodes.
        edges: (Fn, bins + 1) float32, increasing, +inf in unused places.
        numbers: the name of the numbers (rows, Fn) float32, NaN where missing.
    """
    ensemble = Ensemble()
    for column, row in enumerate(edges):
        ensemble.plant(_search(row[np.isfinite(row)], column), column)
    return graph.add("Cast", [ensemble.add_to(graph, numbers, len(edges))], {"to": INT64})


def _search(edges: np.ndarray, column: int) -> dict[str, np.ndarray]:
    """A balanced tree in LightGBM's columns whose leaves are the codes; a missing number goes left all the way.

    Nothing is at most -inf, so that the leftmost leaf is for missing numbers alone.
    """
    below = np.nextafter(edges.astype(np.float32), np.float32(-np.inf))  # at most this is less than the edge
    thresholds = np.concatenate([[-np.inf], below]).astype(np.float32)
    order: list[int] = []
    left, right = np.zeros((2, len(thresholds)), dtype=np.int64)

    def split(first: int, end: int) -> int:
        """Places the split in the middle of some thresholds before those beside it; with none of them, a leaf."""
        if first == end:
            return ~first
        place, middle = len(order), (first + end) // 2
        order.append(middle)
        left[place], right[place] = split(first, middle), split(middle + 1, end)
        return place

    split(0, len(thresholds))
    return {
        "leaf_value": np.arange(len(thresholds) + 1, dtype=np.float32),
        "decision_type": np.full(len(thresholds), NAN << 2 | DEFAULT_LEFT),
        "split_feature": np.full(len(thresholds), column),
        "threshold": thresholds[order].astype(np.float64),
        "left_child": left,
        "right_child": right,
    }
