"""An ONNX graph while it grows."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from motet._errors import require

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

LEAST = 1024  # numbers in a constant below which half the bytes are nothing


class Graph:
    """Nodes and constants in the order in which they were added; the names between them are its own."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._helper = require("onnx.helper", "onnx")
        self._numpy = require("onnx.numpy_helper", "onnx")

    def add(
        self,
        kind: str,
        inputs: Sequence[str],
        attributes: Mapping[str, Any] | None = None,
        *,
        domain: str = "",
        num_outputs: int = 1,
    ) -> str:
        """Adds a node, and names its first output."""
        name = f"motet.{len(self.nodes)}.{kind}"
        outputs = [name, *(f"{name}.{number}" for number in range(1, num_outputs))]
        self.nodes.append(
            self._helper.make_node(kind, list(inputs), outputs, name=name, domain=domain, **dict(attributes or {}))
        )
        return name

    def constant(self, values: np.ndarray) -> str:
        """A constant's name; equal ones are kept once, and float32 ones as float16 where that loses nothing."""
        key = (values.dtype.str, values.shape, values.tobytes())
        if key not in self._known:
            half = _half(values)
            name = f"motet.constant.{len(self.constants)}"
            self.constants[name] = self._numpy.from_array(values if half is None else half, name)
            # The runtime widens it once, when it loads the model.
            self._known[key] = name if half is None else self.add("Cast", [name], {"to": 1})
        return self._known[key]

    def absorb(self, model: "ModelProto", inputs: Mapping[str, str]) -> list[str]:
        """Takes over another model's nodes; its inputs are called by what `inputs` says here.

        Returns:
            its outputs' names here.
        """
        prefix = f"motet.{len(self.nodes)}."
        names = dict(inputs)
        read = {name for node in model.graph.node for name in node.input}
        for constant in (one for one in model.graph.initializer if one.name in read):
            names[constant.name] = self.constant(self._numpy.to_array(constant))
        for node in model.graph.node:
            found = type(node)()
            found.CopyFrom(node)
            found.name = prefix + node.name
            found.input[:] = [names[name] if name else "" for name in node.input]
            names |= {name: prefix + name for name in node.output if name}
            found.output[:] = [names[name] if name else "" for name in node.output]
            self.nodes.append(found)
        return [names[output.name] for output in model.graph.output]


def _half(values: np.ndarray) -> np.ndarray | None:
    if values.dtype != np.float32 or values.size < LEAST:
        return None
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), values) else None
