"""Two-level gradient calibration (FULLER)."""

from typing import ClassVar

import torch
from torch import Tensor

from motet._errors import RequestError
from motet.balance._balancer import Balancer, Step, Update
from motet.balance._claims import Golden
from motet.balance._imtlg import impartial_weights
from motet.balance.engine._apply import add_grad, averaging, check_known, spoil
from motet.balance.engine._batch import Batch, leaves_of
from motet.balance.engine._setting import OverflowedError, Setting
from motet.balance.engine._view import View
from motet.balance.parts._ascent import norm_of
from motet.balance.parts._solvers import directions, precision


class FULLER(Balancer):
    """Balances tasks where they meet, and then modalities where they part: no sensor's encoder starves.

    Choose it for a network with an encoder a modality, fused before the heads, where one modality learns all the rest
    away. With one encoder it is `IMTLG` at the features.

        inter: d = Σ_k α_k ∂L_k/∂z at the last shared features z, at one angle to every task, Σ α = 1
        intra: d_m = ∂z/∂x_m ᵀ d at each modality's features x_m;   d_m ← d_m · (mean_n ‖d_n‖) / ‖d_m‖

    `features=[z, x_1, … x_M]`: the last shared features first, then those that each modality's encoder hands to the
    fusion. Encoders get the calibrated gradient, the fusion that of d, heads their own.

    Args:
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Raises:
        RequestError: from `backward`, no features, or a modality's that z does not depend on.

    Cost: a backward from every loss to z, and one pass from z down.

    Source: Huang et al., FULLER: Unified Multi-modality Multi-task 3D Perception via Multi-level Gradient Calibration,
        ICCV 2023. Confirmed from the abstract and the caption of figure 2: tasks are calibrated at the backbone's last
        layer, and before the gradients go on into the modalities' branches their magnitudes are brought to one level.
        Not confirmed, for want of the equations and of released code: that the first level is IMTL-G's, as we take
        it, and which level is the second's; ours is the branches' mean, so that the sum of magnitudes stays. A branch
        whose gradient is zero keeps it and does not count.
    """

    name: ClassVar[str] = "fuller"
    needs_features = True
    claims: ClassVar[frozenset[str]] = frozenset({
        "scale equivariant", "mean when agreeing", "one task is plain", "zero is harmless",
    })  # fmt: skip
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(
            ((1.0, 0.0), (0.0, 2.0)), (2 / 3, 2 / 3), "by hand: one modality; along (1, 1), on the line through both"
        ),
    )

    def update(self, view: View) -> Update:
        """The tasks' weights at the last shared features."""
        return Update(_weights(view))

    def take(self, batch: Batch) -> Step:
        """Calibrates at the last shared features, and again at the modalities'."""
        if not batch.features:
            message = (
                "FULLER calibrates gradients at the shared features and was given none. Pass features=z, or "
                "features=[z, camera, lidar] with the modalities' own."
            )
            raise RequestError(message)
        last, *branches = batch.features
        view = View(batch.losses, None, [last], method="FULLER", setting=batch.setting)
        try:
            weights = _weights(view)
        except OverflowedError:
            spoil(batch.losses, batch.setting)
            return Step({}, (*batch.skipped, *view.names))
        grad = view.combined(weights)[0]
        check_known(batch.setting, view.own_grads)
        with averaging(batch.setting):
            for leaf, own in view.own_grads:
                add_grad(leaf, own)
            if len(branches) > 1:
                _calibrate(last, grad, branches, batch.setting)
            else:
                last.backward(grad)
        return Step(dict(zip(view.names, weights.tolist(), strict=True)), batch.skipped, view.gramian, view.names)


def _weights(view: View) -> Tensor:
    found = directions(view.gramian, precision(view))
    return impartial_weights(found, found.norms).to(view.gramian)


def _calibrate(last: Tensor, grad: Tensor, branches: list[Tensor], setting: Setting | None) -> None:
    """Passes a gradient from the last features down, the branches' all of one length."""
    fusion = leaves_of([last], branches)
    found = torch.autograd.grad(last, [*branches, *fusion], grad, retain_graph=True, allow_unused=True)
    for place, part in enumerate(found[: len(branches)]):
        if part is None:
            message = (
                f"FULLER got features of {len(branches)} modalities, and the first features do not depend on number "
                f"{place + 1} of them. Pass the fused features first, then what each encoder hands to the fusion."
            )
            raise RequestError(message)
    parts = found[: len(branches)]
    # The lengths' common factor, of a scale or of several processes, cancels.
    lengths = [norm_of([part]) for part in parts] if setting is None else setting.norms(parts)
    level = sum(lengths) / max(1, sum(length > 0 for length in lengths))
    for leaf, part in zip(fusion, found[len(branches) :], strict=True):
        if part is not None:
            add_grad(leaf, part)
    factors = [level / length if length else 1.0 for length in lengths]
    torch.autograd.backward(branches, [part * factor for part, factor in zip(parts, factors, strict=True)])
