"""CatBoost's trees for the targets of a small table, once everything else is trained and time is left for them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from motet._errors import require
from motet.tabular._boosting import BoostingRows
from motet.tabular._candidates import Candidates, Plan
from motet.tabular._catboost import CatBoostTrees, Growth
from motet.tabular._own_trees import as_tensor, work_file
from motet.tabular._prepared import Prepared
from motet.tasks import Multiclass, Multilabel, Ordinal, Quantile, Task
from motet.train import Clock, Cost, Emit, Meter, read_tensors, write_tensors

NAME = "own_catboost"
MOST_ROWS = 20_000  # to learn from; past them a fit takes minutes, and one kind of trees is enough
SHARE = 0.35  # of the time at most, kept for these trees where it is enough for all targets
START, SECONDS_A_ROW = 0.1, 5e-5  # of a training, on one slow processor
FAST, SLOW = 0.1, 0.05  # learning rates
HOPELESS = -0.25  # LightGBM's lead over the network, relative, up to which other trees are not tried
PATIENT = 4.0  # times the least seconds, from which the slow rate is worth its time


@dataclass(frozen=True)
class Cut:
    """One cut of the rows: the table under it, the plan of its trainings, and what they gave.

    Args:
        prepared: the table with the cut's split.
        plan: how its candidates were trained.
        found: they; they get these trees too.
    """

    prepared: Prepared
    plan: Plan
    found: Candidates


def share_for(prepared: Prepared, tasks: Sequence[Task], plan: Plan, num_cuts: int, clock: Clock) -> float:
    """The share of the time to keep back for these tasks: none where it would not be enough, or is not wanted."""
    if not _wanted(prepared, plan) or clock.limit is None or clock.left <= 0:
        return 0.0
    whole = num_cuts * sum(_least(prepared, task) for task in tasks)
    return min(SHARE, PATIENT * whole / clock.left) if SHARE * clock.left >= whole else 0.0


def promising(prepared: Prepared, found: Candidates) -> list[Task]:
    """The tasks to which trees may have more to say, the first those whose LightGBM is furthest ahead of the network.

    Where it is far behind, as on smooth targets, another kind of trees is too, and its time is the networks'.
    """
    leads = {task.name: lead(prepared, found, task) for task in prepared.tasks}
    kept = [task for task in prepared.tasks if leads[task.name] > HOPELESS]
    return sorted(kept, key=lambda task: -leads[task.name])


def add_catboost(cuts: Sequence[Cut], *, clock: Clock, emit: Emit) -> None:
    """Trains CatBoost for each target on every cut, as far as the time goes.

    Targets come in the order of what trees are likely to gain (`promising`). A target gets these trees on all cuts or
    on none. The rate is the slow one where there is time.

    Args:
        cuts: the first is the table's own split; their candidates get the trees, their estimates and their cost.
        clock: the time that there is.
        emit: takes the records of the log.

    Cost: a training a target and cut, of about twice LightGBM's time at the fast rate.

    Source: Prokhorenkova et al., CatBoost: unbiased boosting with categorical features, NeurIPS 2018, by its own
        library. Departure: categories of up to 32 levels are one feature a level instead of statistics of the targets.
    """
    prepared, plan, found = cuts[0].prepared, cuts[0].plan, cuts[0].found
    if not _wanted(prepared, plan):
        return
    require("catboost", "catboost")  # a second or two, which no training is to lose
    hopeful = promising(prepared, found)
    tasks = _affordable(hopeful, cuts, clock)
    if len(tasks) < len(hopeful):
        found.notes.append(
            f"There was time for CatBoost's trees for {len(tasks)} of {len(hopeful)} targets; a longer time "
            "limit leaves some for all."
        )
    if not tasks:
        return
    emit({"event": "stage", "stage": NAME, "text": f"Training CatBoost for {len(tasks)} targets, as another voice"})
    for cut in cuts:
        cut.found.start(NAME)
    for number, task in enumerate(tasks):
        _add(task, cuts, clock.part(1.0 / (len(tasks) - number)), emit)


def _add(task: Task, cuts: Sequence[Cut], clock: Clock, emit: Emit) -> None:
    """One target's trees on every cut."""
    patient = clock.left >= PATIENT * len(cuts) * _least(cuts[0].prepared, task)
    for place, cut in enumerate(cuts):
        growth = Growth(SLOW if patient else FAST, cut.plan.seed, cut.plan.threads)
        trees, cost = _grown(task, cut, growth, clock.part(1.0 / (len(cuts) - place)))
        cut.found.catboost[task.name] = trees
        cut.found.costs[NAME] += cost
        held_out = cut.prepared.matrix(cut.found.rows)
        cut.found.estimates[NAME][task.name] = trees.estimate(held_out, threads=growth.threads)
        if place == 0:
            _tell(task, cut, growth, trees, cost, emit)


def _grown(task: Task, cut: Cut, growth: Growth, clock: Clock) -> tuple[CatBoostTrees, Cost]:
    """The trees of one cut: from the work folder if a fit that was cut short had grown them, else new ones."""
    path = work_file(cut.prepared.tasks, cut.plan.work, f"{NAME}:{task.name}")
    if path is not None and path.is_file():
        tensors, metadata = read_tensors(path)
        data = tensors["trees"].numpy().tobytes()
        return CatBoostTrees.from_bytes(task, data), Cost(**json.loads(metadata["cost"]))
    meter = Meter()
    train, stop = (_rows(cut.prepared, task, rows) for rows in (cut.prepared.split.train, cut.prepared.split.stop))
    trees, rows = CatBoostTrees.fit(task, train, stop, growth=growth, clock=clock)
    cost = meter.read(rows)
    if path is not None:
        write_tensors(path, {"trees": as_tensor(trees.to_bytes())}, {"cost": json.dumps(asdict(cost))})
    return trees, cost


def _tell(task: Task, cut: Cut, growth: Growth, trees: CatBoostTrees, cost: Cost, emit: Emit) -> None:
    """A record of the log and a line of what was tried, with the score on the stop rows."""
    rows = _rows(cut.prepared, task, cut.prepared.split.stop)
    score = None
    if len(rows.targets):
        found = float(task.score(trees.estimate(rows.matrix, threads=growth.threads), rows.targets)[0])
        score = round(found, 6) if np.isfinite(found) else None
    emit({"event": "evaluate", "stage": f"{NAME}:{task.name}", "step": 0, "epoch": 0.0,
          "seconds": round(cost.seconds, 2), "losses": {}, "scores": {task.name: score},
          "better": [task.name]})  # fmt: skip
    cut.found.trials.append({
        "candidate": NAME, "task": task.name, "name": f"rate {growth.learning_rate:g}", "score": score,
        "seconds": cost.seconds, "kept": True,
    })  # fmt: skip


def _rows(prepared: Prepared, task: Task, rows: np.ndarray) -> BoostingRows:
    targets, present = prepared.targets(task, rows)
    return BoostingRows(prepared.matrix(rows[present]), targets, len(prepared.encoder.category_names))


def _wanted(prepared: Prepared, plan: Plan) -> bool:
    return plan.catboost and len(prepared.split.train) + len(prepared.split.stop) <= MOST_ROWS


def _affordable(tasks: Sequence[Task], cuts: Sequence[Cut], clock: Clock) -> list[Task]:
    """As many of the tasks, in their order, as there is time for."""
    left = clock.left
    found: list[Task] = []
    for task in tasks:
        left -= len(cuts) * _least(cuts[0].prepared, task)
        if left < 0:
            break
        found.append(task)
    return found


def _least(prepared: Prepared, task: Task) -> float:
    """Seconds that one training needs at least to be worth anything."""
    num_rows = int(prepared.targets(task, prepared.split.train)[1].sum())
    several = isinstance(task, (Multiclass, Ordinal, Multilabel, Quantile))
    return (START + SECONDS_A_ROW * num_rows) * (max(2, task.num_outputs) if several else 1)


def lead(prepared: Prepared, found: Candidates, task: Task) -> float:
    """How far LightGBM is ahead of the shared network on the first cut's choose rows, in relative terms."""
    num_choose = len(prepared.split.choose)
    targets, present = prepared.targets(task, found.rows[:num_choose])
    if not len(targets):
        return -np.inf
    trees, shared = (
        float(task.score(found.estimates[name][task.name][:num_choose][present], targets)[0])
        for name in ("own_lightgbm", "shared")
    )
    relative = (trees - shared) / max(abs(shared), 1e-12) * (1.0 if task.higher_is_better else -1.0)
    return relative if np.isfinite(relative) else -np.inf
