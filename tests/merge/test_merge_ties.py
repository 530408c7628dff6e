"""TIES against the formulas of other libraries, written out, and its threshold against a sort."""

import numpy as np
import pytest
import torch
from merge_cases import family

from motet.merge import TIES, merge
from motet.merge._models import open_models
from motet.merge._threshold import least_kept


def fusionbench(base: dict, experts: list[dict], density: float, scale: float, combine: str) -> dict:
    """The formula of FusionBench's ties_merging in torch: one vector of all tensors, sorted by name."""
    names = sorted(base)
    start = torch.cat([torch.from_numpy(base[name]).reshape(-1) for name in names])
    changes = torch.stack([torch.cat([torch.from_numpy(e[n]).reshape(-1) for n in names]) - start for e in experts])
    size = changes.shape[1]
    least = changes.abs().kthvalue(size - int(size * density), dim=1, keepdim=True).values
    trimmed = changes * (changes.abs() >= least)
    sign = torch.sign(trimmed.sum(dim=0))
    sign[sign == 0] = torch.sign(sign.sum())
    chosen = trimmed * torch.where(sign > 0, trimmed > 0, trimmed < 0)
    total = chosen.sum(dim=0)
    if combine == "mean":
        total = total / (chosen != 0).sum(dim=0).float().clamp(min=1)
    merged = (start + scale * total).numpy()
    ends = np.cumsum([0] + [base[name].size for name in names])
    return {name: merged[ends[i] : ends[i + 1]].reshape(base[name].shape) for i, name in enumerate(names)}


def mergekit(base: np.ndarray, experts: list[np.ndarray], density: float, scale: float, normalize: bool) -> np.ndarray:
    """The formula of mergekit's ties for one tensor."""
    changes = torch.stack([torch.from_numpy(expert - base).reshape(-1) for expert in experts])
    kept = torch.zeros_like(changes)
    for row, change in enumerate(changes):
        places = torch.argsort(change.abs(), descending=True)[: int(density * change.numel())]
        kept[row, places] = 1
    trimmed = changes * kept * scale
    mask = trimmed.sign() == (trimmed.sum(dim=0) >= 0) * 2 - 1
    total = (trimmed * mask).sum(dim=0)
    if normalize:
        weight = (scale * mask).sum(dim=0)
        weight[weight == 0] = 1
        total = total / weight
    return base + total.reshape(base.shape).numpy()


def large(seed: int, num_experts: int, shape: tuple[int, ...] = (700, 401)) -> tuple[dict, list[dict]]:
    """More entries than one histogram's worth, on a coarse grid, so that changes tie and cancel."""
    generator = np.random.default_rng(seed)
    base = {"b.weight": np.zeros(shape, np.float32), "a.bias": generator.standard_normal(999).astype(np.float32)}
    experts = []
    for _ in range(num_experts):
        coarse = {key: (0.02 * generator.standard_normal(part.shape)).astype(np.float16) for key, part in base.items()}
        experts.append({key: part + coarse[key].astype(np.float32) for key, part in base.items()})
    return base, experts


@pytest.mark.parametrize("combine", ["sum", "mean"])
@pytest.mark.parametrize(("density", "num_experts"), [(0.2, 8), (0.01, 3), (0.9, 2), (1 / 3, 5)])
def test_global_scope_is_fusionbench_to_the_bit(combine, density, num_experts):
    base, experts = large(num_experts, num_experts)
    found = merge(base, experts, method=TIES(density=density, scale=0.3, combine=combine))
    wanted = fusionbench(base, experts, density, 0.3, combine)
    for name in base:
        assert np.array_equal(found[name], wanted[name]), name


def test_changes_that_cancel_take_the_majority_sign():
    base = {"w": np.zeros(8, np.float32)}
    one = np.array([1, 1, 1, 1, 5, -1, -1, 3], np.float32)
    for sign in (1, -1):
        experts = [{"w": sign * one}, {"w": sign * np.array([1, 1, 1, 1, -5, -1, 1, -3], np.float32)}]
        method = TIES(density=0.99, scale=1.0)
        wanted = fusionbench(base, experts, 0.99, 1.0, "sum")["w"]
        assert merge(base, experts, method=method)["w"].tolist() == wanted.tolist()
        assert wanted[4] == sign * 5


@pytest.mark.parametrize("normalize", [False, True])
def test_tensor_scope_is_mergekit(normalize):
    base, experts = family(11, 5, change=0.3)  # continuous numbers: nothing ties
    method = TIES(density=0.4, scale=1.0 if normalize else 0.7, scope="tensor", combine="mean" if normalize else "sum")
    found = merge(base, experts, method=method)
    for name in ("encoder.weight", "encoder.bias", "wide.weight"):
        wanted = mergekit(base[name], [expert[name] for expert in experts], 0.4, method.scale, normalize)
        np.testing.assert_allclose(found[name], wanted, rtol=0, atol=5e-7)


def test_the_scope_matters():
    base, experts = family(12, 3)
    experts = [{**expert, "wide.weight": base["wide.weight"] + 1e-6} for expert in experts]
    whole = merge(base, experts, method=TIES(scope="global"))
    each = merge(base, experts, method=TIES(scope="tensor"))
    assert np.array_equal(whole["wide.weight"], base["wide.weight"])
    assert not np.array_equal(each["wide.weight"], base["wide.weight"])


def heavy(generator: np.random.Generator, size: int) -> np.ndarray:
    return generator.standard_normal(size) * 10.0 ** generator.integers(-30, 8, size)


SPREADS = {
    "normal": lambda g, n: g.standard_normal(n),
    "all equal": lambda g, n: np.full(n, -0.5),
    "mostly zero": lambda g, n: np.where(g.random(n) < 0.999, 0, g.standard_normal(n)),
    "heavy tails": heavy,
    "few values": lambda g, n: g.integers(-3, 4, n) / 7,
    # The sample takes every fourth entry of these: here it sees nothing but large ones.
    "against the sample": lambda g, n: np.where(np.arange(n) % 4 == 0, 1e3, 1e-3) * g.standard_normal(n),
}


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("size", [1, 7, 300_000])
@pytest.mark.parametrize("many", [1 << 20, 1000])
def test_the_threshold_is_what_a_sort_finds(spread, size, many, monkeypatch):
    monkeypatch.setattr("motet.merge._threshold._MANY", many)  # few: histograms in the place of the numbers themselves
    generator = np.random.default_rng(size)
    base = {"w": np.zeros(size, np.float32)}
    experts = [{"w": SPREADS[spread](generator, size).astype(np.float32)} for _ in range(2)]
    models = open_models(base, experts)
    ordered = [np.sort(np.abs(expert["w"])) for expert in experts]
    for rank in sorted({1, max(size // 5, 1), max(int(size * 0.8), 1), size}):
        found = least_kept(models, ["w"], lambda _, rank=rank: rank, threads=False).view(np.float32)
        assert found.tolist() == [float(values[rank - 1]) for values in ordered], rank
