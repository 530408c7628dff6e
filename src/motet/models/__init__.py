"""Models: encoders, sharing modules, heads, and `MultiTaskModel`, which joins them."""

from motet.models._heads import Heads
from motet.models._multitask import MultiTaskModel
from motet.models.encoders import PiecewiseLinear, TabularEncoder, bin_edges
from motet.models.sharing import HardSharing, Sharing

__all__ = ["HardSharing", "Heads", "MultiTaskModel", "PiecewiseLinear", "Sharing", "TabularEncoder", "bin_edges"]
