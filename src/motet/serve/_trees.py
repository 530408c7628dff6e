"""A target's trees as nodes of a graph: LightGBM's decisions as ONNX's TreeEnsemble says them."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from motet._errors import RequestError, require
from motet.serve._graph import Graph
from motet.tasks import Quantile, Task

if TYPE_CHECKING:
    from motet.tabular._boosting import Boosting
    from motet.tabular._tree_columns import TreeColumns

FLOAT = 1
LEQ, MEMBER = 0, 6  # TreeEnsemble's numbers for its comparisons
SPLITS = ("nodes_featureids", "nodes_modes", "nodes_splits", "nodes_truenodeids", "nodes_trueleafs",
          "nodes_falsenodeids", "nodes_falseleafs", "nodes_missing_value_tracks_true")  # fmt: skip
LEAVES = ("leaf_targetids", "leaf_weights")
CATEGORY, DEFAULT_LEFT, ZERO, NAN = 1, 2, 1, 2  # bits of LightGBM's decision_type; kinds of missing in its next two


def _empty(names: tuple[str, ...]) -> dict[str, list[Any]]:
    return {name: list[Any]() for name in names}


@dataclass
class Ensemble:
    """The attributes of one TreeEnsemble while trees are added: splits and leaves count through all trees."""

    splits: dict[str, list[Any]] = field(default_factory=lambda: _empty(SPLITS))
    leaves: dict[str, list[Any]] = field(default_factory=lambda: _empty(LEAVES))
    roots: list[int] = field(default_factory=list)
    members: list[float] = field(default_factory=list)
    constant: dict[int, float] = field(default_factory=dict)

    def plant(self, tree: dict[str, np.ndarray], target: int) -> None:
        """Adds one tree, whose leaves count for the output `target`."""
        values = tree["leaf_value"]
        if len(values) == 1:  # a tree without a split is a number, and no tree to the runtime
            self.constant[target] = self.constant.get(target, 0.0) + float(values[0])
            return
        first, leaf = len(self.splits["nodes_modes"]), len(self.leaves["leaf_weights"])
        self.roots.append(first)
        category = tree["decision_type"] & CATEGORY > 0
        found = {
            "nodes_featureids": tree["split_feature"],
            "nodes_modes": np.where(category, MEMBER, LEQ),
            "nodes_splits": np.where(category, 0.0, _not_above(tree["threshold"])),
            "nodes_missing_value_tracks_true": np.where(category, 0, _missing_goes_left(tree)).astype(np.int64),
        }
        for side, child in (("true", tree["left_child"]), ("false", tree["right_child"])):
            found[f"nodes_{side}leafs"] = (child < 0).astype(np.int64)
            found[f"nodes_{side}nodeids"] = np.where(child < 0, ~child + leaf, child + first)
        for name, column in found.items():
            self.splits[name] += column.tolist()
        for split in np.flatnonzero(category):
            self.members += [*_members(tree, int(tree["threshold"][split])), np.nan]
        self.leaves["leaf_weights"] += values.tolist()
        self.leaves["leaf_targetids"] += [target] * len(values)

    def add_to(self, graph: Graph, matrix: str, num_targets: int) -> str:
        """Adds the ensemble; gives the name of the sums (rows, num_targets)."""
        start = np.array([self.constant.get(target, 0.0) for target in range(num_targets)], dtype=np.float32)
        if not self.roots:
            first = graph.add("Slice", [matrix, *(graph.constant(np.array([place])) for place in (0, 1, 1))])
            return graph.add("Where", [graph.add("IsNaN", [first]), graph.constant(start), graph.constant(start)])
        make = require("onnx.helper", "onnx").make_tensor
        tensors = {"nodes_modes": 2, "nodes_splits": FLOAT, "leaf_weights": FLOAT, "membership_values": FLOAT}
        columns = {**self.splits, **self.leaves} | ({"membership_values": self.members} if self.members else {})
        attributes: dict[str, Any] = {"n_targets": num_targets, "aggregate_function": 1, "tree_roots": self.roots}
        for name, column in columns.items():
            attributes[name] = make(name, tensors[name], [len(column)], column) if name in tensors else column
        sums = graph.add("TreeEnsemble", [matrix], attributes, domain="ai.onnx.ml")
        return graph.add("Add", [sums, graph.constant(start)]) if start.any() else sums


def tree_nodes(graph: Graph, trees: "Boosting", matrix: str) -> str:
    """Adds one task's trees; gives the name of its estimates, (rows,) or (rows, K).

    Args:
        graph: gets the nodes.
        trees: the task's.
        matrix: the name of the encoded numbers and category codes, (rows, F) float32.

    Raises:
        RequestError: trees of a kind that ONNX has no words for.
    """
    task = trees.task
    models = [_model(graph, task, model, matrix) for model in trees.columns()]
    if task.kind not in {"quantile", "multilabel"}:
        return models[0]
    columns = [graph.add("Unsqueeze", [model, graph.constant(np.array([1]))]) for model in models]
    side_by_side = graph.add("Concat", columns, {"axis": 1})
    return _sorted(graph, side_by_side, len(columns)) if isinstance(task, Quantile) else side_by_side


def _model(graph: Graph, task: Task, model: "TreeColumns | float", matrix: str) -> str:
    """One LightGBM model's estimates: (rows, C) of classes, else (rows,)."""
    ensemble = Ensemble()
    num_targets = 1
    if isinstance(model, float):
        ensemble.constant[0] = model
        return _flat(graph, ensemble.add_to(graph, matrix, 1))
    trees = model.trees()
    if task.kind in {"multiclass", "ordinal"}:
        num_targets = len(getattr(task, "classes", None) or ())
    sums = planted(graph, ensemble, task, trees, matrix, num_targets)
    if num_targets > 1:
        return graph.add("Softmax", [sums], {"axis": 1})
    link = {"binary": "Sigmoid", "multilabel": "Sigmoid", "count": "Exp"}.get(task.kind)
    flat = _flat(graph, sums)
    return graph.add(link, [flat]) if link else flat


def planted(
    graph: Graph, ensemble: Ensemble, task: Task, trees: list[dict[str, np.ndarray]], matrix: str, num_targets: int
) -> str:
    """Adds trees that count for the outputs in turn; gives the name of the sums (rows, num_targets).

    Raises:
        RequestError: trees of a kind that ONNX has no words for.
    """
    for number, tree in enumerate(trees):
        _check(task, tree)
        ensemble.plant(tree, number % num_targets)
    return ensemble.add_to(graph, matrix, num_targets)


def _flat(graph: Graph, column: str) -> str:
    return graph.add("Reshape", [column, graph.constant(np.array([-1]))])


def _sorted(graph: Graph, values: str, count: int) -> str:
    order = {"axis": 1, "largest": 0, "sorted": 1}
    return graph.add("TopK", [values, graph.constant(np.array([count]))], order, num_outputs=2)


def _check(task: Task, tree: dict[str, np.ndarray]) -> None:
    if (((tree["decision_type"] >> 2) & 3) == ZERO).any():
        message = (
            f"Target '{task.name}' is served by trees that take zero for missing, which ONNX cannot say; NaN was "
            f"expected. Leave the target out with --target, or serve it from Python."
        )
        raise RequestError(message)


def _not_above(thresholds: np.ndarray) -> np.ndarray:
    """The largest float32 that is not above: for float32 inputs `x <= t` is then the same question."""
    near = thresholds.astype(np.float32)
    return np.where(near > thresholds, np.nextafter(near, np.float32(-np.inf)), near)


def _missing_goes_left(tree: dict[str, np.ndarray]) -> np.ndarray:
    """Where a split met no missing value in training LightGBM takes NaN for zero, else it has learned a side."""
    learned = ((tree["decision_type"] >> 2) & 3) == NAN
    return np.where(learned, tree["decision_type"] & DEFAULT_LEFT > 0, tree["threshold"] >= 0)


def _members(tree: dict[str, np.ndarray], number: int) -> list[float]:
    """The codes in a tree's set of categories, from its bits."""
    low, high = tree["cat_boundaries"][number : number + 2]
    words = tree["cat_threshold"][low:high]
    bits = (words[:, None] >> np.arange(32)) & 1
    return np.flatnonzero(bits.ravel()).astype(float).tolist()
