"""What intervals from resamples have in common, wherever they are made."""

from statistics import NormalDist


def tail(num_draws: int) -> float:
    """Which percentile ends a 95% interval from resamples of so many rows, groups or blocks; 0.025 of very many.

    Φ(−√(n / (n − 1)) t), with t the 97.5% point of Student's distribution with n − 1 degrees of freedom: of few, the
    plain percentiles are too narrow.

    Source: Hesterberg, What Teachers Should Know about the Bootstrap, 2015.
    """
    z, freedom = NormalDist().inv_cdf(0.975), max(1, num_draws - 1)
    # Hill's expansion of t around the normal quantile; within 0.1% from nine degrees of freedom on.
    quantile = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return NormalDist().cdf(-quantile * ((freedom + 1) / freedom) ** 0.5)
