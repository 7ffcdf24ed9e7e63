"""How bursty arrivals are, measured within windows: a rate that goes up and down over the day is no burst."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from melange.units import S_PER_H

# Windows in which the rate is taken to be steady: shorter than anything a day does. A judgment.
WINDOW_S = S_PER_H
# Gaps that a window should have to be compared: with 100, Poisson arrivals come out 1 % low. Where fewer requests come
# in an hour, windows are longer. A judgment.
GAPS_A_WINDOW = 100
# With fewer gaps the figure is chance, and where more than this share of them is 0 the clock is too coarse to tell.
_LEAST_GAPS = 30
_MOST_TIES = 0.1


def pooled_burstiness(
    gaps: npt.ArrayLike, sums_s: npt.ArrayLike, squares_s2: npt.ArrayLike, ties: npt.ArrayLike = 0
) -> float | None:
    """Standard deviation of the gaps between arrivals over their mean, each gap held against its own window's mean.

    ``sqrt(sum(n_w (deviation_w / mean_w) ** 2) / sum(n_w))`` over the windows w that have two gaps or more: 1 for
    Poisson arrivals, 0 for even ones.

    Parameters
    ----------
    gaps, sums_s, squares_s2
        How many gaps each window has (W,), their sum [s] and the sum of their squares [s2].
    ties
        How many of them are 0 (W,).

    Returns
    -------
    float or None
        None where there are too few gaps, or too many of them are 0, to tell.

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
