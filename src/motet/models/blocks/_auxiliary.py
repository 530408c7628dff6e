"""Named losses that regularise a route."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from motet._errors import RequestError, suggest
from motet.models.blocks._routes import Routed

SMALL = 1e-10


def importance(routed: Routed) -> Tensor:
    """CV² of the weight that each expert gets from a batch: zero when all get the same (Shazeer et al. 2017)."""
    return _squared_variation(routed.weights.sum(dim=1)).mean()


def load(routed: Routed) -> Tensor:
    """CV² of how many rows each expert may expect, under the noise of the scores (Shazeer et al. 2017)."""
    return _squared_variation(_needed(routed.load, "load", "a top-k route with noise above zero").sum(dim=1)).mean()


def switch(routed: Routed) -> Tensor:
    """E · Σ_e (share of the choices that fall on e) · (mean probability of e): one when even (Fedus et al. 2022)."""
    index = _needed(routed.index, "switch", "a route that chooses a few experts")
    num_experts = routed.probabilities.shape[-1]
    chosen = torch.zeros_like(routed.probabilities).scatter(-1, index, 1.0 / index.shape[-1])
    return num_experts * (chosen.mean(dim=1) * routed.probabilities.mean(dim=1)).sum(dim=-1).mean()


def z(routed: Routed) -> Tensor:
    """Mean squared log-sum-exp of the scores, which keeps them small (Zoph et al., ST-MoE, 2022)."""
    return _needed(routed.logits, "z", "a route with scores").logsumexp(dim=-1).square().mean()


def mutual_information(routed: Routed) -> Tensor:
    """Minus the mutual information of task and expert, tasks taken as equally likely (Chen et al., Mod-Squad, 2023)."""
    means_OE = routed.probabilities.mean(dim=1)
    means_OE = means_OE if routed.others is None else torch.cat([means_OE, routed.others])
    joint_OE = means_OE / len(means_OE)
    apart_OE = joint_OE.sum(dim=1, keepdim=True) * joint_OE.sum(dim=0, keepdim=True)
    return -(joint_OE * ((joint_OE + SMALL) / (apart_OE + SMALL)).log()).sum()


def entropy(routed: Routed) -> Tensor:
    """Mean entropy of a row's probabilities: lower is sharper."""
    return torch.special.entr(routed.probabilities).sum(dim=-1).mean()


def selector_entropy(routed: Routed) -> Tensor:
    """Entropy of each DSelect selector, summed over selectors: zero once each has chosen (Hazimeh et al. 2021)."""
    selectors = _needed(routed.selectors, "selector_entropy", "a DSelect route")
    return -(selectors * (selectors + 1e-6).log()).sum(dim=(-1, -2)).mean()


def reachable(routed: Routed) -> Tensor:
    """Σ 1 / (mass on experts that exist), where E is no power of two: as many as selectors once all is well."""
    mass = _needed(routed.selectors, "reachable", "a DSelect route").sum(dim=-1)
    return (1.0 / mass.clamp(min=1e-6)).sum(dim=-1).mean()


AUXILIARY: dict[str, Callable[[Routed], Tensor]] = {
    "importance": importance,
    "load": load,
    "switch": switch,
    "z": z,
    "mutual_information": mutual_information,
    "entropy": entropy,
    "selector_entropy": selector_entropy,
    "reachable": reachable,
}


def check_auxiliary(scales: Mapping[str, float]) -> dict[str, float]:
    """The scales by name, checked.

    Raises:
        RequestError: there is no such loss, or a scale is no number of zero or more.
    """
    for name, scale in scales.items():
        if name not in AUXILIARY:
            message = f"There is no auxiliary loss '{name}'.{suggest(name, AUXILIARY)}"
            raise RequestError(message)
        if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not scale >= 0:
            message = f"The auxiliary loss '{name}' has the scale {scale!r}; give a number of zero or more."
            raise RequestError(message)
    return dict(scales)


def _squared_variation(totals_OE: Tensor) -> Tensor:
    return totals_OE.var(dim=-1, correction=0) / (totals_OE.mean(dim=-1).square() + SMALL)


def _needed(part: Tensor | None, name: str, route: str) -> Tensor:
    if part is None:
        message = f"The auxiliary loss '{name}' was asked of a route that cannot give it; it needs {route}. Drop it."
        raise RequestError(message)
    return part
