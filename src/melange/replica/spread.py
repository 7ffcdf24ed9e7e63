"""How far measured step times lie from predicted ones, and what makes the interval of a deployment wider.

Errors come in levels. Every source has its own host, driver and settings: all points of a *source* are off together. So
are those of an architecture, a kind of model or a release that no fit has seen. What varies from one accelerator, model
or point to the next is in the residuals of an era. ``spread.toml`` holds the standard deviation of each level,
estimated from whole sources and architectures that were left out of fits (``bench/sources.py``).
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

# 10 % and 90 % quantiles of a normal distribution lie this many standard deviations from its middle.
DECILE = 1.2816


@dataclass(frozen=True, slots=True, kw_only=True)
class Residuals:
    """How far measured step times were from predicted ones, on accelerators or models that the fit had not seen.

    Parameters
    ----------
    low, high
        Measured over predicted step time: its 10 % and 90 % quantile.
    median_error
        Median of abs(predicted / measured - 1), 0-1.
    points
        Measured points behind it; 0 where nothing was measured and the figures are a judgment.
    """

    low: float
    high: float
    median_error: float
    points: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The levels of the model of errors.

    Parameters
    ----------
    source, architecture, kind, release
        Standard deviation of the logarithm of measured over predicted step time that comes with a source, an
        architecture, a kind of model, a release that was not measured.
    slowdown
        Measured over predicted step time that sources left out of fits have in common.
    ignorance
        The interval of what no era stands for.
    """

    source: float
    architecture: float
    kind: float
    release: float
    slowdown: float
    ignorance: Residuals

    def deviation(self, levels: Sequence[str]) -> float:
        """Standard deviation that some levels have together; each adds its variance."""
        return math.sqrt(sum(getattr(self, level) ** 2 for level in levels))


@cache
def spread() -> Spread:
    """The levels as they were estimated."""
    text = (resources.files("melange.replica") / "spread.toml").read_text(encoding="utf-8")
    content = tomllib.loads(text)
    return Spread(**content["levels"], ignorance=Residuals(**content["ignorance"]))


def widened(known: Residuals, deviation: float) -> Residuals:
    """Residuals with a standard deviation of the logarithm on top, independent of what is known.

    >>> known = Residuals(low=0.9, high=1.2, median_error=0.06, points=100)
    >>> wider = widened(known, 0.2)
    >>> round(wider.low, 2), round(wider.high, 2)
    (0.76, 1.37)
    """
    more = DECILE * deviation
    low, high = math.hypot(math.log(known.low), more), math.hypot(math.log(known.high), more)
    # Half of a normal distribution lies within 0.6745 of its standard deviation.
    error = math.hypot(known.median_error, 0.6745 * deviation)
    return Residuals(low=math.exp(-low), high=math.exp(high), median_error=error, points=known.points)
