"""What kind each token of a row is of: a kind of behaviour, a modality."""

from collections.abc import Sequence

import torch
from torch import Tensor

from motet._errors import RequestError


def num_kinds(kinds: Sequence[int] | None) -> int:
    """How many kinds there are; one where none is named.

    Raises:
        RequestError: kinds that leave out a number.
    """
    if kinds is not None and (not kinds or set(kinds) != set(range(len(set(kinds))))):
        message = f"The kinds {list(kinds)} were given; they are numbered from 0 and none is left out. Number them so."
        raise RequestError(message)
    return 1 if kinds is None else max(kinds) + 1


def kinds_of(kinds: Sequence[int] | None, tokens: Tensor, name: str) -> list[int]:
    """The kind of each of the tokens (B, S, F).

    Raises:
        RequestError: another number of tokens than of kinds.
    """
    count = tokens.shape[1]
    if kinds is not None and len(kinds) != count:
        message = (
            f"{count} tokens a row arrived; {name} was built with the kinds of {len(kinds)}. Name the kind of "
            "each token, or leave `kinds` out."
        )
        raise RequestError(message)
    return [0] * count if kinds is None else list(kinds)


def mean_of_kinds(kinds: Sequence[int], tokens: Tensor, count: int) -> Tensor:
    """The mean token of each kind, (count, B, F), from tokens (B, S, F)."""
    belongs = torch.tensor(kinds, device=tokens.device) == torch.arange(count, device=tokens.device).unsqueeze(1)
    shares_MS = belongs.to(tokens.dtype) / belongs.sum(dim=1, keepdim=True).to(tokens.dtype)
    return torch.einsum("ms,bsf->mbf", shares_MS, tokens)
