"""Adapters: small trained parts on linear layers of any frozen module, for all tasks, for each, or mixed."""

from motet.models.adapters._adapter import Adapter
from motet.models.adapters._attach import Adapters, attach
from motet.models.adapters._bottleneck import Bottleneck
from motet.models.adapters._catalogue import from_name, methods
from motet.models.adapters._files import load, save
from motet.models.adapters._lora import LoRA, TaskLoRA
from motet.models.adapters._mhr import MHR, mhr_mu, mhr_z
from motet.models.adapters._mtlora import MTLoRA
from motet.models.adapters._peft import load_peft, save_peft
from motet.models.adapters._polytropon import Polytropon
from motet.models.adapters._scalearn import ScaLearn, scalearn

__all__ = [
    "MHR",
    "Adapter",
    "Adapters",
    "Bottleneck",
    "LoRA",
    "MTLoRA",
    "Polytropon",
    "ScaLearn",
    "TaskLoRA",
    "attach",
    "from_name",
    "load",
    "load_peft",
    "methods",
    "mhr_mu",
    "mhr_z",
    "save",
    "save_peft",
    "scalearn",
]
