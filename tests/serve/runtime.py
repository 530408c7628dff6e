"""A graph's own runtime, and columns of every sort."""

from collections.abc import Mapping
from datetime import datetime

import numpy as np
import onnxruntime
import polars as pl
from onnx import helper

from motet.data import FeatureEncoder, infer_schema
from motet.serve._export import TYPES
from motet.serve._graph import Graph
from motet.tasks import Regression

COUNT = 400


def session(model: bytes) -> onnxruntime.InferenceSession:
    """One thread: small graphs, and several tests at once."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(
    graph: Graph, inputs: Mapping[str, tuple[str, int]], outputs: list[str], values: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    """Runs a graph; `inputs` has each one's type and number of dimensions."""
    taken = [
        helper.make_tensor_value_info(name, TYPES.get(kind, 1), ["rows", "columns"][:dims])
        for name, (kind, dims) in inputs.items()
    ]
    given = [helper.make_empty_tensor_value_info(name) for name in outputs]
    made = helper.make_graph(graph.nodes, "test", taken, given, list(graph.constants.values()))
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 5)]
    return session(helper.make_model(made, opset_imports=opsets, ir_version=10).SerializeToString()).run(None, values)


def columns(seed: int = 0) -> pl.DataFrame:
    """Numbers with gaps, infinities and offsets, dates on both sides of 1970, categories of three sorts."""
    draw = np.random.default_rng(seed)
    size = draw.normal(size=COUNT)
    size[::17], size[5::23] = np.inf, -np.inf
    moments = draw.integers(-(10**17) // 50, 10**17 // 50, COUNT)
    frame = pl.DataFrame({
        "size": size,
        "huge": draw.integers(10**12, 10**12 + 1000, COUNT),
        "when": pl.Series(moments, dtype=pl.Int64).cast(pl.Datetime("us")),
        "town": draw.choice(["Bonn", "Köln", "Ulm", "rare"], COUNT, p=[0.4, 0.3, 0.295, 0.005]),
        "zone": draw.integers(0, 5, COUNT),
        "open": draw.integers(0, 2, COUNT).astype(bool),
        "price": size,
    })  # fmt: skip
    return frame.with_columns(
        pl.when(pl.Series(draw.random(COUNT) < 0.1)).then(None).otherwise(pl.col(name)).alias(name)
        for name in frame.columns
        if name != "price"
    )


def encoder(frame: pl.DataFrame) -> FeatureEncoder:
    """Fitted on the first half."""
    rows = np.arange(COUNT // 2)
    roles = {"zone": "category", "size": "number", "huge": "number", "town": "category"}
    roles = {name: role for name, role in roles.items() if name in frame.columns}
    return FeatureEncoder.fit(frame, infer_schema(frame, [Regression("price")], overrides=roles, rows=rows), rows)


EPOCHS = [
    datetime(1899, 12, 31, 23, 59), datetime(1900, 2, 28), datetime(1900, 3, 1), datetime(2000, 2, 29, 12),
    datetime(2000, 12, 31), datetime(2024, 1, 1), datetime(1969, 12, 31, 23, 30), datetime(1970, 1, 1),
]  # fmt: skip
