"""Training: the loop, early stopping by task, checkpoints, time, and the run directory."""

from motet.train._best import Best, skill
from motet.train._clock import Clock, Cost, Meter
from motet.train._display import Display, LiveTable, PlainLines, Silent
from motet.train._files import append_line, read_json, read_tensors, replacing, write_json, write_tensors
from motet.train._loop import Emit, LoopSettings, Trained, Trainer
from motet.train._run import FORMAT, RunDirectory
from motet.train._scores import estimate

__all__ = [
    "FORMAT",
    "Best",
    "Clock",
    "Cost",
    "Display",
    "Emit",
    "LiveTable",
    "LoopSettings",
    "Meter",
    "PlainLines",
    "RunDirectory",
    "Silent",
    "Trained",
    "Trainer",
    "append_line",
    "estimate",
    "read_json",
    "read_tensors",
    "replacing",
    "skill",
    "write_json",
    "write_tensors",
]
