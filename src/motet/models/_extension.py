"""A model with tasks that came later: it answers the earlier ones bit for bit as before."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from motet._errors import RequestError, suggest
from motet.models._multitask import MultiTaskModel
from motet.models.blocks import JoinedExperts, Mix
from motet.models.sharing import Sharing


class ExtendedModel(nn.Module):
    """A trained model, which stays as it is, and tasks added to it, which read its experts and some of their own.

    Made by `extend`. Train it as any model: only what came with the added tasks learns, `losses` has their losses and
    no others, and the earlier part runs as in evaluation. What it says of earlier tasks is bit for bit what it said
    before, whatever is learned.

    Args:
        earlier: a model, or one that was extended itself.
        added: the model of the added tasks, on the earlier one's features.

    Raises:
        RequestError: in `forward`, a task that neither has.
    """

    def __init__(self, earlier: "MultiTaskModel | ExtendedModel", added: MultiTaskModel) -> None:
        super().__init__()
        self.earlier = earlier.eval().requires_grad_(requires_grad=False)
        self.added = added
        self.tasks = earlier.tasks | added.tasks

    @property
    def sharing(self) -> nn.Module:
        """The architecture of the tasks that were added last, which has all experts."""
        return self.added.sharing

    def features(self, inputs: Any) -> Tensor:
        """The shared features (B, F), which do not learn any more."""
        return self.earlier.features(inputs)

    def outputs(self, features: Tensor, tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Each task's raw outputs (B, num_outputs) from shared features (B, F)."""
        names = list(self.tasks) if tasks is None else list(tasks)
        for name in names:
            if name not in self.tasks:
                message = f"The model has no task '{name}'.{suggest(name, self.tasks)}"
                raise RequestError(message)
        found: dict[str, Tensor] = {}
        for part in (self.earlier, self.added):
            mine = [name for name in names if name in part.tasks]
            if mine:
                found |= part.outputs(features, None if mine == list(part.tasks) else mine)
        return {name: found[name] for name in names}

    def forward(self, inputs: Any, tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Each task's raw outputs by name; with `tasks`, only those, and only their part is computed."""
        return self.outputs(self.features(inputs), tasks)

    def losses(
        self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The mean loss of each added task that has a label in the batch; the others learn nothing from theirs."""
        mine = {name: found for name, found in outputs.items() if name in self.added.tasks}
        return self.added.losses(mine, targets, present)

    def train(self, mode: bool = True) -> "ExtendedModel":  # noqa: FBT001, FBT002
        """Sets the added part to training; dropout and running statistics of the rest would change its answers."""
        super().train(mode)
        self.earlier.eval()
        return self


def extend(
    model: MultiTaskModel | ExtendedModel, tasks: Sequence[Any], *, num_experts: int = 2, head_width: int = 64
) -> ExtendedModel:
    """Adds tasks, and experts for them, to a trained model whose own answers stay what they are.

    Each added task gets a gate of its own over the model's experts, which are frozen, and over `num_experts` new ones
    in every layer that has experts; and a head. What tasks share besides, an encoder, dense layers, attention, is read
    as it is. The model given is copied, and can be extended again.

    Args:
        model: trained, with a sharing module that can be extended (`MMoE`, `TaskGated`), pruned or not.
        tasks: fitted tasks with names that the model does not have.
        num_experts: new experts in each layer that has some.
        head_width: size of the hidden layer of each added head.

    Raises:
        RequestError: a sharing module that cannot be extended, no task, or a name that is taken.

    Source: after the heterogeneous successor of Chen et al., Mod-Squad, CVPR 2023, by its abstract: new modules are
        added for a new task while the rest stays. Departure: the earlier part is kept apart, not only frozen, so that
        its arithmetic is the same to the last bit.
    """
    earlier = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
    sharing = earlier.sharing
    if not isinstance(sharing, Sharing) or not sharing.extends:
        message = (
            f"Tasks were to be added to a model with the sharing module {type(sharing).__name__}; a task has more of "
            "its own there than a choice among experts. Build the model with motet.models.sharing.TaskGated or MMoE."
        )
        raise RequestError(message)
    taken = [task.name for task in tasks if task.name in model.tasks]
    if taken:
        message = f"Task '{taken[0]}' was to be added; the model has one of that name. Give it another name."
        raise RequestError(message)
    grown = _with_more(sharing, len(tasks), num_experts)
    return ExtendedModel(earlier, MultiTaskModel(nn.Identity(), grown, tasks, head_width=head_width)).train()


def _with_more(sharing: Sharing, num_tasks: int, num_experts: int) -> Sharing:
    """The same architecture for other tasks, which reads the tensors of this one and has more experts."""
    # What a memo holds is taken as it is: all tensors are shared, and every mix is replaced.
    memo: dict[int, Any] = {id(tensor): tensor for tensor in [*sharing.parameters(), *sharing.buffers()]}
    for mix in [module for module in sharing.modules() if isinstance(module, Mix)]:
        experts = JoinedExperts(mix.experts, mix.experts.fresh(num_experts))
        route = mix.route.fresh(num_tasks, experts.num_experts)
        memo[id(mix)] = Mix(experts, route, auxiliary=mix.scales)
    grown = copy.deepcopy(sharing, memo)
    grown.num_tasks = num_tasks
    return grown
