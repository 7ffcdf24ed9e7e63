"""Confidence interval of the highest rate: from the last rate that clearly held to the first that clearly failed.

The search ends between a rate at which the objective held and a rate at which it failed. Either result may be due to
chance if the interval on the statistic contains the limit. So the low end is the highest rate at which the objective
held beyond chance. The high end is the lowest rate at which the objective failed beyond chance, or the rate on the way
there at which the low end of the statistic's interval meets the limit. Three corrections, which ``bench/measure.py``
has shown to be needed:

- The bootstrap draws blocks of a twelfth of a window, but concurrent requests share their steps. If the window counted
  fewer than 12 times as many requests as ran at once, the statistic's interval is widened by the square root of that
  ratio.
- A server that falls behind by up to 5 % counts as keeping up. If falling behind ended the search, the rate may be
  lower by that share. Slow fluctuations look the same, unless the server completed a tenth fewer requests than arrived;
  then the rate of completed requests bounds the rate.
- A rate under a percentile, or for a share of requests, comes out too high, because windows see too few of the
  fluctuations: by ``TAIL`` for each factor of ten by which fewer requests lie beyond the percentile or share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from melange.measure.point import Point
from melange.measure.window import BLOCKS, DRIFT
from melange.slo import Slo

# A larger value covers the true rate more often but widens the interval. Chosen on the two servers of docs/measure.md.
TAIL = 0.05
# A server that completes this share fewer requests than arrive is behind beyond chance.
BEHIND = 0.1


def interval(points: Sequence[Point], slo: Slo, *, held_rate: float, failed_rate: float) -> tuple[float, float]:
    """Ends of an 80 % interval on the highest rate that holds [1/s].

    Parameters
    ----------
    points
        All load points of the search, including requests one at a time.
    slo
        The objective.
    held_rate, failed_rate
        The highest rate that held and the lowest that did not [1/s]; infinite, like the high end, if all held.
    """
    alone, *tried = (_widened(point) for point in sorted(points, key=_rate))
    held = [point for point in tried if _rate(point) <= held_rate]
    failed = [point for point in tried if _rate(point) >= failed_rate]
    low = max((_rate(point) for point in held if point.is_clear), default=_chord(alone, held[0]))
    if failed and not failed[0].keeps_up:
        low *= 1 - DRIFT
    return low * (1 - TAIL * math.log10(1 / slo.tail)), _failing(failed) if failed else math.inf


def _rate(point: Point) -> float:
    return point.rate or 0.0


def _widened(point: Point) -> Point:
    """The point with a wider interval if its blocks were too short for the number of concurrent requests."""
    counted = point.measurement.samples if point.measurement is not None else None
    if point.rate is None or not counted or not math.isfinite(point.excess_high):
        return point
    wider = math.sqrt(max(1.0, BLOCKS * point.rate * point.latency_s / counted))
    return replace(
        point,
        excess_low=point.excess - wider * (point.excess - point.excess_low),
        excess_high=point.excess + wider * (point.excess_high - point.excess),
    )


def _chord(alone: Point, held: Point) -> float:
    """Where the upper end of the statistic meets its limit, on a straight line from one request alone to a rate [1/s].

    Latency grows faster than linearly, so the true rate is higher.
    """
    rise = held.excess_high - alone.excess_high
    return _rate(held) * min(max(1 - alone.excess_high, 0.0) / rise, 1.0) if rise > 0 else 0.0


def _failing(failed: Sequence[Point]) -> float:
    """The lowest rate at which the objective fails beyond chance [1/s]; ``failed`` starts with the lowest rate."""
    before: Point | None = None
    for point in failed:
        if _fails_clearly(point):
            return _rate(point) if before is None else _between(before, point)
        before = point
    return _rate(failed[-1])


def _fails_clearly(point: Point) -> bool:
    """Whether the load fails beyond chance: it misses the objective, or the server is far behind."""
    return point.excess_low > 1 or (not point.keeps_up and (point.achieved_rate or 0.0) < (1 - BEHIND) * _rate(point))


def _between(unclear: Point, clear: Point) -> float:
    """The rate between two at which the low end of the statistic's interval meets its limit [1/s]."""
    low, high = _rate(unclear), _rate(clear)
    if max(unclear.excess_low, 1.0) < clear.excess_low < math.inf:
        high = low + (high - low) * min(1.0, (1 - unclear.excess_low) / (clear.excess_low - unclear.excess_low))
    if clear.capacity is not None:
        high = min(high, max(low, clear.capacity / (1 - DRIFT)))
    return high
