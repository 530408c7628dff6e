"""The claims ledger: what papers say that a method is better than, and whether that held here.

Most figures were measured on data and networks that are larger than these; where a claim is tried on another problem
than its own, `measured_on` says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from motet.bench._gains import Gains

PAIRS = ("multimnist", "multifashion", "fashion-mnist")
TABLES = ("census", "rf1", "yeast")
NYUV2 = "NYUv2, three tasks, Δm in percent, less is better"
STRONG = "NYUv2, DeepLabV3+, Δp in percent, more is better"
NTKMTL_TABLE = "Table 1 of the NTKMTL paper, which repeats the figure of the method's own paper"
F_MTL = "Phan et al., Beyond Losses Reweighting (F-MTL), ICCV 2025"
REP_MTL_TABLE = "Table 1 of Rep-MTL (ICCV 2025)"


@dataclass(frozen=True)
class Claim:
    """One method is better than another, says a paper.

    Args:
        better: the method.
        worse: what it is compared with.
        figures: the published scores of the two, in that order; None where we could not check them.
        measured_on: data and measure of those figures.
        source: where they stand.
        problems: where the claim is tried here; everywhere when empty.
    """

    better: str
    worse: str
    figures: tuple[float, float] | None
    measured_on: str
    source: str
    problems: tuple[str, ...] = ()


def _on_nyuv2(method: str, figure: float) -> Claim:
    return Claim(method, "equal", (figure, 5.59), NYUV2, NTKMTL_TABLE)


def _on_strong(method: str, figure: float) -> Claim:
    return Claim(method, "equal", (figure, -1.78), STRONG, REP_MTL_TABLE)


_FLAT_TABLE = {"mgda": (-0.33, 1.38), "pcgrad": (3.14, 3.97), "cagrad": (-3.78, 0.20), "imtl-g": (-4.77, -0.76)}

_FLAT = tuple(
    claim
    for base, figures in _FLAT_TABLE.items()
    for claim in (
        Claim(f"f-mtl+{base}", base, (95.95, 95.01), "MultiMNIST, average accuracy, one of its bases", F_MTL, PAIRS),
        Claim(f"f-mtl+{base}", base, figures, NYUV2, F_MTL, TABLES),
    )
)

CLAIMS: tuple[Claim, ...] = (
    *_FLAT,
    Claim("mgda", "equal", None, "MultiMNIST, accuracy of each digit", "Sener and Koltun, NeurIPS 2018", PAIRS),
    Claim("mgda", "equal", (1.38, 5.59), NYUV2, NTKMTL_TABLE, TABLES),
    *(
        _on_nyuv2(method, figure)
        for method, figure in (
            ("pcgrad", 3.97), ("graddrop", 3.58), ("cagrad", 0.20), ("imtl-g", -0.76), ("moco", 0.16),
            ("nash-mtl", -4.04), ("aligned-mtl", -3.12), ("famo", -4.10), ("sdmgrad", -4.84), ("db-mtl", -5.36),
            ("stch", -1.35), ("fairgrad", -4.66), ("go4align", -6.08), ("sam-gs", -5.3), ("ntkmtl", -6.99),
            ("ntkmtl-sr", -5.35), ("scale-invariant", 4.39), ("dwa", 3.57), ("uncertainty", 4.05),
        )
    ),
    *(
        _on_strong(method, figure)
        for method, figure in (("gls", 0.30), ("imtl", -0.57), ("gradvac", -1.75), ("rep-mtl", 1.70))
    ),
    Claim("samo+fairgrad", "fairgrad", (-6.55, -4.96), NYUV2, "Ban et al., SAMO, 2025"),
)  # fmt: skip


def ledger(gains: Gains, claims: Sequence[Claim] = CLAIMS) -> list[dict[str, Any]]:
    """Each claim with its verdict on each problem.

    The difference of both methods' Δm is taken seed by seed; `held` and `not held` when its 95% interval lies above
    or below zero, `not separable` when it holds zero, `one seed` where there is no interval.

    Args:
        gains: the measured grid.
        claims: what to try; those of methods that were not measured are left out.
    """
    rows = []
    for claim in claims:
        if {claim.better, claim.worse} <= set(gains.methods):
            for problem in claim.problems or tuple(gains.problems):
                if problem in gains.problems:
                    rows.append(_tried(claim, problem, gains))  # noqa: PERF401 -- two conditions read better so
    return rows


def _tried(claim: Claim, problem: str, gains: Gains) -> dict[str, Any]:
    found = gains.difference(problem, claim.better, claim.worse)
    if found is None:
        verdict = "not measured"
    elif found.low is None or found.high is None:
        verdict = "one seed"
    elif found.low > 0:
        verdict = "held"
    elif found.high < 0:
        verdict = "not held"
    else:
        verdict = "not separable"
    return {
        "better": claim.better, "worse": claim.worse, "problem": problem,
        "published": None if claim.figures is None else list(claim.figures),
        "measured_on": claim.measured_on, "source": claim.source, "verdict": verdict,
        "difference": None if found is None else found.to_dict(),
    }  # fmt: skip
