"""Extend a few measured points to all sizes and loads of one replica: a ridge regression.

For each request size, ``log(measured / predicted step) = c0 + c1 log(batch / 24)``. The coefficients of two sizes are
similar for similar sizes, so one measured point informs others::

    cov(point, point') = v (type + (size + slope x x') exp(-d^2 / (2 reach^2)) + noise [point = point'])
    x = log(batch / 24),   d^2 = log(i / i')^2 + log(o / o')^2

v is the variance of the era's residuals: the prior before any measurement. With Gaussian c0 and c1, this is kriging
with a linear trend in each size, or ridge regression with partly shared coefficients (Rasmussen and Williams, Gaussian
Processes for Machine Learning, 2006, chapter 2). The shares below come from ``bench/anchors.py``: type, size, slope and
reach maximize the likelihood over 89 replica types (1,805 points) of vLLM, SGLang and TensorRT-LLM, and noise minimizes
the error of rates near a measured point. This noise is lower than the most likely one: the model's error changes slowly
with the batch size, so a point says more about nearby batch sizes than about distant ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from melange.replica.era import Residuals
from melange.workload.workload import Array

# The batch size at which a correction is exp(c0), and at which c0 and c1 are assumed independent before any
# measurement. Chosen by judgment.
REFERENCE_BATCH = 24.0
# The 10 % and 90 % quantiles of a normal distribution are this many standard deviations from its mean.
_DECILE = 1.2816
# Held-out residuals have longer tails than a normal distribution: 80 % of them are within this many of their standard
# deviations.
INTERVAL = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Parts of the variance of the era's residuals, and the reach of a measured size.

    Parameters
    ----------
    type_, size, noise
        The parts that are common to all sizes of a replica type, to one size, and to a single point. They add up to 1.
    slope
        The part for the change of a size's correction when the batch is e times larger.
    reach
        Sizes whose logarithms differ by this much have coefficients with correlation 0.6.
    """

    type_: float = 0.45
    size: float = 0.48
    noise: float = 0.07
    slope: float = 0.25
    reach: float = 2.1


SHARES = Shares()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measured point compared with the model.

    Parameters
    ----------
    inputs, outputs
        Size of its requests [tokens].
    batch
        Number of running requests.
    log_ratio
        Logarithm of measured over predicted step time.
    """

    inputs: float
    outputs: float
    batch: float
    log_ratio: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Correction:
    """Coefficients of each size (I, O), and their uncertainty.

    Parameters
    ----------
    level, slope
        Means of c0 and c1 (I, O): the step takes ``exp(level + slope log(batch / 24))`` times as long as predicted.
    variance
        Coefficients v0, v1, v2 (3, I, O) of the variance of its logarithm, ``v0 + v1 x + v2 x^2``.
    least_batch, most_batch
        The measured range; outside of it, the correction is that of the nearer end.
    """

    level: Array
    slope: Array
    variance: Array
    least_batch: float
    most_batch: float

    def factor(self) -> Array:
        """The factor for a step's time, in addition to ``batch ** slope`` (I, O)."""
        return np.asarray(np.exp(self.level - self.slope * math.log(REFERENCE_BATCH)))

    def spread(self, batch: Array) -> Array:
        """Standard deviation of the logarithm of a step's time at this batch size (I, O) or (R, I, O)."""
        x = np.log(np.maximum(batch, 1.0) / REFERENCE_BATCH)
        v0, v1, v2 = self.variance
        return np.asarray(np.sqrt(np.maximum(v0 + v1 * x + v2 * x**2, 0.0)))


def prior_variance(residuals: Residuals) -> float:
    """Variance of the logarithm of measured over predicted step time, from its 10 % and 90 % quantiles."""
    return (math.log(residuals.high / residuals.low) / (2 * _DECILE)) ** 2


def correction(
    samples: Sequence[Sample], inputs: Array, outputs: Array, variance: float, shares: Shares = SHARES
) -> Correction:
    """The coefficients of all sizes, given measured points.

    Parameters
    ----------
    samples
        Measured points of one replica, at least one.
    inputs, outputs
        The sizes of the result (I, O) [tokens].
    variance
        Variance of the logarithm of measured over predicted step time before any measurement.
    shares
        The parts of this variance.

    Examples
    --------
    One point that took 20 % longer than predicted moves the correction of its own size most of the way there:

    >>> point = Sample(inputs=1000, outputs=500, batch=24, log_ratio=float(np.log(1.2)))
    >>> size = np.array([[1000.0]]), np.array([[500.0]])
    >>> found = correction([point], *size, variance=0.08)
    >>> float(np.exp(found.level[0, 0]).round(3))
    1.185
    """
    size = np.array([(math.log(one.inputs), math.log(one.outputs)) for one in samples])
    x = np.array([math.log(max(one.batch, 1.0) / REFERENCE_BATCH) for one in samples])
    ratio = np.array([one.log_ratio for one in samples])
    alike = _alike(size, size, shares)
    covariance = shares.type_ + (shares.size + shares.slope * np.outer(x, x)) * alike + shares.noise * np.eye(len(x))
    inverse = np.linalg.inv(covariance)
    wanted = np.stack([np.log(inputs).ravel(), np.log(outputs).ravel()], axis=1)
    near = _alike(wanted, size, shares)
    level, slope = shares.type_ + shares.size * near, shares.slope * near * x
    pairs = ((level, level), (level, slope), (slope, slope))
    explained = [((some @ inverse) * other).sum(axis=1) for some, other in pairs]
    left = (
        shares.type_ + shares.size + shares.noise - explained[0],
        -2.0 * explained[1],
        shares.slope - explained[2],
    )
    shape = np.shape(inputs)
    batches = [max(one.batch, 1.0) for one in samples]
    return Correction(
        level=(level @ inverse @ ratio).reshape(shape),
        slope=(slope @ inverse @ ratio).reshape(shape),
        variance=variance * np.stack([part.reshape(shape) for part in left]),
        least_batch=min(batches),
        most_batch=max(batches),
    )


def _alike(some: Array, others: Array, shares: Shares) -> Array:
    """Correlation of the coefficients of sizes (logarithms, (N, 2)) with those of other sizes (M, 2): (N, M)."""
    squared = ((some[:, None, :] - others[None, :, :]) ** 2).sum(axis=2)
    return np.asarray(np.exp(-squared / (2 * shares.reach**2)))
