"""Whether runs are too short for their fleet to fill: while it fills, requests get later and later.

A fleet that is nearly full takes long to settle: the more requests run, the longer each takes. Runs that start with
empty replicas then show a better share than the fleet holds in the long run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from melange.workload.workload import Array, Mask

# Number of parts of a run; the first half of the parts is compared with the second half.
_PARTS = 10
# Standard errors by which the second half must be below the first: with fewer, chance makes runs longer, which only
# costs time. And the least fall as a part of the allowed misses: a smaller one decides nothing.
_ERRORS, _LEAST_FALL = 3.0, 0.05


def falls(samples: Sequence[Mask], target: float) -> bool:
    """Whether fewer requests meet the SLO in the second half of the runs than in the first, by more than chance.

    Parameters
    ----------
    samples
        Whether each counted request met the SLO, for each run.
    target
        Share of requests that must meet it, 0-1.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> falls([rng.random(20_000) < 0.95 for _ in range(4)], 0.95)
    False
    >>> falls([rng.random(20_000) < np.linspace(0.97, 0.93, 20_000) for _ in range(4)], 0.95)
    True
    """
    parts = np.array([[part.mean() for part in np.array_split(run, _PARTS)] for run in samples])
    return _is_less(parts[:, : _PARTS // 2].ravel(), parts[:, _PARTS // 2 :].ravel(), target)


def falls_later(samples: Sequence[Mask], later: Sequence[Mask], target: float) -> bool:
    """Whether fewer requests meet the SLO in the later part of longer runs than in these, by more than chance.

    Parameters
    ----------
    samples, later
        Whether each counted request met the SLO, for each run.
    target
        Share of requests that must meet it, 0-1.
    """
    first, second = ([part.mean() for run in runs for part in np.array_split(run, _PARTS)] for runs in (samples, later))
    return _is_less(np.array(first), np.array(second), target)


def _is_less(first: Array, second: Array, target: float) -> bool:
    """Whether the mean of some shares is below that of others, by more than chance and by an amount that matters."""
    fall = float(first.mean() - second.mean())
    error = math.sqrt(first.var(ddof=1) / len(first) + second.var(ddof=1) / len(second))
    return fall > max(_ERRORS * error, _LEAST_FALL * (1.0 - target))
