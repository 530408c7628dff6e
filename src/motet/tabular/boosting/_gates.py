"""Which side of the split each task is on: where the gates start, and how they move."""

import numpy as np

STEP = 0.3  # of a Newton step: gates must not run ahead of the trees that they weigh
LONGEST = 1.0
FURTHEST = 6.0  # σ(6) = 0.998: a task can still come back


def gate(theta_T: np.ndarray) -> np.ndarray:
    """σ(θ): how much of each task is answered by the far side."""
    return 1.0 / (1.0 + np.exp(-theta_T))


def first_gates(answers_TM: np.ndarray) -> np.ndarray:
    """θ from each task's own rough answers at the same M points, (T,): the smaller of two clusters starts far.

    The published start is random, which leaves to chance on which side a task lands and which side is which. Here tasks
    are placed along the direction in which their answers differ most, and cut where two clusters are tightest.
    """
    num_tasks = len(answers_TM)
    apart_TM = answers_TM - answers_TM.mean(axis=0)
    if num_tasks < 2 or not np.abs(apart_TM).max() > 1e-9:
        return np.zeros(num_tasks)
    left, sizes, _ = np.linalg.svd(apart_TM, full_matrices=False)
    place_T = left[:, 0] * sizes[0]
    ordered = np.sort(place_T)
    spreads = [ordered[:cut].var() * cut + ordered[cut:].var() * (num_tasks - cut) for cut in range(1, num_tasks)]
    cut = int(np.argmin(spreads)) + 1
    theta_T = 2.0 * (place_T - 0.5 * (ordered[cut - 1] + ordered[cut])) / place_T.std()
    return -theta_T if is_turned(theta_T) else theta_T


def moved(
    theta_T: np.ndarray, codes_N: np.ndarray, gap_NC: np.ndarray, gradient_NC: np.ndarray, curvature_NC: np.ndarray
) -> np.ndarray:
    """θ after a damped Newton step on each task's loss.

    dL_r/dθ_r = Σ_{i in r} g_i · s_r (1 − s_r) · (F_far − F_near)(x_i), and likewise with squares for the curvature.

    Args:
        theta_T: the gates.
        codes_N: each row's task.
        gap_NC: far side's scores less the near side's.
        gradient_NC: of the loss in the scores.
        curvature_NC: likewise.
    """
    share_T = gate(theta_T)
    slope_N = (share_T * (1.0 - share_T))[codes_N]
    num_tasks = len(theta_T)
    downhill_T = np.bincount(codes_N, slope_N * (gradient_NC * gap_NC).sum(axis=1), num_tasks)
    bend_T = np.bincount(codes_N, slope_N**2 * (curvature_NC * gap_NC**2).sum(axis=1), num_tasks) + 1.0
    step_T = STEP * np.clip(downhill_T / bend_T, -LONGEST, LONGEST)
    return np.clip(theta_T - step_T, -FURTHEST, FURTHEST)


def is_turned(theta_T: np.ndarray) -> bool:
    """Whether most tasks are on the far side, so that the sides' names must change places."""
    return bool((theta_T > 0).sum() > 0.5 * len(theta_T))
