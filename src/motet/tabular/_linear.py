"""A linear or quadratic model for every target: what goes on where trees and networks stand still."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from motet.models.encoders import PlainEncoder
from motet.tabular._network import NetworkShape, TrainedNetwork
from motet.tabular._pieces import pieces_of
from motet.tabular._prepared import Prepared
from motet.tasks import Task
from motet.train import Best, Clock, Meter, Trained, skill

STRENGTHS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)  # λ, the strongest first
MOST_NUMBERS = 10_000_000  # training rows times features; beyond, it costs more than it tells
MOST_FEATURES = 1500
MOST_PRODUCTS = 24  # number columns up to which their products are tried
STEPS = 40  # of L-BFGS a strength; with the problem's own scale set beforehand few are needed
OTHERS = 0.25  # what the mean skill over targets counts beside a target's own: few labels alone are misleading
PIECES = 5  # of the train and stop rows, each of which is answered for by the others' model to choose the strengths
CLOSE = 1e-6  # change of the loss below which a problem is solved
NOTHING = 1e-9  # of the largest eigenvalue: directions with less are no directions of the rows


class Penalty(NamedTuple):
    """How one target's model is held back.

    Args:
        order: 1 for a linear model, 2 for one with the products of its numbers.
        strength: λ.
    """

    order: int
    strength: float


Penalties = Mapping[str, Penalty]  # by task


def fit_linear(prepared: Prepared, penalties: Penalties) -> TrainedNetwork:
    """One linear model a target, each under a penalty of its own.

    For each target the convex problem

        mean loss over labelled train rows + ½ λ ‖w‖²

    with the target's own loss: least squares for numbers, logistic for classes, Poisson for counts. Numbers, levels and
    gaps have one weight each, and in a model of order 2 so has each product of two numbers.

    Args:
        prepared: the table; train rows are learned.
        penalties: by task, from `choose_penalties`.

    Cost: an eigendecomposition of the features' second moments and some ten products of all rows with all targets'
        weights for each λ: .1 to 1 s where there are a few thousand rows.

    Source: ridge regression (Hoerl and Kennard, 1970) and its generalised linear kin; L-BFGS (Liu and Nocedal, 1989)
        in coordinates where the loss at the best constant, penalty included, curves alike in all directions.
    """
    meter = Meter()
    train = prepared.split.train
    shape = _shape(prepared, max(penalty.order for penalty in penalties.values()))
    model = shape.build(prepared.tasks)
    encoder = _standardised(prepared, train, shape.order)
    model.encoder = encoder
    rows = encoder(prepared.rows.take(train).inputs)
    with torch.no_grad():
        model.heads.weight_out.zero_()
        for order in {penalty.order for penalty in penalties.values()}:
            wanted = {name: penalty.strength for name, penalty in penalties.items() if penalty.order == order}
            problem = _Problem(prepared, train, rows if order > 1 else rows[:, : encoder.num_plain])
            for strength in sorted(set(wanted.values()), reverse=True):
                weights, biases = problem.solve(strength, [name for name in wanted if wanted[name] == strength])
                for place, task in enumerate(prepared.tasks):
                    if wanted.get(task.name) == strength:
                        model.heads.weight_out[place, : weights.shape[1]] = weights[place]
                        model.heads.bias_out[place] = biases[place]
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    trained = Trained(Best(prepared.tasks, {}, patience=1), meter.read(len(train)), 1.0, "epochs")
    return TrainedNetwork(shape, tuple(prepared.tasks), {task.name: state for task in prepared.tasks}, trained)


def choose_penalties(prepared: Prepared, *, seed: int, clock: Clock) -> Penalties | None:
    """The order and the penalty of each target's model; None where the table is too large for such models.

    The train and stop rows are cut into five pieces, each is answered for by models of the other four, and the penalty
    with the best score wins; the mean score over all targets has a say too, for few labels alone mislead. Products are
    tried where there are at most `MOST_PRODUCTS` number columns.

    Args:
        prepared: the table; choose and test rows are not looked at.
        seed: of the pieces, where they are drawn by chance.
        clock: the time; when it is over, no more penalties are tried.

    Cost: five times that of `fit_linear` for each order, or the time. Where folds answer for these rows later, one of
        eighteen penalties was chosen by them too, which flatters these models a little.
    """
    rows = np.sort(np.concatenate([prepared.split.train, prepared.split.stop]))
    encoder = _standardised(prepared, rows, 2 if len(prepared.encoder.number_names) <= MOST_PRODUCTS else 1)
    if encoder.width > MOST_FEATURES or len(rows) * encoder.width > MOST_NUMBERS:
        return None
    features = encoder(prepared.rows.take(rows).inputs)
    piece = pieces_of(prepared, rows, PIECES, seed)
    tried: list[Penalty] = []
    skills: list[list[float]] = []
    for order in (1, 2) if encoder.width > encoder.num_plain else (1,):
        part = features if order > 1 else features[:, : encoder.num_plain]
        problems = [_Problem(prepared, rows[piece != one], part[piece != one]) for one in range(PIECES)]
        for strength in STRENGTHS:
            if tried and clock.left <= 0:
                break
            outputs = torch.zeros(len(prepared.tasks), len(rows), problems[0].widest)
            for one, problem in enumerate(problems):
                weights, biases = problem.solve(strength)
                outputs[:, piece == one] = part[piece == one] @ weights + biases
            tried.append(Penalty(order, strength))
            skills.append([
                _skill(prepared, task, output, rows) for task, output in zip(prepared.tasks, outputs, strict=True)
            ])  # fmt: skip
    best = [tried[place] for place in _best(np.array(skills))]
    return dict(zip([task.name for task in prepared.tasks], best, strict=True))


def _shape(prepared: Prepared, order: int) -> NetworkShape:
    return NetworkShape(
        num_bins=1, num_numbers=len(prepared.encoder.number_names),
        category_sizes=tuple(prepared.encoder.category_sizes), width=0, head_width=0, order=order,
    )  # fmt: skip


def _standardised(prepared: Prepared, rows: np.ndarray, order: int) -> PlainEncoder:
    """The encoder with these rows' centres and scales."""
    sizes = prepared.encoder.category_sizes
    encoder = PlainEncoder(len(prepared.encoder.number_names), sizes, products=order > 1)
    encoder.standardise(torch.from_numpy(prepared.features.numbers[rows]))
    return encoder


def _skill(prepared: Prepared, task: Task, outputs: Tensor, rows: np.ndarray) -> float:
    """Between the best constant (0) and perfection (1); NaN where one class is all that there is."""
    targets, present = prepared.targets(task, rows)
    estimates = task.estimate(outputs[present, : task.num_outputs]).numpy()
    constant = np.repeat(task.baseline(targets), len(targets), axis=0)
    return skill(task, *(float(task.score(one, targets)[0]) for one in (estimates, constant)))


def _best(skills_ST: np.ndarray) -> list[int]:
    """For each target the penalty with the best own skill, where the mean over targets has a say too."""
    known = np.isfinite(skills_ST).all(axis=0)
    own_ST = np.where(known, skills_ST, 0.0)
    mean_S = own_ST.sum(axis=1) / max(1, known.sum())
    return [int(place) for place in np.argmax(own_ST + OTHERS * mean_S[:, None], axis=0)]


class _Problem:
    """The training rows in the directions of their second moments, where strengths differ by a scale alone."""

    def __init__(self, prepared: Prepared, rows: np.ndarray, rows_NF: Tensor) -> None:
        self.tasks = prepared.tasks
        batch = prepared.rows.take(rows)
        self.targets, self.present = batch.targets, batch.present
        self.mean_F = rows_NF.double().mean(dim=0)
        centred_NF = rows_NF.double() - self.mean_F
        values, vectors = torch.linalg.eigh(centred_NF.T @ centred_NF / len(rows_NF))
        kept = values > NOTHING * values[-1].clamp(min=NOTHING)
        self.values_R, self.vectors_FR = values[kept], vectors[:, kept]
        self.rows_NR = (centred_NF @ self.vectors_FR).float()
        self.widest = widest = max(task.num_outputs for task in self.tasks)
        self.biases_TK = torch.zeros(len(self.tasks), 1, widest)
        self.curves_TK = torch.ones(len(self.tasks), 1, widest)
        for place, task in enumerate(self.tasks):
            targets = prepared.targets(task, rows)[0]
            if not len(targets):  # a few labels may all be in the piece that is left out
                continue
            start = torch.from_numpy(task.initial_outputs(targets)).float()
            self.biases_TK[place, 0, : task.num_outputs] = start
            self.curves_TK[place, 0, : task.num_outputs] = self._curve(task, start)
        self.weights_TRK = torch.zeros(len(self.tasks), len(self.values_R), widest)

    def solve(self, strength: float, names: Sequence[str] | None = None) -> tuple[Tensor, Tensor]:
        """Weights (T, F, K) and biases (T, 1, K) for rows as they are, of some tasks; goes on from what it had."""
        for place, task in enumerate(self.tasks):
            if names is None or task.name in names:
                self._solve(place, strength)
        weights_TFK = self.vectors_FR @ self.weights_TRK.double()
        biases = self.biases_TK.double() - (self.mean_F @ weights_TFK).unsqueeze(1)
        return weights_TFK.float(), biases.float()

    @torch.enable_grad()
    def _solve(self, place: int, strength: float) -> None:
        """One task's problem: tasks share no weight, and together each would wait for the slowest."""
        task, size = self.tasks[place], self.tasks[place].num_outputs
        targets, present = self.targets[task.name], self.present[task.name]
        scale_RK = (self.curves_TK[place, :, :size] * self.values_R[:, None] + strength).rsqrt().float()
        free_RK = (self.weights_TRK[place, :, :size] / scale_RK).requires_grad_()
        biases_K = self.biases_TK[place, :, :size].clone().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [free_RK, biases_K], max_iter=STEPS, tolerance_change=CLOSE, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            weights_RK = free_RK * scale_RK
            total = task.masked_loss(self.rows_NR @ weights_RK + biases_K, targets, present)
            total = total + 0.5 * strength * weights_RK.square().sum()
            total.backward()
            return total

        optimizer.step(loss)
        self.weights_TRK[place, :, :size] = (free_RK * scale_RK).detach()
        self.biases_TK[place, :, :size] = biases_K.detach()

    @torch.enable_grad()
    def _curve(self, task: Task, outputs: Tensor) -> Tensor:
        """The second derivative of the mean loss by each output (K,), where all rows get the best constant."""
        name = task.name
        spread = outputs.expand(len(self.rows_NR), -1).clone().requires_grad_()
        loss = task.masked_loss(spread, self.targets[name], self.present[name]) * len(spread)
        (slope,) = torch.autograd.grad(loss, spread, create_graph=True)
        if not slope.requires_grad:  # a loss that is straight, such as a quantile's
            return torch.ones(len(outputs))
        (curve,) = torch.autograd.grad(slope.sum(), spread)
        return curve.mean(dim=0).clamp(min=1e-3)
