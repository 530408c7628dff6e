"""Poolings against their equations, written out row by row with the same weights."""

import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from motet import RequestError
from motet.models.encoders import FactorisedAttentionPooling, LayerPooling


def says(*words: str) -> str:
    return ".*".join(re.escape(word) for word in words)


def tokens(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def factorised(net: FactorisedAttentionPooling, row: Tensor) -> Tensor:
    """One row's tokens (S, F); head by head, each with its bilinear form as a full matrix."""
    rank = net.ask.weight.shape[0] // net.num_heads
    found = []
    for head in range(net.num_heads):
        own = slice(head * rank, (head + 1) * rank)
        form = net.ask.weight[own].T @ net.read.weight[own]
        scores = torch.stack([net.context @ form @ token for token in row])
        found.append(sum(share * token for share, token in zip(scores.softmax(0), row, strict=True)))
    return torch.cat(found)


@pytest.mark.parametrize("rank", [1, 3])
def test_factorised_attention_is_a_bilinear_form_for_each_head(rank: int) -> None:
    torch.manual_seed(0)
    net, rows = FactorisedAttentionPooling(6, num_heads=2, rank=rank).double(), tokens(4, 5, 6)
    expected = torch.stack([factorised(net, row) for row in rows])
    torch.testing.assert_close(net(rows), expected, rtol=0, atol=1e-6)
    for one, two in zip(
        torch.autograd.grad(net(rows).square().sum(), list(net.parameters())),
        torch.autograd.grad(expected.square().sum(), list(net.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-6)
    assert sum(parameter.numel() for parameter in net.parameters()) == 6 * (2 * 2 * rank + 1)
    assert net.width == 12


def test_absent_tokens_count_for_nothing() -> None:
    torch.manual_seed(0)
    rows = tokens(2, 5, 6)
    present = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    other = rows.clone()
    other[0, 3:] = 99.0
    attention, layers = FactorisedAttentionPooling(6).double(), LayerPooling(2, 6, num_heads=2).double()
    assert torch.equal(attention(rows, present), attention(other, present))
    torch.testing.assert_close(attention(rows, present)[:1], attention(rows[:1, :3]))
    torch.testing.assert_close(layers([rows, rows], present), layers([other, other], present))
    torch.testing.assert_close(layers([rows, rows], present)[:1], layers([rows[:1, :3]] * 2))


def pooled(net: LayerPooling, hidden: Tensor) -> Tensor:
    """One row's layers (L, F), query by query and head by head."""

    def norm(module: nn.LayerNorm, values: Tensor) -> Tensor:
        spread = values.var(unbiased=False) + module.eps
        return (values - values.mean()) / spread.sqrt() * module.weight + module.bias

    read = torch.stack(
        [net.read.weight @ norm(net.layer_norm, h + p) for h, p in zip(hidden, net.places.weight, strict=True)]
    )
    keys, values = read.chunk(2, dim=1)
    size, found = keys.shape[1] // net.num_heads, []
    for query in net.queries:
        asked, heads = net.ask.weight @ norm(net.query_norm, query), []
        for head in range(net.num_heads):
            own = slice(head * size, (head + 1) * size)
            heads.append((keys[:, own] @ asked[own] / size**0.5).softmax(0) @ values[:, own])
        mixed = query + net.join.weight @ torch.cat(heads)
        plain, gate = (net.expand.weight @ norm(net.last_norm, mixed) + net.expand.bias).chunk(2)
        found.append(mixed + net.contract.weight @ (plain * functional.gelu(gate)) + net.contract.bias)
    mean = sum(found) / len(found)
    return mean / mean.norm() if net.unit else mean


@pytest.mark.parametrize(("head_width", "unit"), [(None, True), (5, False)])
def test_layer_pooling_reads_every_layer(head_width: int | None, unit: bool) -> None:
    torch.manual_seed(0)
    net = LayerPooling(4, 6, num_queries=3, num_heads=2, head_width=head_width, expansion=2, unit=unit).double()
    for norm in (net.layer_norm, net.query_norm, net.last_norm):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    hidden = tokens(5, 4, 3, 6)
    expected = torch.stack([pooled(net, row) for row in hidden.mean(dim=2)])
    found = net([hidden[:, layer] for layer in range(4)])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(net(list(hidden.mean(dim=2).unbind(1))), expected, rtol=0, atol=1e-6)
    for one, two in zip(
        torch.autograd.grad(found.sum(), list(net.parameters())),
        torch.autograd.grad(expected.sum(), list(net.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-6)


def test_both_learn_what_lies_in_one_token_or_one_layer() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(64, 4, 8, generator=generator)
    rows[:, 2, 0] += 5.0  # the token, or the layer, that is to be found
    target = rows[:, 2, 1]
    torch.manual_seed(0)
    for pooling, read in (
        (FactorisedAttentionPooling(8, num_heads=2), lambda net: net(rows)),
        (LayerPooling(4, 8, num_queries=2, num_heads=2, unit=False), lambda net: net(list(rows.unbind(1)))),
    ):
        head = nn.Linear(pooling.width, 1)
        optimizer = torch.optim.Adam([*pooling.parameters(), *head.parameters()], lr=0.02)
        for _ in range(80):
            loss = (head(read(pooling)).squeeze(1) - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert float(loss.detach()) < 0.3 * float(target.var())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_are_exported_whole(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    rows = tokens(3, 5, 8).to(dtype)
    attention, layers = FactorisedAttentionPooling(8).to(dtype), LayerPooling(2, 8, num_heads=2).to(dtype)
    present = torch.ones(3, 5, dtype=torch.bool)
    for net, inputs in ((attention, (rows, present)), (layers, ([rows, rows],))):
        exported = torch.export.export(net, inputs).module()
        torch.testing.assert_close(exported(*inputs), net(*inputs))


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: FactorisedAttentionPooling(8, num_heads=0), ("0 heads", "four heads")),
        (lambda: FactorisedAttentionPooling(8, rank=0), ("rank 0", "at least one")),
        (lambda: FactorisedAttentionPooling(8)(torch.ones(2, 5, 6)), ("(2, 5, 6)", "(B, S, 8)")),
        (lambda: FactorisedAttentionPooling(8)(torch.ones(2, 5, 8), torch.ones(2, 4)), ("(2, 4)", "(2, 5)")),
        (lambda: FactorisedAttentionPooling(8)(torch.ones(2, 5, 8), torch.zeros(2, 5)), ("Row 0 has no token",)),
        (lambda: LayerPooling(0, 8), ("0 layers", "Change the sizes")),
        (lambda: LayerPooling(2, 9), ("width 9", "8 heads", "divide")),
        (lambda: LayerPooling(2, 8)([torch.ones(2, 5, 8)]), ("1 layers arrived", "2 of (B, S, 8)")),
        (lambda: LayerPooling(1, 8)([torch.ones(2, 5, 6)]), ("(2, 5, 6)", "without the embeddings")),
    ],
)
def test_what_cannot_be_pooled(made, words: tuple[str, ...]) -> None:
    with pytest.raises(RequestError, match=says(*words)):
        made()
