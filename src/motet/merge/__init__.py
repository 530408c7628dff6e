"""Merge: several checkpoints to one, streamed tensor by tensor. Called as `motet.merge(base, experts, method=…)`.

The room needs numpy alone; torch comes in where tensors of it do.
"""

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from motet.merge._adapter import LoraAdapter
from motet.merge._average import Average
from motet.merge._candidates import load_score, merge_best
from motet.merge._catalogue import from_name, methods
from motet.merge._checkpoint import Checkpoint, Entry, Source, StateDict
from motet.merge._claims import LAWS, Golden
from motet.merge._codiemb import CoDiEmb
from motet.merge._compare import ExpertComparison, compare_with_experts
from motet.merge._dare import DARE
from motet.merge._doge import DOGE
from motet.merge._files import SafetensorsFiles
from motet.merge._fisher import Fisher
from motet.merge._isotropic import IsoC, IsoCTS
from motet.merge._merge import Output, merge, merge_files
from motet.merge._method import Method
from motet.merge._model_stock import ModelStock
from motet.merge._models import Models, Piece
from motet.merge._plan import plan
from motet.merge._regmean import RegMean
from motet.merge._slerp import Slerp
from motet.merge._sphinx import Sphinx
from motet.merge._task_arithmetic import TaskArithmetic
from motet.merge._ties import TIES
from motet.merge._tsv import TSVM

__all__ = [
    "DARE",
    "DOGE",
    "LAWS",
    "TIES",
    "TSVM",
    "Average",
    "Checkpoint",
    "CoDiEmb",
    "Entry",
    "ExpertComparison",
    "Fisher",
    "Golden",
    "IsoC",
    "IsoCTS",
    "LoraAdapter",
    "Method",
    "ModelStock",
    "Models",
    "Output",
    "Piece",
    "RegMean",
    "SafetensorsFiles",
    "Slerp",
    "Sphinx",
    "StateDict",
    "TaskArithmetic",
    "compare_with_experts",
    "from_name",
    "load_score",
    "merge",
    "merge_best",
    "merge_files",
    "methods",
    "plan",
]


class _Room(ModuleType):
    """A room that can be called: `motet.merge(…)` is `motet.merge.merge(…)`."""

    def __call__(
        self,
        base: Source,
        experts: Sequence[Source],
        *,
        method: Method | str = "task_arithmetic",
        keep: Sequence[str] = (),
        dtype: str | None = None,
        threads: int = 0,
    ) -> dict[str, Any]:
        return merge(base, experts, method=method, keep=keep, dtype=dtype, threads=threads)


sys.modules[__name__].__class__ = _Room
