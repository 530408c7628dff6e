"""Every method's golden cases, the laws that it claims, and those that hold for all."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from merge_cases import SHAPES, VARIANTS, Weights, built, family, fitting, moved, weights

import motet
from motet.merge import LAWS, learned, merge, methods

NAMES = [name for name, _, _ in VARIANTS]
METHODS = methods()


def claiming(law: str) -> list[str]:
    return [name for name, kind in METHODS.items() if law in kind.claims]


def near(found: Weights, wanted: Weights, tolerance: float = 2e-6) -> None:
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=tolerance * 4, err_msg=name)


def same(found: Weights, wanted: Weights) -> None:
    for name in wanted:
        assert found[name].tobytes() == wanted[name].tobytes(), name


def golden_cases() -> list:
    return [
        pytest.param(kind, case, id=f"{name}-{n}")
        for name, kind in METHODS.items()
        for n, case in enumerate(kind.golden)
    ]


@pytest.mark.parametrize(("kind", "case"), golden_cases())
def test_golden(kind, case):
    base, experts = {"weight": np.array(case.base)}, [{"weight": np.array(expert)} for expert in case.experts]
    found = merge(base, experts, method=kind(**case.parameters))["weight"]
    wanted = np.array(case.merged)
    assert np.abs(found - wanted).max() <= case.tolerance * max(np.abs(wanted).max(), 1e-300)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_a_golden_case_and_known_laws(name):
    assert METHODS[name].golden
    assert METHODS[name].claims <= set(LAWS)
    assert "Source:" in (METHODS[name].__doc__ or "")


def test_every_method_and_name_is_listed():
    docs = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    assert {kind.__name__ for kind in METHODS.values()} <= set(motet.merge.__all__)
    for room in (motet.merge, learned):
        assert [name for name in room.__all__ if f"::: {room.__name__}.{name}\n" not in docs] == []


@pytest.mark.parametrize(("name", "kind", "parameters"), VARIANTS, ids=NAMES)
def test_shape_dtype_and_finite_numbers(name, kind, parameters):
    count = fitting(kind, 3)
    base, experts = family(0, count)
    before = [{key: part.copy() for key, part in model.items()} for model in (base, *experts)]
    found = merge(base, experts, method=built(kind, count, **parameters))
    assert {key: part.shape for key, part in found.items()} == SHAPES
    assert {part.dtype for part in found.values()} == {np.dtype(np.float32)}
    assert all(np.isfinite(part).all() for part in found.values())
    for model, was in zip((base, *experts), before, strict=True):
        same(model, was)


@pytest.mark.parametrize(("name", "kind", "parameters"), VARIANTS, ids=NAMES)
def test_threads_and_pieces_change_nothing(name, kind, parameters, monkeypatch):
    count = fitting(kind, 3)
    base, experts = family(1, count)
    method = built(kind, count, **parameters)
    whole = merge(base, experts, method=method, threads=1)
    # A step that is no multiple of eight would move DARE's counters, which the engine never does.
    monkeypatch.setattr("motet.merge._models.PIECE", 8)
    monkeypatch.setattr("motet.merge._models.Models.pieces.__defaults__", (8, 1))
    near(merge(base, experts, method=method, threads=2), whole)


@pytest.mark.parametrize("name", METHODS)
def test_repr_rebuilds_the_method(name):
    method = METHODS[name]()
    space = {kind.__name__: kind for kind in METHODS.values()}
    assert eval(repr(method), space) == method
    assert {field.name for field in dataclasses.fields(method)} == set(method.parameters())


@pytest.mark.parametrize("name", claiming("one expert at coefficient one"))
def test_one_expert_comes_back_bit_for_bit(name):
    kind = METHODS[name]
    for seed in range(20):
        base, experts = family(seed, 1, change=10.0 ** (seed % 7 - 3))
        experts[0]["wide.weight"][0, :3] = [-0.0, 0.0, np.finfo(np.float32).tiny / 4]  # zeros keep their sign
        has_scale = "scale" in {field.name for field in dataclasses.fields(kind)}
        same(merge(base, experts, method=built(kind, 1, **({"scale": 1.0} if has_scale else {}))), experts[0])


@pytest.mark.parametrize("name", claiming("order is free"))
def test_the_order_of_experts_is_free(name):
    kind = METHODS[name]
    for seed in range(5):
        base, experts = family(seed, 3)
        order = np.random.default_rng(seed).permutation(3)
        method = built(kind, 3, seed)
        other = method
        if getattr(method, "statistics", ()):
            other = dataclasses.replace(method, statistics=tuple(method.statistics[place] for place in order))
        near(merge(base, [experts[place] for place in order], method=other), merge(base, experts, method=method))


@pytest.mark.parametrize("name", claiming("equal experts"))
def test_equal_experts_come_back(name):
    kind = METHODS[name]
    count = fitting(kind, 3)
    base, experts = family(2, 1)
    has_scale = "scale" in {field.name for field in dataclasses.fields(kind)}
    method = built(kind, count, **({"scale": 1 / count} if has_scale else {}))
    near(merge(base, experts * count, method=method), experts[0])


@pytest.mark.parametrize("name", claiming("the base stays"))
def test_experts_that_are_the_base_give_the_base(name):
    kind = METHODS[name]
    count = fitting(kind, 3)
    base, _ = family(3, 1)
    same(merge(base, [base] * count, method=built(kind, count)), base)


@pytest.mark.parametrize("name", claiming("scales"))
def test_the_change_is_proportional_to_the_scale(name):
    kind = METHODS[name]
    base, experts = family(4, 3)
    once = merge(base, experts, method=built(kind, 3, scale=0.5))
    twice = merge(base, experts, method=built(kind, 3, scale=1.0))
    near({key: 2 * (once[key] - base[key]) for key in base}, {key: twice[key] - base[key] for key in base})
    assert any(np.abs(twice[key] - base[key]).max(initial=0) > 0.01 for key in base)


@pytest.mark.parametrize("name", claiming("disjoint supports add"))
def test_disjoint_changes_add_exactly(name):
    generator = np.random.default_rng(5)
    base, changed = weights(generator), weights(generator)
    owner = {key: generator.integers(0, 4, part.shape) for key, part in base.items()}
    experts = [{key: np.where(owner[key] == e, changed[key], base[key]) for key in base} for e in range(3)]
    wanted = {key: np.where(owner[key] < 3, changed[key], base[key]).astype(np.float32) for key in base}
    same(merge(base, experts, method=built(METHODS[name], 3, scale=1.0)), wanted)


@pytest.mark.parametrize("name", claiming("homogeneous"))
def test_larger_weights_give_a_larger_result(name):
    kind = METHODS[name]
    count = fitting(kind, 3)
    base, experts = family(6, count)
    method = built(kind, count)
    larger = merge(
        {key: 4 * part for key, part in base.items()},
        [{key: 4 * part for key, part in expert.items()} for expert in experts],
        method=method,
    )
    near({key: part / 4 for key, part in larger.items()}, merge(base, experts, method=method))


def test_laws_that_are_not_claimed_fail_somewhere():
    """DARE depends on the order, TIES does not give one expert back: the laws can tell."""
    base, experts = family(7, 2)
    dare = METHODS["dare"]()
    assert any(
        np.abs(merge(base, experts, method=dare)[key] - merge(base, experts[::-1], method=dare)[key]).max(initial=0)
        > 1e-3
        for key in base
    )
    ties = merge(base, experts[:1], method=METHODS["ties"](scale=1.0))
    assert any(not np.array_equal(ties[key], experts[0][key]) for key in base)


def test_dare_drops_the_share_it_says_and_keeps_the_mean():
    generator = np.random.default_rng(8)
    base = {"w": generator.standard_normal(200_003).astype(np.float32)}
    experts = [{"w": base["w"] + np.float32(1)}]
    dare = METHODS["dare"](drop=0.9, then=METHODS["average"](), seed=3)
    change = merge(base, experts, method=dare)["w"] - base["w"]
    kept = np.abs(change) > 1e-3
    assert abs(kept.mean() - 0.1) < 5 * (0.09 / len(kept)) ** 0.5
    np.testing.assert_allclose(change[kept], 10.0, atol=1e-5)
    other = merge(base, experts, method=dataclasses.replace(dare, seed=4))["w"] - base["w"]
    both = (kept & (np.abs(other) > 1e-3)).mean()
    assert 0.005 < both < 0.015  # independent of each other: a hundredth


def test_the_room_is_callable_and_takes_torch_tensors():
    base = {"w": torch.zeros(3, dtype=torch.bfloat16), "count": torch.tensor(7)}
    experts = [{"w": torch.tensor([1.0, 2.0, 3.0], dtype=torch.bfloat16), "count": torch.tensor(9)}]
    found = motet.merge(base, experts, method="average")
    assert found["w"].dtype == torch.bfloat16
    assert found["w"].tolist() == [1.0, 2.0, 3.0]
    assert found["count"].item() == 7  # a counter is the base's
    assert motet.merge.TIES().name == "ties"


def test_moved_and_weights_differ():
    base, experts = family(0, 2)
    assert not np.array_equal(experts[0]["encoder.bias"], experts[1]["encoder.bias"])
    same(moved(base, {key: np.zeros_like(part) for key, part in base.items()}), base)
