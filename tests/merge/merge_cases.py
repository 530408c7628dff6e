"""Small models to merge, and every method built for a number of experts."""

from typing import Any

import numpy as np

from motet.merge import DARE, TIES, Average, Method, TaskArithmetic, methods

SHAPES = {"encoder.weight": (6, 5), "encoder.bias": (6,), "wide.weight": (4, 9), "scalar": (), "empty": (0, 3)}
Weights = dict[str, np.ndarray]


def weights(generator: np.random.Generator, size: float = 1.0) -> Weights:
    return {name: (size * generator.standard_normal(shape)).astype(np.float32) for name, shape in SHAPES.items()}


def family(seed: int, num_experts: int, change: float = 0.1) -> tuple[Weights, list[Weights]]:
    generator = np.random.default_rng(seed)
    base = weights(generator)
    return base, [moved(base, weights(generator, change)) for _ in range(num_experts)]


def moved(base: Weights, by: Weights) -> Weights:
    return {name: base[name] + by[name] for name in base}


def statistics(kind: type[Method], seed: int, num_experts: int) -> dict[str, Any]:
    """The parameters that a method cannot do without."""
    generator = np.random.default_rng(seed + 1000)
    if kind.name == "fisher":
        found = [{name: np.abs(part) for name, part in weights(generator).items()} for _ in range(num_experts)]
    elif kind.name == "regmean":
        inputs = [(generator.standard_normal((40, 5)), generator.standard_normal((40, 9))) for _ in range(num_experts)]
        found = [{"encoder.weight": a.T @ a / 40, "wide.weight": b.T @ b / 40} for a, b in inputs]
    else:
        return {}
    return {"statistics": tuple(found)}


def built(kind: type[Method], num_experts: int, seed: int = 0, **parameters: Any) -> Method:
    return kind(**statistics(kind, seed, num_experts), **parameters)


def fitting(kind: type[Method], wanted: int) -> int:
    """The number of experts nearest to the wanted one that the method takes."""
    least, most = kind.num_experts
    return max(least, wanted if most is None else min(most, wanted))


# Every method with its defaults, and the settings that run other code.
VARIANTS = [(name, kind, {}) for name, kind in methods().items()] + [
    ("ties by tensor", TIES, {"scope": "tensor"}),
    ("ties with a mean", TIES, {"combine": "mean", "density": 0.5}),
    ("dare and ties", DARE, {"then": TIES(density=0.5)}),
    ("dare and average", DARE, {"then": Average(), "drop": 0.9}),
    ("dare that drops nothing", DARE, {"then": TaskArithmetic(), "drop": 0.0}),
]
