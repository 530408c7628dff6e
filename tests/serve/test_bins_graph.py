"""Codes of numbers in a graph, and a network that looks rows up, against torch."""

import numpy as np
import torch
from runtime import columns, encoder, run

from motet.data import TableRows
from motet.models import LookupEncoder, bin_edges, number_sizes
from motet.serve._bins import bin_nodes
from motet.serve._columns import feed, inputs_of
from motet.serve._encoding import encode
from motet.serve._graph import Graph
from motet.serve._networks import network_nodes
from motet.tabular._network import NetworkShape
from motet.tabular._served import ServedNetwork
from motet.tasks import Binary, Regression
from motet.train import estimate


def test_the_trees_find_the_same_codes_as_the_encoder_also_at_the_edges():
    draw = np.random.default_rng(0)
    sample = np.column_stack([draw.normal(size=500), draw.integers(0, 7, 500), 1e9 + draw.random(500)])
    sample = np.column_stack([sample.astype(np.float32), np.full(500, np.nan, dtype=np.float32)])
    edges = bin_edges(sample, num_bins=20)
    finite = edges.numpy()[np.isfinite(edges.numpy())]
    special = np.array([np.nan, 0.0, -0.0, np.finfo(np.float32).max, np.finfo(np.float32).min], dtype=np.float32)
    asked = np.concatenate([finite, np.nextafter(finite, np.float32(-np.inf)), special, sample[:, 0]])
    numbers = np.ascontiguousarray(np.tile(asked.astype(np.float32)[:, None], (1, 4)))
    encoder = LookupEncoder(edges, number_sizes(edges), [])
    graph = Graph()
    name = bin_nodes(graph, edges.numpy(), "numbers")
    (found,) = run(graph, {"numbers": ("float32", 2)}, [name], {"numbers": numbers})
    np.testing.assert_array_equal(found, encoder.bins(torch.from_numpy(numbers)).numpy())
    assert found.max(axis=0).tolist() == [size - 1 for size in number_sizes(edges)]


def test_a_network_that_looks_rows_up_says_the_same_in_a_graph_and_after_a_file():
    frame = columns()
    fitted = encoder(frame)
    features = fitted.transform(frame)
    edges = bin_edges(features.numbers, num_bins=12)
    sizes, last = number_sizes(edges), len(fitted.number_names)
    shape = NetworkShape(
        12, len(sizes), tuple(fitted.category_sizes), width=16, num_blocks=1, head_width=8, category_dim=4,
        number_sizes=sizes, crosses=((0, last), (1, 2, last + 1)), lookup=True,
    )  # fmt: skip
    shape = NetworkShape.from_dict(shape.to_dict())
    tasks = [Regression("price", center=2.0, scale=3.0), Binary("sold", classes=(False, True))]
    torch.manual_seed(0)
    model = shape.build(tasks, edges).eval()
    torch.nn.init.normal_(model.encoder.crosses.weight)  # type: ignore[union-attr, arg-type]
    again = shape.build(tasks).eval()
    again.load_state_dict(model.state_dict())
    rows = np.arange(frame.height)
    expected = estimate(again, TableRows(features, {}, {}), rows, ["price", "sold"])
    graph = Graph()
    served = ServedNetwork(model, shape, ("price", "sold"), "distilled")
    names = network_nodes(graph, served, ("price", "sold"), encode(graph, fitted), weights="float32")
    inputs = {one.name: (one.type, 1) for one in inputs_of(fitted)}
    found = run(graph, inputs, [names["price"], names["sold"]], feed(fitted, frame))
    for name, values in zip(("price", "sold"), found, strict=True):
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-5)
        assert np.ptp(values) > 0.01
    single = run(graph, inputs, [names["price"]], {name: part[[7]] for name, part in feed(fitted, frame).items()})
    np.testing.assert_allclose(single[0], found[0][[7]], rtol=1e-5)
