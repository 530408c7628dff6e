"""Wrappers and FULLER under a scaler: the same update as without one, and nothing kept of a step that overflows."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from motet.balance import (
    FMTL,
    FULLER,
    SAM,
    SAMO,
    Accumulation,
    Balancer,
    CAGrad,
    ElementwiseClipping,
    GradientNoise,
    MoCo,
    NormalisedDescent,
    RandomLossWeighting,
    RepMTL,
    Step,
    UncertaintyWeighting,
    UPGrad,
)

TASKS = ("a", "b", "c")
ROWS = torch.randn(12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.randn(12, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
MAKE: dict[str, Callable[[], Balancer]] = {
    "sam": lambda: SAM(MoCo(), rho=0.3),
    "f-mtl": lambda: FMTL(MoCo(), rho=0.3),
    "f-mtl, learned weights": lambda: FMTL(UncertaintyWeighting(), rho=0.3),
    "f-mtl, weighted heads": lambda: FMTL(RandomLossWeighting(), rho=0.3),
    "samo": lambda: SAMO(CAGrad(), rho=0.3, mu=0.3),
    "rep-mtl": lambda: RepMTL(MoCo()),
    "accumulation": lambda: Accumulation(MoCo(), num_batches=2),
    "accumulation of one task each": lambda: Accumulation(CAGrad(), num_batches=3, share="one"),
    "clipping": lambda: ElementwiseClipping(CAGrad(), limit=0.02),
    "noise": lambda: GradientNoise(MoCo(), eta=0.01),
    "normalised": lambda: NormalisedDescent(UPGrad()),
    "noise around f-mtl": lambda: GradientNoise(FMTL(CAGrad())),
    "fuller": FULLER,
}


class Loop:
    """Training a net of two encoders, perhaps under a scaler."""

    def __init__(self, balancer: Balancer, scaler: torch.amp.GradScaler | None = None) -> None:
        torch.manual_seed(0)
        self.encoders = nn.ModuleList([nn.Linear(2, 3), nn.Linear(2, 3)])
        self.fusion = nn.Linear(6, 5)
        self.heads = nn.ModuleList([nn.Linear(5, 1) for _ in TASKS])
        self.modules = nn.ModuleList([self.encoders, self.fusion, self.heads]).double()
        self.balancer, self.scaler = balancer, scaler
        balancer.add_tasks(TASKS)
        parameters = [*self.modules.parameters(), *balancer.parameters()]
        self.optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)

    def closure(self, number: int, factor: float = 1.0) -> Any:
        """The losses and features of one batch."""
        x, y = ROWS.roll(number, 0), LABELS.roll(number, 0)
        parts = [encoder(half) for encoder, half in zip(self.encoders, (x[:, :2], 9 * x[:, 2:]), strict=True)]
        z = self.fusion(torch.cat(parts, dim=1)).tanh()
        outputs = {name: head(z)[:, 0] for name, head in zip(TASKS, self.heads, strict=True)}
        losses = {name: factor * (out - y[:, k]).square().mean() for k, (name, out) in enumerate(outputs.items())}
        return (losses, [z, *parts] if isinstance(self.balancer, FULLER) else z)

    def step(self, number: int, factor: float = 1.0) -> Step:
        def closure() -> Any:
            losses, features = self.closure(number, factor)
            return (losses, features) if self.balancer.needs_features else losses

        shared = [*self.encoders.parameters(), *self.fusion.parameters()]
        step = self.balancer.backward(closure, shared=shared, scaler=self.scaler)
        if not step.ready:
            return step
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad()
        return step

    def state(self) -> dict[str, Tensor]:
        return {**self.modules.state_dict(prefix="net."), **self.balancer.state_dict(prefix="balancer.")}


def check_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, msg=key)


@pytest.mark.parametrize("name", MAKE)
def test_a_scaler_changes_nothing(name: str) -> None:
    scaled = Loop(MAKE[name](), torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2))
    plain = Loop(MAKE[name]())
    start = copy.deepcopy(plain.state())
    for number in range(6):  # the scale doubles on the way
        found, expected = scaled.step(number), plain.step(number)
        assert found.weights == pytest.approx(expected.weights)
        assert found.ready == expected.ready
        if expected.gramian is not None:
            torch.testing.assert_close(found.gramian, expected.gramian)
    check_same(scaled.state(), plain.state())
    assert any(not torch.equal(start[key], value) for key, value in plain.state().items() if key.startswith("net."))
    assert scaled.scaler is not None
    assert scaled.scaler.get_scale() > 2.0**10


@pytest.mark.parametrize("name", MAKE)
def test_a_step_that_overflows_leaves_no_trace(name: str) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**100, backoff_factor=2.0**-80)
    loop, plain = Loop(MAKE[name](), scaler), Loop(MAKE[name]())
    loop.step(0)
    plain.step(0)
    before = copy.deepcopy(loop.state())
    step = loop.step(1, factor=1e290)  # scaled, the losses are infinite
    assert step.skipped == TASKS
    assert step.ready
    assert scaler.get_scale() == 2.0**20
    found = loop.state()
    for key in [key for key in found if key.rpartition(".")[2] == "steps"]:
        found[key] = before[key]  # a count of steps may go on
    check_same(found, before)
    if name not in {"samo", "noise"}:  # whose draws follow that count
        for number in range(2, 5):
            loop.step(number)
            plain.step(number)
        check_same(loop.state(), plain.state())


def test_an_overflow_that_the_method_inside_does_not_see_is_the_scalers() -> None:
    """Clipping would make a finite number of it."""
    theta = torch.tensor([1.0, 2.0], requires_grad=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**100)
    optimizer = torch.optim.SGD([theta], lr=1.0)
    ElementwiseClipping(limit=0.5).backward({"a": 1e20 * theta[0] + theta[1]}, scaler=scaler)
    assert torch.isinf(theta.grad[0])
    scaler.step(optimizer)
    scaler.update()
    assert theta.tolist() == [1.0, 2.0]
    assert scaler.get_scale() == 2.0**99


def test_sam_does_not_climb_where_the_gradient_overflows() -> None:
    theta = torch.tensor(2.0, requires_grad=True)
    seen = []

    def closure() -> dict[str, Tensor]:
        seen.append(theta.item())
        return {"a": 1e20 * theta}

    SAM(rho=0.5).backward(closure, scaler=torch.amp.GradScaler("cpu", init_scale=2.0**100))
    assert seen == [2.0, 2.0]
    assert not torch.isfinite(theta.grad)
