"""Merges that learn from rows, with or without labels: they need torch, and a model that turns weights into outputs."""

from motet.merge.learned._adamerging import adamerging
from motet.merge.learned._atlas import atlas
from motet.merge.learned._blockwise import BlockWise, OutputWise
from motet.merge.learned._coefficients import LayerWise, Position, TaskWise
from motet.merge.learned._collect import collect_fisher, collect_grams
from motet.merge.learned._concrete import ConcreteMask, concrete_task_arithmetic
from motet.merge.learned._concrete_adamerging import concrete_adamerging
from motet.merge.learned._descend import entropy, total_loss
from motet.merge.learned._logits import fuse_logits
from motet.merge.learned._merged import Merged
from motet.merge.learned._positioning import self_positioning
from motet.merge.learned._pseudo_labels import PseudoLabels, atlas_unlabelled
from motet.merge.learned._wemoe import RoutedMerge, Routing, wemoe

__all__ = [
    "BlockWise",
    "ConcreteMask",
    "LayerWise",
    "Merged",
    "OutputWise",
    "Position",
    "PseudoLabels",
    "RoutedMerge",
    "Routing",
    "TaskWise",
    "adamerging",
    "atlas",
    "atlas_unlabelled",
    "collect_fisher",
    "collect_grams",
    "concrete_adamerging",
    "concrete_task_arithmetic",
    "entropy",
    "fuse_logits",
    "self_positioning",
    "total_loss",
    "wemoe",
]
