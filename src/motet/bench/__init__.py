"""Comparisons: problems, the runner that measures every method on them, and the claims ledger."""

from motet.bench._architectures import sharing_contenders
from motet.bench._balancing import contenders
from motet.bench._catalogue import COMPARISONS, PROBLEMS, problem_loaders
from motet.bench._cell import BUDGETS, Budget, run_cell
from motet.bench._claims import CLAIMS, Claim, ledger
from motet.bench._comparison import Comparison
from motet.bench._gains import Estimate, Gains
from motet.bench._grid import Grid, Measured, run_grid
from motet.bench._problem import Problem, Rows, Schedule
from motet.bench._result import claim_counts, result, summary_rows
from motet.bench._store import Store
from motet.bench.synth import SynthSettings, SynthTruth, synthesise

__all__ = [
    "BUDGETS",
    "CLAIMS",
    "COMPARISONS",
    "PROBLEMS",
    "Budget",
    "Claim",
    "Comparison",
    "Estimate",
    "Gains",
    "Grid",
    "Measured",
    "Problem",
    "Rows",
    "Schedule",
    "Store",
    "SynthSettings",
    "SynthTruth",
    "claim_counts",
    "contenders",
    "ledger",
    "problem_loaders",
    "result",
    "run_cell",
    "run_grid",
    "sharing_contenders",
    "summary_rows",
    "synthesise",
]
