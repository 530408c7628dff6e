"""Networks on tables: the shared one and each target's own, built and trained alike."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motet.balance import from_name
from motet.models import LookupEncoder, MultiTaskModel, PlainEncoder, TabularEncoder, TokenEncoder, bin_edges
from motet.models.sharing import from_name as sharing_from_name
from motet.models.sharing import methods as architectures
from motet.models.sharing import settings_of
from motet.tabular._prepared import Prepared
from motet.tasks import Task
from motet.train import Clock, Emit, LoopSettings, Trained, Trainer, estimate, skill

State = dict[str, Tensor]
SMALL = 20_000  # training rows below which a network is shallow and its heads are narrow
MANY_NUMBERS = 16  # columns, beyond which each gets half the embedding
HEADS = 512  # numbers in all heads' hidden layers together, on a small table
OWN_STATE_SKILL = 0.01  # a task keeps its own best state if that is better than the joint one by this share of skill


@dataclass(frozen=True)
class NetworkShape:
    """The sizes that rebuild a network; its weights come from a file.

    Args:
        num_bins: bins of the number columns' codes.
        num_numbers: number columns.
        category_sizes: codes of each category column.
        width: size of the shared features.
        num_blocks: residual blocks.
        number_dim: embedding size of a number column.
        category_dim: embedding size of a category column.
        head_width: size of each head's hidden layer.
        dropout: in the residual blocks.
        sharing: architecture between the encoder and the heads.
        sharing_settings: its settings.
        token_width: size of a column's token, where the architecture reads tokens; it then brings its own encoder, and
            `width`, `num_blocks`, `dropout` and the embedding sizes are not used.
        number_sizes: codes of each number column, where they look up vectors of `category_dim` numbers; () elsewhere.
        crosses: columns of each cross that looks up a vector too.
        cross_dim: size of such a vector.
        lookup: whether columns look up vectors; `dropout` is then of crosses.
        values: whether numbers join their codes; not so in runs of before this was there.
        order: 1 where columns reach linear heads as they are, 2 where their products do too; `width`, blocks and
            embeddings are then not used. 0 for a network.
    """

    num_bins: int
    num_numbers: int
    category_sizes: tuple[int, ...]
    width: int = 256
    num_blocks: int = 2
    number_dim: int = 16
    category_dim: int = 16
    head_width: int = 64
    dropout: float = 0.0
    sharing: str = "hard"
    sharing_settings: dict[str, Any] = field(default_factory=dict)
    token_width: int = 32
    number_sizes: tuple[int, ...] = ()
    crosses: tuple[tuple[int, ...], ...] = ()
    cross_dim: int = 6
    lookup: bool = False
    values: bool = False
    order: int = 0

    def build(self, tasks: Sequence[Task], edges: Tensor | None = None) -> MultiTaskModel:
        """A network of this shape; without `edges` they wait to be loaded with the weights."""
        if edges is None:
            edges = torch.zeros(self.num_numbers, self.num_bins + 1)
        with torch.random.fork_rng(devices=[]):  # the caller's own random numbers stay as they were
            encoder = self._encoder(edges)
            sharing = sharing_from_name(self.sharing, len(tasks), width=encoder.width, settings=self.sharing_settings)
            return MultiTaskModel(encoder, sharing, tasks, head_width=self.head_width)

    def _encoder(self, edges: Tensor) -> TabularEncoder | TokenEncoder | LookupEncoder | PlainEncoder:
        if self.order:
            return PlainEncoder(self.num_numbers, self.category_sizes, products=self.order > 1)
        if self.lookup:
            return LookupEncoder(
                edges,
                self.number_sizes,
                self.category_sizes,
                self.crosses,
                width=self.width,
                num_blocks=self.num_blocks,
                dim=self.category_dim,
                cross_dim=self.cross_dim,
                cross_dropout=self.dropout,
            )
        if architectures()[self.sharing].reads == "tokens":
            return TokenEncoder(edges, self.category_sizes, width=self.token_width)
        return TabularEncoder(
            edges,
            self.category_sizes,
            width=self.width,
            num_blocks=self.num_blocks,
            number_dim=self.number_dim,
            category_dim=self.category_dim,
            dropout=self.dropout,
            values=self.values,
        )

    def to_dict(self) -> dict[str, Any]:
        """The shape as plain JSON data."""
        return asdict(self) | {
            "category_sizes": list(self.category_sizes),
            "number_sizes": list(self.number_sizes),
            "crosses": [list(cross) for cross in self.crosses],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "NetworkShape":
        """Reads what `to_dict` gave."""
        tuples = {
            "category_sizes": tuple(data["category_sizes"]),
            "number_sizes": tuple(data.get("number_sizes", ())),
            "crosses": tuple(tuple(cross) for cross in data.get("crosses", ())),
        }
        arguments: dict[str, Any] = {**data, **tuples}
        return cls(**arguments)


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network with the state that serves each of its tasks."""

    shape: NetworkShape
    tasks: tuple[Task, ...]
    states: dict[str, State]
    trained: Trained

    def distinct(self) -> list[tuple[State, list[str]]]:
        """Each state that serves some task, with the names of those tasks."""
        groups: dict[int, tuple[State, list[str]]] = {}
        for name, state in self.states.items():
            groups.setdefault(id(state), (state, []))[1].append(name)
        return list(groups.values())


def shape_for(
    prepared: Prepared, sharing: str = "hard", sharing_settings: Mapping[str, Any] | None = None
) -> NetworkShape:
    """A shape that suits the table: smaller and with more dropout where there are few rows, and then by its columns."""
    num_rows, num_numbers = len(prepared.split.train), len(prepared.encoder.number_names)
    is_small = num_rows < SMALL
    return NetworkShape(
        num_bins=48 if num_rows >= 2000 else 16,
        num_numbers=num_numbers,
        category_sizes=tuple(prepared.encoder.category_sizes),
        width=256,
        num_blocks=1 if is_small else 2,
        number_dim=8 if is_small and num_numbers > MANY_NUMBERS else 16,
        head_width=min(64, max(16, HEADS // len(prepared.tasks))) if is_small else 64,
        dropout=0.2 if is_small else 0.1 if num_rows < 100_000 else 0.0,
        sharing=sharing,
        values=True,
        sharing_settings=settings_of(sharing, sharing_settings),  # whole, so that other defaults one day do no harm
    )


def loop_for(num_rows: int, *, max_epochs: int | None, seed: int, least_batch: int = 32) -> LoopSettings:
    """How long to train on so many rows: about three million row passes, in 4 to 100 epochs.

    Args:
        num_rows: that are learned.
        max_epochs: in their place, or None.
        seed: of the order of rows.
        least_batch: rows of a step at least; on a small network 128 cost no more time than 32. Where that makes steps
            larger than so few rows would have, and so fewer, they are twice as long.
    """
    epochs = max_epochs or int(np.clip(round(3e6 / max(1, num_rows)), 4, 100))
    suited = int(np.clip(2 ** np.floor(np.log2(max(1, num_rows) / 40)), 32, 512))
    batch_size = max(suited, least_batch)
    return LoopSettings(
        max_epochs=epochs,
        batch_size=batch_size,
        learning_rate=4e-3 if batch_size > suited else 2e-3,
        warmup_steps=min(200, 10 * num_rows // batch_size + 1),
        seed=seed,
    )


def train_network(
    prepared: Prepared,
    tasks: Sequence[Task],
    *,
    shape: NetworkShape,
    balance: str,
    settings: LoopSettings,
    clock: Clock,
    stage: str,
    emit: Emit,
    device: torch.device,
    checkpoint: Path | None = None,
    max_rows: int | None = None,
    start: State | None = None,
) -> TrainedNetwork:
    """Trains one network for `tasks`, which may be all of the table's or one alone; from `start` where it is given."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        edges = bin_edges(prepared.features.numbers[prepared.split.train], num_bins=shape.num_bins)
        model = shape.build(tasks, edges)
    starts = [torch.from_numpy(task.initial_outputs(prepared.targets(task, prepared.split.train)[0])) for task in tasks]
    model.heads.start_at(starts)
    if start is not None:
        model.load_state_dict(start)
    model.to(device)
    trainer = Trainer(
        model,
        prepared.rows,
        settings,
        balancer=from_name(balance).to(device),
        stage=stage,
        emit=emit,
        checkpoint=checkpoint,
    )
    trained = trainer.fit(prepared.split.train, prepared.split.stop, clock=clock, max_rows=max_rows)
    best = trained.best
    states = {}
    for task in tasks:
        joint = skill(task, best.joint_scores[task.name], best.constants[task.name])
        own_is_better = best.skills[task.name] - joint > OWN_STATE_SKILL
        states[task.name] = best.states[task.name] if own_is_better else best.joint_state
    return TrainedNetwork(shape, tuple(tasks), states, trained)


def network_estimates(network: TrainedNetwork, prepared: Prepared, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Each task's estimates for the chosen rows, from the state that serves it."""
    model = network.shape.build(network.tasks)
    found: dict[str, np.ndarray] = {}
    for state, names in network.distinct():
        model.load_state_dict(state)
        found |= estimate(model, prepared.rows, rows, names)
    return found
