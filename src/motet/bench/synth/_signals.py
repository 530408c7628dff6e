"""What tasks share: directions with a given correlation, polynomials of known mean and spread, and drift."""

import functools
import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from motet._errors import RequestError
from motet.bench.synth._settings import LARGEST_DEGREE, SynthSettings

GRID = 2048  # points of the population of one signal
NOISE_GRID = 32
STEPS = 400  # of the search for directions where there are more tasks than features


def direction_correlation(settings: SynthSettings) -> float:
    """What the ordinary tasks' directions must have for what was asked.

    Signals of degree above 1 are less alike than their directions: with Hermite coefficients c_ik of length 1 for task
    i, corr(s_i, s_j) = Σ_k c_ik c_jk ρ^k, which grows with ρ from 0 up, and noise divides it by 1 + noise².

    Raises:
        RequestError: labels cannot be so alike.
    """
    if settings.match == "directions":
        return settings.correlation
    degrees = [degree for degree, role in zip(settings.each(settings.degree), settings.roles, strict=True)
               if role == "ordinary"]  # fmt: skip
    coefficients_TK = np.stack([Polynomial(degree).hermite() for degree in degrees])
    if len(degrees) < 2:
        return settings.correlation
    most = _label_correlation(coefficients_TK, 1.0, settings.noise)
    if settings.correlation > most:
        message = (
            f"A correlation of {settings.correlation!r} of the labels was asked for; with these degrees and this noise "
            f"they reach {most:.3f}. Ask for less, for less noise, or for degrees that are alike."
        )
        raise RequestError(message)
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        found = _label_correlation(coefficients_TK, middle, settings.noise)
        low, high = (middle, high) if found < settings.correlation else (low, middle)
    return high


def _label_correlation(coefficients_TK: np.ndarray, rho: float, noise: float) -> float:
    """The mean over pairs of tasks."""
    powers_K = rho ** np.arange(1, coefficients_TK.shape[1] + 1)
    found_TT = (coefficients_TK * powers_K) @ coefficients_TK.T
    return float(found_TT[np.triu_indices(len(found_TT), 1)].mean() / (1.0 + noise**2))


def wanted_correlation(settings: SynthSettings) -> np.ndarray:
    """The correlation that the directions are to have, (T, T): positive semidefinite by construction."""
    sign_T = np.array([-1.0 if role == "adversarial" else 1.0 for role in settings.roles])
    outlier_T = np.array([role == "outlier" for role in settings.roles])
    found_TT = direction_correlation(settings) * np.outer(sign_T, sign_T) * (outlier_T[:, None] == outlier_T)
    np.fill_diagonal(found_TT, 1.0)
    return found_TT


def directions(wanted_TT: np.ndarray, num_features: int, generator: np.random.Generator) -> np.ndarray:
    """Unit vectors (T, F) whose inner products are `wanted_TT`: exactly up to F tasks, as nearly as F allows beyond."""
    num_tasks = len(wanted_TT)
    if num_tasks <= num_features:
        values, vectors = np.linalg.eigh(wanted_TT)
        frame_FT, _ = np.linalg.qr(generator.normal(size=(num_features, num_tasks)))
        found_TF = vectors * np.sqrt(np.maximum(values, 0.0)) @ frame_FT.T
        return found_TF / np.linalg.norm(found_TF, axis=1, keepdims=True)
    found_TF = generator.normal(size=(num_tasks, num_features))
    found_TF /= np.linalg.norm(found_TF, axis=1, keepdims=True)
    rate = 1.0 / (np.linalg.norm(wanted_TT, 2) + num_tasks / num_features)
    for _ in range(STEPS):  # steepest descent on the squared misses, back to the unit sphere after each step
        found_TF = found_TF - rate * (found_TF @ found_TF.T - wanted_TT) @ found_TF
        found_TF /= np.linalg.norm(found_TF, axis=1, keepdims=True)
    return found_TF


def turned(inputs_NF: np.ndarray, time_N: np.ndarray, drift: float, generator: np.random.Generator) -> np.ndarray:
    """The rows turned by `drift` right angles times their time, in random planes.

    One rotation for all tasks keeps how alike they are, and a standard normal row stays one.
    """
    num_features = inputs_NF.shape[1]
    basis_FF, _ = np.linalg.qr(generator.normal(size=(num_features, num_features)))
    rows_NF = inputs_NF @ basis_FF
    paired = num_features // 2 * 2
    first, second = rows_NF[:, 0:paired:2], rows_NF[:, 1:paired:2]
    angle = (0.5 * np.pi * drift * time_N)[:, None]
    found_NF = rows_NF.copy()
    found_NF[:, 0:paired:2] = np.cos(angle) * first - np.sin(angle) * second
    found_NF[:, 1:paired:2] = np.sin(angle) * first + np.cos(angle) * second
    return found_NF @ basis_FF.T


@dataclass(frozen=True)
class Polynomial:
    """z + z² + … + z^degree of a standard normal z, less its mean, over its standard deviation.

    Mean and deviation are those of the population, from the moments of the normal distribution: no row tells another
    anything.

    Args:
        degree: 1 to 6.
    """

    degree: int

    def __call__(self, z: np.ndarray) -> np.ndarray:
        """The signal of each z, of mean 0 and variance 1 over the population."""
        mean, deviation = _moments(self.degree)
        return (np.sum([z**power for power in range(1, self.degree + 1)], axis=0) - mean) / deviation

    def hermite(self) -> np.ndarray:
        """Coefficients of length 1 in the orthonormal Hermite polynomials of degree 1 to `LARGEST_DEGREE`, (K,)."""
        plain = np.polynomial.hermite_e.poly2herme([0.0, *[1.0] * self.degree])
        sizes = np.array([math.factorial(power) ** 0.5 for power in range(1, self.degree + 1)])
        found = np.zeros(LARGEST_DEGREE)
        found[: self.degree] = plain[1:] * sizes
        return found / np.linalg.norm(found)

    def population(self, noise: float) -> np.ndarray:
        """Sorted values of signal plus noise, evenly through the population: its quantiles."""
        signal, extra = self(_normal_grid(GRID)), noise * _normal_grid(NOISE_GRID)
        return np.sort((signal[:, None] + (extra if noise else extra[:1] * 0.0)).ravel())


@functools.cache
def _normal_grid(count: int) -> np.ndarray:
    normal = NormalDist()
    return np.array([normal.inv_cdf((place + 0.5) / count) for place in range(count)])


@functools.cache
def _moments(degree: int) -> tuple[float, float]:
    powers = range(1, degree + 1)
    mean = sum(_normal_moment(power) for power in powers)
    square = sum(_normal_moment(one + other) for one in powers for other in powers)
    return mean, (square - mean**2) ** 0.5


def _normal_moment(power: int) -> float:
    """E[z^power]: 0 for odd powers, (power − 1)!! for even ones."""
    return 0.0 if power % 2 else float(np.prod(np.arange(1, power, 2)))
