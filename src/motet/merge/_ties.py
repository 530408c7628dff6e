"""TIES merging."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np

from motet._errors import RequestError
from motet.merge._claims import Golden
from motet.merge._dtypes import Array
from motet.merge._method import Method, Rule, check_range
from motet.merge._models import Models, Piece
from motet.merge._threshold import change, least_kept, magnitudes


@dataclass(frozen=True, kw_only=True)
class TIES(Method):
    """Trims each expert's small changes, lets the rest vote on every entry's sign, and adds up those that agree.

    Choose it over task arithmetic when many experts interfere. It keeps the largest changes only, so density matters.

        τ̂_e = τ_e where |τ_e| is among the largest share `density`, else 0;   s = sign(Σ_e τ̂_e)
        θ = θ₀ + λ Σ {τ̂_e : sign(τ̂_e) = s},   or the mean of these instead of their sum

    Args:
        density: share of each expert's changes that is kept, 0 to 1.
        scale: λ; 0.3 suits a sum, 1 a mean.
        scope: over what the largest changes are looked for: 'global', all tensors together, or 'tensor', each by
            itself. The two give different models.
        combine: 'sum' or 'mean' of the changes that agree in sign.

    Raises:
        RequestError: a parameter outside its range.

    Cost: three passes with scope 'global' (threshold, majority, merge), two with 'tensor', and some memory for the
        histograms.

    Source: Yadav et al., TIES-Merging, NeurIPS 2023. 'global' is the authors' code as FusionBench runs it, to the bit:
        entries equal to the threshold are kept, and where the trimmed changes cancel exactly the sign most entries
        have decides. 'tensor' is mergekit's reading, but for ties at the threshold, all of which are kept here. The
        threshold is exact, from a histogram of the numbers' bits, not from a sort.
    """

    name: ClassVar[str] = "ties"
    claims: ClassVar[frozenset[str]] = frozenset({"the base stays", "scales", "homogeneous"})
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(
            (0.0,) * 10,
            ((5.0, -4.0, 1.0) + (0.1,) * 7, (3.0, 6.0, 1.0) + (0.1,) * 7),
            (2.4, 1.8, 0.3 * 2) + (0.0,) * 7,
            "by hand: the authors' rank keeps three of ten; entry two votes +2, so −4 is left out",
        ),
    )

    density: float = 0.2
    scale: float = 0.3
    scope: Literal["global", "tensor"] = "global"
    combine: Literal["sum", "mean"] = "sum"

    def rule(self, models: Models) -> Rule:
        """The thresholds and, with global scope, the majority sign; then the merge of a piece."""
        check_range(self.name, "density", self.density, 0, 1)
        for parameter, value, known in (
            ("scope", self.scope, ("global", "tensor")),
            ("combine", self.combine, ("sum", "mean")),
        ):
            if value not in known:
                message = (
                    f"ties got {parameter}={value!r}; {known[0]!r} or {known[1]!r} was expected. Change {parameter}."
                )
                raise RequestError(message)
        if self.scope == "tensor":
            found = models.each(lambda name: least_kept(models, [name], kept_as_mergekit(self.density), threads=False))
            return lambda piece: self._merge(piece, found[piece.name], tie_is_up=True)
        least = least_kept(models, models.merged, kept_as_authors(self.density), threads=True)
        votes = models.each(lambda name: sum(_votes(piece, least) for piece in models.pieces(name)))
        return partial(self._merge, least_E=least, tie_is_up=sum(votes.values()) > 0)

    def _merge(self, piece: Piece, least_E: Array, *, tie_is_up: bool) -> Array:
        trimmed_EN = [_trimmed(piece, expert, least) for expert, least in enumerate(least_E)]
        total = _total(trimmed_EN)
        # One where the vote is up and minus one where it is down: exact factors, and cheaper than selecting.
        sign = (total >= 0 if tie_is_up else total > 0) * np.float32(2) - np.float32(1)
        agreed, count = np.zeros((2, len(sign)), np.float32)
        for trimmed in trimmed_EN:
            trimmed *= sign
            np.maximum(trimmed, 0, out=trimmed)
            agreed += trimmed
            if self.combine == "mean":
                count += trimmed > 0
        agreed *= sign
        if self.combine == "mean":
            agreed /= np.maximum(count, 1)
        agreed *= np.float32(self.scale)
        return agreed + piece.base


def kept_as_authors(density: float) -> Callable[[int], int]:
    """The rank, from one and ascending, of the smallest change kept: the authors' keep one more than the share."""
    return lambda size: max(size - int(size * density), 1)


def kept_as_mergekit(density: float) -> Callable[[int], int]:
    """The rank of the smallest of exactly the share, at least one."""
    return lambda size: min(size - int(density * size) + 1, size)


def _trimmed(piece: Piece, expert: int, least: Array) -> Array:
    changes = change(piece, expert)
    changes *= magnitudes(changes) >= least
    return changes


def _total(trimmed_EN: Iterable[Array]) -> Array:
    # In the experts' order, which float32 sums depend on.
    first, *others = trimmed_EN
    total = first.copy()
    for trimmed in others:
        total += trimmed
    return total


def _votes(piece: Piece, least_E: Array) -> int:
    total = _total(_trimmed(piece, expert, least) for expert, least in enumerate(least_E))
    return int(np.count_nonzero(total > 0)) - int(np.count_nonzero(total < 0))
