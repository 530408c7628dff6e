"""Boosted trees for tables whose rows each belong to one task: they share, and say which tasks stand apart."""

from motet.tabular.boosting._readings import TaskReading
from motet.tabular.boosting._rmtgb import RMTGB
from motet.tabular.boosting._rows import TaskRows

__all__ = ["RMTGB", "TaskReading", "TaskRows"]
