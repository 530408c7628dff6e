"""One small network in the place of what serves each target, where the guard finds it not worse."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

from motet.tabular._candidates import Candidates, Plan
from motet.tabular._halves import rounded, stored
from motet.tabular._judge import Judge, Judged
from motet.tabular._lessons import make_lessons
from motet.tabular._network import State, TrainedNetwork, loop_for, network_estimates, train_network
from motet.tabular._own_trees import work_file
from motet.tabular._prepared import Prepared
from motet.tabular._student import evened, losses_of, student_shape
from motet.train import Clock, Emit, Meter

ASKING = 0.4  # of the time at most, for the teachers' answers
LEAST_SECONDS = 1.0  # of time, below which there is nothing to be learned
MOST_GAIN = 3.0  # percent: a student that would have to be better by more to be proven harmless is not taught
BALANCE = "uncertainty"  # the teachers have settled what the tasks' gradients would fight over


def distil(
    prepared: Prepared, found: Candidates, judge: Judge, judged: list[Judged], plan: Plan, *, clock: Clock, emit: Emit
) -> list[Judged]:
    """Teaches one small network what serves each task, and lets it serve where it may.

    It serves a task where the guard's test says that it is not worse than the task's best own model, and neither than
    what serves the task now or, where the rows cannot tell, within the margin of that in the mean; and only if the
    artefact becomes smaller by it, otherwise everything stays as it was. Where
    what serves is no larger than one network, such as the shared one for all tasks, there is nothing to do; nor where
    the choose rows are too few to tell.

    Args:
        prepared: the table.
        found: the trained candidates; gets the network, its estimates and its cost.
        judge: of the choose rows.
        judged: what they say, by task.
        plan: how candidates are trained.
        clock: the time for all of it.
        emit: takes the records of the log.

    Cost: the teachers' answers for the training rows once, and one network's training.
    """
    before = artefact_bytes(found, judged)
    if before <= state_bytes(found.networks[""].trained.best.joint_state):
        return judged
    if clock.left < LEAST_SECONDS:
        found.notes.append("No time was left to teach one small network what serves; a longer time limit leaves some.")
        return judged
    if not any(_could_be_proven(one, judge.rules.margin) for one in judged if one.served != "shared"):
        found.notes.append(
            "No small network was taught: on so few choose rows none could be proven to be as good as what serves."
        )
        return judged
    emit({"event": "stage", "stage": "distilled", "text": "Teaching one small network what serves each target"})
    meter = Meter()
    teachers = {one.task.name: judge.teacher(one) for one in judged}
    lessons = make_lessons(prepared, found, teachers, seed=plan.seed, clock=clock.part(ASKING), threads=plan.threads)
    student = _train(prepared, lessons, found.networks[""], plan, clock, emit)
    found.distilled = student
    found.estimates["distilled"] = network_estimates(student, prepared, found.rows)
    found.costs["distilled"] = meter.read(student.trained.cost.rows)
    admitted = [
        judge.admit(one, found.estimates["distilled"][one.task.name], teachers[one.task.name]) for one in judged
    ]
    if artefact_bytes(found, admitted) < before:
        return admitted
    if any(one.served == "distilled" for one in admitted):
        found.notes.append(
            "A small network was taught and may serve some targets, but with the others' models beside it the artefact "
            "would be no smaller; it was left out."
        )
    return [replace(one, served=old.served) for one, old in zip(admitted, judged, strict=True)]


def _could_be_proven(judged: Judged, margin: float) -> bool:
    """Whether the choose rows are enough to tell, going by the interval of the shared network."""
    return bool(judged.guard.gain - judged.guard.low - margin <= MOST_GAIN)  # false where there is no interval


def _train(
    prepared: Prepared, lessons: Prepared, shared: TrainedNetwork, plan: Plan, clock: Clock, emit: Emit
) -> TrainedNetwork:
    """The student, which has one state for all tasks."""
    checkpoint = work_file(prepared.tasks, plan.work, "distilled")
    kept = None if checkpoint is None else checkpoint.with_suffix(".json")
    shape, start = student_shape(prepared, lessons, shared, clock, kept, seed=plan.seed)
    lessons = lessons if start is not None else evened(lessons, losses_of(shared, prepared))
    settings = loop_for(len(lessons.split.train), max_epochs=plan.max_epochs, seed=plan.seed)
    found = train_network(
        lessons,
        lessons.tasks,
        shape=shape,
        balance=BALANCE,
        settings=settings,
        clock=clock,
        stage="distilled",
        emit=emit,
        device=plan.device,
        checkpoint=checkpoint,
        start=start,
    )
    parameters = {name for name, _ in found.shape.build(prepared.tasks).named_parameters()}
    state = rounded(found.trained.best.joint_state, parameters)
    return TrainedNetwork(
        found.shape, tuple(prepared.tasks), {task.name: state for task in prepared.tasks}, found.trained
    )


def artefact_bytes(found: Candidates, judged: Sequence[Judged]) -> int:
    """Bytes of the tensors that the served model keeps."""
    states: dict[int, State] = {}
    total = 0
    serving = [(one.task.name, candidate) for one in judged for candidate in one.shares[one.served]]
    for part, (name, candidate) in itertools.product((found, *found.folds), serving):
        if trees := part.trees_of(candidate):
            total += len(trees[name].to_bytes())
        else:
            state = part.network(candidate, name).states[name]
            states[id(state)] = state
    return total + sum(state_bytes(state) for state in states.values())


def state_bytes(state: State) -> int:
    """Bytes of a network's tensors, as they are kept."""
    return sum(stored(tensor).nbytes for tensor in state.values())
