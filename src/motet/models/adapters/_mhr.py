"""Multi-head routing: Polytropon with a choice of skills for each block of a layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from motet._errors import RequestError
from motet.models.adapters._adapter import Adapter
from motet.models.adapters._attach import Adapters
from motet.models.adapters._layer import AdapterLayer, Place
from motet.models.adapters._lora import LowRankLayer, TaskLoRA
from motet.models.adapters._polytropon import Polytropon
from motet.models.adapters._skills import SkillLayer, SkillSettings, skill_layers
from motet.models.adapters._stages import follow


@dataclass(frozen=True)
class MHR(Adapter):
    """Polytropon whose tasks choose skills anew for each block of a layer's inputs and outputs.

    Finer than Polytropon at the same number of skill parameters: with Q heads, inputs and outputs are cut into Q
    blocks, and block q of a task is its own mixture, A_tq = Σ_s w_tqs A_qs, the blocks side by side being A_t; B_t
    likewise. y = W x + b + (1 / r) B_t A_t x. `mhr_z` goes on to new tasks by the table alone, `mhr_mu` with the mean
    of the skills.

    Args:
        num_skills: S.
        rank: r of each skill.
        num_heads: Q, which divides the layers' sides.
        noise: whether training draws relaxed yes or no, or takes sigmoids.
        one_table: whether all layers share one table, or each has its own.
        learns_skills: whether skills are trained; without, the table alone is (MHR-z).

    Cost: S · r · (in + out) + T · Q · S parameters a layer, or T · Q · S where the table alone is trained.

    Source: Caccia et al., Multi-Head Adapter Routing for Cross-Task Generalization, NeurIPS 2023; as PEFT's `poly` with
        `n_splits`. Departure: shares are drawn once for a task and pass, not for each row.

    Example:
        >>> import torch
        >>> from motet.models.adapters import MHR, attach, mhr_z
        >>> adapters = attach(torch.nn.Linear(6, 4), MHR(num_skills=3, rank=2, num_heads=2), tasks=["a", "b"])
        >>> mhr_z(adapters, tasks=["new"]).num_parameters()
        6
    """

    name: ClassVar[str] = "mhr"

    num_skills: int = 4
    rank: int = 8
    num_heads: int = 4
    noise: bool = True
    one_table: bool = False
    learns_skills: bool = True

    def layers(self, places: Sequence[Place]) -> list[AdapterLayer]:
        """Skills for each place."""
        settings = SkillSettings(self.num_skills, self.rank, self.num_heads, self.noise, self.learns_skills)
        return skill_layers(places, settings, one_table=self.one_table)


def mhr_z(trained: Adapters, *, tasks: Sequence[str], seed: int = 0) -> Adapters:
    """Goes on to new tasks with the skills as they are, and trains a new table alone.

    Args:
        trained: adapters of MHR or Polytropon; they are taken off.
        tasks: names of the new tasks.
        seed: of the new table.

    Returns:
        T · Q · S trainable numbers a layer.

    Raises:
        RequestError: the adapters have no skills.

    Source: Caccia et al., NeurIPS 2023, MHR-z. The new table starts nearly even, as the first one did.
    """
    was = _with_skills(trained)
    heads = was.num_heads if isinstance(was, MHR) else 1
    settings = MHR(was.num_skills, was.rank, heads, was.noise, was.one_table, learns_skills=False)
    new = follow(trained, settings, tasks=tasks, seed=seed)
    with torch.no_grad():
        for name, part in new.parts.items():
            old = trained.parts[name]
            if isinstance(part, SkillLayer) and isinstance(old, SkillLayer):
                part.down.copy_(old.down)
                part.up.copy_(old.up)
    return new


def mhr_mu(trained: Adapters, *, tasks: Sequence[str]) -> Adapters:
    """Goes on to new tasks from the mean of the skills, without a table: one plain LoRA for each.

    Args:
        trained: adapters of MHR or Polytropon; they are taken off.
        tasks: names of the new tasks.

    Returns:
        TaskLoRA whose every task starts from the mean.

    Raises:
        RequestError: the adapters have no skills.

    Source: Caccia et al., NeurIPS 2023, MHR-μ. Departure: the mean is trained itself; the authors' code trains
        the skills under even weights, which gives the same function and S times as many numbers.
    """
    was = _with_skills(trained)
    new = follow(trained, TaskLoRA(rank=was.rank, alpha=1.0), tasks=tasks, seed=0)
    with torch.no_grad():
        for name, part in new.parts.items():
            old = trained.parts[name]
            if isinstance(part, LowRankLayer) and isinstance(old, SkillLayer):
                part.down.copy_(old.down.mean(dim=1).flatten(0, 1))
                part.up.copy_(old.up.mean(dim=1).transpose(0, 1).flatten(1))
    return new


def _with_skills(trained: Adapters) -> MHR | Polytropon:
    if not isinstance(trained.adapter, (MHR, Polytropon)):
        message = (
            f"{trained.adapter!r} has no skills; adapters of MHR or Polytropon were expected. Train one of those on "
            "many tasks first."
        )
        raise RequestError(message)
    return trained.adapter
