"""Folds of a small table: every row answers once as a row that was not learned, and what serves is the mean of all."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from motet._errors import require
from motet.data import Split
from motet.tabular._boosting import ways_for
from motet.tabular._candidates import Candidates, Plan, train_candidates
from motet.tabular._linear import choose_penalties
from motet.tabular._pieces import pieces_of
from motet.tabular._prepared import Prepared
from motet.tabular._second_trees import Cut, add_catboost, lead, promising, share_for
from motet.tabular._settings import LARGEST_SEED
from motet.tabular._trials import Journal, Trials, tried
from motet.train import Clock, Cost, Emit

PIECES = 8  # of the train and stop rows; the choose rows are one more
FEWEST_PIECES = 3
MOST_ROWS = 20_000
COLUMNS = 0.7  # of which each tree of a further cut uses a part: trees that differ make the better mean
LEAST_BATCH = 128  # rows of a step: many trainings are to fit into the time of one
EPOCHS = 25  # of a network on a small table, where it leads; more cuts of fewer are the lesser good
LINEAR = 0.1  # of the time at most, to find how strongly linear models are penalised
TRYING = 0.15  # of the time, to find the sharing architecture
SECONDS_A_ROW, SECONDS_A_LABEL = 2e-4, 1.5e-4  # that a training of all candidates needs on one slow processor


def train_folds(prepared: Prepared, plan: Plan, *, clock: Clock, emit: Emit) -> tuple[Prepared, Candidates]:
    """Trains the candidates on several cuts of the same rows, where the table is small and there is time for it.

    The first cut is the table's own split. In each further one a piece of the train and stop rows is left out, and the
    choose rows end the training. So every row but the test rows has an estimate by candidates that did not learn it,
    and there are ten times as many rows to choose on; what answers for new rows is the mean over the cuts. Where there
    is time for that too, short trials decide before the first cut which sharing architecture the networks get. At the
    end come CatBoost's trees, if they are wanted, on every cut; they are for tables without folds too.

    Args:
        prepared: the table.
        plan: how the candidates are trained.
        clock: the time for all of it.
        emit: takes the records of the log; of further cuts it hears no more than that they begin.

    Returns:
        the table as whoever chooses sees it, and the candidates. Where there are no folds, the table as it came.

    Cost: that of the candidates, once for each cut.

    Source: out-of-fold estimates and bags of folds as in AutoGluon-Tabular (Erickson et al., 2020). Departures: rows
        that end a training are not the ones that are answered for, which would flatter whatever stops the latest; and
        where the test rows are stretches of the table, the pieces are.
    """
    _load()
    num_pieces = _pieces(prepared, clock)
    kept = share_for(prepared, prepared.tasks, plan, num_pieces + 1, clock)
    if num_pieces:
        journal = Journal(None if plan.work is None else plan.work / "trials.jsonl")
        ways = dict.fromkeys((task.name for task in prepared.tasks), ways_for(len(prepared.split.train)))
        folded = replace(plan, own_networks=False, least_batch=LEAST_BATCH, ways=ways)
        folded = Trials(prepared, folded, journal, emit).best(clock.part(TRYING))
        folded = replace(folded, penalties=choose_penalties(prepared, seed=plan.seed, clock=clock.part(LINEAR)))
        begun = clock.elapsed
        first = train_candidates(prepared, folded, clock=clock.part((1.0 - kept) / (num_pieces + 1)), emit=emit)
        tasks, fewer = promising(prepared, first), _fewer(num_pieces, prepared, first)
        rest = clock.part(1.0 - share_for(prepared, tasks, plan, fewer + 1, clock))
        if fewer < num_pieces:
            num_pieces, folded = fewer, replace(folded, work=_folder(plan, "longer"))
            emit({"event": "stage", "stage": "longer", "text": f"Training again for longer, on {fewer + 1} cuts"})
            first = train_candidates(prepared, folded, clock=rest.part(1.0 / (num_pieces + 1)), emit=emit)
        else:
            # A machine that other work slows down takes longer for what no clock ends, such as building a network.
            num_pieces = min(num_pieces, _fitting(rest, clock.elapsed - begun))
        if num_pieces >= FEWEST_PIECES:
            cuts = _cuts(Cut(prepared, folded, first), num_pieces, rest, emit)
            add_catboost(cuts, clock=clock, emit=emit)
            return _whole(cuts, journal)
        plan = replace(plan, work=_folder(plan, "once"))
    found = train_candidates(prepared, plan, clock=clock.part(1.0 - kept), emit=emit)
    add_catboost([Cut(prepared, plan, found)], clock=clock, emit=emit)
    return prepared, found


def _cuts(first: Cut, num_pieces: int, clock: Clock, emit: Emit) -> list[Cut]:
    """The first cut and the further ones, trained."""
    prepared, plan, cuts = first.prepared, first.plan, [first]
    splits = splits_of(prepared, num_pieces, seed=plan.seed)
    for number, split in enumerate(splits[1:], 1):
        text = f"Training again on other rows: cut {number + 1} of {len(splits)}"
        emit({"event": "stage", "stage": f"fold-{number}", "text": text})
        other, again = replace(prepared, split=split), _again(plan, first.found, number)
        part = clock.part(1.0 / (len(splits) - number))
        cuts.append(Cut(other, again, train_candidates(other, again, clock=part, emit=_silent)))
    return cuts


def _whole(cuts: Sequence[Cut], journal: Journal) -> tuple[Prepared, Candidates]:
    """Everything joined."""
    prepared, plan = cuts[0].prepared, cuts[0].plan
    splits = [cut.prepared.split for cut in cuts]
    whole = np.sort(np.concatenate([split.choose for split in splits]))
    nobody = np.array([], dtype=np.int64)
    told = Split(whole, nobody, whole, prepared.split.test, prepared.split.how)
    joined = _joined(prepared, splits, [cut.found for cut in cuts])
    joined.trials = [*tried(journal, plan.sharing), *joined.trials]
    return replace(prepared, split=told), joined


def splits_of(prepared: Prepared, num_pieces: int, *, seed: int) -> list[Split]:
    """The table's own split, and one for each piece of its train and stop rows; groups stay together."""
    own = prepared.split
    rows = np.sort(np.concatenate([own.train, own.stop]))
    piece = pieces_of(prepared, rows, num_pieces, seed)
    parts = [(rows[piece != number], rows[piece == number]) for number in range(num_pieces)]
    return [own, *(Split(train, own.choose, choose, own.test, own.how) for train, choose in parts)]


def _pieces(prepared: Prepared, clock: Clock) -> int:
    """How many pieces: none where the table is large, where time orders it, or where there is no time for three."""
    own = prepared.split
    num_rows = len(own.train) + len(own.stop)
    if num_rows > MOST_ROWS or prepared.order is not None:
        return 0
    if prepared.groups is not None and len(np.unique(prepared.groups)) < 4 * PIECES:
        return 0
    seconds = 1.0 + num_rows * (SECONDS_A_ROW + SECONDS_A_LABEL * len(prepared.tasks))
    within = int(min(PIECES, clock.left / seconds - 1.0))
    return within if within >= FEWEST_PIECES else 0


def _fewer(num_pieces: int, prepared: Prepared, first: Candidates) -> int:
    """How many pieces leave the network the epochs that it needs, where it counts: where it leads most trees."""
    shared = first.networks[""].trained
    ahead = sum(lead(prepared, first, task) < 0 for task in prepared.tasks)
    if shared.ended != "time" or 2 * ahead <= len(prepared.tasks):
        return num_pieces
    return min(num_pieces, max(FEWEST_PIECES, round(num_pieces * shared.epochs / EPOCHS)))


def _load() -> None:
    """Loads what takes seconds, once a process, and would be missing in the first cut alone."""
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])  # the first optimiser brings torch's compiler
    require("lightgbm", "tables")


def _fitting(clock: Clock, seconds: float) -> int:
    """How many more cuts like the one that took so many seconds there is time for, or nearly."""
    return PIECES if clock.limit is None else int(1.25 * clock.left / max(seconds, 1e-9))


def _again(plan: Plan, first: Candidates, number: int) -> Plan:
    """The plan of a further cut: other seed and folder, and what grew best in the first, on part of the columns."""
    seed = (plan.seed + 1000 * number) % (LARGEST_SEED + 1)
    ways = {name: (replace(way, columns=min(way.columns, COLUMNS)),) for name, way in first.ways.items()}
    return replace(plan, work=_folder(plan, f"fold-{number}"), seed=seed, ways=ways)


def _folder(plan: Plan, name: str) -> Path | None:
    """A folder for checkpoints of its own, or None where none are kept."""
    if plan.work is None:
        return None
    (plan.work / name).mkdir(exist_ok=True)
    return plan.work / name


def _joined(prepared: Prepared, splits: Sequence[Split], found: Sequence[Candidates]) -> Candidates:
    """Each row's estimate by the cut that left it out, and the mean over the cuts for the test rows."""
    chosen = np.concatenate([split.choose for split in splits])
    order = np.argsort(chosen)
    first = found[0]
    joined = Candidates(
        np.concatenate([chosen[order], prepared.split.test]), networks=first.networks, trees=first.trees,
        catboost=first.catboost, linear=first.linear, ways=first.ways, trials=first.trials, notes=list(first.notes),
        folds=tuple(found[1:]),
    )  # fmt: skip
    for name, by_task in first.estimates.items():
        joined.estimates[name] = {}
        for task in by_task:
            parts = [one.estimates[name][task] for one in found]
            left_out = [part[: len(split.choose)] for part, split in zip(parts, splits, strict=True)]
            tested = [part[len(split.choose) :] for part, split in zip(parts, splits, strict=True)]
            joined.estimates[name][task] = np.concatenate([np.concatenate(left_out)[order], np.mean(tested, axis=0)])
    joined.costs = {name: sum((one.costs[name] for one in found), Cost()) for name in first.costs}
    joined.notes.append(
        f"Every candidate was trained on {len(splits)} cuts of the rows. Each row was judged by what had not learned "
        "it, and what serves is the mean over the cuts."
    )
    return joined


def _silent(_: object) -> None:
    """Takes a record and says nothing."""
