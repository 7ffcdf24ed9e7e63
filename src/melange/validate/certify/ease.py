"""How easily requests meet the SLO under a plan: this distinguishes plans before many of their requests miss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from melange.slo import Slo
from melange.validate.attainment import AT_LIMIT, by_class, limit_ratio, share_of
from melange.validate.simulate import Run
from melange.workload.workload import Array

# How steeply a request counts as it nears its limit. Less steep, requests far from the limit count as well; steeper,
# only misses count, and there are few. 4: no difference; 16: one plan costs 10 % more, one 5 % less.
_SHARPNESS = 8.0
# Least metric over its limit: keeps the power finite for a request that takes next to no time.
_LEAST_RATIO = 1e-9


class Ease(NamedTuple):
    """How easily requests meet the SLO; with classes, those of the worst class.

    Parameters
    ----------
    met
        Share of requests that meet the SLO, 0-1.
    strain
        How hard that is for them, 0-1. Each request counts ``x^8 / (1 + x^8)`` at ``x`` times its limit: nearly nothing
        well within it, a half at it, nearly one beyond. Few requests miss but many come near, so this needs fewer
        requests than misses to tell plans.
    """

    met: float
    strain: float


def ease_of(runs: Sequence[Run], slo: Slo) -> Ease:
    """How easily the counted requests of some runs meet the SLO."""
    ratios = [_ratios(run, slo) for run in runs]
    strain = max(_strain(np.concatenate(parts)) for parts in zip(*ratios, strict=True))
    met = float(np.mean([share_of([part <= AT_LIMIT for part in parts], slo) for parts in ratios]))
    return Ease(met, strain)


def _ratios(run: Run, slo: Slo) -> list[Array]:
    """The largest metric of each counted request over its limit, by class."""
    class_of = None if run.outcome.class_of is None else run.outcome.class_of[run.counted]
    return by_class(limit_ratio(run.outcome, slo)[run.counted], class_of, slo)


def _strain(ratios: Array) -> float:
    if not len(ratios):
        return 0.0
    over = np.maximum(ratios, _LEAST_RATIO)
    return float((1.0 / (1.0 + over**-_SHARPNESS)).mean())
