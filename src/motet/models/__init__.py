"""Models: encoders, sharing modules, heads, and `MultiTaskModel`, which joins them."""

from motet.models._extension import ExtendedModel, extend
from motet.models._heads import Heads
from motet.models._multitask import MultiTaskModel
from motet.models._pruning import Pruning, expert_usage, keep_experts, prune
from motet.models._widths import Widths, measure_widths
from motet.models.encoders import (
    LookupEncoder,
    PiecewiseLinear,
    PlainEncoder,
    TabularEncoder,
    TokenEncoder,
    bin_edges,
    number_sizes,
)
from motet.models.sharing import HardSharing, Sharing

__all__ = [
    "ExtendedModel",
    "HardSharing",
    "Heads",
    "LookupEncoder",
    "MultiTaskModel",
    "PiecewiseLinear",
    "PlainEncoder",
    "Pruning",
    "Sharing",
    "TabularEncoder",
    "TokenEncoder",
    "Widths",
    "bin_edges",
    "expert_usage",
    "extend",
    "keep_experts",
    "measure_widths",
    "number_sizes",
    "prune",
]
