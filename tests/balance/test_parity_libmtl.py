"""The same gradients through motet and through LibMTL: equal where LibMTL is right, and shown where it is not.

The release on PyPI (dependency group `parity`) has 14 of LibMTL's methods. With a checkout of its repository on
`PYTHONPATH`, the tests of the others run too. Its package imports torchvision, so that only the folder of weightings is
loaded here, and each weighting gets the few attributes that its trainer would give it.
"""

import importlib
import importlib.util
import random
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from motet.balance import Balancer
from motet.balance._alignedmtl import AlignedMTL
from motet.balance._cagrad import CAGrad
from motet.balance._dbmtl import DBMTL
from motet.balance._dwa import DWA
from motet.balance._excessmtl import ExcessMTL
from motet.balance._fairgrad import FairGrad
from motet.balance._famo import FAMO
from motet.balance._gls import GLS
from motet.balance._gradvac import GradVac
from motet.balance._imtl import IMTL
from motet.balance._mgda import MGDA
from motet.balance._moco import MoCo
from motet.balance._nashmtl import NashMTL
from motet.balance._pcgrad import PCGrad, random_orders
from motet.balance._stch import STCH
from motet.balance._uncertainty import UncertaintyWeighting

SPEC = importlib.util.find_spec("LibMTL")
if SPEC is None:
    pytest.skip("LibMTL is not installed (dependency group `parity`)", allow_module_level=True)
FOLDER = Path(SPEC.submodule_search_locations[0])
LATER = {"DB_MTL", "ExcessMTL", "FAMO", "FairGrad", "MoCo", "Nash_MTL", "STCH", "Aligned_MTL"}

TASKS = 3
Losses = Callable[[Tensor], list[Tensor]]


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> Callable[..., "Peer"]:
    """Makes a weighting of LibMTL by its name."""
    package = types.ModuleType("LibMTL")
    package.__path__ = [str(FOLDER)]
    monkeypatch.setitem(sys.modules, "LibMTL", package)

    def make(name: str, **options: Any) -> Peer:
        if not (FOLDER / "weighting" / f"{name}.py").exists():
            assert name in LATER
            pytest.skip(f"this LibMTL has no {name}: the release on PyPI lacks it, the repository has it")
        kind = getattr(importlib.import_module(f"LibMTL.weighting.{name}"), name)
        return Peer(kind(), options)

    yield make
    for name in [name for name in sys.modules if name.startswith("LibMTL.")]:
        del sys.modules[name]


class Peer:
    """A weighting of LibMTL with one shared vector and no heads; float32, as it is written."""

    def __init__(self, weighting: nn.Module, options: dict[str, Any], width: int = 24) -> None:
        self.weighting, self.options = weighting, options
        self.shared = nn.Parameter(torch.zeros(width))
        weighting.task_num, weighting.device, weighting.rep_grad, weighting.epoch = TASKS, "cpu", False, 0
        weighting.task_name = [f"t{number}" for number in range(TASKS)]
        weighting.encoder = nn.ParameterList([self.shared])
        weighting.get_share_params = lambda: [self.shared]
        # The released trainer zeroes gradients to None under today's torch, and its weightings fail on that.
        weighting.zero_grad_share_params = lambda: weighting.encoder.zero_grad(set_to_none=False)
        weighting.init_param()

    def step(self, rows: Tensor, losses: Sequence[float] = (1.0, 1.0, 1.0)) -> Tensor:
        """Their direction (P,) for these gradients and values of the losses."""
        self.shared.grad = torch.zeros_like(self.shared)
        values = (rows.float() * self.shared).sum(dim=1) + torch.tensor(losses)
        self.weighting.backward(values, **self.options)
        return self.shared.grad.double()


def gradients(seed: int) -> Tensor:
    """Random gradients (T, P) of different lengths, which conflict here and there."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(TASKS, 24, generator=generator, dtype=torch.float64)
    return rows * (0.2 + 3 * torch.rand(TASKS, 1, generator=generator, dtype=torch.float64))


def ours(method: Balancer, rows: Tensor, losses: Sequence[float] = (1.0, 1.0, 1.0)) -> Tensor:
    """Our direction (P,)."""
    shared = torch.zeros(rows.shape[1], dtype=rows.dtype, requires_grad=True)
    named = {
        f"t{number}": (row * shared).sum() + loss for number, (row, loss) in enumerate(zip(rows, losses, strict=True))
    }
    method.backward(named, shared=[shared])
    return shared.grad


def check_close(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    assert float((found - expected).norm()) <= tolerance * float(expected.norm())


# Where the peer is right ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_cagrad_with_three_tasks(theirs: Callable[..., Peer], seed: int) -> None:
    rows = gradients(seed)
    check_close(ours(CAGrad(), rows), theirs("CAGrad", calpha=0.4, rescale=1).step(rows), 2e-2)


@pytest.mark.parametrize("seed", range(5))
def test_the_first_step_of_imtl(theirs: Callable[..., Peer], seed: int) -> None:
    check_close(ours(IMTL(), gradients(seed)), theirs("IMTL").step(gradients(seed)), 1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_gls(theirs: Callable[..., Peer], seed: int) -> None:
    losses = (4.0, 0.03, 2.5)
    check_close(ours(GLS(), gradients(seed), losses), theirs("GLS").step(gradients(seed), losses))


def test_uncertainty_from_the_same_start(theirs: Callable[..., Peer]) -> None:
    method, losses = UncertaintyWeighting([f"t{number}" for number in range(TASKS)]), (4.0, 0.03, 2.5)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.fill_(-0.5)
    other = theirs("UW")
    check_close(ours(method, gradients(0), losses), other.step(gradients(0), losses))
    slopes = torch.stack([parameter.grad for parameter in method.parameters()])
    torch.testing.assert_close(slopes, other.weighting.loss_scale.grad)


def test_dwa(theirs: Callable[..., Peer]) -> None:
    method, other = DWA(window=None), theirs("DWA", T=2.0)
    other.weighting.train_loss_buffer = np.zeros((TASKS, 4))
    for epoch in range(4):
        losses = (4.0 * 0.8**epoch, 1.0 * 0.99**epoch, 2.0)
        other.weighting.epoch = epoch
        check_close(ours(method, gradients(epoch), losses), other.step(gradients(epoch), losses))
        other.weighting.train_loss_buffer[:, epoch] = losses
        method.end_epoch()


@pytest.mark.parametrize("seed", range(5))
def test_pcgrad_and_the_first_step_of_gradvac_in_the_same_order(
    theirs: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rows, orders = gradients(seed), random_orders(TASKS, 0, 0).tolist()
    for name, method, options in (
        ("PCGrad", PCGrad(), {}),
        ("GradVac", GradVac(beta=0.5), {"beta": 0.5, "GradVac_beta": 0.5, "GradVac_group_type": 0}),
    ):
        drawn = iter(orders)

        def shuffle(places: list[int], drawn: Any = drawn) -> None:
            wanted = [place for place in next(drawn) if place in places]
            places[:] = wanted

        other = theirs(name, **options)
        monkeypatch.setattr(random, "shuffle", shuffle)
        check_close(ours(method, rows), other.step(rows))


@pytest.mark.parametrize("normalisation", ["none", "l2", "loss", "loss+"])
def test_mgda_where_its_first_segment_is_the_answer(theirs: Callable[..., Peer], normalisation: Any) -> None:
    # Two gradients that oppose each other and a third that is far longer: the answer is on a segment.
    rows = torch.zeros(TASKS, 24, dtype=torch.float64)
    rows[0, 0], rows[0, 1], rows[1, 0], rows[1, 1] = 1.0, 1.0, -2.0, 1.0
    rows[2, 2], rows[2, 1] = 0.5, 3.0
    losses = (1.0, 1.5, 1.25)
    found = ours(MGDA(normalisation=normalisation), rows, losses)
    check_close(found, theirs("MGDA", mgda_gn=normalisation).step(rows, losses), 1e-3)


def test_db_mtl(theirs: Callable[..., Peer]) -> None:
    method, other = DBMTL(), theirs("DB_MTL", DB_beta=0.9, DB_beta_sigma=0)
    for step in range(4):
        losses = (4.0, 0.3 + step, 2.5)
        check_close(ours(method, gradients(step), losses), other.step(gradients(step), losses))


def test_excess_mtl(theirs: Callable[..., Peer]) -> None:
    method, other = ExcessMTL(step_size=0.3), theirs("ExcessMTL", robust_step_size=0.3)
    for step in range(4):
        check_close(ours(method, gradients(step)), other.step(gradients(step)))


def test_famo(theirs: Callable[..., Peer]) -> None:
    method, other = FAMO(), theirs("FAMO", FAMO_w_lr=0.025, FAMO_w_gamma=1e-3)
    for step in range(6):
        losses = (4.0 * 0.8**step, 1.0 * 0.99**step, 2.0)
        check_close(ours(method, gradients(step), losses), other.step(gradients(step), losses))
        after = torch.tensor([0.9, 0.99, 1.1]) * torch.tensor(losses)
        method.after_step({f"t{number}": loss for number, loss in enumerate(after)})
        other.weighting.update_w(after)


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_fairgrad(theirs: Callable[..., Peer], alpha: float) -> None:
    found = ours(FairGrad(alpha=alpha, max_norm=None), gradients(0)) / TASKS
    check_close(found, theirs("FairGrad", FairGrad_alpha=alpha).step(gradients(0)), 1e-3)


@pytest.mark.filterwarnings("ignore:You are solving a parameterized problem")
def test_nash_mtl(theirs: Callable[..., Peer]) -> None:
    pytest.importorskip("ecos", reason="ecos is not installed (dependency group `parity`, Python below 3.13)")
    other = theirs("Nash_MTL", update_weights_every=1, optim_niter=20, max_norm=1.0)
    check_close(ours(NashMTL(), gradients(0)), other.step(gradients(0)), 1e-2)


@pytest.mark.parametrize("mu", [1.0, 0.3])
def test_stch(theirs: Callable[..., Peer], mu: float, capsys: pytest.CaptureFixture[str]) -> None:
    method, other = STCH(mu=mu, warm_up=2, nadir_steps=1), theirs("STCH", STCH_mu=mu, STCH_warmup_epoch=1)
    for epoch in range(4):  # of one step each: their nadir is the second one's losses
        losses = (4.0 * 0.8**epoch, 1.0 * 0.99**epoch, 2.0)
        other.weighting.epoch = epoch
        check_close(ours(method, gradients(epoch), losses), other.step(gradients(epoch), losses))


# Where the peer is not right ------------------------------------------------------------------------------------------


def test_the_released_cagrad_knows_three_tasks_only(
    theirs: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    if (FOLDER / "weighting" / "FAMO.py").exists():
        pytest.skip("the repository has mended this since its release")
    monkeypatch.setattr(sys.modules[__name__], "TASKS", 2)
    with pytest.raises(ValueError, match="reshape"):
        theirs("CAGrad", calpha=0.4, rescale=1).step(gradients(0)[:2], (1.0, 1.0))
    assert ours(CAGrad(), gradients(0)[:2], (1.0, 1.0)).isfinite().all()


def test_one_task_without_a_gradient_leaves_imtl_nothing_but_nan(theirs: Callable[..., Peer]) -> None:
    rows = gradients(0)
    rows[1] = 0
    assert theirs("IMTL").step(rows).isnan().all()
    assert ours(IMTL(), rows).isfinite().all()


def test_aligned_mtl_calls_what_torch_has_no_more(theirs: Callable[..., Peer]) -> None:
    with pytest.raises((RuntimeError, AttributeError), match="symeig"):
        theirs("Aligned_MTL").step(gradients(0))
    assert ours(AlignedMTL(), gradients(0)).isfinite().all()


def test_the_softmax_of_moco_holds_weights_near_equal_and_the_projection_finds_the_shortest(
    theirs: Callable[..., Peer],
) -> None:
    options = {"MoCo_beta": 0.5, "MoCo_beta_sigma": 0.5, "MoCo_gamma": 0.1, "MoCo_gamma_sigma": 0.5, "MoCo_rho": 0.0}
    method, other = MoCo(), theirs("MoCo", **options)
    rows = torch.eye(TASKS, 24, dtype=torch.float64)
    losses = (0.2, 2.0, 2.0)
    for _ in range(300):
        found = ours(method, rows, losses)
        expected = other.step(rows, losses)
    shortest = ours(MGDA(), rows * torch.tensor(losses, dtype=torch.float64).unsqueeze(1))
    assert float(other.weighting.lambd[0]) < 0.5  # the shortest vector is nearly all of the first
    assert float((found - shortest).norm()) < 0.1 * float((expected - shortest).norm())
