"""Adapters on a module and off again: what they leave alone, count and fold in, and what is refused."""

import copy
import pickle
import re

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from motet import RequestError
from motet.models.adapters import (
    MHR,
    Adapter,
    Adapters,
    Bottleneck,
    LoRA,
    MTLoRA,
    Polytropon,
    TaskLoRA,
    attach,
    from_name,
    methods,
    mhr_mu,
    scalearn,
)

TASKS = ["a", "b", "c"]
LINEAR: list[Adapter] = [
    LoRA(3),
    TaskLoRA(3),
    MTLoRA(3, 2),
    MTLoRA(3, 2, mode="matrixv2"),
    Polytropon(rank=3),
    MHR(3, 2, 2),
]


class Net(nn.Module):
    """Two blocks and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ModuleDict({"query": nn.Linear(8, 12), "value": nn.Linear(12, 8)})
        self.second = nn.ModuleDict({"query": nn.Linear(8, 12), "value": nn.Linear(12, 8)})
        self.head = nn.Linear(8, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in (self.first, self.second):
            x = x + block["value"](torch.tanh(block["query"](x)))
        return self.head(x)


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def rows(count: int = 5) -> torch.Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(1))


def filled(adapters: Adapters) -> Adapters:
    generator = torch.Generator().manual_seed(2)
    for part in adapters.parts.values():
        for parameter in part.parameters():
            parameter.data.normal_(std=0.2, generator=generator)
    return adapters


def says(*words: str) -> str:
    return ".*".join(re.escape(word) for word in words)


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        ("*", ["first.query", "first.value", "second.query", "second.value", "head"]),
        ("*.query", ["first.query", "second.query"]),
        ("first.* | head", ["first.query", "first.value", "head"]),
        (lambda name, layer: layer.bias is None, ["head"]),
    ],
)
def test_the_layers_that_a_pattern_or_a_function_takes(layers, names: list[str]) -> None:
    assert list(attach(net(), LoRA(2), layers=layers).parts) == names


@pytest.mark.parametrize("adapter", LINEAR, ids=lambda adapter: f"{adapter.name}-{getattr(adapter, 'mode', '')}")
def test_merged_and_unmerged_agree_and_the_merged_one_is_plain(adapter: Adapter) -> None:
    module, x = net().eval(), rows()
    names = [name for name, _ in module.named_modules()]
    adapters = filled(attach(module, adapter, layers="*.query|*.value", tasks=TASKS))
    before = module.first["query"].weight.clone()
    for task in TASKS:
        plain = adapters.merged(task)
        with adapters.using(task):
            torch.testing.assert_close(plain(x), module(x), rtol=0, atol=1e-6)
        assert [name for name, _ in plain.named_modules()] == names
        assert not plain.first["query"]._forward_hooks
        assert all(parameter.requires_grad for parameter in plain.parameters())
    assert torch.equal(module.first["query"].weight, before)


def test_merging_unties_a_weight_that_is_another_layers_too() -> None:
    module = net()
    module.second["query"].weight = module.first["query"].weight
    adapters = filled(attach(module, LoRA(2), layers="first.query"))
    plain = adapters.merged()
    torch.testing.assert_close(plain(rows()), module(rows()), rtol=0, atol=1e-6)
    assert torch.equal(plain.second["query"].weight, module.second["query"].weight)


def test_the_module_keeps_class_layers_and_names_and_comes_back_as_it_was() -> None:
    module, x = net(), rows()
    module.head.requires_grad_(False)
    before, expected = copy.deepcopy(module.state_dict()), module(x)
    adapters = filled(attach(module, TaskLoRA(2), layers="*.query", tasks=TASKS))
    assert type(module) is Net
    assert type(module.first["query"]) is nn.Linear
    assert set(before) < set(module.state_dict())
    assert [name for name, weight in module.named_parameters() if weight.requires_grad] == [
        f"{layer}.query.adapter.{part}" for layer in ("first", "second") for part in ("down", "up")
    ]
    with adapters.using("b"):
        assert not torch.allclose(module(x), expected)
    assert adapters.detach() is module
    assert torch.equal(module(x), expected)
    assert list(module.state_dict()) == list(before)
    assert not module.head.weight.requires_grad
    assert module.first["query"].weight.requires_grad
    again = attach(module, LoRA(2))
    assert len(again.parts) == 5


def test_training_moves_the_adapters_alone_and_learns() -> None:
    module, x = net(), rows(32)
    base = copy.deepcopy(module.state_dict())
    adapters = attach(module, TaskLoRA(4, alpha=8.0), layers="*.query|*.value", tasks=TASKS)
    numbers = torch.arange(32) % 3
    targets = torch.stack([x[:, :4], -x[:, :4], x[:, 4:]])[numbers, torch.arange(32)]
    optimizer = torch.optim.Adam(adapters.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        with adapters.using(numbers):
            loss = (module(x) - targets).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in base.items())


def test_one_tasks_training_leaves_the_others_as_they_are() -> None:
    module, x = net(), rows()
    adapters = filled(attach(module, TaskLoRA(2), tasks=TASKS))
    with adapters.using("b"):
        module(x).square().sum().backward()
    for parameter in adapters.parameters():
        assert parameter.grad[1].any()
        assert not parameter.grad[[0, 2]].any()


def test_copies_and_pickles_read_their_own_adapters() -> None:
    module, x = net(), rows()
    adapters = filled(attach(module, TaskLoRA(2), tasks=TASKS))
    for twin in (copy.deepcopy(adapters), pickle.loads(pickle.dumps(adapters))):
        with adapters.using("a"), twin.using("b"):
            one, two = module(x), twin.module(x)
        with adapters.using("b"):
            assert torch.equal(module(x), two)
        assert not torch.allclose(one, two)
        with torch.no_grad():
            twin.parameters()[0].add_(1.0)
        with adapters.using("b"):
            assert torch.equal(module(x), two)
        assert torch.equal(twin.detach()(x), adapters.merged("b")(x)) is False


def test_using_ends_with_its_block_and_select_stays() -> None:
    module, x = net(), rows()
    adapters = filled(attach(module, TaskLoRA(2), tasks=TASKS))
    adapters.select("a")
    first = module(x)
    with adapters.using("b"):
        second = module(x)
    assert not torch.allclose(second, first)
    with pytest.raises(RequestError), adapters.using(["b", "c"]):
        module(x)  # five rows; the block ends with an error
    assert torch.equal(module(x), first)


@pytest.mark.parametrize(
    ("adapter", "count"),
    [
        (LoRA(3), 2 * 3 * (8 + 12)),
        (TaskLoRA(3), 2 * 3 * 3 * (8 + 12)),
        (MTLoRA(4, 2), 2 * (4 * (8 + 12) + 3 * 2 * (8 + 12))),
        (Polytropon(4, 3), 2 * (4 * 3 * (8 + 12) + 3 * 4)),
        (Polytropon(4, 3, one_table=True), 2 * 4 * 3 * (8 + 12) + 3 * 4),
        (MHR(4, 3, 2), 2 * (4 * 3 * (8 + 12) + 3 * 2 * 4)),
        (Bottleneck(4), 2 * 3 * (2 * 3 * 12 + 3 + 12)),
    ],
    ids=str,
)
def test_trainable_parameters_as_they_are_counted(adapter: Adapter, count: int) -> None:
    adapters = attach(net(), adapter, layers="*.query", tasks=TASKS)
    assert adapters.num_parameters() == count
    assert sum(p.numel() for p in adapters.module.parameters() if p.requires_grad) == count


@pytest.mark.parametrize(
    ("uniform", "one_for_all", "count"),
    [(False, False, 8 * 12 * 2), (True, False, 8 * 2), (False, True, 8 * 12), (True, True, 8)],
)
def test_scalearn_trains_as_many_numbers_as_its_paper_says(uniform: bool, one_for_all: bool, count: int) -> None:
    """Eight sources: the smallest form trains 8 numbers for a new task, as the abstract has it."""
    sources = attach(net(), Bottleneck(4), layers="*.query", tasks=[f"s{number}" for number in range(8)])
    new = scalearn(sources, tasks=["t"], uniform=uniform, one_for_all=one_for_all)
    assert new.num_parameters() == count
    assert new.adapter.dropout == (0.0 if uniform else 0.3)
    means = [part.omega.mean().item() for part in new.parts.values()]
    assert means == pytest.approx([2 / 8] * 2, abs=2e-3)


def test_half_precision_and_autocast() -> None:
    module = net().bfloat16()
    adapters = filled(attach(module, TaskLoRA(2), tasks=TASKS))
    assert {parameter.dtype for parameter in adapters.parameters()} == {torch.float32}
    for selected in ("a", torch.tensor([0, 1, 2, 0, 1])):
        with adapters.using(selected):
            outputs = module(rows().bfloat16())
        assert outputs.dtype == torch.bfloat16
        outputs.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in adapters.parameters())
    with adapters.using("a"):
        torch.testing.assert_close(
            adapters.merged("a")(rows().bfloat16()), module(rows().bfloat16()), rtol=0.05, atol=0.05
        )
    other = filled(attach(net(), MHR(3, 2, 2), tasks=TASKS))
    with other.using("a"), torch.autocast("cpu", dtype=torch.bfloat16):
        assert other.module(rows()).dtype == torch.bfloat16


def test_the_same_seed_gives_the_same_and_the_global_one_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    module = net()
    torch.random.set_rng_state(before)
    states = []
    for seed in (1, 1, 2):
        adapters = attach(module, Polytropon(rank=2), tasks=TASKS, seed=seed)
        states.append(adapters.state_dict())
        adapters.detach()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["head.down"], states[2]["head.down"])


def test_dropout_of_what_the_update_reads_acts_in_training_alone() -> None:
    module, x = net(), rows()
    adapters = filled(attach(module, LoRA(2, dropout=0.5), layers="head"))
    torch.manual_seed(0)
    assert not torch.equal(module(x), module(x))
    module.eval()
    assert torch.equal(module(x), module(x))
    assert adapters.adapter.dropout == 0.5


def test_the_room_lists_its_adapters_and_builds_them_by_name() -> None:
    assert set(methods()) == {"lora", "task_lora", "mtlora", "polytropon", "mhr", "bottleneck", "scalearn"}
    assert from_name("mhr", {"num_heads": 2}) == MHR(num_heads=2)
    with pytest.raises(RequestError, match=says("no adapter 'mrh'", "Did you mean 'mhr'")):
        from_name("mrh")
    with pytest.raises(RequestError, match=says("no setting 'ranks'", "'rank'")):
        from_name("lora", {"ranks": 3})
    with pytest.raises(RequestError, match=says("needs the setting 'inner'", "Give it")):
        from_name("scalearn")


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2)


@pytest.mark.parametrize(
    ("module", "adapter", "chosen", "words"),
    [
        (net, LoRA(2), {"layers": "*.qery"}, ("No linear layer of Net matches '*.qery'", "Did you mean '*query'")),
        (net, LoRA(2), {"layers": lambda name, layer: False}, ("the given function", "*head")),
        (lambda: nn.Sequential(nn.Conv2d(1, 1, 1)), LoRA(2), {}, ("no torch.nn.Linear", "replace")),
        (Attention, LoRA(2), {}, ("attention.out_proj", "without calling it", "leave it out")),
        (net, TaskLoRA(2), {}, ("no task was named", "Give tasks=")),
        (net, TaskLoRA(2), {"tasks": ["a", "b", "a"]}, ("'a' was given twice", "Rename")),
        (net, LoRA(0), {}, ("Rank 0", "first.query", "1 to 8", "leave the layer out")),
        (net, TaskLoRA(9), {"tasks": ["a"]}, ("Rank 9", "8 inputs and 12 outputs", "1 to 8")),
        (net, MTLoRA(2, 5), {"tasks": ["a"]}, ("Rank 5", "head", "1 to 4")),
        (net, Polytropon(0, 2), {"tasks": ["a"]}, ("0 skills", "Ask for four")),
        (net, MHR(2, 2, 3), {"tasks": ["a"]}, ("8 inputs and 12 outputs", "3 heads", "divides both")),
        (net, MTLoRA(2, mode="matrix2"), {"tasks": ["a"]}, ("mode 'matrix2'", "Did you mean 'matrix")),
        (net, MTLoRA(2, 2, task_layers="x"), {"tasks": ["a"]}, ("task_layers='x'", "use LoRA")),
        (net, Bottleneck(13), {"tasks": ["a"]}, ("reduction of 13", "1 to 12")),
        (net, LoRA(2, dropout=1.0), {}, ("Dropout 1.0", "below 1")),
        (net, LoRA(2, alpha=0.0), {}, ("scaled by 0", "above zero")),
    ],
)
def test_what_cannot_be_attached_is_refused_and_the_module_left_alone(module, adapter, chosen, words) -> None:
    made = module()
    before = [name for name, _ in made.named_modules()]
    with pytest.raises(RequestError, match=says(*words)):
        attach(made, adapter, **chosen)
    assert [name for name, _ in made.named_modules()] == before
    assert all(parameter.requires_grad for parameter in made.parameters())


def test_adapting_twice_is_refused() -> None:
    module = net()
    attach(module, LoRA(2), layers="head")
    with pytest.raises(RequestError, match=says("adapters already, at 'head'", "detach()")):
        attach(module, LoRA(2), layers="first.query")


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ("bb", ("no task 'bb'", "Did you mean 'b'")),
        (["a", "task"], ("no task 'task'", "There are: a, b, c")),
        (torch.tensor([0, 3]), ("from 0 to 3", "there are 3")),
        (torch.tensor([-1, 0]), ("from -1 to 0",)),
        (torch.tensor([0.0]), ("float32", "whole numbers")),
        (torch.tensor([[0]]), ("(1, 1)", "(B,)")),
    ],
)
def test_tasks_that_there_are_not(chosen, words) -> None:
    adapters = attach(net(), TaskLoRA(2), tasks=TASKS)
    with pytest.raises(RequestError, match=says(*words)), adapters.using(chosen):
        pass
    if isinstance(chosen, str):
        with pytest.raises(RequestError, match=says(*words)):
            adapters.merged(chosen)


def test_passes_that_lack_a_task_or_have_rows_elsewhere() -> None:
    module = net()
    adapters = attach(module, TaskLoRA(2), tasks=TASKS)
    with pytest.raises(RequestError, match=says("no task was chosen", "a, b, c", "adapters.using")):
        module(rows())
    with pytest.raises(RequestError, match=says("no task was chosen")):
        adapters.merged()
    with adapters.using(["a", "b"]), pytest.raises(RequestError, match=says("(5, 8)", "2 rows", "first axis")):
        module(rows())
    adapters.detach()
    shared = attach(module, LoRA(2), tasks=TASKS)
    with shared.using(["a", "b"]):
        assert module(rows()).shape == (5, 4)  # what all tasks share does not ask whose rows they are


def test_what_is_no_matrix_is_not_merged_and_what_has_no_skills_not_averaged() -> None:
    adapters = attach(net(), Bottleneck(4), tasks=TASKS)
    with pytest.raises(RequestError, match=says("ReLU", "train TaskLoRA")):
        adapters.merged("a")
    with pytest.raises(RequestError, match=says("no skills", "Train one of those")):
        mhr_mu(adapters, tasks=["x"])
    adapters.detach()
    trained, x = filled(attach(net(), Bottleneck(4), tasks=TASKS)), rows()
    trained.select("b")
    before = trained.module(x)
    with pytest.raises(RequestError, match=says("different sizes", "uniform=True")):
        scalearn(trained, tasks=["x"], one_for_all=True)
    assert torch.equal(trained.module(x), before)  # still there, and still frozen
    assert not trained.module.head.weight.requires_grad
    with pytest.raises(RequestError, match=says("adapters already")):
        trained.reattach()
    with pytest.raises(RequestError, match=says("LoRA(rank=2", "TaskLoRA or Bottleneck")):
        scalearn(attach(net(), LoRA(2), tasks=TASKS), tasks=["x"])


def test_a_checkpointed_pass_runs_again_for_the_same_task_inside_the_block() -> None:
    module, x = net(), rows()
    adapters = filled(attach(module, TaskLoRA(2), tasks=TASKS))
    with adapters.using("b"):
        expected = torch.autograd.grad(module(x).square().sum(), adapters.parameters())
        again = checkpoint(module, x, use_reentrant=False)
        found = torch.autograd.grad(again.square().sum(), adapters.parameters())
        later = checkpoint(module, x, use_reentrant=False)
    assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))
    with pytest.raises(RequestError, match="no task was chosen"):
        later.sum().backward()


def test_a_layer_that_is_called_by_keyword() -> None:
    layer = nn.Linear(8, 4)
    filled(attach(layer, LoRA(2)))
    assert torch.equal(layer(input=rows()), layer(rows()))


class Products(TorchDispatchMode):
    """Counts matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.overloadpacket.__name__ in {"mm", "addmm", "bmm", "baddbmm"}
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "adapter",
    [TaskLoRA(2), MTLoRA(2, 1, mode="matrixv2"), MHR(3, 2, 2), Bottleneck(2)],
    ids=lambda adapter: adapter.name,
)
def test_there_are_as_many_products_for_twelve_tasks_as_for_two(adapter: Adapter) -> None:
    counts = set()
    for num_tasks in (2, 12):
        module = net()
        adapters = attach(
            module, adapter, layers="*.query|*.value", tasks=[f"t{number}" for number in range(num_tasks)]
        )
        with adapters.using(torch.arange(16) % num_tasks), Products() as products:
            module(rows(16))
        counts.add(products.count)
    assert len(counts) == 1
    assert counts.pop() >= 5 + 4 * 2


def test_few_rows_of_many_tasks_cost_by_rows() -> None:
    """Factors of 2 rows, not of 100 tasks: 2 · (8 + 4) · r multiplications each way, counted twice."""
    head = net().head
    adapters = attach(head, TaskLoRA(3), tasks=[f"t{number}" for number in range(100)])
    with adapters.using(["t7", "t99"]), FlopCounterMode(display=False) as flops:
        head(rows(2))
    assert flops.get_total_flops() == 2 * 2 * (8 * 4 + 3 * (8 + 4))
