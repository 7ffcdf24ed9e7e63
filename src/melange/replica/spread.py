"""Errors of predicted step times, and the factors that widen the interval of a deployment.

Errors have levels. Every source has its own host, driver and settings, so all points of a *source* have a common error.
So do all points of an architecture, a kind of model or a release that no fit included. If a single source measured an
era, the constants include its error, so that of the next source is larger. Variation from one accelerator, model or
point to the next is in the residuals of an era. ``spread.toml`` holds the standard deviation of each level, estimated
from whole sources and architectures that were left out of fits (``bench/sources.py``).
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

# The 10 % and 90 % quantiles of a normal distribution are this many standard deviations from its mean.
DECILE = 1.2816


@dataclass(frozen=True, slots=True, kw_only=True)
class Residuals:
    """Ratio of measured to predicted step times, on accelerators or models that were not in the fit.

    Parameters
    ----------
    low, high
        Measured over predicted step time: its 10 % and 90 % quantile.
    median_error
        Median of abs(predicted / measured - 1), 0-1.
    points
        Number of measured points; 0 if nothing was measured and the figures are chosen by judgment.
    """

    low: float
    high: float
    median_error: float
    points: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The levels of the error model.

    Parameters
    ----------
    source, architecture, kind, release, alone
        Standard deviation of the logarithm of measured over predicted step time for a new source; for an architecture,
        a kind of model, a release that was not measured; and for an era that a single source measured.
    slowdown
        Common ratio of measured to predicted step time of sources left out of fits.
    ignorance
        The interval for deployments that no era covers.
    """

    source: float
    architecture: float
    kind: float
    release: float
    alone: float
    slowdown: float
    ignorance: Residuals

    @property
    def common(self) -> float:
        """Standard deviation of the error that all types of a deployment share: its host, and an era of one source.

        Eras that several sources measured share less. Engines do not record their sources, and the newest era of every
        engine has one.
        """
        return self.deviation(("source", "alone"))

    def deviation(self, levels: Sequence[str]) -> float:
        """Combined standard deviation of several levels, whose variances add up."""
        return math.sqrt(sum(getattr(self, level) ** 2 for level in levels))


@cache
def spread() -> Spread:
    """The estimated levels."""
    text = (resources.files("melange.replica") / "spread.toml").read_text(encoding="utf-8")
    content = tomllib.loads(text)
    return Spread(**content["levels"], ignorance=Residuals(**content["ignorance"]))


def widened(known: Residuals, deviation: float) -> Residuals:
    """Residuals with an additional, independent standard deviation of the logarithm.

    >>> known = Residuals(low=0.9, high=1.2, median_error=0.06, points=100)
    >>> wider = widened(known, 0.2)
    >>> round(wider.low, 2), round(wider.high, 2)
    (0.76, 1.37)
    """
    more = DECILE * deviation
    low, high = math.hypot(math.log(known.low), more), math.hypot(math.log(known.high), more)
    # Half of a normal distribution is within 0.6745 standard deviations.
    error = math.hypot(known.median_error, 0.6745 * deviation)
    return Residuals(low=math.exp(-low), high=math.exp(high), median_error=error, points=known.points)
