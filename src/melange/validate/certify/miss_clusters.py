"""Misses come in clusters: a queue that builds up makes many requests late, one after another.

So 54 misses in 1,600 requests may be two queues, which other requests may not meet. A short run has few clusters, and
its batches do not show clusters that differ between runs. The clusters are counted here, and a share of misses is as
precise as one from that many independent misses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from melange.workload.workload import Mask

_Z = NormalDist().inv_cdf(0.975)


def clustering(is_missed: Mask) -> float:
    """Clusters per miss, 0-1: 1 if each miss comes alone.

    The intervals estimator of the extremal index (Ferro and Segers 2003, eq. 5), with the requests on a circle: the
    requests before the first miss and after the last one form an interval too.

    >>> alone = np.arange(1000) % 100 == 0
    >>> round(clustering(alone), 2)
    1.0
    >>> together = np.arange(1000) < 10
    >>> round(clustering(together), 2)
    0.2
    """
    places = np.flatnonzero(is_missed)
    if len(places) < 2:
        return 1.0
    intervals = np.diff(places, append=places[0] + len(is_missed)).astype(float)
    if intervals.max() <= 2:
        squares = float((intervals**2).sum())
    else:
        squares = float(((intervals - 1) * (intervals - 2)).sum())
        intervals = intervals - 1
    return min(1.0, 2 * float(intervals.sum()) ** 2 / (len(places) * squares))


def least_missed(samples: Sequence[Mask]) -> float:
    """Lower end of the 95 % interval of the share of misses, 0-1, by clusters.

    The number of clusters is assumed to be Poisson (Byar's approximation of its limits, Breslow and Day 1987), and
    their sizes geometric, which doubles the variance of the total number of misses.

    Parameters
    ----------
    samples
        Whether each counted request met the SLO, for each run.
    """
    is_missed = ~np.concatenate(samples)
    clusters = int(is_missed.sum()) * clustering(is_missed)
    if clusters == 0.0:
        return 0.0
    part = 1.0 - 1.0 / (9.0 * clusters) - math.sqrt(2.0) * _Z / (3.0 * math.sqrt(clusters))
    return float(is_missed.mean()) * max(0.0, part) ** 3
