"""How easily requests meet the SLO under a plan: this distinguishes plans before many of their requests miss."""

from __future__ import annotations

from collections.abc import Sequence

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


def ease_of(runs: Sequence[Run], slo: Slo) -> tuple[float, float]:
    """Share of counted requests that meet the SLO, and how hard that is for them, 0-1; of the worst class."""
    ratios = [_ratios(run, slo) for run in runs]
    strain = max(_strain(np.concatenate(parts)) for parts in zip(*ratios, strict=True))
    return float(np.mean([share_of([part <= AT_LIMIT for part in parts], slo) for parts in ratios])), strain


def _ratios(run: Run, slo: Slo) -> list[Array]:
    """The largest metric of each counted request over its limit, by class."""
    class_of = None if run.outcome.class_of is None else run.outcome.class_of[run.counted]
    return by_class(limit_ratio(run.outcome, slo)[run.counted], class_of, slo)


def _strain(ratios: Array) -> float:
    if not len(ratios):
        return 0.0
    over = np.maximum(ratios, _LEAST_RATIO)
    return float((1.0 / (1.0 + over**-_SHARPNESS)).mean())
