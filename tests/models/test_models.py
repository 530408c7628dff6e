"""The model, its encoder and its heads."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from motet import RequestError
from motet.models import HardSharing, Heads, MultiTaskModel, PiecewiseLinear, TabularEncoder, bin_edges
from motet.tasks import Binary, Multiclass, Regression

TASKS = [
    Regression("price", center=10.0, scale=2.0),
    Binary("sold", classes=(False, True)),
    Multiclass("grade", classes=("a", "b", "c")),
]


def rows(count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = np.random.default_rng(seed)
    numbers = generator.normal(size=(count, 3)).astype(np.float32)
    numbers[generator.random((count, 3)) < 0.2] = np.nan
    categories = generator.integers(0, 4, size=(count, 2))
    return {"numbers": torch.from_numpy(numbers), "categories": torch.from_numpy(categories)}


def model(width: int = 32) -> MultiTaskModel:
    torch.manual_seed(0)
    edges = bin_edges(rows(500)["numbers"].numpy(), num_bins=8)
    encoder = TabularEncoder(edges, [4, 4], width=width)
    return MultiTaskModel(encoder, HardSharing(3, width=width), TASKS, head_width=8).eval()


def test_each_task_has_its_own_outputs() -> None:
    outputs = model()(rows(7))
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "price": (7, 1),
        "sold": (7, 1),
        "grade": (7, 3),
    }


def test_a_row_alone_and_in_a_batch_are_the_same() -> None:
    batch, alone = rows(16), model()
    whole = alone(batch)
    for place in (0, 9):
        single = alone({name: value[place : place + 1] for name, value in batch.items()})
        for name, outputs in single.items():
            torch.testing.assert_close(outputs[0], whole[name][place])


def test_asking_for_some_tasks_gives_the_same_and_costs_less() -> None:
    net, batch = model(), rows(64)
    whole, part = net(batch), net(batch, tasks=["grade", "price"])
    assert list(part) == ["grade", "price"]
    for name, outputs in part.items():
        torch.testing.assert_close(outputs, whole[name])
    features = net.features(batch)
    counts = []
    for tasks in (None, ["sold"]):
        with FlopCounterMode(display=False) as counter:
            net.outputs(features, tasks)
        counts.append(counter.get_total_flops())
    assert counts[1] * 3 == counts[0]


def test_heads_equal_plain_linear_layers() -> None:
    torch.manual_seed(1)
    heads = Heads(TASKS, width=5, hidden=4)
    features = torch.randn(3, 6, 5)
    for place, outputs in enumerate(heads(features)):
        hidden = torch.relu(features[place] @ heads.weight_in[place] + heads.bias_in[place])
        expected = hidden @ heads.weight_out[place] + heads.bias_out[place]
        torch.testing.assert_close(outputs, expected[:, : TASKS[place].num_outputs])


def test_every_parameter_gets_a_gradient() -> None:
    net, batch = model(), rows(64)
    sum(outputs.square().sum() for outputs in net(batch).values()).backward()
    without = [name for name, parameter in net.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert without == []


def test_a_missing_label_has_no_gradient_and_an_absent_task_no_loss() -> None:
    net, batch = model(), rows(4)
    outputs = net(batch)
    present = {"price": torch.tensor([True, False, True, False]), "sold": torch.zeros(4, dtype=torch.bool)}
    targets = {"price": torch.tensor([9.0, 0.0, 12.0, 0.0]), "sold": torch.zeros(4)}
    losses = net.losses({name: outputs[name] for name in present}, targets, present)
    assert list(losses) == ["price"]
    gradient = torch.autograd.grad(losses["price"], outputs["price"])[0]
    assert (gradient[[1, 3]] == 0).all()
    assert (gradient[[0, 2]] != 0).all()


def test_piecewise_codes_by_hand() -> None:
    layer = PiecewiseLinear(torch.tensor([[0.0, 1.0, 3.0, float("inf")]]), dim=1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[1.0], [10.0], [100.0], [1000.0]]]))
    numbers = torch.tensor([[-5.0], [0.5], [2.0], [99.0], [float("nan")]])
    # Bins [0, 1] and [1, 3]; the third place is unused; the last weight is the flag for missing numbers.
    assert layer(numbers).flatten().tolist() == [0.0, 0.5, 6.0, 11.0, 1000.0]


def test_numbers_join_their_codes_standardised_and_cut_off() -> None:
    numbers = np.random.default_rng(0).normal(50.0, 7.0, (20_000, 2)).astype(np.float32)
    numbers[:, 1] = 3.0  # a constant says nothing
    encoder = TabularEncoder(bin_edges(numbers), [])
    assert encoder.values is not None
    rows = torch.tensor([[50.0, 3.0], [57.0, 3.0], [43.0, 9.0], [1e9, 3.0], [float("nan"), 3.0]])
    found = encoder.values(rows)
    assert torch.allclose(found[:, 0], torch.tensor([0.0, 1.0, -1.0, 4.0, 0.0]), atol=0.05)
    assert not found[:, 1].any()
    plain = TabularEncoder(bin_edges(numbers), [], values=False)
    assert encoder.project.in_features == plain.project.in_features + 2
    assert torch.isfinite(encoder({"numbers": rows})).all()


def test_few_values_without_quantiles_between_them_are_scaled_by_their_range() -> None:
    encoder = TabularEncoder(torch.tensor([[0.0, 0.0, 0.0, 8.0, float("inf")]]), [])
    assert encoder.values is not None
    assert encoder.values(torch.tensor([[0.0], [1.0], [8.0]])).flatten().tolist() == pytest.approx(
        [0.0, 1 / 2.08, 8 / 2.08], rel=1e-3
    )


def test_a_smooth_target_is_learned_sooner_with_the_numbers_themselves() -> None:
    draw = np.random.default_rng(0)
    numbers = torch.from_numpy(draw.normal(size=(2000, 12)).astype(np.float32))
    target = (numbers[:, :6].sum(dim=1, keepdim=True) / 6**0.5).square()
    errors = []
    for values in (False, True):
        torch.manual_seed(0)
        encoder = TabularEncoder(
            bin_edges(numbers.numpy()), [], width=32, num_blocks=1, number_dim=8, dropout=0.0, values=values
        )
        head = torch.nn.Linear(32, 1)
        adam = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=2e-3)
        for step in range(150):
            rows = torch.arange(64) + 64 * (step % 25)
            adam.zero_grad()
            (head(encoder({"numbers": numbers[rows]})) - target[rows]).square().mean().backward()
            adam.step()
        with torch.no_grad():
            errors.append(float((head(encoder({"numbers": numbers[1600:]})) - target[1600:]).square().mean()))
    assert errors[1] < 0.5 * errors[0]


def test_bin_edges_follow_quantiles_and_few_values() -> None:
    numbers = np.array([[0, 1], [1, 1], [2, np.nan], [3, 1], [4, 1]], dtype=np.float32)
    edges = bin_edges(numbers, num_bins=2)
    assert edges[0].tolist() == [0.0, 2.0, 4.0]
    assert edges[1].tolist() == [1.0, float("inf"), float("inf")]
    assert torch.isinf(bin_edges(np.full((3, 1), np.nan, dtype=np.float32), num_bins=2)).all()


def test_start_at_makes_the_constant_the_first_answer() -> None:
    heads = Heads(TASKS, width=5, hidden=4)
    torch.nn.init.zeros_(heads.weight_out)
    heads.start_at([torch.tensor([0.5]), torch.tensor([-2.0]), torch.tensor([1.0, 2.0, 3.0])])
    found = [outputs[0].tolist() for outputs in heads(torch.randn(3, 1, 5))]
    assert found == [[0.5], [-2.0], [1.0, 2.0, 3.0]]


def test_errors_say_what_to_do() -> None:
    with pytest.raises(RequestError, match=r"no feature left.*--role"):
        TabularEncoder(torch.zeros(0, 9), [])
    with pytest.raises(RequestError, match=r"no task 'prize'. Did you mean 'price'"):
        model()(rows(2), tasks=["prize"])
    with pytest.raises(RequestError, match=r"'price' is given twice"):
        MultiTaskModel(torch.nn.Identity(), HardSharing(2, width=4), [TASKS[0], TASKS[0]])
    with pytest.raises(RequestError, match=r"Identity has no attribute 'width'"):
        MultiTaskModel(torch.nn.Identity(), torch.nn.Identity(), TASKS)


@pytest.mark.slow
def test_the_model_exports_whole() -> None:
    net, batch = model(), rows(8)
    exported = torch.export.export(net, (batch,), strict=False).module()
    for name, outputs in exported(batch).items():
        torch.testing.assert_close(outputs, net(batch)[name])
