"""How bursty arrivals are, measured within windows: a rate that rises and falls over the day is not a burst."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from melange.units import S_PER_H

# Windows in which the rate counts as steady: shorter than daily changes of the rate. Chosen by judgment.
WINDOW_S = S_PER_H
# Gaps that a window should have: with 100, the result for Poisson arrivals is 1 % low. If fewer requests arrive in an
# hour, windows are longer. Chosen by judgment.
GAPS_A_WINDOW = 100
# With fewer gaps the result is chance; if more than this share of the gaps is 0, the clock is too coarse.
_LEAST_GAPS = 30
_MOST_TIES = 0.1


def pooled_burstiness(
    gaps: npt.ArrayLike, sums_s: npt.ArrayLike, squares_s2: npt.ArrayLike, ties: npt.ArrayLike = 0
) -> float | None:
    """Standard deviation of the gaps between arrivals over their mean, each gap relative to the mean of its window.

    ``sqrt(sum(n_w (deviation_w / mean_w) ** 2) / sum(n_w))`` over the windows w that have two gaps or more: 1 for
    Poisson arrivals, 0 for even ones.

    Parameters
    ----------
    gaps, sums_s, squares_s2
        Number of gaps in each window (W,), their sum [s] and the sum of their squares [s2].
    ties
        Number of gaps that are 0 (W,).

    Returns
    -------
    float or None
        None if there are too few gaps, or if too many are 0.

    >>> round(pooled_burstiness([50, 50], [50.0, 500.0], [100.0, 10_000.0]), 3)
    1.0
    """
    counts, sums, squares, zeros = np.broadcast_arrays(
        *(np.asarray(one, float) for one in (gaps, sums_s, squares_s2, ties))
    )
    is_told = counts >= 2
    counts, sums, squares, zeros = (one[is_told] for one in (counts, sums, squares, zeros))
    total = float(counts.sum())
    if total < _LEAST_GAPS or float(zeros.sum()) > _MOST_TIES * total or not (sums > 0).all():
        return None
    means = sums / counts
    variances = np.maximum(squares / counts - means**2, 0.0)
    return math.sqrt(float((counts * variances / means**2).sum()) / total)
