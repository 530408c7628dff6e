"""Tables: one estimator for several targets, and the guard that proves that none got worse."""

from motet.tabular._guard import Comparison, compare, draw_weights
from motet.tabular._model import TabularModel, load
from motet.tabular._prepared import Prepared
from motet.tabular._settings import FitSettings
from motet.tabular.boosting import RMTGB, TaskReading, TaskRows
from motet.tabular.task_column import TaskColumnModel

__all__ = [
    "RMTGB",
    "Comparison",
    "FitSettings",
    "Prepared",
    "TabularModel",
    "TaskColumnModel",
    "TaskReading",
    "TaskRows",
    "compare",
    "draw_weights",
    "load",
]
