"""Sharing modules: shared features (B, F) to one feature per task (T, B, F')."""

from motet.models.sharing._adatt import AdaTT, AdaTTSp
from motet.models.sharing._apem import APEM
from motet.models.sharing._attention import TaskAttention
from motet.models.sharing._bridged import Bridged
from motet.models.sharing._cascaded import CascadedGroups
from motet.models.sharing._catalogue import from_name, methods, settings_of
from motet.models.sharing._channel_scaling import ChannelScaling
from motet.models.sharing._cross_stitch import CrossStitch
from motet.models.sharing._dselect_k import DSelectK
from motet.models.sharing._dtrn import DTRN
from motet.models.sharing._ecmt import ECMT
from motet.models.sharing._hard import HardSharing
from motet.models.sharing._home import HoME
from motet.models.sharing._m3net import M3Net
from motet.models.sharing._mmoe import MMoE
from motet.models.sharing._multitab_net import MultiTabNet
from motet.models.sharing._nested import NestedExperts
from motet.models.sharing._ple import CGC, PLE
from motet.models.sharing._sharing import Sharing
from motet.models.sharing._skillnet import SkillNet
from motet.models.sharing._stem import STEM
from motet.models.sharing._task_expert import TaskExpert
from motet.models.sharing._task_gated import TaskGated
from motet.models.sharing._task_indicator import TaskIndicator

__all__ = [
    "APEM",
    "CGC",
    "DTRN",
    "ECMT",
    "PLE",
    "STEM",
    "AdaTT",
    "AdaTTSp",
    "Bridged",
    "CascadedGroups",
    "ChannelScaling",
    "CrossStitch",
    "DSelectK",
    "HardSharing",
    "HoME",
    "M3Net",
    "MMoE",
    "MultiTabNet",
    "NestedExperts",
    "Sharing",
    "SkillNet",
    "TaskAttention",
    "TaskExpert",
    "TaskGated",
    "TaskIndicator",
    "from_name",
    "methods",
    "settings_of",
]
