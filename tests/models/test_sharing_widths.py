"""ECMT: widths that share their weights, what a step trains, and the choice by budget and preference."""

import copy
import re
import textwrap
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from motet import RequestError
from motet.models import HardSharing, MultiTaskModel, Widths, measure_widths
from motet.models.blocks import SlimLayer
from motet.models.sharing import ECMT
from motet.models.sharing._budget import WidthCosts, best_widths
from motet.tasks import Binary, Regression

TASKS, ROWS, WIDTH = 3, 9, 8
TRUNK, DECODER = (24, 16), 16


def net(**options: object) -> ECMT:
    torch.manual_seed(0)
    return ECMT(TASKS, width=WIDTH, **({"trunk": TRUNK, "decoder": DECODER, "size": 6} | options))


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*(shape or (ROWS, WIDTH)), generator=torch.Generator().manual_seed(seed))


def layer(part: SlimLayer, number: int, values: Tensor, size: int, width: int) -> Tensor:
    """One layer of a stack at a width, from copies of its first channels."""
    weight = part.linear.weight[number, : values.shape[1], :size].clone()
    values = values @ weight + part.linear.bias[number, 0, :size]
    norm = part.norms[width]
    return torch.relu(functional.layer_norm(values, (size,), norm.scale[number, 0], norm.shift[number, 0]))


def loop(module: ECMT, values: Tensor, widths: list[int]) -> tuple[list[Tensor], list[Tensor]]:
    """The trunk's levels and each task's features, layer by layer and task by task."""
    fractions, levels = module.fractions, []
    for part, full in zip(module.trunk, TRUNK, strict=True):
        values = layer(part, 0, values, round(full * fractions[widths[0]]), widths[0])
        levels.append(values)
    found = []
    for task in range(TASKS):
        size = round(DECODER * fractions[widths[1 + task]])
        middle = layer(module.decode, task, values, size, widths[1 + task])
        found.append(middle @ module.give.weight[task, :size] + module.give.bias[task, 0])
    return levels, found


@pytest.mark.parametrize("widths", [None, [0, 0, 0, 0], [1, 3, 0, 2], [2, 1, 1, 3]])
def test_every_width_is_a_network_of_the_first_channels(widths: list[int] | None) -> None:
    module = net().double().eval()
    for part in module.modules():
        if hasattr(part, "scale"):
            torch.nn.init.normal_(part.scale)
            torch.nn.init.normal_(part.shift)
    module.active = widths
    inputs = rows().double()
    _, expected = loop(module, inputs, widths or [3, 3, 3, 3])
    torch.testing.assert_close(module(inputs), torch.stack(expected), rtol=1e-10, atol=1e-10)
    for tasks in ([2], [1, 0]):
        torch.testing.assert_close(module(inputs, tasks), torch.stack([expected[t] for t in tasks]))


def test_a_step_trains_every_width_and_a_drawn_mixture() -> None:
    module = net(seed=3, num_drawn=1).double()
    inputs = rows().double()
    torch.testing.assert_close(module(inputs), torch.stack(loop(module, inputs, [3] * 4)[1]))
    *narrower, (asked, drawn) = module.rehearsed
    assert asked == [0, 1, 2]
    assert len(narrower) == 3
    for number, (_, found) in enumerate(narrower):
        torch.testing.assert_close(found, torch.stack(loop(module, inputs, [number] * 4)[1]))
    matches = [
        widths for widths in product(range(4), repeat=4)
        if torch.allclose(drawn, torch.stack(loop(module, inputs, list(widths))[1]), atol=1e-9)
    ]  # fmt: skip
    assert len(matches) == 1
    draws = {tuple(module._draw()) for _ in range(40)}
    assert len(draws) > 25  # of 256
    assert {width for draw in draws for width in draw} == {0, 1, 2, 3}


def test_the_draws_follow_the_seed_and_the_saved_step_not_the_global_seed() -> None:
    first, second = net(seed=5), net(seed=5)
    torch.manual_seed(99)
    drawn = [first._draw() for _ in range(4)]
    torch.manual_seed(1)
    assert [second._draw() for _ in range(2)] == drawn[:2]
    resumed = net(seed=5)
    resumed.load_state_dict(second.state_dict())
    assert [resumed._draw() for _ in range(2)] == drawn[2:]
    assert [net(seed=6)._draw() for _ in range(4)] != drawn


def test_distillation_is_the_mean_square_to_the_full_trunk_and_leaves_that_alone() -> None:
    module = net(fractions=(0.5, 1.0), distillation=0.7).double()
    inputs = rows().double()
    module._draw = lambda: [1, 0, 0, 0]  # the full trunk has nothing to learn from itself
    module(inputs)
    full, narrow = (loop(module, inputs, [number] * 4)[0] for number in (1, 0))
    told = [
        functional.mse_loss(small @ tell.weight[0, : small.shape[1]] + tell.bias[0, 0], large)
        for tell, small, large in zip(module.tell, narrow, full, strict=True)
    ]
    torch.testing.assert_close(module.auxiliary["distillation"], 0.7 * (told[0] + told[1]) / 2)
    weight = module.trunk[0].linear.weight
    grad = torch.autograd.grad(module.auxiliary["distillation"], weight)[0][0]
    assert (grad[:, :12] != 0).any()
    assert (grad[:, 12:] == 0).all()  # only the full width has these channels, and it teaches
    module.eval()(inputs)
    assert module.auxiliary == {}
    assert module.rehearsed == []


def model(**options: object) -> MultiTaskModel:
    tasks = [Regression("a", center=0.0, scale=1.0), Binary("b", classes=(False, True)), Binary("c", classes=(0, 1))]
    sharing = net(**options)
    return MultiTaskModel(torch.nn.Linear(4, WIDTH), sharing, tasks, head_width=4)


Batch = tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]


def batch(count: int = 64, seed: int = 0) -> Batch:
    inputs = rows(count, 4, seed=seed)
    score = inputs[:, 0] + inputs[:, 1] * inputs[:, 2]
    targets = {"a": score, "b": (score > 0).float(), "c": (inputs[:, 3] > 0).float()}
    return inputs, targets, {name: rows(count, seed=seed + 1) > -1.0 for name in targets}


def test_losses_are_means_over_the_widths_of_a_step() -> None:
    whole, (inputs, targets, present) = model(num_drawn=3), batch()
    outputs = whole(inputs)
    runs = [outputs]
    for _, found in whole.sharing.rehearsed:
        runs.append(dict(zip("abc", whole.heads(found), strict=True)))
    losses = whole.losses(outputs, targets, present)
    for name, loss in losses.items():
        parts = [whole.tasks[name].masked_loss(run[name], targets[name], present[name]) for run in runs]
        assert len(parts) == 1 + 3 + 3
        torch.testing.assert_close(loss, sum(parts) / 7 + whole.sharing.auxiliary["distillation"] / 3)
    part = whole(inputs, tasks=["c"])
    assert list(whole.losses(part, targets, present)) == ["c"]
    copied = copy.deepcopy(whole)
    assert copied.sharing.rehearsed == []


def test_tokens_pass_at_every_width() -> None:
    module, tokens = net(), rows(4, 5, WIDTH)
    found = module(tokens)
    assert found.shape == (TASKS, 4, 6)
    _, smallest = module.rehearsed[0]
    expected = torch.stack(loop(module, tokens.flatten(0, 1), [0] * 4)[1]).unflatten(1, (4, 5)).mean(dim=2)
    torch.testing.assert_close(smallest, expected)


def trained(steps: int = 60, **options: object) -> MultiTaskModel:
    whole = model(**options)
    optimizer = torch.optim.Adam(whole.parameters(), lr=0.02)
    for step in range(steps):
        inputs, targets, present = batch(seed=2 * step)
        optimizer.zero_grad()
        sum(whole.losses(whole(inputs), targets, present).values()).backward()
        optimizer.step()
    return whole


@pytest.fixture(scope="module")
def measured() -> MultiTaskModel:
    whole = trained()
    measure_widths(whole, [batch(500, seed=1000), batch(300, seed=2000)])
    return whole


def loss_of(whole: MultiTaskModel, name: str) -> float:
    inputs, targets, present = batch(800, seed=3000)
    with torch.no_grad():
        return float(whole.eval().losses(whole(inputs), targets, present)[name])


def test_the_table_holds_what_each_width_loses(measured: MultiTaskModel) -> None:
    batches = [batch(500, seed=1000), batch(300, seed=2000)]

    def mean_loss(widths: list[int], name: str) -> float:
        measured.sharing.active = widths
        parts = []
        for inputs, targets, present in batches:
            with torch.no_grad():
                outputs = measured.eval()(inputs)
            parts.append(measured.tasks[name].loss(outputs[name], targets[name])[present[name]])
        return float(torch.cat(parts).mean())

    for number, name in enumerate("abc"):
        harm = mean_loss([0, 2, 2, 2], name) / mean_loss([3, 3, 3, 3], name) - 1.0
        assert float(measured.sharing.harm[0, 2, number]) == pytest.approx(harm, abs=1e-4)
    measured.configure()


@pytest.fixture
def wider_is_better(measured: MultiTaskModel) -> MultiTaskModel:
    """The same model with a table in which each step of width helps, unlike that of a small net on few rows."""
    whole, short = copy.deepcopy(measured), torch.arange(3.0, -1.0, -1.0)
    whole.sharing.harm.copy_((short[:, None, None] + 2.0 * short[None, :, None]).expand(4, 4, 3))
    return whole


def test_one_training_serves_many_budgets_and_each_is_kept(wider_is_better: MultiTaskModel) -> None:
    measured, inputs = wider_is_better, rows(64, 4)
    costs = {}
    for budget in (0.15, 0.22, 0.3, 0.37, 0.45, 0.52):
        chosen = measured.configure(budget=budget)
        assert chosen.cost <= budget
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            measured.sharing.eval()(measured.features(inputs))
        costs[budget] = counter.get_total_flops() - 2 * 64 * 4 * WIDTH  # less the encoder's
    measured.configure()
    with FlopCounterMode(display=False) as counter:
        measured.sharing(measured.features(inputs))
    full = counter.get_total_flops() - 2 * 64 * 4 * WIDTH
    for budget, cost in costs.items():
        assert cost <= budget * full
    assert len(set(costs.values())) >= 5


def test_preference_moves_the_trade_off_and_only_one_way(wider_is_better: MultiTaskModel) -> None:
    measured, found = wider_is_better, []
    for count in (0.0, 0.5, 1.0, 2.0, 8.0, 100.0):
        chosen = measured.configure(budget=0.35, preference={"a": count})
        widths = measured.sharing.active
        found.append(float(measured.sharing.harm[widths[0], widths[1], 0]))
        assert chosen == Widths.of(measured.sharing, widths, list("abc"))
    measured.configure()
    assert found == sorted(found, reverse=True)
    assert found[-1] < found[0]


def test_narrow_widths_are_worth_something(measured: MultiTaskModel) -> None:
    """The loss of a width that no step trained would be that of noise; here even a small one beats the constant."""
    measured.configure(budget=0.15)
    assert loss_of(measured, "c") < 0.35  # ln 2 = 0.69 without features
    measured.configure()


@pytest.mark.parametrize("seed", range(6))
def test_the_choice_is_the_best_of_all(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    harm = torch.randn(3, 3, 3, generator=draw).tolist()
    costs = WidthCosts([2, 5, 9], [[1, 2, 4], [2, 4, 7], [3, 6, 10]], 3)
    preference = torch.rand(3, generator=draw).tolist()
    for budget in (5, 12, 20, 30, 39):
        fitting = [list(widths) for widths in product(range(3), repeat=4) if costs.of(widths) <= budget]
        worth = {
            tuple(widths): sum(preference[t] * harm[widths[0]][own][t] for t, own in enumerate(widths[1:]))
            for widths in fitting
        }
        chosen = best_widths(costs, harm, preference, budget)
        assert worth[tuple(chosen)] == pytest.approx(min(worth.values()))
    assert costs.range == (5, 39)


def test_a_task_that_does_not_count_gets_the_smallest_decoder(measured: MultiTaskModel) -> None:
    assert measured.configure(budget=0.6, preference={"c": 0.0}).tasks["c"] == 0.25
    assert measured.configure() == Widths(1.0, dict.fromkeys("abc", 1.0), 1.0)


def test_a_configured_model_trains_that_width_alone(measured: MultiTaskModel) -> None:
    whole = copy.deepcopy(measured).train()
    whole.configure(budget=0.3)
    inputs, targets, present = batch()
    sum(whole.losses(whole(inputs), targets, present).values()).backward()
    assert whole.sharing.rehearsed == []
    size = whole.sharing.trunk[0].sizes[whole.sharing.active[0]]
    grad = whole.sharing.trunk[0].linear.weight.grad[0]
    assert size < 24
    assert (grad[:, :size] != 0).any()
    assert (grad[:, size:] == 0).all()


def test_the_measure_is_part_of_the_state_and_leaves_the_model_as_it_was(measured: MultiTaskModel) -> None:
    again = model()
    again.load_state_dict(measured.state_dict())
    assert again.configure(budget=0.4) == measured.configure(budget=0.4)
    again.train()
    measure_widths(again, [batch()])
    assert again.training
    assert again.sharing.active == measured.sharing.active
    measured.configure()


def test_the_example_of_the_docs_runs_as_written() -> None:
    page = (Path(__file__).parents[2] / "docs" / "sharing.md").read_text(encoding="utf-8")
    block = re.search(r"(?:^(?: {4}.*)?\n)*^ {4}.*measure_widths\(.*\n(?:^(?: {4}.*)?\n)*", page, flags=re.MULTILINE)
    inputs = rows(40, 4)
    targets = {"price": inputs[:, 0], "sold": (inputs[:, 1] > 0).float()}
    present = {name: torch.ones(40, dtype=torch.bool) for name in targets}
    names = {
        "encoder": torch.nn.Linear(4, 64), "validation": [(inputs, targets, present)],
        "tasks": [Regression("price", center=0.0, scale=1.0), Binary("sold", classes=(False, True))],
    }  # fmt: skip
    exec(textwrap.dedent(block[0]), names)
    assert names["model"].sharing.active is None
    assert not names["model"].sharing.harm.isinf().any()


def test_errors_say_what_to_do(measured: MultiTaskModel) -> None:
    with pytest.raises(RequestError, match=r"before its widths were measured.*measure_widths\(model, batches\)"):
        model().configure(budget=0.5)
    with pytest.raises(RequestError, match=r"budget 0.01 of the full cost.*smallest widths cost 0.\d+. Give at least"):
        measured.configure(budget=0.01)
    with pytest.raises(RequestError, match=r"no task 'd'"):
        measured.configure(budget=0.5, preference={"d": 1.0})
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(RequestError, match=r"preferences \[.*need a number of zero or more"):
            measured.configure(preference={"a": bad})
    with pytest.raises(RequestError, match=r"one of them above zero"):
        measured.configure(preference=dict.fromkeys("abc", 0.0))
    plain = MultiTaskModel(torch.nn.Linear(4, 8), HardSharing(3, width=8), list(measured.tasks.values()))
    with pytest.raises(RequestError, match=r"HardSharing was to be configured; it has one width"):
        plain.configure(budget=0.5)
    with pytest.raises(RequestError, match=r"HardSharing were to be measured; it has one"):
        measure_widths(plain, [batch()])
    inputs, targets, present = batch()
    with pytest.raises(RequestError, match=r"Task 'b' has no label in the validation batches"):
        measure_widths(measured, [(inputs, targets, present | {"b": torch.zeros(64, dtype=torch.bool)})])
    for fractions in ((), (0.5,), (0.5, 0.5, 1.0), (0.0, 1.0), (1.0, 0.5)):
        with pytest.raises(RequestError, match=r"widths increase from above zero up to 1"):
            net(fractions=fractions)
