"""R-MTGB's blocks as nodes of a graph, and who is asked: a row's own task, or all where it is of none of them."""

from collections.abc import Sequence

import numpy as np

from motet.serve._graph import Graph
from motet.serve._trees import Ensemble, planted
from motet.tabular._tree_columns import TreeColumns
from motet.tabular.boosting import RMTGB
from motet.tabular.boosting._losses import STEEPEST, Loss, Poisson, Softmax, Squared
from motet.tabular.boosting._rmtgb import parts_of

FLOAT, DOUBLE = 1, 11


def asked_of(graph: Graph, codes: str, places: Sequence[int]) -> str:
    """Adds how much each of T tasks is asked for each row: (rows, T) float64 that add up to one in a row.

    Args:
        graph: gets the nodes.
        codes: the name of the rows' tasks, (rows,) int64.
        places: the T tasks' codes; a row of another gets an equal part of each.
    """
    column = graph.add("Unsqueeze", [codes, graph.constant(np.array([1]))])
    own = graph.add("Cast", [graph.add("Equal", [column, graph.constant(np.array(places))])], {"to": DOUBLE})
    known = _total(graph, own)
    none = graph.add("Div", [graph.add("Sub", [graph.constant(np.array(1.0)), known]), _float(graph, len(places))])
    return graph.add("Add", [own, none])


def block_nodes(graph: Graph, model: RMTGB, matrix: str, asked: str) -> str:
    """Adds the trees of all blocks; gives the name of the estimates, (rows,) or (rows, C).

    Each row is answered once for each task that it asks, side by side, and the scores are added up again.

    Args:
        graph: gets the nodes.
        model: the trees and gates.
        matrix: the name of the encoded numbers and codes, (rows, F) float32, or "" where there is no feature.
        asked: the name of (rows, T) parts of the tasks, as `asked_of` gives them.

    Raises:
        RequestError: trees of a kind that ONNX has no words for.
    """
    parts = parts_of(model)
    width = parts.loss.width
    pairs = graph.add("NonZero", [graph.add("Greater", [asked, _float(graph, 0.0)])])
    rows, tasks = (graph.add("Gather", [pairs, graph.constant(np.array(place))], {"axis": 0}) for place in (0, 1))
    coded = graph.add("Unsqueeze", [graph.add("Cast", [tasks], {"to": FLOAT}), graph.constant(np.array([1]))])
    features = graph.add("Gather", [matrix, rows], {"axis": 0}) if matrix else coded
    with_task = graph.add("Concat", [features, coded], {"axis": 1}) if matrix else coded
    far = graph.add("Gather", [graph.constant(parts.shares[:, None]), tasks], {"axis": 0})
    near = graph.add("Sub", [_float(graph, 1.0), far])
    raw = graph.constant(parts.start[None])
    for name, text in parts.texts.items():
        if text:
            trees = TreeColumns.from_text(text).trees()
            sums = planted(graph, Ensemble(), model.task, trees, with_task if name == "task" else features, width)
            scores = graph.add("Cast", [sums], {"to": DOUBLE})
            weight = {"near": near, "far": far}.get(name)
            raw = graph.add("Add", [raw, graph.add("Mul", [scores, weight]) if weight else scores])
    share = graph.add("GatherND", [asked, graph.add("Transpose", [pairs], {"perm": [1, 0]})])
    weighted = graph.add("Mul", [raw, graph.add("Unsqueeze", [share, graph.constant(np.array([1]))])])
    return _estimates(graph, parts.loss, _added_up(graph, weighted, rows, asked, width))


def mean_of(graph: Graph, estimates: Sequence[str], asked: str, *, wide: bool) -> str:
    """Adds the mean of T tasks' estimates, (rows,) each or, if wide, (rows, C), with as much of each as is asked."""
    columns = [graph.add("Unsqueeze", [one, graph.constant(np.array([1]))]) for one in estimates]
    stacked = graph.add("Cast", [graph.add("Concat", columns, {"axis": 1})], {"to": DOUBLE})
    weights = graph.add("Unsqueeze", [asked, graph.constant(np.array([2]))]) if wide else asked
    return graph.add("ReduceSum", [graph.add("Mul", [stacked, weights]), graph.constant(np.array([1]))],
                     {"keepdims": 0})  # fmt: skip


def _added_up(graph: Graph, weighted: str, rows: str, asked: str, width: int) -> str:
    """The sum of each row's scores, (rows, C)."""
    count = graph.add("Slice", [graph.add("Shape", [asked]), *(graph.constant(np.array([end])) for end in (0, 1))])
    shape = graph.add("Concat", [count, graph.constant(np.array([width]))], {"axis": 0})
    nothing = graph.add("Expand", [_float(graph, 0.0), shape])
    places = graph.add("Unsqueeze", [rows, graph.constant(np.array([1]))])
    return graph.add("ScatterND", [nothing, places, weighted], {"reduction": "add"})


def _estimates(graph: Graph, loss: Loss, raw: str) -> str:
    """As the loss's own `estimate`."""
    if isinstance(loss, Softmax):
        return graph.add("Softmax", [raw], {"axis": 1})
    flat = graph.add("Reshape", [raw, graph.constant(np.array([-1]))])
    if isinstance(loss, Squared):
        return graph.add("Add", [graph.add("Mul", [flat, _float(graph, loss.scale)]), _float(graph, loss.center)])
    if isinstance(loss, Poisson):
        return graph.add("Exp", [graph.add("Min", [flat, _float(graph, STEEPEST)])])
    return graph.add("Sigmoid", [flat])


def _total(graph: Graph, values: str) -> str:
    return graph.add("ReduceSum", [values, graph.constant(np.array([1]))], {"keepdims": 1})


def _float(graph: Graph, value: float) -> str:
    return graph.constant(np.array(float(value)))
