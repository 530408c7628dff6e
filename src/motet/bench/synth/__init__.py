"""Synthetic tables with several tasks whose truth is known: how alike they are, what is missing, and why."""

from motet.bench.synth._settings import SynthSettings
from motet.bench.synth._table import SynthTruth, synthesise

__all__ = ["SynthSettings", "SynthTruth", "synthesise"]
