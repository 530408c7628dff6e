"""A served network as nodes of a graph, by torch's own exporter."""

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from motet._errors import RunError, require
from motet.models import LookupEncoder, MultiTaskModel
from motet.serve._bins import bin_nodes
from motet.serve._graph import Graph
from motet.serve._int8 import narrow

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

    from motet.tabular._served import ServedNetwork

OPSET = 20
EXAMPLE = 3  # rows; with one, the exporter would take the number of rows for a constant


class Estimates(nn.Module):
    """A network with its tasks' estimates as outputs, in the order of `answers`, and heads for no other task."""

    def __init__(self, model: MultiTaskModel, answers: tuple[str, ...]) -> None:
        super().__init__()
        places = [list(model.tasks).index(name) for name in answers]
        self.encoder, self.sharing = model.encoder, model.sharing
        self.asked = None if places == list(range(len(model.tasks))) else places
        self.tasks = [model.tasks[name] for name in answers]
        self.heads = copy.deepcopy(model.heads)
        self.heads.sizes = [model.heads.sizes[place] for place in places]
        for name, weight in model.heads.named_parameters():  # chosen here, or the graph would choose at every call
            setattr(self.heads, name, nn.Parameter(weight[places].clone()))

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Maps encoded rows to (B,) or (B, K) a task."""
        outputs = self.heads(self.sharing(self.encoder(inputs), self.asked))
        return tuple(task.estimate(part) for task, part in zip(self.tasks, outputs, strict=True))


def network_nodes(
    graph: Graph, network: "ServedNetwork", answers: tuple[str, ...], encoded: Mapping[str, str], *, weights: str
) -> dict[str, str]:
    """Adds the network; gives the name of the estimates of each task in `answers`.

    Args:
        graph: gets the nodes.
        network: in evaluation mode.
        answers: the tasks; only what they need is exported.
        encoded: what `numbers` and `categories` are called in the graph.
        weights: `float32`, or `int8` for a quarter of the bytes.
    """
    encoder = network.model.encoder
    if isinstance(encoder, LookupEncoder) and "numbers" in encoded:
        encoded = {**encoded, "bins": bin_nodes(graph, encoder.edges.numpy(), encoded["numbers"])}
    found = _exported(network, answers, list(encoded))
    _broadcast(found.graph)
    if weights == "int8":
        narrow(found.graph)
    return dict(zip(answers, graph.absorb(found, encoded), strict=True))


def _exported(network: "ServedNetwork", answers: tuple[str, ...], columns: list[str]) -> "ModelProto":
    """The exporter's own graph.

    Raises:
        RunError: it cannot follow this architecture.
    """
    shape = network.shape
    sizes = {"numbers": shape.num_numbers, "categories": len(shape.category_sizes), "bins": shape.num_numbers}
    kinds = {"numbers": torch.float32, "categories": torch.int64, "bins": torch.int64}
    example = {name: torch.zeros(EXAMPLE, sizes[name], dtype=kinds[name]) for name in columns}
    rows = torch.export.Dim("rows", min=1)
    try:
        with _quietly(), torch.no_grad():
            program = torch.onnx.export(
                Estimates(network.model, answers).eval(),
                (),
                kwargs={"inputs": example},
                input_names=columns,
                output_names=list(answers),
                dynamic_shapes={"inputs": {name: {0: rows} for name in columns}},
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # whatever torch says of an operation that it cannot write down
        cause = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        message = (
            f"torch cannot export the '{shape.sharing}' network of {', '.join(answers)} ({cause}). Export the other "
            "targets with --target, or serve this run from Python."
        )
        raise RunError(message) from error
    return cast("torch.onnx.ONNXProgram", program).model_proto


def require_exporter() -> None:
    """Says which packages the exporter lacks before any work is done.

    Raises:
        MissingExtraError: one is not installed.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        require(name, "onnx")


def _broadcast(graph: "GraphProto") -> None:
    """Takes out copies of the shared features for each task: a product with stacked weights spreads them by itself."""
    stacked = {constant.name: list(constant.dims) for constant in graph.initializer}
    spread = {node.output[0]: node for node in graph.node if node.op_type == "Expand"}
    read = [name for node in graph.node for name in node.input]
    for node in list(graph.node):
        is_stacked = node.op_type == "MatMul" and len(stacked.get(node.input[1], ())) == 3
        if is_stacked and node.input[0] in spread and read.count(node.input[0]) == 1:
            copied = spread.pop(node.input[0])
            node.input[0] = copied.input[0]
            graph.node.remove(copied)  # the runtime would copy them all the same, for nobody


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what the exporter says of itself; each is harmless here."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # operators of packages that are not installed
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            warnings.filterwarnings("ignore", message=".*axis name.*", category=UserWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(onnxscript|onnx_ir|torch)\b.*")
            yield
    finally:
        logger.setLevel(level)
