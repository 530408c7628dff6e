"""Who serves each target: what the choose rows say of its candidates."""

import itertools
from dataclasses import dataclass, replace

import numpy as np

from motet.tabular._blend import LEAST_ROWS, cross_fitted, fit_blend, mixed
from motet.tabular._candidates import Candidates
from motet.tabular._dependence import block_length, row_errors
from motet.tabular._guard import Comparison, HeldOut, draw_weights
from motet.tabular._prepared import Prepared
from motet.tasks import Calibration, Task, fit_calibration

LEAD = 5.0  # percent by which an own model must lead another in a series, whose blocks are too few for an interval


@dataclass(frozen=True)
class Rules:
    """How the guard decides.

    Args:
        margin: how much worse in percent the shared model may at most be, by the lower end of the interval.
        resamples: bootstrap resamples.
        level: share of rows that an interval is to cover.
        seed: of the resamples.
        deploy: `best` lets a blend of the candidates serve where it is proven better; `small` does not.
    """

    margin: float = 0.5
    resamples: int = 500
    level: float = 0.9
    seed: int = 0
    deploy: str = "small"


@dataclass(frozen=True)
class Trial:
    """How the distilled network came out on the choose rows, against what serves and against the own model.

    Args:
        teacher: how much of each candidate's estimate it was taught.
        served: the comparison with what serves otherwise.
        own: the comparison with the best own model.
        admitted: whether both say "not worse".
    """

    teacher: dict[str, float]
    served: Comparison
    own: Comparison
    admitted: bool


@dataclass(frozen=True)
class Judged:
    """What the choose rows say of one task's candidates, before anything looks at the test rows.

    Args:
        task: the fitted task.
        targets: of the held-out rows that have its label, choose before test.
        present: which of the held-out rows have it.
        num_choose: how many of `targets` are of choose rows.
        raw: estimates of the labelled rows by candidate.
        shares: what each candidate mixes.
        calibrations: by candidate.
        own: the best own model.
        guard: how the shared network compares with it.
        served: what serves.
        trial: of the distilled network, or None.
    """

    task: Task
    targets: np.ndarray
    present: np.ndarray
    num_choose: int
    raw: dict[str, np.ndarray]
    shares: dict[str, dict[str, float]]
    calibrations: dict[str, Calibration]
    own: str
    guard: Comparison
    served: str
    trial: Trial | None = None

    def good(self, constant: np.ndarray) -> dict[str, np.ndarray]:
        """Calibrated estimates of the labelled rows by candidate, and those of the best constant."""
        found = {name: self.calibrations[name].apply(part) for name, part in self.raw.items()}
        return found | {"constant": np.repeat(constant, len(self.targets), axis=0)}


class Judge:
    """Chooses on the choose rows who serves each task.

    Args:
        prepared: the table.
        found: the trained candidates.
        rules: how the guard decides.

    Attributes:
        parts: the choose rows with what serves and what it was compared with, by task, once it is judged.
    """

    def __init__(self, prepared: Prepared, found: Candidates, rules: Rules) -> None:
        self.prepared, self.found, self.rules = prepared, found, rules
        rows, count = found.rows, len(prepared.split.choose)
        self.choose = Resampled(prepared, rows[:count], resamples=rules.resamples, seed=rules.seed)
        self.test = Resampled(prepared, rows[count:], resamples=rules.resamples, seed=rules.seed + 1)
        self.parts: dict[str, HeldOut] = {}

    def judge(self, task: Task) -> Judged:
        """Who serves a task, by the choose rows alone."""
        targets, present = self.prepared.targets(task, self.found.rows)
        num_choose = int(present[: len(self.choose.rows)].sum())
        chosen = targets[:num_choose]
        estimates = {name: self.found.estimates[name] for name in self.found.judged}
        raw = {name: part[task.name][present] for name, part in estimates.items() if task.name in part}
        shares = {name: {name: 1.0} for name in raw}
        if self.rules.deploy == "best" and num_choose >= LEAST_ROWS:
            shares["blend"], raw["blend"] = self._blend(task, raw, chosen, present)
        calibrations = {name: fit_calibration(task, part[:num_choose], chosen) for name, part in raw.items()}
        judged = Judged(
            task, targets, present, num_choose, raw, shares, calibrations,
            own="own_lightgbm", guard=Comparison(np.nan, np.nan, np.nan), served="own_lightgbm",
        )  # fmt: skip
        part = self._chosen(judged)
        # Trees stand for the target unless another own model is proven better: with few rows the better score is luck.
        own = "own_lightgbm"
        for other in ("own_network", "own_catboost", "own_linear"):
            if other in raw and (part.compare(other, own).low > 0 or self._leads_a_series(part, other, own)):
                own = other
        guard = part.compare("shared", own)
        served = "shared" if guard.verdict(self.rules.margin) == "not worse" else own
        if "blend" in raw and self._blend_serves(part, served, own):
            served = "blend"
        self.parts[task.name] = part
        return replace(judged, own=own, guard=guard, served=served)

    def _leads_a_series(self, part: HeldOut, first: str, second: str) -> bool:
        """Whether the first model is clearly better over all rows of a series that the cuts left out.

        A series has few independent blocks, whose interval proves next to nothing. Which own model stands for a target
        need not be proven: nothing is promised of it but that it is the target's own.
        """
        is_series = bool(self.found.folds) and part.num_draws < len(part.targets)
        return is_series and part.compare(first, second).gain > LEAD

    def _blend_serves(self, part: HeldOut, served: str, own: str) -> bool:
        """Whether it is proven better; with folds, whether it looks better and the guard agrees."""
        gain = part.compare("blend", served)
        if not self.found.folds:
            return gain.low > 0
        return gain.gain > 0 and part.compare("blend", own).verdict(self.rules.margin) == "not worse"

    def teacher(self, judged: Judged) -> dict[str, float]:
        """What a small network learns from: the blend of the candidates where that looks better than what serves."""
        one = judged.shares[judged.served]
        if judged.num_choose < LEAST_ROWS:
            return one
        task, chosen = judged.task, judged.targets[: judged.num_choose]
        raw = {name: judged.raw[name] for name in self.found.judged if name in judged.raw}
        shares, estimates = self._blend(task, raw, chosen, judged.present)
        scores = [task.score(part[: len(chosen)], chosen)[0] for part in (estimates, judged.raw[judged.served])]
        better = scores[0] > scores[1] if task.higher_is_better else scores[0] < scores[1]
        return shares if better else one

    def admit(self, judged: Judged, estimates: np.ndarray, teacher: dict[str, float]) -> Judged:
        """The same with the distilled network as what serves, if it may."""
        raw = judged.raw | {"distilled": estimates[judged.present]}
        chosen = judged.targets[: judged.num_choose]
        calibration = fit_calibration(judged.task, raw["distilled"][: judged.num_choose], chosen)
        tried = replace(
            judged, raw=raw, shares=judged.shares | {"distilled": {"distilled": 1.0}},
            calibrations=judged.calibrations | {"distilled": calibration},
        )  # fmt: skip
        part = self._chosen(tried)
        against = [part.compare("distilled", name) for name in (judged.served, judged.own)]
        admitted = may_serve(against[0], against[1], self.rules.margin)
        trial = Trial(teacher, against[0], against[1], admitted)
        if admitted:
            self.parts[judged.task.name] = part
        return replace(tried, trial=trial, served="distilled" if admitted else judged.served)

    def _chosen(self, judged: Judged) -> HeldOut:
        """The labelled choose rows."""
        part = {name: values[: judged.num_choose] for name, values in judged.good(self.constant(judged.task)).items()}
        present = judged.present[: len(self.choose.rows)]
        return self.choose.held_out(judged.task, part, judged.targets[: judged.num_choose], present)

    def tested(self, judged: Judged) -> HeldOut:
        """The labelled test rows."""
        part = {name: values[judged.num_choose :] for name, values in judged.good(self.constant(judged.task)).items()}
        present = judged.present[len(self.choose.rows) :]
        return self.test.held_out(judged.task, part, judged.targets[judged.num_choose :], present)

    def constant(self, task: Task) -> np.ndarray:
        """The estimate of the best constant of the training rows."""
        return task.baseline(self.prepared.targets(task, self.prepared.split.train)[0])

    def _blend(
        self, task: Task, raw: dict[str, np.ndarray], chosen: np.ndarray, present: np.ndarray
    ) -> tuple[dict[str, float], np.ndarray]:
        """The blend's shares, and its estimates: of choose rows under shares that these rows did not choose."""
        halves = self.choose.halves(present[: len(self.choose.rows)])
        choices = {name: part[: len(chosen)] for name, part in raw.items()}
        shares = fit_blend(task, choices, chosen)
        rest = mixed({name: part[len(chosen) :] for name, part in raw.items()}, shares)
        return shares, np.concatenate([cross_fitted(task, choices, chosen, halves), rest])


class Resampled:
    """The resamples of one part of the rows, drawn once for each length of block.

    Args:
        prepared: whose groups and order say what is drawn together.
        rows: numbers of the part's rows.
        resamples: R.
        seed: of the draw.
    """

    def __init__(self, prepared: Prepared, rows: np.ndarray, *, resamples: int, seed: int) -> None:
        self.prepared, self.rows, self.resamples, self.seed = prepared, rows, resamples, seed
        self._weights: dict[int, np.ndarray] = {}

    def held_out(
        self, task: Task, estimates: dict[str, np.ndarray], targets: np.ndarray, present: np.ndarray
    ) -> HeldOut:
        """One task's labelled rows of this part; rows of a series are drawn in blocks.

        Args:
            task: the fitted task.
            estimates: of the labelled rows, by candidate.
            targets: of the labelled rows.
            present: over all rows of the part, which are labelled.
        """
        sequence = self.prepared.sequence(self.rows[present])
        block = 1
        if self.prepared.groups is None:
            # Not the constant: where a table is sorted by its target, that one's errors follow the target.
            candidates = [part for name, part in estimates.items() if name != "constant"]
            errors = [row_errors(task, part, targets)[sequence] for part in candidates]
            pairs = itertools.combinations(errors, 2)
            block = max((block_length(one - other) for one, other in pairs), default=1)
        together = self.prepared.draws(self.rows, block=block)
        if block not in self._weights:
            self._weights[block] = draw_weights(
                len(self.rows), resamples=self.resamples, seed=self.seed, groups=together
            )
        draws = None if together is None else len(np.unique(together[present]))
        return HeldOut(task, estimates, targets, self._weights[block][:, present], draws=draws)

    def halves(self, present: np.ndarray) -> np.ndarray:
        """Which half each labelled row is in: every other of twenty stretches of rows, or every other group."""
        together = self.prepared.draws(self.rows)
        if together is not None:
            return np.unique(together[present], return_inverse=True)[1] % 2 == 0
        places = np.empty(int(present.sum()), dtype=np.int64)
        places[self.prepared.sequence(self.rows[present])] = np.arange(len(places))
        return places // (len(places) // 20 + 1) % 2 == 0


def may_serve(against_served: Comparison, against_own: Comparison, margin: float) -> bool:
    """Whether a distilled network takes a task over.

    That it is not worse than the task's own model must be proven, for that is what the guard promises. Against what
    serves in that model's place a mean within the margin is enough where the rows cannot tell.
    """
    served = against_served.verdict(margin)
    enough = served == "not worse" or (served == "not proven" and against_served.gain >= -margin)
    return enough and against_own.verdict(margin) == "not worse"
