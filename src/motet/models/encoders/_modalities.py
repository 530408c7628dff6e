"""Inputs of several modalities, each through an encoder of its own, to tokens."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from motet._errors import RequestError, suggest

PRESENT = "present"


class Modalities(nn.Module):
    """Inputs of several kinds to tokens (B, S, F), each kind through its own encoder; any row may lack any of them.

    For rows that are an image, a text and a line of a table at once, some of them without the text. Each modality
    gives one token, the mean of what its encoder gives, or as many as `num_tokens` says; to each is added a learned
    code of its modality. A modality that a row lacks is a learned token in its place, so that a row's answer does not
    depend on the rows beside it, and its encoder does not see that row. The sharing modules `SkillNet` and `M3Net`
    take `kinds=modalities.kinds`; those that read features take every token for a row of its own.

    Args:
        encoders: each modality's, by name; it maps that modality's input (B, …) to (B, F) or (B, S, F).
        width: F, the same for all of them.
        num_tokens: how many tokens a modality gives, by name, where they shall pass one by one; its encoder then gives
            just as many.
        drop: in training, the share of rows that each modality is hidden from, on top of those that lack it, so that
            rows which lack it later are no news.

    Attributes:
        names: of the modalities, in the order of their tokens.
        kinds: the number of the modality of each token.

    Raises:
        RequestError: no modality, a name or number of tokens that does not fit; in `forward`, an input that is no
            modality, no input at all, or an encoder that gives another shape.

    Cost: the encoders, each on the rows that have its modality. A traced graph runs them on all rows of a modality
        that the batch has.

    Source: the learned token in the place of what is missing is after Lee et al., Multimodal Prompting with Missing
        Modalities, CVPR 2023, which has one for each pattern of what is missing; hiding modalities in training is
        Neverova et al., ModDrop, TPAMI 2016.

    Example:
        >>> import torch
        >>> from motet.models.encoders import Modalities
        >>> encode = Modalities({"image": torch.nn.Linear(4, 8), "text": torch.nn.Linear(3, 8)}, width=8)
        >>> tuple(encode({"image": torch.zeros(5, 4)}).shape)
        (5, 2, 8)
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        *,
        width: int,
        num_tokens: Mapping[str, int] | None = None,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        _check(encoders, num_tokens or {}, drop)
        self.names = list(encoders)
        self.width = width
        self.counts = {name: (num_tokens or {}).get(name, 1) for name in encoders}
        self.kinds = [number for number, name in enumerate(self.names) for _ in range(self.counts[name])]
        self.drop = drop
        self.encoders = nn.ModuleDict(encoders)
        self.codes = nn.Parameter(torch.randn(len(self.names), width) * width**-0.5)
        self.absent = nn.Parameter(torch.randn(len(self.names), width) * width**-0.5)

    def forward(self, inputs: Mapping[str, Any]) -> Tensor:
        """Maps the modalities' inputs by name to tokens (B, S, F).

        Args:
            inputs: a tensor (B, …), or a mapping of tensors, for each modality; one that the whole batch lacks is left
                out. Under `present`, which rows have it, (B,) bool by name; without a mask all rows have what is given.
        """
        masks = inputs.get(PRESENT, {})
        for name in [*inputs, *masks]:
            if name not in {*self.names, PRESENT}:
                message = f"The input '{name}' arrived; there is no such modality.{suggest(name, self.names)}"
                raise RequestError(message)
        count, device = self._rows(inputs, masks), self.codes.device
        parts: list[Tensor] = []
        for number, name in enumerate(self.names):
            present = masks[name].bool() if name in masks else None
            if self.training and self.drop > 0:
                kept = torch.rand(count, device=device) >= self.drop
                present = kept if present is None else kept & present
            parts.append(self._tokens(number, inputs.get(name), present, count))
        return torch.cat(parts, dim=1)

    def _tokens(self, number: int, given: Any, present: Tensor | None, count: int) -> Tensor:
        """One modality's tokens (B, S_m, F)."""
        name = self.names[number]
        absent = self.absent[number].expand(count, self.counts[name], -1)
        if given is None:
            return absent
        if present is None:
            return self._encoded(number, given, count)
        if torch.compiler.is_compiling():  # which rows there are is data, and shapes of a graph are not
            found = self._encoded(number, _blanked(given, present), count)
            return torch.where(present.view(-1, 1, 1), found, absent)
        rows = present.nonzero().flatten()
        if len(rows) == 0:
            return absent
        if len(rows) == count:
            return self._encoded(number, given, count)
        return torch.index_copy(absent, 0, rows, self._encoded(number, _chosen(given, rows), len(rows)).to(absent))

    def _encoded(self, number: int, given: Any, count: int) -> Tensor:
        name = self.names[number]
        wanted, found = self.counts[name], self.encoders[name](given)
        values = found.unsqueeze(1) if found.ndim == 2 else found
        fits = values.ndim == 3 and values.shape[0] == count and values.shape[2] == self.width
        if not fits or (wanted > 1 and values.shape[1] != wanted):
            shapes = f"({count}, {wanted}, {self.width})" + (f" or ({count}, {self.width})" if wanted == 1 else "")
            message = (
                f"The encoder of '{name}' gave {tuple(found.shape)} for {count} rows; {shapes} was expected. Let it "
                f"end in a linear layer to {self.width}, or say in num_tokens how many tokens it gives."
            )
            raise RequestError(message)
        return (values.mean(dim=1, keepdim=True) if wanted == 1 else values) + self.codes[number]

    def _rows(self, inputs: Mapping[str, Any], masks: Mapping[str, Tensor]) -> int:
        found = {name: len(_first(inputs[name], name)) for name in self.names if inputs.get(name) is not None}
        found |= {f"present['{name}']": len(mask) for name, mask in masks.items()}
        if len(set(found.values())) != 1:
            arrived = ", ".join(f"{name} with {count}" for name, count in found.items()) or "no modality"
            message = (
                f"A batch of {arrived} rows arrived; all its parts have the same rows, and there is one at least. "
                "Leave a modality out where the whole batch lacks it, and name the rows that have it under 'present'."
            )
            raise RequestError(message)
        return next(iter(found.values()))


def _first(given: Any, name: str) -> Tensor:
    """A tensor of one modality's input."""
    while isinstance(given, Mapping) and given:
        given = next(iter(given.values()))
    if not isinstance(given, Tensor) or given.ndim == 0:
        message = (
            f"The input '{name}' is a {type(given).__name__}; a tensor (B, …) or a mapping of such was expected. Make "
            "it one before the model, a tokeniser's numbers for a text, say."
        )
        raise RequestError(message)
    return given


def _chosen(given: Any, rows: Tensor) -> Any:
    return given[rows] if isinstance(given, Tensor) else {name: _chosen(part, rows) for name, part in given.items()}


def _blanked(given: Any, present: Tensor) -> Any:
    """Zeros in the rows that are not there: what stands in them may be no number, and would spoil the gradients."""
    if not isinstance(given, Tensor):
        return {name: _blanked(part, present) for name, part in given.items()}
    return torch.where(present.view(-1, *[1] * (given.ndim - 1)), given, torch.zeros_like(given))


def _check(encoders: Mapping[str, nn.Module], num_tokens: Mapping[str, int], drop: float) -> None:
    if not encoders or PRESENT in encoders:
        message = (
            f"Encoders of {list(encoders)} were given; there is at least one modality, and 'present' says which rows "
            "have one. Name each by what it is, such as 'image'."
        )
        raise RequestError(message)
    for name, count in num_tokens.items():
        if name not in encoders or count < 1:
            message = (
                f"{count} tokens of '{name}' were asked for; the modalities are {list(encoders)}, and each gives one "
                f"token at least.{suggest(name, encoders) if name not in encoders else ''} Change num_tokens."
            )
            raise RequestError(message)
    if not 0 <= drop < 1:
        message = f"The share {drop} of rows was to be hidden; it lies between zero and below one. Give 0.1, say."
        raise RequestError(message)
