"""A run with a task column as nodes of a graph: each row's answer by what answers its task."""

from typing import TYPE_CHECKING

import numpy as np

from motet.serve._answers import calibrated
from motet.serve._blocks import asked_of, block_nodes, mean_of
from motet.serve._columns import keys_of
from motet.serve._encoding import encode, number_codes
from motet.serve._graph import Graph
from motet.serve._networks import network_nodes
from motet.serve._trees import tree_nodes
from motet.tabular._served import ServedNetwork
from motet.tabular.task_column._learners import Embedding, Heads, Robust
from motet.tabular.task_column._table import NO_TASK, without_column

if TYPE_CHECKING:
    from motet.tabular.task_column._served import ServedTasks

FLOAT, DOUBLE = 1, 11


def task_column_nodes(graph: Graph, served: "ServedTasks", *, weights: str) -> str:
    """Adds all between the table's columns and the calibrated estimates; gives their name, float32.

    A row's task is looked up by name. The learner of all tasks answers every row, one whose task it does not know by
    what the tasks have in common, as in Python; tasks that keep their own model, or half of it, get that.

    Args:
        graph: gets the nodes.
        served: what was fitted.
        weights: of networks, `float32` or `int8`.
    """
    return _Parts(graph, served, weights).answer()


class _Parts:
    """One graph's parts.

    Args:
        graph: gets the nodes.
        served: what was fitted.
        weights: of networks.
    """

    def __init__(self, graph: Graph, served: "ServedTasks", weights: str) -> None:
        self.graph, self.served, self.weights = graph, served, weights
        self.wide = served.task.kind in {"multiclass", "ordinal"}
        learner = served.shared
        told_apart = learner.model.tasks if isinstance(learner, (Robust, Heads)) else ()
        self.names = sorted({*served.known, *served.own.constants, *told_apart})
        self.codes = self._codes()
        self.encoded = encode(graph, without_column(served.encoder, served.column))

    def answer(self) -> str:
        """The name of the estimates: the shared part's, an own model's, or half of each, as the row's task has it."""
        graph, own = self.graph, self.served.own
        found = calibrated(graph, self.served.calibrations[self.served.shared.name], self._shared())
        if own.constants:
            kept = calibrated(graph, self.served.calibrations[own.name], self._own())
            found = graph.add("Add", [self._times(found, own=False), self._times(kept, own=True)])
        return graph.add("Cast", [found], {"to": FLOAT})

    def _codes(self) -> str:
        """Each row's place in `names`, (rows,) int64; −1 for another task. Rows that name none have a name for that."""
        (column,) = [one for one in self.served.encoder.category_columns if one.name == self.served.column]
        places = {name: place for place, name in enumerate(self.names)}
        nobody = places.pop(NO_TASK, -1)
        keys, codes = keys_of(tuple(places), column.source), list(places.values())
        if column.source == "text":
            known = {"keys_strings": ["", NO_TASK, *keys], "values_int64s": [nobody, nobody, *codes]}
            return self.graph.add("LabelEncoder", [column.name], known | {"default_int64": -1}, domain="ai.onnx.ml")
        found = number_codes(self.graph, column.name, np.array(keys, dtype=np.float64), np.array(codes), unseen=-1)
        missing = self.graph.add("IsNaN", [column.name])
        return self.graph.add("Where", [missing, self.graph.constant(np.array(nobody)), found])

    def _shared(self) -> str:
        """What the learner of all tasks says, (rows,) or (rows, C)."""
        graph, learner = self.graph, self.served.shared
        if isinstance(learner, Robust):
            return block_nodes(graph, learner.model, self._matrix(), self._asked(learner.model.tasks))
        if not isinstance(learner, Embedding):
            message = f"{type(learner).__name__} has no form in ONNX."
            raise TypeError(message)
        tasks = tuple(learner.model.tasks)
        network = ServedNetwork(learner.model, learner.shape, tasks, learner.name)
        if not isinstance(learner, Heads):
            encoded = encode(graph, self.served.encoder)
            return network_nodes(graph, network, tasks, encoded, weights=self.weights)[tasks[0]]
        heads = network_nodes(graph, network, tasks, self.encoded, weights=self.weights)
        return mean_of(graph, [heads[name] for name in tasks], self._asked(list(tasks)), wide=self.wide)

    def _own(self) -> str:
        """What the own models of the tasks that have them say; nothing that is read for other rows."""
        graph, own = self.graph, self.served.own
        matrix = self._matrix() or self._column(graph.add("Cast", [self.codes], {"to": FLOAT}))
        level = graph.add("Cast", [self.codes], {"to": DOUBLE})
        nothing = graph.add("Mul", [self._column(level) if self.wide else level, graph.constant(np.array(0.0))])
        found = []
        for name, constant in own.constants.items():
            if name in own.trees:
                found.append(tree_nodes(graph, own.trees[name], matrix))
            else:
                value = graph.constant(np.asarray(constant, dtype=np.float64).reshape((1, -1) if self.wide else -1))
                exact = graph.add("Add", [nothing, value])
                found.append(graph.add("Cast", [exact], {"to": FLOAT}))
        return mean_of(graph, found, self._asked(list(own.constants)), wide=self.wide)

    def _asked(self, names: list[str]) -> str:
        return asked_of(self.graph, self.codes, [self.names.index(name) for name in names])

    def _times(self, estimates: str, *, own: bool) -> str:
        """Estimates times what they give to each row's answer."""
        kept, half = self.served.own.constants, self.served.blended
        shares = np.array([0.0, *(0.5 if name in half else float(name in kept) for name in self.names)])
        places = self.graph.add("Add", [self.codes, self.graph.constant(np.array(1))])
        share = self.graph.add("Gather", [self.graph.constant(shares if own else 1.0 - shares), places], {"axis": 0})
        exact = self.graph.add("Cast", [estimates], {"to": DOUBLE})
        return self.graph.add("Mul", [exact, self._column(share) if self.wide else share])

    def _matrix(self) -> str:
        """Numbers and codes side by side, as trees take them; "" where the task column is all there is."""
        parts = [self.encoded["numbers"]] if "numbers" in self.encoded else []
        if "categories" in self.encoded:
            parts.append(self.graph.add("Cast", [self.encoded["categories"]], {"to": FLOAT}))
        return self.graph.add("Concat", parts, {"axis": 1}) if len(parts) > 1 else "".join(parts)

    def _column(self, values: str) -> str:
        return self.graph.add("Unsqueeze", [values, self.graph.constant(np.array([1]))])
