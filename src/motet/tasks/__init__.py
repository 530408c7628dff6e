"""What is predicted: kinds of task with their loss, metrics, decoding, calibration and intervals."""

from motet.tasks._binary import Binary
from motet.tasks._calibration import Calibration, calibration_curve, calibration_error, fit_calibration
from motet.tasks._conformal import Interval, fit_interval
from motet.tasks._count import Count
from motet.tasks._kinds import KINDS, from_dict, parse_target
from motet.tasks._multiclass import Multiclass
from motet.tasks._multilabel import Multilabel
from motet.tasks._ordinal import Ordinal
from motet.tasks._quantile import Quantile
from motet.tasks._regression import Regression
from motet.tasks._task import Task

__all__ = [
    "KINDS",
    "Binary",
    "Calibration",
    "Count",
    "Interval",
    "Multiclass",
    "Multilabel",
    "Ordinal",
    "Quantile",
    "Regression",
    "Task",
    "calibration_curve",
    "calibration_error",
    "fit_calibration",
    "fit_interval",
    "from_dict",
    "parse_target",
]
