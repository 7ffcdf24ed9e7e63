"""Draw by what factor true step times differ from those of a plan.

Errors have levels (:mod:`melange.replica.spread`). The effect of a deployment's own host, driver and settings is common
to all of its replicas; the rest is specific to an accelerator, whatever the instance and the degree. With z standard
normal::

    factor = slow^(z / 1.2816)  where z > 0,   fast^(-z / 1.2816)  where z < 0
    z = w (common) + sqrt(1 - w^2) (of the accelerator)            w = deviation in common / deviation of the engine

If a type's steps were measured, its errors are independent of those of others: w is 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from melange.replica.engine import Engine
from melange.replica.spread import DECILE, spread
from melange.workload.workload import Array


def step_factors(engines: Sequence[Engine], accelerators: Sequence[str], count: int, *, first: int = 0) -> Array:
    """True step times over those of the engines (count, T), drawn evenly from their intervals.

    Parameters
    ----------
    engines
        Engines with the interval of their steps (T).
    accelerators
        Their accelerators (T); engines on the same accelerator have the same error.
    count
        Number of draws. They fill the distribution evenly (a Kronecker sequence), so that estimates of shares are more
        precise than with random draws: 128 are as good as about 1,000 random ones.
    first
        Index of the first draw; another index gives other draws.
    """
    names = list(dict.fromkeys(accelerators))
    normal = _normal(count, 1 + len(names), first)
    columns = []
    for engine, accelerator in zip(engines, accelerators, strict=True):
        w = common_part(engine)
        z = w * normal[:, 0] + math.sqrt(1.0 - w * w) * normal[:, 1 + names.index(accelerator)]
        columns.append(factor_at(engine, z))
    return np.stack(columns, axis=1)


def factor_at(engine: Engine, z: Array | float) -> Array:
    """True step time over the engine's, at this many standard deviations above the middle (negative: faster)."""
    z = np.asarray(z, float)
    ends = np.where(z > 0, math.log(engine.slow), -math.log(engine.fast))
    return np.asarray(np.exp(z / DECILE * ends))


def common_part(engine: Engine) -> float:
    """Correlation of an engine's error with the common error of all types of a deployment, 0-1."""
    deviation = math.log(engine.slow / engine.fast) / (2 * DECILE)
    return min(spread().common / deviation, 1.0) if engine.source == "estimated" and deviation > 0 else 0.0


def _normal(count: int, dimensions: int, first: int) -> Array:
    """Normally distributed numbers (count, dimensions) that fill their distribution evenly."""
    # The generalized golden ratio: the root of x^(d + 1) = x + 1 (Roberts, 2018).
    ratio = 2.0
    for _ in range(40):
        ratio = (1.0 + ratio) ** (1.0 / (dimensions + 1))
    steps = ratio ** -np.arange(1.0, dimensions + 1)
    uniform = (0.5 + np.outer(np.arange(first + 1, first + count + 1), steps)) % 1.0
    quantile = NormalDist().inv_cdf
    return np.array([[quantile(min(max(u, 1e-9), 1 - 1e-9)) for u in row] for row in uniform])
