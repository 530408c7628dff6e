"""Polytropon: each task a mixture of skills, and a table learns which."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from motet.models.adapters._adapter import Adapter
from motet.models.adapters._layer import AdapterLayer, Place
from motet.models.adapters._skills import SkillSettings, skill_layers


@dataclass(frozen=True)
class Polytropon(Adapter):
    """Low-rank skills that all tasks own together, and a table of which task uses how much of which.

    For many tasks of which some are alike, nobody knows which: tasks that need the same end up with the same skills,
    and the table can be read. Skills of a task are averaged first, A_t = Σ_s w_ts A_s and B_t likewise, and then
    y = W x + b + (1 / r) B_t A_t x with

        w_ts = z_ts / Σ_s z_ts,  z_ts ~ relaxed Bernoulli(Z_ts) in training, sigmoid(Z_ts) after.

    Args:
        num_skills: S.
        rank: r of each skill.
        noise: whether training draws z; without, it is the sigmoid in training too.
        one_table: whether all layers share one table Z, or each has its own.

    Cost: S · r · (in + out) + T · S parameters a layer; mixing takes T · S · r · (in + out) operations a pass, whatever
    the number of rows. Folded in for one task, nothing.

    Source: Ponti et al., Combining Parameter-efficient Modules for Task-level Generalisation, EACL 2023; first values,
        scale and normalisation as in PEFT's `poly`, where each layer has its own table. Departure: z is drawn once for
        a task and pass, not for each row.

    Example:
        >>> import torch
        >>> from motet.models.adapters import Polytropon, attach
        >>> adapters = attach(torch.nn.Linear(6, 4), Polytropon(num_skills=3, rank=2), tasks=["a", "b"])
        >>> adapters.num_parameters()
        66
    """

    name: ClassVar[str] = "polytropon"

    num_skills: int = 4
    rank: int = 8
    noise: bool = True
    one_table: bool = False

    def layers(self, places: Sequence[Place]) -> list[AdapterLayer]:
        """Skills for each place."""
        return skill_layers(places, SkillSettings(self.num_skills, self.rank, 1, self.noise), one_table=self.one_table)
