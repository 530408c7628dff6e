"""What a synthetic table is to be like, checked before anything is drawn."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from motet._errors import RequestError, suggest

KINDS = ("regression", "binary", "multiclass", "count")
MECHANISMS = ("mcar", "mar", "mnar")
FORMS = ("wide", "long")
LARGEST_DEGREE = 6  # the variance of z^6 is 10170 already; beyond, single rows decide every score
MATCHES = ("directions", "labels")
ROLES = ("ordinary", "adversarial", "outlier")

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class SynthSettings:
    """What a synthetic multi-task table is to be like.

    Where a setting takes one value a task, a shorter list is repeated until every task has one.

    Args:
        rows: N; in the long form they are shared out evenly unless `rows_per_task` says otherwise.
        features: F, independent standard normal columns.
        tasks: T, of which the last `outliers` are outliers and the `adversarial` before them adversarial.
        correlation: of any two ordinary tasks, −1/(T − 1) to 1.
        match: what has this correlation: `directions`, exactly, as published, from which labels of higher degree fall
            short; or `labels`, on average over pairs of number labels, from 0 up. Other kinds fall short of it.
        degree: of each task's polynomial, 1 to 6.
        kinds: of each task: regression, binary, multiclass or count.
        noise: standard deviation of what no feature explains, in standard deviations of the signal.
        missing: share of each task's labels that are missing, 0 to below 1.
        mechanism: why they are: `mcar` by chance, `mar` because of a feature, `mnar` because of the label.
        outliers: tasks that are alike among themselves and unrelated to the others.
        adversarial: tasks whose directions point against those of the ordinary ones.
        scale_ratio: the largest number label's scale over the smallest; geometric in between, in shuffled order.
        rows_per_task: labelled rows of each task: in the long form its rows, in the wide form the most it keeps.
        drift: right angles by which all directions turn from the first row to the last, 0 to 1; rows then have a
            time, and the latest are test rows.
        classes: of multiclass tasks.
        positive_share: of binary tasks, above 0 and below 1.
        form: `wide` has a column for each task; `long` a column with the task's name, and one label.

    Raises:
        RequestError: no table can be like that.
    """

    rows: int = 2000
    features: int = 16
    tasks: int = 4
    correlation: float = 0.4
    match: str = "directions"
    degree: Sequence[int] = (2,)
    kinds: Sequence[str] = ("regression",)
    noise: float = 0.1
    missing: Sequence[float] = (0.0,)
    mechanism: str = "mcar"
    outliers: int = 0
    adversarial: int = 0
    scale_ratio: float = 1.0
    rows_per_task: Sequence[int] | None = None
    drift: float = 0.0
    classes: int = 3
    positive_share: float = 0.5
    form: str = "wide"

    def __post_init__(self) -> None:
        for name in ("degree", "kinds", "missing", "rows_per_task"):
            value = getattr(self, name)
            if value is None and name == "rows_per_task":
                continue
            if isinstance(value, str) or not isinstance(value, Sequence):
                _refuse(f"{name} is {value!r}; a tuple of values was expected. Write ({value!r},).")
            object.__setattr__(self, name, tuple(value))
        self._check_counts()
        self._check_choices()
        self._check_ranges()
        self._check_together()

    @property
    def roles(self) -> tuple[str, ...]:
        """Each task's role: ordinary first, then adversarial, then outlier."""
        counts = (self.tasks - self.outliers - self.adversarial, self.adversarial, self.outliers)
        return tuple(role for role, count in zip(ROLES, counts, strict=True) for _ in range(count))

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks' names."""
        return tuple(f"task_{number + 1}" for number in range(self.tasks))

    def each(self, values: Sequence[Value]) -> tuple[Value, ...]:
        """One value for each task; a shorter list starts again."""
        return tuple(values[number % len(values)] for number in range(self.tasks))

    def _check_counts(self) -> None:
        for name, least in (("rows", 10), ("features", 1), ("tasks", 1), ("outliers", 0), ("adversarial", 0),
                            ("classes", 2)):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                _refuse(f"{name} is {value!r}; a whole number of at least {least} was expected. Change it.")
        if self.outliers + self.adversarial >= self.tasks:
            _refuse(
                f"{self.outliers} outliers and {self.adversarial} adversarial tasks were asked for among {self.tasks} "
                "tasks; at least one ordinary task is needed. Ask for more tasks, or for fewer of the others."
            )

    def _check_choices(self) -> None:
        for called, value, options in (
            ("mechanism", self.mechanism, MECHANISMS), ("form", self.form, FORMS), ("match", self.match, MATCHES),
        ):  # fmt: skip
            if value not in options:
                _refuse(f"The {called} '{value}' was asked for.{suggest(value, options)} Choose one.")
        for name in ("degree", "kinds", "missing", "rows_per_task"):
            values = getattr(self, name)
            if values is not None and not 1 <= len(values) <= self.tasks:
                _refuse(
                    f"{name} has {len(values)} values for {self.tasks} tasks; one for all, or at most one for each "
                    "was expected. Shorten the list or ask for more tasks."
                )
        for kind in self.kinds:
            if kind not in KINDS:
                _refuse(f"A task of kind '{kind}' was asked for.{suggest(kind, KINDS)} Choose of {', '.join(KINDS)}.")

    def _check_ranges(self) -> None:
        for name, values, low, high in (
            ("degree", self.degree, 1, LARGEST_DEGREE), ("noise", (self.noise,), 0, 1e6),
            ("scale_ratio", (self.scale_ratio,), 1, 1e9), ("drift", (self.drift,), 0, 1),
        ):  # fmt: skip
            for value in values:
                if not (math.isfinite(value) and low <= value <= high):
                    _refuse(f"{name} is {value!r}; {low} to {high:g} was expected. Choose a value in between.")
        if any(int(value) != value for value in self.degree):
            _refuse(f"degree is {self.degree!r}; whole numbers were expected. Round them.")
        for share in self.missing:
            if not 0 <= share < 1:
                _refuse(f"missing is {share!r}; a share from 0 to below 1 was expected, such as 0.3.")
        if not 0 < self.positive_share < 1:
            _refuse(f"positive_share is {self.positive_share!r}; above 0 and below 1 was expected, such as 0.2.")

    def _check_together(self) -> None:
        ordinary = self.tasks - self.outliers
        low = -1 / (max(ordinary, self.outliers) - 1) if max(ordinary, self.outliers) > 1 else -1.0
        if not low <= self.correlation <= 1:
            _refuse(
                f"A correlation of {self.correlation!r} was asked for; among {max(ordinary, self.outliers)} tasks that "
                f"are all equally alike it lies between {low:.4g} and 1. Choose one in between, or fewer tasks."
            )
        if self.match == "labels" and self.correlation < 0:
            _refuse(
                f"A correlation of {self.correlation!r} of the labels was asked for; polynomials reach 0 and more. Ask "
                "for one from 0 up, or match directions."
            )
        if self.adversarial and self.correlation <= 0:
            _refuse(
                f"{self.adversarial} adversarial tasks were asked for with a correlation of {self.correlation!r}; "
                "against unrelated tasks nothing can work. Ask for a correlation above 0."
            )
        if self.drift and self.features < 2:
            _refuse("Drift was asked for with 1 feature; a direction turns in two or more. Ask for more features.")
        if self.form == "long" and len(set(self.kinds)) > 1:
            _refuse(
                f"The long form was asked for with the kinds {', '.join(self.kinds)}; its one label column has one "
                "kind. Choose one kind, or the wide form."
            )
        self._check_rows()

    def _check_rows(self) -> None:
        for count in self.rows_per_task or ():
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                _refuse(f"rows_per_task has {count!r}; whole numbers from 1 up were expected. Change it.")
            if self.form == "wide" and count > self.rows:
                _refuse(
                    f"A task of {count} labelled rows was asked for in a table of {self.rows} rows; at most that many "
                    "fit. Ask for more rows."
                )
        if self.form == "long" and self.rows_per_task is None and self.rows < self.tasks:
            _refuse(f"{self.rows} rows were asked for {self.tasks} tasks; each needs one at least. Ask for more rows.")


def _refuse(message: str) -> None:
    raise RequestError(message)
