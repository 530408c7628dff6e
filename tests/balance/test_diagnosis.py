"""The diagnosis: what it measures is what slow gradients say, and it leaves the training alone."""

import copy
import json
import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from motet import RequestError
from motet.balance import Diagnosis
from motet.balance.diagnosis._nuclear import EXACT, LEADING, spectrum

ROWS = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(3, 2, 7, 7, generator=torch.Generator().manual_seed(2))
WORDS = torch.randint(0, 9, (4, 5), generator=torch.Generator().manual_seed(3))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


class Bank(nn.Module):
    """A stack of matrices, in no layer that the engine knows."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 3, 4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bi,ijk->bk", x, self.weight)


TRUNKS = {
    "mlp": (
        lambda: nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.LayerNorm(9), nn.Linear(9, 5, bias=False)),
        ROWS,
    ),
    "convolutions": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, bias=False)),
        IMAGES,
    ),
    "attention": (
        lambda: nn.Sequential(nn.Embedding(9, 6), nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True)),
        WORDS,
    ),
    "tied weights": (Tied, ROWS),
    "a bank of matrices": (Bank, ROWS),
}


def built(name: str) -> tuple[nn.Module, Tensor]:
    make, inputs = TRUNKS[name]
    torch.manual_seed(4)
    trunk = make().double()
    return trunk, inputs.double() if inputs.is_floating_point() else inputs


def losses_of(features: Tensor, num_tasks: int = 3) -> dict[str, Tensor]:
    """Losses whose gradients point in ways of their own."""
    generator = torch.Generator().manual_seed(5)
    flat = features.flatten(1)
    heads = torch.randn(num_tasks, flat.shape[1], generator=generator, dtype=torch.float64).to(flat)
    return {f"t{k}": torch.tanh(flat @ heads[k] - k / 4).square().mean() for k in range(num_tasks)}


def slow_grads(trunk: nn.Module, losses: Mapping[str, Tensor], layer: list[Tensor]) -> list[list[Tensor]]:
    return [list(torch.autograd.grad(loss, layer, retain_graph=True)) for loss in losses.values()]


@pytest.mark.parametrize("name", TRUNKS)
def test_every_number_is_what_slow_gradients_say(name: str) -> None:
    trunk, inputs = built(name)
    losses = losses_of(trunk(inputs))
    diagnosis = Diagnosis(trunk)
    record = diagnosis.observe(losses, step=0)
    assert record is not None
    whole = slow_grads(trunk, losses, list(trunk.parameters()))
    lengths = [math.sqrt(sum(float(part.square().sum()) for part in parts)) for parts in whole]
    assert record["norms"] == pytest.approx(lengths, rel=1e-4)
    assert [entry["layer"] for entry in record["layers"]] == list(diagnosis.layers)
    for entry in record["layers"]:
        grads = slow_grads(trunk, losses, diagnosis.layers[entry["layer"]])
        flat = torch.stack([torch.cat([part.flatten() for part in parts]) for parts in grads])
        assert entry["norms"] == pytest.approx(flat.norm(dim=1).tolist(), rel=1e-4)
        unit = flat / flat.norm(dim=1, keepdim=True)
        expected = (unit @ unit.T).tolist()
        for i, row in enumerate(entry["cosines"]):
            assert row == pytest.approx(expected[i][:i], abs=2e-4)
        pairs = {(i, j): expected[i][j] for i in range(3) for j in range(i)}
        assert entry["least"] == pytest.approx(min(pairs.values()), abs=2e-4)
        opposed = sum(-min(0.0, float(flat[i] @ flat[j])) / (lengths[i] * lengths[j]) for i, j in pairs)
        assert entry["conflict"] == pytest.approx(opposed / len(pairs), rel=1e-3, abs=1e-9)
        check_spectra(entry, grads)


def check_spectra(entry: Mapping, grads: list[list[Tensor]]) -> None:
    matrices = [[part.flatten(1) for part in parts if part.ndim > 1] for parts in grads]
    if not matrices[0]:
        assert entry["nuclear"] is entry["top_share"] is entry["nuclear_sum"] is entry["held"] is None
        return
    values = [[torch.linalg.svdvals(matrix) for matrix in parts] for parts in matrices]
    nuclear = [sum(float(one.sum()) for one in parts) for parts in values]
    assert entry["nuclear"] == pytest.approx(nuclear, rel=1e-4)
    top = [max(float(one.max()) for one in parts) for parts in values]
    assert entry["top_share"] == pytest.approx([a / b for a, b in zip(top, nuclear, strict=True)], rel=1e-3)
    summed = [torch.stack(parts).sum(dim=0) for parts in zip(*matrices, strict=True)]
    assert entry["nuclear_sum"] == pytest.approx(sum(float(torch.linalg.svdvals(m).sum()) for m in summed), rel=1e-4)
    assert entry["held"] == 1.0


def by_hand(first: Tensor, second: Tensor, **other: Tensor) -> dict | None:
    """A record of losses whose gradients at one square matrix are the given ones, transposed."""
    trunk = nn.Linear(2, 2, bias=False)
    z = trunk(torch.eye(2))
    losses = {"a": (z * first).sum(), "b": (z * second).sum()} | {name: z.sum() * x for name, x in other.items()}
    return Diagnosis({"only": trunk.parameters()}).observe(losses)


def test_two_opposed_tasks_by_hand() -> None:
    record = by_hand(torch.diag(torch.tensor([3.0, 4.0])), torch.diag(torch.tensor([-3.0, 0.0])))
    assert record is not None
    [entry] = record["layers"]
    assert entry["norms"] == [5.0, 3.0]
    assert entry["nuclear"] == [7.0, 3.0]
    assert entry["top_share"] == [round(4 / 7, 4), 1.0]
    assert entry["nuclear_sum"] == 4.0
    assert (entry["least"], entry["pair"], entry["conflict"]) == (-0.6, ["a", "b"], 0.6)
    assert record["cosines"] == [[1.0, -0.6], [-0.6, 1.0]]
    assert record["differences"] is None


def test_a_zero_gradient_opposes_nobody() -> None:
    record = by_hand(torch.zeros(2, 2), -torch.eye(2))
    assert record is not None
    [entry] = record["layers"]
    assert (entry["least"], entry["conflict"], entry["nuclear"], entry["top_share"]) == (
        0.0,
        0.0,
        [0.0, 2.0],
        [0.0, 0.5],
    )


def test_conflicts_of_layers_add_up_to_the_whole_cosine() -> None:
    trunk = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3)).double()
    features = trunk(ROWS.double())
    record = Diagnosis(trunk).observe({"up": features.sum(), "down": -2 * features.sum()})
    assert record is not None
    assert sum(entry["conflict"] for entry in record["layers"]) == pytest.approx(1.0, abs=1e-5)


def test_differences_are_between_neighbouring_layers_with_a_matrix() -> None:
    trunk = nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    record = Diagnosis(trunk).observe(losses_of(trunk(ROWS)))
    assert record is not None
    first, _, second, third = record["layers"]
    for key in ("norms", "nuclear", "top_share"):
        steps = [(abs(a - b) + abs(b - c)) / 2 for a, b, c in zip(first[key], second[key], third[key], strict=True)]
        assert record["differences"][key] == pytest.approx(steps, rel=1e-3)


def test_it_observes_only_the_steps_that_are_due(monkeypatch: pytest.MonkeyPatch) -> None:
    trunk = nn.Linear(6, 2)
    diagnosis = Diagnosis(trunk, every=3)
    observed = [diagnosis.observe(losses_of(trunk(ROWS))) is not None for _ in range(7)]
    assert observed == [True, False, False, True, False, False, True]
    assert [record["step"] for record in diagnosis.records] == [0, 3, 6]
    diagnosis.reset()
    assert diagnosis.records == []
    monkeypatch.setattr("motet.balance.diagnosis._diagnosis.Passes", None)  # whoever called it now would fail
    assert diagnosis.observe(losses_of(trunk(ROWS)), step=100) is None


def test_the_training_is_left_alone() -> None:
    trunk, inputs = built("mlp")
    plain = copy.deepcopy(trunk)
    sum(losses_of(plain(inputs)).values()).backward()
    losses = losses_of(trunk(inputs))
    random = torch.get_rng_state()
    Diagnosis(trunk, max_tasks=2).observe(losses)
    assert torch.equal(random, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in trunk.parameters())
    sum(losses.values()).backward()
    for found, expected in zip(trunk.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)


def test_a_loss_that_is_not_finite_is_left_out_and_records_stay_json() -> None:
    huge = torch.full((2, 2), 1e30)
    record = by_hand(torch.eye(2), huge, lost=torch.tensor(float("nan")), infinite=torch.tensor(float("inf")))
    assert record is not None
    assert record["tasks"] == ["a", "b"]
    assert record["norms"][1] is None
    assert record["layers"][0]["nuclear"] == pytest.approx([2.0, 2e30], rel=1e-5)
    json.dumps(record, allow_nan=False)
    trunk = nn.Linear(2, 2)
    assert Diagnosis(trunk).observe({"a": trunk(torch.eye(2)).sum() * float("nan")}) is None


def test_one_task_has_norms_and_no_pair() -> None:
    trunk = nn.Linear(6, 2)
    record = Diagnosis(trunk).observe({"only": trunk(ROWS).sum()})
    assert record is not None
    [entry] = record["layers"]
    assert (entry["least"], entry["pair"], entry["conflict"]) == (None, None, 0.0)
    assert entry["norms"][0] > 0


def test_many_tasks_take_turns() -> None:
    trunk = nn.Linear(6, 2)

    def turns(seed: int) -> list[list[str]]:
        diagnosis = Diagnosis(trunk, every=1, max_tasks=4, seed=seed)
        found = [diagnosis.observe(losses_of(trunk(ROWS), 12)) for _ in range(6)]
        return [record["tasks"] for record in found if record is not None]

    first = turns(0)
    assert all(len(tasks) == 4 for tasks in first)
    for half in (first[:3], first[3:]):
        assert {task for tasks in half for task in tasks} == {f"t{k}" for k in range(12)}
    assert first == turns(0) != turns(1)


def test_kept_records_are_spread_over_the_whole_training() -> None:
    trunk = nn.Linear(6, 2)
    diagnosis = Diagnosis(trunk, every=1, keep=5)
    for step in range(23):
        diagnosis.observe(losses_of(trunk(ROWS), 2), step=step)
    assert [record["step"] for record in diagnosis.records] == [0, 8, 16]
    assert diagnosis.summary()["observations"] == 3


def test_the_summary_names_layers_pairs_and_trends() -> None:
    """Two layers side by side: a and b oppose each other in the left one alone, ever more."""
    left, right = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
    diagnosis = Diagnosis({"left": left.parameters(), "right": right.parameters()}, every=1)
    rows = torch.eye(2)
    for turned in (0.0, 0.3, 0.6, 0.9):
        across = torch.tensor([[-turned], [math.sqrt(1 - turned**2)]])
        a = (left(rows) * torch.tensor([[1.0], [0.0]])).sum() + right(rows).sum()
        b = (left(rows) * across).sum() + right(rows).sum()
        c = right(rows).sum()
        diagnosis.observe({"a": a, "b": b, "c": c})
    found = diagnosis.summary()
    json.dumps(found, allow_nan=False)
    assert found["observations"] == 4
    assert [(layer["layer"], layer["share"]) for layer in found["layers"]] == [("left", 1.0), ("right", 0.0)]
    worst = found["layers"][0]
    assert (worst["pair"], worst["least"], worst["trend"]) == (["a", "b"], pytest.approx(-0.45), pytest.approx(-0.6))
    lowest = found["pairs"][0]
    assert (lowest["pair"], lowest["layer"]) == (["a", "b"], "left")
    assert lowest["trend"] < 0 < lowest["cosine"]
    assert Diagnosis(left).summary() == {"observations": 0, "layers": [], "pairs": []}


def test_layers_are_named_as_their_modules_compiled_or_not() -> None:
    def compiled(module: nn.Module) -> nn.Module:
        return nn.ModuleDict({"_orig_mod": module})  # the name under which torch.compile keeps what it wraps

    trunk = nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Sequential(nn.Linear(3, 3)))
    assert list(Diagnosis(trunk).layers) == list(Diagnosis(compiled(trunk)).layers) == ["0", "2.0"]
    assert list(Diagnosis(compiled(nn.Linear(6, 3))).layers) == ["Linear"]


def test_frozen_and_unreached_layers_are_left_out() -> None:
    trunk = nn.ModuleDict({"used": nn.Linear(6, 3), "frozen": nn.Linear(6, 3), "idle": nn.Linear(6, 3)})
    trunk["frozen"].requires_grad_(False)
    record = Diagnosis(trunk).observe(losses_of(trunk["used"](ROWS) + trunk["frozen"](ROWS)))
    assert record is not None
    assert [entry["layer"] for entry in record["layers"]] == ["used"]


def test_under_autocast_and_in_half_precision() -> None:
    trunk = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 4))
    exact = Diagnosis(trunk).observe(losses_of(trunk(ROWS)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = Diagnosis(trunk).observe(losses_of(trunk(ROWS).float()))
    assert exact is not None
    assert half is not None
    for found, expected in zip(half["layers"], exact["layers"], strict=True):
        assert found["norms"] == pytest.approx(expected["norms"], rel=0.1)
        assert found["least"] == pytest.approx(expected["least"], abs=0.1)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("shape", [(7, 40), (40, 7), (1, 5)])
def test_spectra_are_exact_at_any_scale(scale: float, shape: tuple[int, int]) -> None:
    matrix = scale * torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(matrix.double())
    found = spectrum(matrix)
    assert (found.nuclear, found.top) == (
        pytest.approx(float(values.sum()), rel=1e-5),
        pytest.approx(float(values.max()), rel=1e-5),
    )
    assert found.held == 1.0


def test_a_complex_matrix_and_a_rank_that_is_not_full() -> None:
    generator = torch.Generator().manual_seed(0)
    thin = torch.randn(9, 2, generator=generator, dtype=torch.complex64)
    matrix = thin @ thin.mH
    assert spectrum(matrix).nuclear == pytest.approx(float(torch.linalg.svdvals(matrix).sum()), rel=1e-5)
    assert math.isnan(spectrum(torch.full((3, 3), float("inf"))).nuclear)
    assert math.isnan(spectrum(torch.full((3, 3), float("nan"))).top)


def test_large_matrices_give_a_lower_bound_and_say_how_good() -> None:
    generator = torch.Generator().manual_seed(0)
    size = EXACT + 40
    low = torch.randn(size, 20, generator=generator) @ torch.randn(20, size, generator=generator)
    exact = torch.linalg.svdvals(low)
    found = spectrum(low)
    assert found.nuclear == pytest.approx(float(exact.sum()), rel=1e-3)
    assert found.held == pytest.approx(1.0, abs=1e-4)
    noise = torch.randn(size, size + 10, generator=generator)
    exact = torch.linalg.svdvals(noise)
    found = spectrum(noise)
    assert 0.9 * float(exact[:LEADING].sum()) < found.nuclear <= float(exact[:LEADING].sum()) * (1 + 1e-5)
    assert found.top == pytest.approx(float(exact.max()), rel=0.03)
    held = float(exact[:LEADING].square().sum() / exact.square().sum())
    assert 0.8 * held < found.held < held < 0.7
    assert spectrum(noise) == found


def test_errors_say_what_arrived_and_what_to_do() -> None:
    trunk = nn.Linear(6, 2)
    outputs = trunk(ROWS)
    with pytest.raises(RequestError, match=r"every=0 was given.*at least 1.*Leave it out"):
        Diagnosis(trunk, every=0)
    with pytest.raises(RequestError, match=r"no parameter.*Pass the module that the tasks share"):
        Diagnosis(nn.ReLU())
    diagnosis = Diagnosis(trunk)
    with pytest.raises(RequestError, match=r"'a' has a loss of shape \(12, 2\).*Take its mean over rows"):
        diagnosis.observe({"a": outputs}, step=0)
    with pytest.raises(RequestError, match=r"'a' has a loss without a graph.*outside torch.no_grad"):
        diagnosis.observe({"a": outputs.sum().detach()}, step=0)
    with pytest.raises(RequestError, match=r"No loss \(a\) depends on the trunk.*Pass the module"):
        diagnosis.observe({"a": nn.Linear(6, 2)(ROWS).sum()}, step=0)
    loss = outputs.square().mean()
    loss.backward()
    with pytest.raises(RequestError, match=r"graph of the losses \(a\) is used up.*Call observe before the backward"):
        diagnosis.observe({"a": loss}, step=0)
