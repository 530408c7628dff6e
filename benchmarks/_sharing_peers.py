"""MMoE, CGC and PLE of DeepCTR-Torch and torch-rechub at the sizes of ours, and ours with their weights.

Both peers are taken as they come from their packages, with one dense feature in the place of embeddings, no hidden
layer in gates and towers, and a linear tower of one output a task. torch-rechub puts a batch norm into every layer of
experts and gates and leaves no choice.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from motet.models.blocks import Experts, Gate, Levels, Mix, SoftmaxRoute, StackedLinear
from motet.models.sharing import CGC, MMoE
from motet.models.sharing._owners import own_and_shared, owners

INPUTS, LEVELS = 128, 2


@dataclass(frozen=True)
class Shape:
    """One architecture of one size.

    Args:
        kind: `mmoe`, `cgc` or `ple`.
        tasks: T.
        experts: all of `mmoe`; of the others, those of each task and the shared ones.
        dims: sizes of an expert's layers.
        batches: rows.
    """

    kind: str
    tasks: int
    experts: int
    dims: tuple[int, ...]
    batches: tuple[int, ...]

    @property
    def levels(self) -> int:
        """How many levels of experts."""
        return LEVELS if self.kind == "ple" else 1


SHAPES = (
    Shape("mmoe", 16, 32, (64, 32), (128, 2048)),
    Shape("mmoe", 2, 8, (64, 32), (128, 2048)),
    Shape("cgc", 8, 1, (64, 32), (128, 2048)),
    Shape("ple", 8, 1, (64, 32), (128, 2048)),
    Shape("ple", 8, 2, (256, 128), (512,)),
)


class Ours(nn.Module):
    """Ours with a linear tower for each task, from rows (B, F) to (B, T)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        tasks, own, dims = shape.tasks, shape.experts, shape.dims
        if shape.kind == "ple":
            self.sharing: nn.Module = _Deep(shape)
        elif shape.kind == "cgc":
            self.sharing = CGC(tasks, width=INPUTS, num_specific=own, num_shared=own, dims=dims)
        else:
            self.sharing = MMoE(tasks, width=INPUTS, num_experts=own, dims=dims)
        self.tower = StackedLinear(tasks, dims[-1], 1)

    def forward(self, rows: Tensor) -> Tensor:
        """The outputs of all tasks."""
        return self.tower(self.sharing(rows)).squeeze(-1).T

    @property
    def mixes(self) -> list[Mix]:
        """Its levels."""
        return [module for module in self.modules() if isinstance(module, Mix)]


class _Deep(nn.Module):
    """PLE whose experts have several layers, as the peers' have; the library's own has levels of one."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        owner = owners(shape.tasks, shape.experts, shape.experts)
        mixes = []
        for number in range(LEVELS):
            inputs = shape.dims[-1] if number else INPUTS
            outputs = shape.tasks + (number < LEVELS - 1)
            see = own_and_shared(owner, shape.tasks, outputs)
            see[shape.tasks :] = True
            route = SoftmaxRoute(Gate(outputs, len(owner), inputs), see)
            mixes.append(Mix(Experts(len(owner), inputs, shape.dims), route, source=owner))
        self.levels, self.tasks = Levels(mixes), list(range(shape.tasks))

    def forward(self, rows: Tensor) -> Tensor:
        return self.levels(rows, self.tasks)


def deepctr(shape: Shape) -> nn.Module:
    """DeepCTR-Torch's model; it reads rows (B, F)."""
    from deepctr_torch.inputs import DenseFeat
    from deepctr_torch.models.multitask.mmoe import MMOE
    from deepctr_torch.models.multitask.ple import PLE

    common: dict[str, Any] = {
        "dnn_feature_columns": [DenseFeat("x", INPUTS)], "expert_dnn_hidden_units": shape.dims,
        "gate_dnn_hidden_units": (), "tower_dnn_hidden_units": (), "init_std": 0.1,
        "task_types": ["regression"] * shape.tasks, "task_names": [str(task) for task in range(shape.tasks)],
    }  # fmt: skip
    if shape.kind == "mmoe":
        return MMOE(num_experts=shape.experts, **common)
    own = shape.experts
    return PLE(shared_expert_num=own, specific_expert_num=own, num_levels=shape.levels, **common)


class Rechub(nn.Module):
    """torch-rechub's model on rows (B, F)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        from torch_rechub.basic.features import DenseFeature
        from torch_rechub.models.multi_task.mmoe import MMOE
        from torch_rechub.models.multi_task.ple import PLE

        common: dict[str, Any] = {
            "features": [DenseFeature("x", INPUTS)], "task_types": ["regression"] * shape.tasks,
            "expert_params": {"dims": list(shape.dims)}, "tower_params_list": [{"dims": []}] * shape.tasks,
        }  # fmt: skip
        own = shape.experts
        if shape.kind == "mmoe":
            self.net: nn.Module = MMOE(n_expert=own, **common)
        else:
            self.net = PLE(n_level=shape.levels, n_expert_specific=own, n_expert_shared=own, **common)

    def forward(self, rows: Tensor) -> Tensor:
        """The outputs of all tasks."""
        return self.net({"x": rows})


class _AsTheyAre(nn.Module):
    def forward(self, given: dict[str, Tensor], *_: object, **__: object) -> Tensor:
        return given["x"]


PEERS: dict[str, Callable[[Shape], nn.Module]] = {"DeepCTR-Torch": deepctr, "torch-rechub": Rechub}


def disagreement(shape: Shape, peer: nn.Module, rows: Tensor) -> float:
    """The largest difference from a peer of ours with its weights: of outputs, and of their gradient at the rows.

    torch-rechub is compared without what it adds to the equations, its batch norms and its gates' biases, and without
    its way in, which makes all numbers single.
    """
    ours, plain = Ours(shape), copy.deepcopy(peer)
    if isinstance(plain, Rechub):
        plain.net.embedding = _AsTheyAre()
    for module in plain.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm1d):
                setattr(module, name, nn.Identity())
    with torch.no_grad():
        levels, towers = _rechub_parts(plain.net, shape) if isinstance(plain, Rechub) else _deepctr_parts(plain, shape)
        for mix, (experts, gates) in zip(ours.mixes, levels, strict=True):
            _copy(mix, experts, gates)
        ours.tower.weight.copy_(torch.stack([tower.weight.T for tower in towers]))
        ours.tower.bias.copy_(torch.stack([_bias(tower).unsqueeze(0) for tower in towers]))
    found = []
    for net in (ours.double(), plain.double()):
        given = rows.double().requires_grad_()
        outputs = net(given)
        found.append((outputs, torch.autograd.grad(outputs.square().sum(), given)[0]))
    return max(float((one - other).detach().abs().max()) for one, other in zip(*found, strict=True))


Linears = list[list[nn.Linear]]
Parts = tuple[list[tuple[Linears, list[nn.Linear]]], list[nn.Linear]]


def _deepctr_parts(net: Any, shape: Shape) -> Parts:
    if shape.kind == "mmoe":
        levels = [([list(part.linears) for part in net.expert_dnn], list(net.gate_dnn_final_layer))]
        return levels, list(net.tower_dnn_final_layer)
    levels = []
    for number in range(shape.levels):
        experts = [part for group in net.specific_experts[number] for part in group] + [*net.shared_experts[number][0]]
        gates = [*net.specific_gate_dnn_final_layer[number]]
        if number < shape.levels - 1:  # on the last level it has one that nobody reads
            gates.append(net.shared_gate_dnn_final_layer[number])
        levels.append(([list(part.linears) for part in experts], gates))
    return levels, list(net.tower_dnn_final_layer)


def _rechub_parts(net: Any, shape: Shape) -> Parts:
    levels = []
    for level in [net] if shape.kind == "mmoe" else net.cgc_layers:
        experts = level.experts if shape.kind == "mmoe" else [*level.experts_specific, *level.experts_shared]
        gates = [*(level.gates if shape.kind == "mmoe" else level.gates_specific)]
        gates += [level.gate_shared] if hasattr(level, "gate_shared") else []
        linears = [_linears(gate)[0] for gate in gates]
        for linear in linears:
            linear.bias.zero_()
        levels.append(([_linears(expert) for expert in experts], linears))
    return levels, [_linears(tower)[0] for tower in net.towers]


def _linears(module: nn.Module) -> list[nn.Linear]:
    return [part for part in module.modules() if isinstance(part, nn.Linear)]


def _bias(linear: nn.Linear) -> Tensor:
    return torch.zeros(linear.out_features) if linear.bias is None else linear.bias


def _copy(mix: Any, experts: Linears, gates: list[nn.Linear]) -> None:
    for number, layer in enumerate(mix.experts.layers):
        layer.weight.copy_(torch.stack([expert[number].weight.T for expert in experts]))
        layer.bias.copy_(torch.stack([expert[number].bias.unsqueeze(0) for expert in experts]))
    weight, see = mix.route.gate.layers[0].weight, mix.route.see
    for place, gate in enumerate(gates):
        read = torch.arange(len(experts)) if see is None else see[place].nonzero().squeeze(-1)
        weight[place] = 0.0
        weight[place][:, read] = gate.weight.T
