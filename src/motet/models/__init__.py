"""Models: encoders, sharing modules, heads, and `MultiTaskModel`, which joins them."""

from motet.models._heads import Heads
from motet.models._multitask import MultiTaskModel
from motet.models._widths import Widths, measure_widths
from motet.models.encoders import PiecewiseLinear, TabularEncoder, TokenEncoder, bin_edges
from motet.models.sharing import HardSharing, Sharing

__all__ = [
    "HardSharing",
    "Heads",
    "MultiTaskModel",
    "PiecewiseLinear",
    "Sharing",
    "TabularEncoder",
    "TokenEncoder",
    "Widths",
    "bin_edges",
    "measure_widths",
]
