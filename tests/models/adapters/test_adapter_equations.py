"""Each adapter against its equations, written out row by row and skill by skill with the same weights."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

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
    mhr_mu,
    mhr_z,
    scalearn,
)

TASKS = ["a", "b", "c", "d"]
IN, OUT, ROWS = 6, 8, 7
ROW_TASKS = torch.tensor([0, 3, 1, 1, 2, 0, 3])
Loop = Callable[[Adapters, Tensor, int], Tensor]


def filled(adapters: Adapters, seed: int = 0) -> Adapters:
    """Random numbers in every parameter of the adapters, so that nothing is zero by chance."""
    generator = torch.Generator().manual_seed(seed)
    for part in adapters.parts.values():
        for parameter in part.parameters():
            parameter.data.normal_(std=0.5, generator=generator)
    return adapters


def on_a_layer(adapter: Adapter) -> Adapters:
    torch.manual_seed(0)
    return filled(attach(nn.Linear(IN, OUT).double(), adapter, tasks=TASKS))


def rows() -> Tensor:
    return torch.randn(ROWS, IN, generator=torch.Generator().manual_seed(1)).double()


def base(adapters: Adapters, x: Tensor) -> Tensor:
    return adapters.module.weight @ x + adapters.module.bias


def low_rank(part: nn.Module, x: Tensor, scale: float, number: int) -> Tensor:
    """s B A x, rank by rank."""
    down, up = part.down[number], part.up[number]
    return scale * sum(up[rank] * (down[:, rank] @ x) for rank in range(down.shape[1]))


def lora(adapters: Adapters, x: Tensor, task: int) -> Tensor:
    return base(adapters, x) + low_rank(adapters.parts[""], x, 16 / 3, 0)


def task_lora(adapters: Adapters, x: Tensor, task: int) -> Tensor:
    return base(adapters, x) + low_rank(adapters.parts[""], x, 16 / 3, task)


def mtlora(adapters: Adapters, x: Tensor, task: int) -> Tensor:
    return base(adapters, x) + low_rank(adapters.parts[""].own, x, 3.0, task)


def mtlora_v2(adapters: Adapters, x: Tensor, task: int) -> Tensor:
    return mtlora(adapters, x, task) + low_rank(adapters.parts[""].shared, x, 2.0, 0)


def skills(adapters: Adapters, x: Tensor, task: int) -> Tensor:
    """As PEFT's layer: mix the skills of each head, set the blocks beside each other, multiply, divide by the rank."""
    part = adapters.parts[""]
    heads, number, _, rank = part.down.shape
    open_ = torch.sigmoid(part.table[task])
    blocks_a, blocks_b = [], []
    for head in range(heads):
        share = open_[head] / (sum(open_[head, s] for s in range(number)) + 1e-12)
        blocks_a.append(sum(share[s] * part.down[head, s] for s in range(number)))
        blocks_b.append(sum(share[s] * part.up[head, s] for s in range(number)))
    return base(adapters, x) + x @ torch.cat(blocks_a, dim=0) @ torch.cat(blocks_b, dim=1) / rank


def bottleneck(adapters: Adapters, x: Tensor, task: int) -> Tensor:
    part = adapters.parts[""]
    u = base(adapters, x)
    middle = torch.relu(part.down[task].T @ u + part.inner[task, 0])
    return u + part.up[task].T @ middle + part.outer[task, 0]


CASES: dict[str, tuple[Adapter, Loop]] = {
    "lora": (LoRA(rank=3, alpha=16.0), lora),
    "task_lora": (TaskLoRA(rank=3, alpha=16.0), task_lora),
    "mtlora": (MTLoRA(rank=3, task_rank=2, task_scale=3.0), mtlora),
    "mtlora_v2": (MTLoRA(rank=3, task_rank=2, task_scale=3.0, mode="matrixv2"), mtlora_v2),
    "polytropon": (Polytropon(num_skills=5, rank=3), skills),
    "mhr": (MHR(num_skills=3, rank=2, num_heads=2), skills),
    "bottleneck": (Bottleneck(reduction=4), bottleneck),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_of_each_way_to_choose_tasks(name: str) -> None:
    adapter, loop = CASES[name]
    adapters, x = on_a_layer(adapter), rows()
    adapters.module.eval()
    weights = torch.randn(ROWS, OUT, generator=torch.Generator().manual_seed(2)).double()
    expected = torch.stack([loop(adapters, row, int(task)) for row, task in zip(x, ROW_TASKS, strict=True)])
    gradients = torch.autograd.grad((expected * weights).sum(), adapters.parameters(), allow_unused=True)
    with adapters.using(ROW_TASKS):
        mixed = adapters.module(x)
    found = torch.autograd.grad((mixed * weights).sum(), adapters.parameters(), allow_unused=True)
    torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-6)
    for one, two in zip(found, gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-6)
    for number, task in enumerate(TASKS):
        with adapters.using(task):
            alone = adapters.module(x)
        torch.testing.assert_close(alone, torch.stack([loop(adapters, row, number) for row in x]), rtol=0, atol=1e-6)
    with adapters.using(["d", "b"]):  # fewer rows than tasks: factors are taken for each row
        few = adapters.module(x[:2])
    torch.testing.assert_close(few[0], loop(adapters, x[0], 3), rtol=0, atol=1e-6)
    torch.testing.assert_close(few[1], loop(adapters, x[1], 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_tokens_of_a_row_are_of_its_task(name: str) -> None:
    adapters = on_a_layer(CASES[name][0])
    adapters.module.eval()
    tokens = torch.randn(ROWS, 2, 5, IN, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    for count in (ROWS, 2):
        with adapters.using(ROW_TASKS[:count]):
            mixed = adapters.module(tokens[:count])
        for row in range(count):
            with adapters.using(TASKS[int(ROW_TASKS[row])]):
                alone = adapters.module(tokens[row : row + 1])
            torch.testing.assert_close(mixed[row : row + 1], alone, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_the_first_output_is_the_bases_and_its_gradient_does_not_reach_the_base(name: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(IN, 8), nn.GELU(), nn.Linear(8, OUT))
    x = rows().float()
    before = net(x)
    adapters = attach(net, CASES[name][0], tasks=TASKS)
    with adapters.using(ROW_TASKS):
        outputs = net(x)
        outputs.square().sum().backward()
    assert torch.equal(outputs, before)
    assert all(parameter.grad is None for parameter in (net[0].weight, net[0].bias, net[2].weight, net[2].bias))
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in adapters.parameters())


def test_a_pass_without_a_task_takes_the_shared_update_of_mtlora_alone() -> None:
    for mode in ("matrix", "matrixv2"):
        adapters, x = on_a_layer(MTLoRA(rank=3, task_rank=2, mode=mode)), rows()
        adapters.module.eval()
        expected = torch.stack([base(adapters, row) + low_rank(adapters.parts[""].shared, row, 2.0, 0) for row in x])
        torch.testing.assert_close(adapters.module(x), expected, rtol=0, atol=1e-6)


def test_layers_of_mtlora_without_updates_of_tasks_are_common() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(IN, IN), nn.Linear(IN, OUT))
    adapters = filled(attach(net, MTLoRA(rank=2, task_rank=1, task_layers="1"), tasks=TASKS))
    net.eval()
    first, second = [], []
    net[0].register_forward_hook(lambda _, __, outputs: first.append(outputs))
    net[1].register_forward_hook(lambda _, __, outputs: second.append(outputs))
    for task in TASKS:
        with adapters.using(task):
            net(rows().float())
    assert all(torch.equal(first[0], other) for other in first[1:])
    assert not torch.allclose(second[0], second[1])
    assert adapters.num_parameters() == 2 * (IN + IN) + 2 * (IN + OUT) + len(TASKS) * 1 * (IN + OUT)


def test_training_draws_relaxed_bernoulli_shares_and_evaluation_their_sigmoid() -> None:
    """A logistic draw moves the score: its sigmoid is a relaxed Bernoulli at temperature one, with mean near σ(Z)."""
    adapters = on_a_layer(Polytropon(num_skills=2, rank=2))
    part = adapters.parts[""]
    with torch.no_grad():
        part.table.copy_(torch.tensor([[0.0, 0.0]]).double().expand(4, 1, 2))
    torch.manual_seed(3)
    drawn = torch.stack([part.shares()[0, 0, 0].detach() for _ in range(4000)])
    # Of two independent uniform numbers a and b, a / (a + b) lies below 1/4 with probability 1/6.
    assert abs(float((drawn < 0.25).double().mean()) - 1 / 6) < 0.03
    adapters.module.eval()
    torch.testing.assert_close(part.shares(), torch.full((4, 1, 2), 0.5).double())
    quiet = on_a_layer(Polytropon(num_skills=2, rank=2, noise=False))
    assert torch.equal(quiet.parts[""].shares(), quiet.parts[""].shares())


def test_mhr_z_trains_a_new_table_over_the_old_skills() -> None:
    trained = on_a_layer(MHR(num_skills=3, rank=2, num_heads=2))
    old = {name: value.clone() for name, value in trained.state_dict().items()}
    new = mhr_z(trained, tasks=["e"])
    assert new.num_parameters() == 1 * 2 * 3
    state = new.state_dict()
    assert torch.equal(state["down"], old["down"])
    assert torch.equal(state["up"], old["up"])
    with torch.no_grad():
        new.parts[""].table.normal_(generator=torch.Generator().manual_seed(0))
    new.module.eval()
    with new.using("e"):
        found = new.module(rows())
    torch.testing.assert_close(found, torch.stack([skills(new, row, 0) for row in rows()]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("adapter", [MHR(num_skills=3, rank=2, num_heads=2), Polytropon(num_skills=3, rank=2)])
def test_mhr_mu_starts_from_the_mean_of_the_skills(adapter: Adapter) -> None:
    trained, x = on_a_layer(adapter), rows()
    with torch.no_grad():
        trained.parts[""].table.zero_()  # even shares
    trained.module.eval()
    with trained.using("a"):
        expected = trained.module(x)
    new = mhr_mu(trained, tasks=["e", "f"])
    for task in ("e", "f"):
        with new.using(task):
            torch.testing.assert_close(new.module(x), expected, rtol=0, atol=1e-6)
    assert new.num_parameters() == 2 * 2 * (IN + OUT)


@pytest.mark.parametrize("uniform", [False, True])
@pytest.mark.parametrize("inner", [Bottleneck(reduction=4), TaskLoRA(rank=3, alpha=6.0)])
def test_scalearn_adds_the_sources_scaled(inner: Adapter, uniform: bool) -> None:
    sources, x = on_a_layer(inner), rows()
    loop = (
        bottleneck
        if isinstance(inner, Bottleneck)
        else lambda a, row, task: base(a, row) + low_rank(a.parts[""], row, 2.0, task)
    )
    updates = torch.stack([torch.stack([loop(sources, row, s) - base(sources, row) for row in x]) for s in range(4)])
    new = scalearn(sources, tasks=["e", "f"], uniform=uniform)
    new.module.eval()
    with torch.no_grad():
        new.parts[""].omega.normal_(generator=torch.Generator().manual_seed(0))
    omega = new.parts[""].omega
    plain = torch.stack([base(sources, row) for row in x])
    expected = [plain + sum(omega[t, s] * updates[s] for s in range(4)) for t in range(2)]
    with new.using(torch.tensor([0, 1, 1, 0, 1, 0, 0])):
        mixed = new.module(x)
    for row, task in enumerate([0, 1, 1, 0, 1, 0, 0]):
        torch.testing.assert_close(mixed[row], expected[task][row], rtol=0, atol=1e-6)
    with new.using("f"):
        outputs = new.module(x)
    torch.testing.assert_close(outputs, expected[1], rtol=0, atol=1e-6)
    outputs.square().sum().backward()
    gradient = torch.autograd.grad(expected[1].square().sum(), omega)[0]
    torch.testing.assert_close(omega.grad, gradient, rtol=0, atol=1e-6)
    assert [parameter is omega for parameter in new.parameters()] == [True]
