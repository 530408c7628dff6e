"""Two processes with half of the rows each take the step that one process takes with all of them."""

import datetime
import re
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from motet import RequestError
from motet.balance import (
    FAMO,
    FMTL,
    FULLER,
    SAM,
    SAMO,
    Accumulation,
    Balancer,
    CAGrad,
    ElementwiseClipping,
    GradDrop,
    MoCo,
    NormalisedDescent,
    Ranks,
    RepMTL,
    UncertaintyWeighting,
    UPGrad,
    from_name,
    methods,
)

TASKS = ("a", "b", "c")
ROWS = 12
SPLIT = 5  # rows of the first process; the second has the others
MISSING = {"a": (), "b": (0, 7), "c": tuple(range(SPLIT))}  # unlabelled rows: the first process has no label of c


class Net(nn.Module):
    """A trunk and three heads; the trunk's table has sparse gradients where that is asked for."""

    def __init__(self, kind: str = "mlp") -> None:
        super().__init__()
        torch.manual_seed(0)
        layers: dict[str, list[nn.Module]] = {
            "mlp": [nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 40), nn.LayerNorm(40), nn.Tanh(), nn.Linear(40, 5)],
            "images": [nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 5)],
            "words": [nn.Embedding(9, 4), nn.Flatten(), nn.Linear(24, 5)],
            "sparse words": [nn.Embedding(9, 4, sparse=True), nn.Flatten(), nn.Linear(24, 5)],
        }
        self.words = "words" in kind
        self.trunk = nn.Sequential(*layers[kind])
        self.heads = nn.ModuleDict({name: nn.Linear(5, 1) for name in TASKS})
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.trunk((4 * x).long() if self.words else x)

    def losses(self, z: Tensor, y: Tensor, present: Tensor) -> dict[str, Tensor]:
        found = {}
        for place, (name, head) in enumerate(self.heads.items()):
            if present[:, place].any():
                found[name] = (head(z).squeeze(1) - y[:, place])[present[:, place]].square().mean()
        return found


def batch(step: int, *, full: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, targets and which of them are present: the rows of this process, or all where there is one process."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randint(0, 9, (ROWS, 6), generator=generator).double() / 4
    y = torch.randn(ROWS, 3, generator=generator, dtype=torch.float64)
    present = torch.ones(ROWS, 3, dtype=torch.bool)
    if not full:
        for place, name in enumerate(TASKS):
            present[list(MISSING[name]), place] = False
    if not dist.is_initialized():
        return x, y, present
    half = slice(None, SPLIT) if dist.get_rank() == 0 else slice(SPLIT, None)
    return x[half], y[half], present[half]


def train(
    balancer: Balancer,
    place: str,
    *,
    net: Net | None = None,
    full: bool = False,
    wrap: Callable[[Net], Any] | None = None,
    sync: bool = False,
) -> dict[str, Tensor]:
    """What two steps of gradient descent lead to: on the rows of this process, or on all where there is one process."""
    net = Net() if net is None else net
    forward = net if wrap is None else wrap(net)
    balancer.add_tasks(TASKS)
    optimizer = torch.optim.SGD([*net.parameters(), *balancer.parameters()], lr=0.1)
    for step in range(2):
        x, y, present = batch(step, full=full)
        optimizer.zero_grad()
        ranks = together(net, present)
        with forward.no_sync() if hasattr(forward, "no_sync") and not sync else nullcontext():
            z = forward(x)
            where = {"features": z} if place == "features" else {"shared": net.trunk.parameters()}
            found = balancer.backward(net.losses(z, y, present), **where, **ranks)
        optimizer.step()
    state = {**net.state_dict(), **{f"balancer.{key}": value for key, value in balancer.state_dict().items()}}
    state |= {} if found.gramian is None else {"gramian": found.gramian}
    return {key: value.full_tensor() if isinstance(value, DTensor) else value.clone() for key, value in state.items()}


def together(net: Net, present: Tensor) -> dict[str, Ranks]:
    """What makes processes one, where there are several."""
    if not dist.is_initialized():
        return {}
    return {"ranks": Ranks(net.parameters(), rows=dict(zip(TASKS, present.sum(dim=0).tolist(), strict=True)))}


def place_of(name: str) -> str:
    return "features" if name in {"sdmgrad", "modo", "ntkmtl-sr"} else from_name(name).place


def distributed(net: Net) -> nn.Module:
    return nn.parallel.DistributedDataParallel(net.trunk) if dist.is_initialized() else net.trunk


def sharded(net: Net, *, heads: bool = False) -> nn.Module:
    if dist.is_initialized():
        mesh = init_device_mesh("cpu", (2,))
        for layer in net.trunk:
            if list(layer.parameters()):
                fully_shard(layer, mesh=mesh)
        fully_shard(net if heads else net.trunk, mesh=mesh)
    return net


def accumulated() -> dict[str, Tensor]:
    """The gradients after two backwards, on top of what was there."""
    net = Net()
    for parameter in net.trunk.parameters():
        parameter.grad = torch.ones_like(parameter)
    for step in range(2):
        x, y, present = batch(step, full=False)
        z = net(x)
        from_name("upgrad").backward(net.losses(z, y, present), features=z, **together(net, present))
    return {name: parameter.grad for name, parameter in net.named_parameters()}


def without_counts() -> dict[str, Tensor]:
    """Each process counts as much as another; the one process takes means of means."""
    net = Net()
    x, y, present = torch.ones(4, 6).double(), torch.arange(12.0).reshape(4, 3).double(), torch.ones(4, 3).bool()
    if dist.is_initialized():
        half = slice(0, 1) if dist.get_rank() == 0 else slice(1, 4)
        z = net(x[half])
        ranks = {"ranks": Ranks(net.parameters())}
        losses = net.losses(z, y[half], present[half])
    else:
        z, ranks = net(x), {}
        parts = [net.losses(z[half], y[half], present[half]) for half in (slice(0, 1), slice(1, 4))]
        losses = {name: 0.5 * (parts[0][name] + parts[1][name]) for name in TASKS}
    from_name("cagrad").backward(losses, shared=net.trunk.parameters(), **ranks)
    return {name: parameter.grad for name, parameter in net.named_parameters()}


def closure_of(net: Net, balancer: Balancer, step: int, *, factor: float = 1.0) -> Callable[[], Any]:
    """What a method that looks around asks for."""
    x, y, present = batch(step, full=False)

    def closure() -> Any:
        z = net(x)
        losses = {name: factor * loss for name, loss in net.losses(z, y, present).items()}
        return (losses, z) if balancer.needs_features else losses

    return closure


def around(balancer: Balancer) -> dict[str, Tensor]:
    """Three steps with a wrapper, where one process has no label of a task."""
    net = Net()
    balancer.add_tasks(TASKS)
    optimizer = torch.optim.SGD([*net.parameters(), *balancer.parameters()], lr=0.1)
    for step in range(3):
        ranks = together(net, batch(step, full=False)[2])
        found = balancer.backward(closure_of(net, balancer, step), shared=net.trunk.parameters(), **ranks)
        if found.ready:
            optimizer.step()
            optimizer.zero_grad()
    return {**net.state_dict(), **{f"balancer.{key}": value for key, value in balancer.state_dict().items()}}


def modalities() -> dict[str, Tensor]:
    """FULLER with two encoders, whose gradients are brought to one length over the rows of all processes."""
    net, (x, y, present) = Net(), batch(0, full=False)
    torch.manual_seed(1)
    encoders = nn.ModuleList([nn.Linear(3, 4), nn.Linear(3, 4)]).double()
    net.fusion = nn.Linear(8, 5).double()
    net.encoders = encoders
    parts = [encoder(factor * half) for encoder, half, factor in zip(encoders, x.split(3, dim=1), (1, 30), strict=True)]
    z = net.fusion(torch.cat(parts, dim=1)).tanh()
    step = FULLER().backward(net.losses(z, y, present), features=[z, *parts], **together(net, present))
    grads = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    return grads | {"weights": torch.tensor(list(step.weights.values()))}


def scaled(balancer: Balancer) -> dict[str, Tensor]:
    """Under a scaler; in the second step the gradients of the last process overflow, and no process moves."""
    net = Net()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**100, backoff_factor=2.0**-90)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for step in range(3):
        present = batch(step, full=False)[2]
        large = step == 1 and (not dist.is_initialized() or dist.get_rank() == 1)
        closure = closure_of(net, balancer, step, factor=1e290 if large else 1.0)
        optimizer.zero_grad()
        ranks = together(net, present)
        found = balancer.backward(closure, shared=net.trunk.parameters(), scaler=scaler, **ranks)
        assert found.skipped == (TASKS if step == 1 else ())
        scaler.step(optimizer)
        scaler.update()
    return {"scale": torch.tensor(scaler.get_scale()), **net.state_dict(), **balancer.state_dict()}


def looking_back() -> dict[str, Tensor]:
    """FAMO with its second look at the batch."""
    net, balancer = Net(), FAMO()
    for step in range(3):
        x, y, present = batch(step, full=False)
        ranks = together(net, present)
        balancer.backward(net.losses(net(x), y, present), **ranks)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter -= 0.1 * parameter.grad
                parameter.grad = None
            balancer.after_step(net.losses(net(x), y, present), **ranks)
    return {**net.state_dict(), **balancer.state_dict()}


def rows_of_one_task_each() -> dict[str, Tensor]:
    """Every row has one task's label, so that the engine keeps rows and not tasks apart."""
    net, (x, y, present) = Net(), batch(0, full=True)
    places = torch.arange(ROWS)[len(places_before()) :][: len(x)]
    present = places.unsqueeze(1) % 3 == torch.arange(3)
    UPGrad().backward(net.losses(net(x), y, present), shared=net.trunk.parameters(), **together(net, present))
    return {name: parameter.grad for name, parameter in net.named_parameters()}


def places_before() -> range:
    return range(SPLIT if dist.is_initialized() and dist.get_rank() == 1 else 0)


def without_rows(place: str) -> dict[str, Tensor]:
    """One process has no label at all in this step."""
    net, (x, y, present) = Net(), batch(0, full=True)
    present = present & (torch.arange(len(x)) < SPLIT).unsqueeze(1)
    if dist.is_initialized() and dist.get_rank() == 1:
        present = torch.zeros_like(present)
    z = net(x)
    where = {"features": z} if place == "features" else {"shared": net.trunk.parameters()}
    UPGrad().backward(net.losses(z, y, present), **where, **together(net, present))
    return {name: parameter.grad for name, parameter in net.named_parameters()}


def skipped() -> dict[str, Tensor]:
    """A loss that is not finite on one process is left out on all."""
    net, (x, y, present) = Net(), batch(0, full=True)
    if not dist.is_initialized() or dist.get_rank() == 1:
        y[-1, 1] = torch.nan
    z = net(x)
    step = UPGrad(skip_bad=True).backward(net.losses(z, y, present), features=z, **together(net, present))
    assert step.skipped == ("b",)
    return {name: torch.zeros(()) if p.grad is None else p.grad for name, p in net.named_parameters()}


def refused(change: str) -> str:
    """What a process says to a request that cannot be met."""
    net, (x, y, present) = Net(), batch(0, full=True)
    if change.startswith("shards"):
        sharded(net, heads="heads" in change)
    ranks = Ranks(net.trunk.parameters() if change == "parameters" else net.parameters(), rows=ROW_COUNTS.get(change))
    z = net(x)
    losses = net.losses(z, y, present)
    if dist.get_rank() == 1:
        losses |= {"nan": {"b": losses["b"] * torch.nan}, "shape": {"a": torch.ones(2) * z.sum()}}.get(change, {})
    where = {"shared": net.trunk.parameters()} if "exact" in change else {"features": z}
    try:
        if change in LOOKING:
            LOOKING[change](net, (x, y, present), ranks)
        else:
            method = from_name("element-wise-clipping+upgrad") if "rework" in change else UPGrad()
            method.backward({} if change == "nothing" else losses, **where, ranks=ranks)
    except RequestError as error:
        return str(error)
    return "nothing was refused"


def forgetful(net: Net, rows: tuple[Tensor, Tensor, Tensor], ranks: Ranks) -> None:
    """One process has no loss of a task when the closure is called again."""
    calls = []

    def closure() -> dict[str, Tensor]:
        calls.append(1)
        losses = net.losses(net(rows[0]), *rows[1:])
        return {name: losses[name] for name in TASKS[len(calls) > 1 and dist.get_rank() == 1 :]}

    SAM().backward(closure, ranks=ranks)


def one_by_one(parameters: str, net: Net, rows: tuple[Tensor, Tensor, Tensor], _: Ranks) -> None:
    """The ranks know the trunk alone, or the heads."""
    ranks = Ranks(getattr(net, parameters).parameters())
    FMTL().backward(lambda: net.losses(net(rows[0]), *rows[1:]), shared=net.trunk.parameters(), ranks=ranks)


LOOKING: dict[str, Callable[..., None]] = {
    "another closure": forgetful,
    "heads of task gradients": partial(one_by_one, "trunk"),
    "trunk of task gradients": partial(one_by_one, "heads"),
}
ROW_COUNTS = {"count": {"a": 1, "b": 1}}
REFUSALS = {
    "nan": (r"Task 'b' has a loss of nan", r"Task 'b' has a loss of nan"),
    "shape": (r"The process of rank 1 .* no process takes this step", r"Task 'a' has a loss of shape \(2,\)"),
    "nothing": (r"No process has a loss",) * 2,
    "count": (r"Task 'c' has a loss and no count in Ranks\(rows=\.\.\.\), which has \['a', 'b'\]",) * 2,
    "parameters": (r"A parameter of shape \(1,\) .* Pass Ranks\(model.parameters\(\)\)",) * 2,
    "another closure": (r"The process of rank 1 .* no process takes", r"Task 'a' had a loss at .* outside the closure"),
    "heads of task gradients": (r"A loss depends on a parameter .* Pass Ranks\(model.parameters\(\)\), with the",) * 2,
    "trunk of task gradients": (r"FMTL got parameters in shared= .* not among those of Ranks; .* Pass Ranks\(",) * 2,
    "shards exact": (r"UPGrad was given sharded parameters in shared=; .* Pass features=z",) * 2,
    "shards, reworked": (r"given one with sharded parameters.* or leave the wrapper out",) * 2,
    "shards and heads": (r"A parameter of shape \(1,\) .* shard the trunk alone",) * 2,
}
CASES: dict[str, Callable[[], Any]] = {
    "exact upgrad": lambda: train(UPGrad(), "parameters"),
    "exact cagrad": lambda: train(CAGrad(), "parameters"),
    "exact, all tasks everywhere": lambda: train(UPGrad(), "parameters", full=True),
    "exact, uncertainty weighting": lambda: train(UncertaintyWeighting(), "parameters"),
    "exact, images": lambda: train(UPGrad(), "parameters", net=Net("images"), full=True),
    "exact, words": lambda: train(UPGrad(), "parameters", net=Net("words"), full=True),
    "exact, sparse words": lambda: train(UPGrad(), "parameters", net=Net("sparse words")),
    "features, sparse words": lambda: train(UPGrad(), "features", net=Net("sparse words")),
    "ddp exact": lambda: train(UPGrad(), "parameters", wrap=distributed),
    "ddp features": lambda: train(UPGrad(), "features", wrap=distributed),
    "ddp losses": lambda: train(UncertaintyWeighting(), "features", wrap=distributed),
    "ddp that averages by itself": lambda: train(UPGrad(), "features", wrap=distributed, sync=True),
    "ddp that averages by itself, exact": lambda: train(UPGrad(), "parameters", wrap=distributed, sync=True),
    "fsdp features": lambda: train(UPGrad(), "features", wrap=sharded),
    "fsdp features, coordinates": lambda: train(GradDrop(), "features", wrap=sharded),
    "fsdp losses": lambda: train(UncertaintyWeighting(), "features", wrap=sharded),
    "fsdp losses, heads too": lambda: train(
        UncertaintyWeighting(), "features", wrap=partial(sharded, heads=True), full=True
    ),
    "clipping": lambda: train(from_name("element-wise-clipping+upgrad"), "features"),
    "normalised": lambda: train(from_name("normalised-descent+cagrad"), "features"),
    "accumulated": accumulated,
    "without counts": without_counts,
    "skipped": skipped,
    "scaled": lambda: scaled(UPGrad()),
    "modalities": modalities,
    "looking back": looking_back,
    "without rows, exact": partial(without_rows, "parameters"),
    "without rows, features": partial(without_rows, "features"),
    "rows of one task each": rows_of_one_task_each,
}  # fmt: skip
for _name in methods():
    CASES[f"method {_name}"] = lambda name=_name: train(from_name(name), place_of(name))
WRAPPED: dict[str, Callable[[], Balancer]] = {
    "sam": lambda: SAM(CAGrad(), rho=0.5),
    "adaptive sam": lambda: SAM(UncertaintyWeighting(), rho=0.5, adaptive=True),
    "f-mtl": lambda: FMTL(MoCo(), rho=0.5),
    "samo": lambda: SAMO(CAGrad(), rho=0.5, mu=0.3),
    "rep-mtl": lambda: RepMTL(UncertaintyWeighting()),
    "accumulation": lambda: Accumulation(CAGrad(), num_batches=3),
    "accumulation of one task each": lambda: Accumulation(CAGrad(), num_batches=3, share="one"),
    "sam, rep-mtl": lambda: SAM(RepMTL(CAGrad()), rho=0.5),
    "normalised descent, f-mtl": lambda: NormalisedDescent(FMTL(UPGrad())),
}
for _name, _make in WRAPPED.items():
    CASES[f"around, {_name}"] = lambda make=_make: around(make())
SCALED: dict[str, Callable[[], Balancer]] = {
    "sam": lambda: SAM(UPGrad()),
    "f-mtl": lambda: FMTL(UPGrad()),
    "samo": lambda: SAMO(UPGrad()),
    "rep-mtl": lambda: RepMTL(UPGrad()),
    "clipping": lambda: ElementwiseClipping(UPGrad(), limit=0.1),
}
for _name, _make in SCALED.items():
    CASES[f"scaled, {_name}"] = lambda make=_make: scaled(make())


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=datetime.timedelta(seconds=60)
    )
    found: dict[str, Any] = {}
    apart = {"noise": lambda: train(from_name("gradient-noise+cagrad"), "parameters")}
    for name, case in {**CASES, **apart, **{change: partial(refused, change) for change in REFUSALS}}.items():
        try:
            found[name] = case()
        except Exception:
            found[name] = traceback.format_exc()
        torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.start_processes(worker, (str(folder),), nprocs=2, start_method="spawn")
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one(name: str, found: list[dict[str, Any]]) -> None:
    expected = CASES[name]()
    for here in found:
        assert isinstance(here[name], dict), here[name]
        assert here[name].keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(here[name][key].to_dense(), value.to_dense(), rtol=1e-6, atol=1e-9, msg=key)


@pytest.mark.slow
def test_noise_is_the_same_on_all_processes(found: list[dict[str, Any]]) -> None:
    first, second = (here["noise"] for here in found)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["trunk.0.weight"], found[0]["exact cagrad"]["trunk.0.weight"])


@pytest.mark.slow
@pytest.mark.parametrize("change", REFUSALS)
def test_all_processes_refuse_what_one_cannot_do(change: str, found: list[dict[str, Any]]) -> None:
    for here, message in zip(found, REFUSALS[change], strict=True):
        assert re.search(message, here[change]), here[change]


def test_without_a_process_group_ranks_say_how_to_start_one() -> None:
    with pytest.raises(RequestError, match=r"belongs to no process group.*init_process_group\(\), or leave ranks= out"):
        Ranks([])
