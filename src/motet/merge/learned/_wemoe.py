"""WEMoE: task vectors that a router adds for the inputs at hand."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import Tensor, nn

from motet._errors import RequestError
from motet.merge._merge import merge
from motet.merge._method import check_range
from motet.merge._models import open_models
from motet.merge._task_arithmetic import TaskArithmetic
from motet.merge.learned._descend import TaskLoss, descend, entropy
from motet.merge.learned._merged import trimmed
from motet.merge.learned._routed import RoutedModule, Router


@dataclass(frozen=True, kw_only=True)
class Routing:
    """Which modules of a merge are routed, and how.

    Args:
        modules: patterns of their names, such as 'layers.*.mlp'. Each takes (B, F), or tokens (B, S, F), first, and
            holds a linear layer that reads F features.
        by: 'row' merges for every row, 'batch' once for the mean of a batch, whose rows then belong together.
        scale: of task arithmetic in all other weights.
        start: of every coefficient, before training.
        depth: number of the routers' linear layers, 1 or 2.
        one_for_all: whether all modules share a router.
        density: share of each expert's largest changes that the routed modules keep, tensor by tensor.
        seed: of the routers' first weights.

    Raises:
        RequestError: a parameter outside its range.
    """

    modules: Sequence[str]
    by: Literal["row", "batch"] = "row"
    scale: float = 0.3
    start: float = 0.3
    depth: Literal[1, 2] = 2
    one_for_all: bool = False
    density: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("Routing", "density", self.density, 0.0, 1.0)
        if self.depth not in (1, 2) or self.by not in ("row", "batch") or isinstance(self.modules, str):
            message = f"{self!r} arrived; depth 1 or 2, by 'row' or 'batch', and a list of patterns were expected."
            raise RequestError(message + " Correct what differs.")


class RoutedMerge(nn.Module):
    """A copy of a model at task arithmetic, whose routed modules are merged anew for what comes in.

    Choose it over one merged set of weights when the experts need different weights, the task of a row is not told,
    and memory for the experts' changes in the routed modules is at hand.

        W(x) = W₀ + Σ_e g_e(x) τ_e in routed modules, θ₀ + λ Σ_e τ_e elsewhere

    Args:
        model: says how weights become outputs; it stays as it is.
        base: state dict that the experts were tuned from.
        experts: their state dicts.
        routing: which modules are routed, and how.

    Raises:
        RequestError: the state dicts do not fit, no module fits a pattern, or a module cannot be routed.

    Cost: as `RoutedModule`, for each routed module; only the routers are parameters that learn.

    Source: Tang et al., Merging Multi-Task Models via Weight-Ensembling Mixture of Experts, ICML 2024, which routes the
        MLPs of transformers and leaves the rest at task arithmetic. With `one_for_all`, `by='batch'` and density=0.1 it
        is the E-WEMoE of FusionBench, but for entries at the density's threshold, which are kept here.

    Example:
        >>> import torch
        >>> from motet.merge.learned import RoutedMerge, Routing
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
        >>> states = [torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)).state_dict() for _ in range(3)]
        >>> RoutedMerge(model, states[0], states[1:], Routing(modules=["1"]))(torch.zeros(5, 4)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self, model: nn.Module, base: Mapping[str, Tensor], experts: Sequence[Mapping[str, Tensor]], routing: Routing
    ) -> None:
        super().__init__()
        self.num_experts = len(experts)
        moved = set(open_models(base, experts).merged)
        self.model = copy.deepcopy(model).requires_grad_(requires_grad=False)
        self.model.load_state_dict(merge(base, experts, method=TaskArithmetic(scale=routing.scale)))
        routed = experts if routing.density == 1 else trimmed(base, experts, routing.density, "tensor")
        self._routers = _Routers(self.num_experts, routing)
        for name in _names(self.model, routing.modules):
            module = self.model.get_submodule(name)
            own = [part for part, _ in module.named_parameters() if f"{name}.{part}" in moved]
            module.load_state_dict({part: base[f"{name}.{part}"] for part in own}, strict=False)
            changes = {
                part: torch.stack([(expert[f"{name}.{part}"] - base[f"{name}.{part}"]).detach() for expert in routed])
                for part in own
            }
            router = self._routers.of(name, module)
            self.model.set_submodule(name, RoutedModule(module, changes, router, by=routing.by))

    def weights(self) -> dict[str, Tensor]:
        """Nothing: weights depend on the inputs here, and are merged where those arrive."""
        return {}

    def call(self, weights: Mapping[str, Tensor], *inputs: Any) -> Any:  # noqa: ARG002
        """The outputs."""
        return self.model(*inputs)

    def forward(self, *inputs: Any) -> Any:
        """The outputs, each row under weights of its own or of its batch."""
        return self.model(*inputs)


def wemoe(
    model: nn.Module,
    base: Mapping[str, Tensor],
    experts: Sequence[Mapping[str, Tensor]],
    batches: Iterable[Sequence[Any]],
    *,
    routing: Routing,
    steps: int = 1000,
    rate: float = 1e-4,
    loss: TaskLoss | None = None,
) -> RoutedMerge:
    """Learns from inputs without labels which experts a row's weights are made of.

    Choose it over `adamerging` when one set of weights cannot serve all tasks; see `RoutedMerge`.

        min over routers of Σ_e mean entropy of softmax f(x_e; W(x_e))

    Args:
        model: says how weights become outputs.
        base: state dict that the experts were tuned from.
        experts: their state dicts.
        batches: for each step a list with one batch of inputs for each expert (None where there is none).
        routing: which modules are routed, and how.
        steps: of Adam.
        rate: of Adam.
        loss: as `adamerging` takes it.

    Returns:
        The routed model, which is a module and not a state dict: it needs the experts' changes to run.

    Cost: a step is one pass of the routed model for each expert's batch.

    Source: as `RoutedMerge`, with FusionBench's Adam, steps and rate.
    """
    merged = RoutedMerge(model, base, experts, routing)
    learned = [values for values in merged.parameters() if values.requires_grad]
    descend(merged, batches, loss or entropy, torch.optim.Adam(learned, rate), steps=steps)
    return merged


class _Routers:
    """Makes the routers of the modules, or one for all of them."""

    def __init__(self, num_experts: int, routing: Routing) -> None:
        self._num_experts, self._routing = num_experts, routing
        self._generator = torch.Generator().manual_seed(routing.seed)
        self._made: dict[str, Router] = {}

    def of(self, name: str, module: nn.Module) -> Router:
        """The router of a module."""
        width = next((layer.in_features for layer in module.modules() if isinstance(layer, nn.Linear)), None)
        if width is None:
            message = f"The module '{name}' holds no nn.Linear, from which a router's width is read. Route another one."
            raise RequestError(message)
        if self._made and self._routing.one_for_all:
            first, router = next(iter(self._made.items()))
            if router.width != width:
                message = f"'{first}' reads {router.width} features and '{name}' {width}; one router for all modules"
                raise RequestError(message + " needs one width. Leave out one_for_all, or route alike modules.")
            return router
        routing = self._routing
        self._made[name] = Router(
            width, self._num_experts, start=routing.start, depth=routing.depth, generator=self._generator
        )
        return self._made[name]


def _names(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """The modules that fit a pattern, none of them within another."""
    known = [name for name, _ in model.named_modules() if name]
    found: list[str] = []
    for pattern in patterns:
        fitting = [name for name in known if fnmatchcase(name, pattern)]
        if not fitting:
            message = f"No module fits '{pattern}'. The model's modules look like '{known[0] if known else ''}'."
            raise RequestError(message)
        found += [name for name in fitting if name not in found]
    for name in found:
        outer = next((other for other in found if name.startswith(f"{other}.")), None)
        if outer is not None:
            message = f"'{name}' lies within '{outer}', and both fit {list(patterns)}; modules apart were expected."
            raise RequestError(message + " Name the outer or the inner ones.")
    return found
