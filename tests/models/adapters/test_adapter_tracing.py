"""Adapted modules in traced graphs, and on models of Hugging Face."""

import copy
import importlib.util

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from motet.models.adapters import MHR, Adapter, Adapters, Bottleneck, LoRA, MTLoRA, TaskLoRA, attach

TASKS = ["a", "b", "c"]
ADAPTERS: list[Adapter] = [LoRA(2), TaskLoRA(2), MTLoRA(2, 1, mode="matrixv2"), MHR(3, 2, 2), Bottleneck(2)]


class Mixed(nn.Module):
    """A pass whose rows have tasks of their own, given as an input."""

    def __init__(self, adapters: Adapters) -> None:
        super().__init__()
        self.module = adapters.module
        self.adapters = adapters

    def forward(self, x: Tensor, tasks: Tensor) -> Tensor:
        with self.adapters.using(tasks):
            return self.module(x)


def adapted(adapter: Adapter) -> Adapters:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).eval()
    adapters = attach(net, adapter, tasks=TASKS)
    generator = torch.Generator().manual_seed(2)
    for parameter in adapters.parameters():
        parameter.data.normal_(std=0.3, generator=generator)
    return adapters


@pytest.mark.parametrize(
    "adapter",
    [
        TaskLoRA(2),
        pytest.param(MHR(3, 2, 2), marks=pytest.mark.slow),
        pytest.param(Bottleneck(2), marks=pytest.mark.slow),
    ],
    ids=lambda adapter: adapter.name,
)
def test_a_chosen_task_and_rows_of_tasks_are_exported_whole(adapter: Adapter) -> None:
    adapters, x, tasks = adapted(adapter), torch.randn(5, 6), torch.tensor([0, 2, 1, 1, 0])
    rows = {0: torch.export.Dim("rows", min=4, max=64)}
    adapters.select("b")
    one = torch.export.export(adapters.module, (x,), dynamic_shapes=(rows,)).module()
    expected = adapters.module(torch.ones(9, 6))
    adapters.select(None)
    torch.testing.assert_close(one(torch.ones(9, 6)), expected, rtol=0, atol=1e-6)
    mixed = torch.export.export(Mixed(adapters), (x, tasks), dynamic_shapes=(rows, rows)).module()
    other = torch.tensor([2, 1, 0, 0, 1, 2, 2])
    torch.testing.assert_close(mixed(torch.ones(7, 6), other), Mixed(adapters)(torch.ones(7, 6), other))


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [TaskLoRA(2), MHR(3, 2, 2)], ids=lambda adapter: adapter.name)
def test_a_compiled_module_follows_the_task_without_a_break(adapter: Adapter) -> None:
    torch._dynamo.reset()
    adapters, x = adapted(adapter), torch.randn(5, 6)
    compiled = torch.compile(adapters.module, fullgraph=True, backend="aot_eager")
    for task in TASKS:
        with adapters.using(task):
            found = compiled(x)
            torch.testing.assert_close(found, adapters.module(x))
            gradients = torch.autograd.grad(found.sum(), adapters.parameters(), allow_unused=True)
            expected = torch.autograd.grad(adapters.module(x).sum(), adapters.parameters(), allow_unused=True)
        for one, two in zip(gradients, expected, strict=True):
            torch.testing.assert_close(one, two)
    for tasks in (torch.tensor([0, 2, 1, 1, 0]), torch.tensor([1, 1, 1, 0, 2])):
        with adapters.using(tasks):
            torch.testing.assert_close(compiled(x), adapters.module(x))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
def test_a_model_of_hugging_face(adapter: Adapter) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_labels=3,
        initializer_range=0.3,
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    ids, mask = torch.arange(24).reshape(4, 6), torch.ones(4, 6, dtype=torch.long)
    mask[1, 4:] = 0
    before = model(input_ids=ids, attention_mask=mask).logits
    adapters = attach(model, adapter, layers="*.query|*.value", tasks=TASKS)
    assert len(adapters.parts) == 4
    model.classifier.requires_grad_(True)
    with adapters.using("b"):
        torch.testing.assert_close(model(input_ids=ids, attention_mask=mask).logits, before, rtol=0, atol=0)
    for parameter in adapters.parameters():
        parameter.data.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    tasks = torch.tensor([0, 2, 1, 2])
    with adapters.using(tasks):
        mixed = model(input_ids=ids, attention_mask=mask, labels=torch.tensor([0, 1, 2, 0]))
        mixed.loss.backward()
    assert model.classifier.weight.grad.any()
    assert model.bert.embeddings.word_embeddings.weight.grad is None
    for row, task in enumerate(tasks):
        with adapters.using(TASKS[task]):
            alone = model(input_ids=ids[row : row + 1], attention_mask=mask[row : row + 1]).logits
        torch.testing.assert_close(mixed.logits[row : row + 1], alone, rtol=0, atol=1e-5)
    if not isinstance(adapter, Bottleneck):
        exact = copy.deepcopy(adapters)  # in float64, so that only the folding differs
        exact.module.double()
        plain = exact.merged("b")
        with exact.using("b"):
            expected = exact.module(input_ids=ids, attention_mask=mask).logits
        assert (expected - before).abs().max() > 0.02
        torch.testing.assert_close(plain(input_ids=ids, attention_mask=mask).logits, expected, rtol=0, atol=1e-6)
    adapters.detach()
    assert torch.equal(model(input_ids=ids, attention_mask=mask).logits, before)


@pytest.mark.slow
def test_a_graph_serves_every_task_and_every_mixture() -> None:
    """One graph for passes of one task, one for mixed rows; one for each task would hit a limit at eight."""
    torch._dynamo.reset()
    names = [f"t{number}" for number in range(12)]
    net, counter = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).eval(), CompileCounter()
    adapters = attach(net, TaskLoRA(2), tasks=names)
    compiled = torch.compile(net, fullgraph=True, backend=counter)
    for name in names:
        with adapters.using(name):
            compiled(torch.ones(20, 6))
    assert counter.frame_count == 1
    for shift in range(3):
        with adapters.using((torch.arange(20) + shift) % 12):
            compiled(torch.ones(20, 6))
    assert counter.frame_count == 2
