"""MultiTab-Net: its equations written out token by token, who may read whom, and rows that stay apart."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from motet import RequestError
from motet.balance import EqualWeighting
from motet.models import MultiTaskModel, TokenEncoder, bin_edges
from motet.models.blocks import TokenBlock
from motet.models.sharing import MultiTabNet
from motet.tasks import Binary, Regression

TASKS, ROWS, COLUMNS, WIDTH = 3, 4, 5, 8
MASKS = ("none", "task-task", "feature-task", "both")
# Of each mask: may a task read another task, may a column read a task.
MAY = {"none": (True, True), "task-task": (False, True), "feature-task": (True, False), "both": (False, False)}


def net(mask: str = "task-task", tokens: str = "task", num_blocks: int = 2, num_tasks: int = TASKS) -> MultiTabNet:
    torch.manual_seed(0)
    return MultiTabNet(
        num_tasks, width=WIDTH, mask=mask, tokens=tokens, num_blocks=num_blocks, num_heads=2, hidden=6
    ).double()


def columns(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*(shape or (ROWS, COLUMNS, WIDTH)), generator=generator, dtype=torch.float64)


def normed(token: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
    centred = token - token.mean()
    return centred / (centred.square().mean() + norm.eps).sqrt() * norm.weight + norm.bias


def loop_block(block: TokenBlock, tokens: list[Tensor], kinds: list[int], mask: str) -> list[Tensor]:
    """One block for one row, token by token and head by head; `kinds` holds each token's task, -1 for a column."""
    part_of = block.attention
    size = WIDTH // part_of.num_heads
    query, key, value = part_of.ask.weight, *part_of.read.weight.split(WIDTH)
    bias = [part_of.ask.bias, *part_of.read.bias.split(WIDTH)]
    read = [normed(token, block.norm_read) for token in tokens]
    found = []
    for place, token in enumerate(tokens):
        seen = []
        for other, kind in enumerate(kinds):
            a_task_another = kinds[place] >= 0 and kind >= 0 and other != place
            a_column_a_task = kinds[place] < 0 and kind >= 0
            if (MAY[mask][0] or not a_task_another) and (MAY[mask][1] or not a_column_a_task):
                seen.append(other)
        heads = []
        for head in range(part_of.num_heads):
            part = slice(head * size, (head + 1) * size)
            asked = (query @ read[place] + bias[0])[part]
            scores = torch.stack([asked @ (key @ read[other] + bias[1])[part] / math.sqrt(size) for other in seen])
            values = torch.stack([(value @ read[other] + bias[2])[part] for other in seen])
            heads.append(scores.softmax(dim=0) @ values)
        token = token + part_of.join.weight @ torch.cat(heads) + part_of.join.bias
        middle = functional.gelu(block.expand.weight @ normed(token, block.norm_think) + block.expand.bias)
        found.append(token + block.contract.weight @ middle + block.contract.bias)
    return found


def loop(model: MultiTabNet, rows: Tensor, mask: str) -> Tensor:
    """Every token through every block, whether anybody reads it or not."""
    count = len(model.task_tokens)
    found = []
    for row in rows:
        tokens, kinds = [*model.task_tokens, *row], [*range(count), *[-1] * len(row)]
        for block in model.blocks:
            tokens = loop_block(block, tokens, kinds, mask)
        found.append(torch.stack([tokens[task if count > 1 else 0] for task in range(model.num_tasks)]))
    return torch.stack(found, dim=1)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("tokens", ["task", "shared"])
@pytest.mark.parametrize("num_blocks", [1, 3])
def test_values_and_gradients_are_those_of_the_equations(mask: str, tokens: str, num_blocks: int) -> None:
    model, rows = net(mask, tokens, num_blocks), columns(2, 3, WIDTH).requires_grad_()
    with torch.no_grad():
        for parameter in model.parameters():  # norms that begin at one and zero would hide behind each other
            parameter.add_(0.3 * columns(*parameter.shape, seed=1))
    expected = loop(model, rows, mask)
    wanted = [rows, *model.parameters()]
    for tasks in ([0, 1, 2], [2], [2, 0]):
        found = model(rows, tasks)
        torch.testing.assert_close(found, expected[tasks], rtol=1e-9, atol=1e-9)
        push = columns(*found.shape, seed=2)
        ours = torch.autograd.grad((found * push).sum(), wanted, retain_graph=True)
        theirs = torch.autograd.grad((expected[tasks] * push).sum(), wanted, retain_graph=True)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def test_a_state_with_one_projection_for_all_three_is_read() -> None:
    model, rows = net(), columns()
    old: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        block, found, part = name.partition(".attention.")
        if not found:
            old[name] = value
        elif part.startswith("join"):
            old[f"{block}.{part}"] = value
        else:
            kind = part.split(".")[1]
            key = f"{block}.project.{kind}"
            old[key] = torch.cat([old[key], value]) if key in old else value
    assert old["blocks.0.project.weight"].shape == (3 * WIDTH, WIDTH)
    other = net(num_blocks=2)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(old)
    assert torch.equal(other(rows), model(rows))


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("num_blocks", [1, 2])
def test_a_task_reads_another_only_where_the_mask_lets_it(mask: str, num_blocks: int) -> None:
    model, rows = net(mask, num_blocks=num_blocks), columns().requires_grad_()
    found = model(rows)
    tasks_read_tasks, features_read_tasks = MAY[mask]
    for one, other in itertools.product(range(TASKS), repeat=2):
        grads = torch.autograd.grad(
            found[one].square().sum(), [model.task_tokens, rows], retain_graph=True, allow_unused=True
        )
        reads = one == other or tasks_read_tasks or (features_read_tasks and num_blocks > 1)
        assert bool(grads[0][other].any()) == reads
        assert bool(grads[1].abs().sum(dim=(0, 2)).all()), "a task reads every column"


@pytest.mark.parametrize("mask", MASKS)
def test_a_column_reads_a_task_only_where_the_mask_lets_it(mask: str) -> None:
    model = net(mask)
    tokens = columns(ROWS, TASKS + COLUMNS, WIDTH).requires_grad_()
    order = list(range(TASKS))
    block, allowed = model.blocks[0], model._allowed(order, COLUMNS, order, COLUMNS, tokens.device)
    found = block(tokens, None, allowed)
    for column in range(TASKS, TASKS + COLUMNS):
        (grad,) = torch.autograd.grad(found[:, column].square().sum(), tokens, retain_graph=True)
        seen = grad.abs().sum(dim=(0, 2)) > 0
        assert seen[:TASKS].tolist() == [MAY[mask][1]] * TASKS
        assert bool(seen[TASKS:].all())


def encoder() -> TokenEncoder:
    torch.manual_seed(0)
    numbers = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    return TokenEncoder(bin_edges(numbers, num_bins=4), (3, 4), width=WIDTH)


def inputs(count: int = 6) -> dict[str, Tensor]:
    numbers = columns(count, 3).float()
    numbers[0, 1] = numbers[2, 0] = float("nan")
    return {"numbers": numbers, "categories": torch.arange(2 * count).reshape(count, 2) % 3}


def test_each_column_has_a_token_of_its_own() -> None:
    encode, rows = encoder(), inputs()
    assert encode(rows).shape == (6, 5, WIDTH)
    assert encode.num_tokens == 5
    for place in range(5):
        other = {name: values.clone() for name, values in rows.items()}
        name, column = ("numbers", place) if place < 3 else ("categories", place - 3)
        other[name][:, column] = (
            1 + other[name][:, column].nan_to_num() if place < 3 else (rows[name][:, column] + 1) % 3
        )
        changed = (encode(other) != encode(rows)).any(dim=2).any(dim=0)
        assert changed.tolist() == [number == place for number in range(5)]


def test_a_missing_number_is_no_number_and_leaves_gradients_whole() -> None:
    encode, rows = encoder(), inputs()
    zero = {**rows, "numbers": rows["numbers"].nan_to_num()}
    assert not torch.equal(encode(rows)[0, 1], encode(zero)[0, 1])
    encode(rows).square().sum().backward()
    assert all(bool(torch.isfinite(parameter.grad).all()) for parameter in encode.parameters())


def whole(mask: str = "task-task") -> MultiTaskModel:
    torch.manual_seed(0)
    tasks = [Regression("a", center=0.0, scale=1.0), Binary("b", classes=(False, True)), Binary("c", classes=(0, 1))]
    return MultiTaskModel(encoder(), MultiTabNet(3, width=WIDTH, mask=mask, num_heads=2, hidden=6), tasks)


def test_a_row_has_the_same_answer_alone_and_in_any_batch() -> None:
    model, rows = whole().eval(), inputs(8)
    together = model(rows)
    for chosen in ([3], [0, 3], [7, 3, 3, 1], [5, 4, 3, 2, 1, 0]):
        found = model({name: values[chosen] for name, values in rows.items()})
        for name, outputs in found.items():
            torch.testing.assert_close(outputs, together[name][chosen], rtol=1e-5, atol=1e-6)
    (grad,) = torch.autograd.grad(model.outputs(tokens := model.features(rows))["b"][3].sum(), tokens)
    assert grad.abs().sum(dim=(1, 2)).nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize("place", ["losses", "features"])
def test_balancing_meets_at_the_tokens(place: str) -> None:
    model, rows = whole(), inputs()
    targets = {"a": torch.randn(6), "b": torch.ones(6)}
    features = model.features(rows)
    losses = model.losses(model.outputs(features), targets, {name: torch.ones(6, dtype=torch.bool) for name in targets})
    expected = torch.autograd.grad(sum(losses.values()), list(model.parameters()), retain_graph=True, allow_unused=True)
    EqualWeighting().backward(losses, **({"features": features} if place == "features" else {}))
    for parameter, grad in zip(model.parameters(), expected, strict=True):
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(found, torch.zeros_like(parameter) if grad is None else grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("mask", "most"), [("both", 0.65), ("task-task", 0.85)])
def test_one_task_of_six_costs_what_it_reads(mask: str, most: float) -> None:
    model, rows, counts = net(mask, num_tasks=6), columns(16, 6, WIDTH), []
    for tasks in (None, [2]):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(rows, tasks)
        counts.append(counter.get_total_flops())
    assert counts[1] < most * counts[0]


def test_errors_say_what_to_do() -> None:
    with pytest.raises(RequestError, match=r"The mask 'tasks-task' was given; none, task-task.*'task-task'.*Take one"):
        MultiTabNet(2, width=8, mask="tasks-task")
    with pytest.raises(RequestError, match=r"kind of token 'tasks' was given; task, shared are known"):
        MultiTabNet(2, width=8, tokens="tasks")
    with pytest.raises(RequestError, match=r"0 blocks.*Ask for one or more"):
        MultiTabNet(2, width=8, num_blocks=0)
    with pytest.raises(RequestError, match=r"3 heads were asked for tokens of size 8.*Change num_heads"):
        MultiTabNet(2, width=8, num_heads=3)
    with pytest.raises(RequestError, match=r"no feature left.*--role NAME=category"):
        TokenEncoder(torch.zeros(0, 3), ())
    with pytest.raises(RequestError, match=r"shape \(4, 5, 8\) arrived; MultiTabNet was built for.*width=8"):
        MultiTabNet(2, width=4)(columns())
