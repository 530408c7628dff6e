"""The feature encoder as nodes of a graph: raw columns to the numbers and codes that models take."""

import numpy as np

from motet.data import FeatureEncoder
from motet.serve._columns import NO_DATE, keys_of
from motet.serve._dates import date_part
from motet.serve._graph import Graph

FLOAT, INT64 = 1, 7  # ONNX's numbers for its types
LARGEST = float(np.finfo(np.float32).max)


def encode(graph: Graph, encoder: FeatureEncoder) -> dict[str, str]:
    """Adds the encoding; gives the names of `numbers` (rows, Fn) float32 and `categories` (rows, Fc) int64.

    What the table has none of is left out. The same values as `FeatureEncoder.transform`, to the bit.
    """
    parts = [_numbers(graph, encoder)] if encoder.number_columns else []
    parts += [_dates(graph, encoder)] if any(column.parts for column in encoder.date_columns) else []
    found = {}
    if parts:
        found["numbers"] = parts[0] if len(parts) == 1 else graph.add("Concat", parts, {"axis": 1})
    if encoder.category_columns:
        codes = [_codes(graph, column.name, column.levels, column.source) for column in encoder.category_columns]
        found["categories"] = _side_by_side(graph, codes)
    return found


def _numbers(graph: Graph, encoder: FeatureEncoder) -> str:
    columns = encoder.number_columns
    raw = _side_by_side(graph, [column.name for column in columns])
    strange = graph.add("Or", [graph.add("IsNaN", [raw]), graph.add("IsInf", [raw])])
    offsets = np.array([column.offset for column in columns])
    moved = graph.add("Sub", [raw, graph.constant(offsets)]) if offsets.any() else raw
    within = graph.add("Clip", [moved, graph.constant(np.array(-LARGEST)), graph.constant(np.array(LARGEST))])
    known = graph.add("Where", [strange, graph.constant(np.array(np.nan)), within])
    return graph.add("Cast", [known], {"to": FLOAT})


def _dates(graph: Graph, encoder: FeatureEncoder) -> str:
    found = []
    for column in encoder.date_columns:
        missing = graph.add("Equal", [column.name, graph.constant(np.array(NO_DATE))])
        moments = graph.add("Where", [missing, graph.constant(np.array(0)), column.name])
        for part in column.parts:
            values = graph.add("Where", [missing, graph.constant(np.array(np.nan)), date_part(graph, moments, part)])
            found.append(graph.add("Cast", [values], {"to": FLOAT}))
    return _side_by_side(graph, found)


def _codes(graph: Graph, name: str, levels: tuple[str, ...], source: str) -> str:
    keys, codes = keys_of(levels, source), list(range(2, len(levels) + 2))
    if source == "text":
        if "" not in levels:
            keys, codes = ["", *keys], [0, *codes]
        attributes = {"keys_strings": keys, "values_int64s": codes, "default_int64": 1}
        return graph.add("LabelEncoder", [name], attributes, domain="ai.onnx.ml")
    strange = graph.add("Or", [graph.add("IsNaN", [name]), graph.add("IsInf", [name])])
    found = number_codes(graph, name, np.array(keys, dtype=np.float64), np.array(codes), unseen=1)
    return graph.add("Where", [strange, graph.constant(np.array(0)), found])


def number_codes(graph: Graph, name: str, keys: np.ndarray, codes: np.ndarray, *, unseen: int) -> str:
    """Codes of numbers by comparing with every level: exact in float64, which no lookup of the runtime is."""
    other = graph.constant(np.array(unseen))
    if not len(keys):
        shape = graph.add("Cast", [graph.add("IsInf", [name])], {"to": INT64})
        nothing = graph.add("Mul", [shape, graph.constant(np.array(0))])
        return graph.add("Add", [nothing, other])
    column = graph.add("Unsqueeze", [name, graph.constant(np.array([1]))])
    same = graph.add("Cast", [graph.add("Equal", [column, graph.constant(keys)])], {"to": INT64})
    apart = graph.add("Mul", [same, graph.constant(codes - unseen)])
    total = graph.add("ReduceSum", [apart, graph.constant(np.array([1]))], {"keepdims": 0})
    return graph.add("Add", [total, other])


def _side_by_side(graph: Graph, columns: list[str]) -> str:
    """Columns (rows,) as one matrix (rows, columns): three nodes, however many there are."""
    end_to_end = graph.add("Concat", columns, {"axis": 0})
    stacked = graph.add("Reshape", [end_to_end, graph.constant(np.array([len(columns), -1]))])
    return graph.add("Transpose", [stacked], {"perm": [1, 0]})
