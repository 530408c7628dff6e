"""Tables: one estimator for several targets, and the guard that proves that none got worse."""

from motet.tabular._guard import Comparison, compare, draw_weights
from motet.tabular._model import FitSettings, TabularModel, load
from motet.tabular._prepared import Prepared

__all__ = ["Comparison", "FitSettings", "Prepared", "TabularModel", "compare", "draw_weights", "load"]
