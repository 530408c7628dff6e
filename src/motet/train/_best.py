"""Early stopping that looks at every task, and keeps the best of each."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from motet.tasks import Task

State = dict[str, Tensor]


def skill(task: Task, score: float, constant: float) -> float:
    """Where a score lies between the best constant (0) and perfection (1), whatever the metric; NaN if undefined."""
    perfect = 1.0 if task.higher_is_better else 0.0
    if not math.isfinite(score) or not math.isfinite(constant) or constant == perfect:
        return math.nan
    return (score - constant) / (perfect - constant)


@dataclass
class Best:
    """The best evaluation so far: of all tasks together, and of each task.

    Args:
        tasks: the tasks that are trained.
        constants: what the best constant scores for each task on the stop rows.
        patience: evaluations without progress after which a task counts as done; training ends when all are.
        tolerance: progress smaller than this share of the skill's range is none.
    """

    tasks: Sequence[Task]
    constants: Mapping[str, float]
    patience: int
    tolerance: float = 1e-4
    joint_skill: float = -math.inf
    joint_state: State = field(default_factory=dict)
    joint_scores: dict[str, float] = field(default_factory=dict)
    skills: dict[str, float] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    states: dict[str, State] = field(default_factory=dict)
    waited: dict[str, int] = field(default_factory=dict)

    def update(self, scores: Mapping[str, float], state: State) -> list[str]:
        """Takes in one evaluation; returns the tasks that got better. `state` is kept, not copied."""
        skills = {task.name: skill(task, scores[task.name], self.constants[task.name]) for task in self.tasks}
        defined = [value for value in skills.values() if math.isfinite(value)]
        joint = sum(defined) / len(defined) if defined else 0.0
        if joint > self.joint_skill:
            self.joint_skill, self.joint_state, self.joint_scores = joint, state, dict(scores)
        better = []
        for name, value in skills.items():
            known = self.skills.get(name, -math.inf)
            if not math.isfinite(value) and name in self.states:
                value = -math.inf
            if name not in self.states or value > known:
                self.skills[name], self.scores[name], self.states[name] = value, scores[name], state
            if value > known + self.tolerance:
                self.waited[name] = 0
                better.append(name)
            else:
                self.waited[name] = self.waited.get(name, 0) + 1
        return better

    @property
    def done(self) -> bool:
        """Whether no task has made progress for `patience` evaluations."""
        return bool(self.waited) and min(self.waited.values()) >= self.patience
