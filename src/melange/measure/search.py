"""Search for the highest rate of one request size at which a server meets an SLO: doubling, then bisection."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields

from melange.errors import InputError, MeasurementError
from melange.files import Json
from melange.measure.interval import interval
from melange.measure.point import Point
from melange.records import number, record
from melange.slo import Slo
from melange.units import ms

# The search starts at this share of the expected rate, and gives up below this mean number of concurrent requests.
START_SHARE, _LEAST_BATCH = 0.7, 0.02
# If a rate holds at this share of a capacity seen earlier, that capacity was too low and is ignored.
_TOO_NEAR = 0.95
# Each test warms up for this many request latencies to reach a steady state, and then lasts at least this many.
WARM_UP_TURNS, TURNS = 2.0, 3.0
# Least number of warm-up requests, and of requests beyond a percentile or share (docs/measure.md): fewer make results
# more random, more take longer. Chosen by judgment.
_LEAST_WARM_UP, _BEYOND = 5, 10
# Margin on the expected latency under load, and timeout as a multiple of it.
MARGIN, _PATIENCE = 1.5, 4.0
# If the objective limits no latency, load is assumed to slow requests down by at most this factor.
_SLOWEST = 4.0

Probe = Callable[["Step"], Awaitable[Point]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How thorough a search is.

    Parameters
    ----------
    requests
        Least number of counted requests per rate; more for long requests, or if few may miss the objective.
    repeats
        Most tests at one rate; tests repeat until the interval on the metric is narrow or does not contain the limit.
    narrow
        Half width of an interval that counts as narrow, as a share of the limit.
    precision
        The search ends when the highest rate that holds and the lowest that fails differ by this share.
    alone
        Requests sent one after another at the start.
    """

    requests: int = 60
    repeats: int = 3
    narrow: float = 0.05
    precision: float = 0.05
    alone: int = 3

    def __post_init__(self) -> None:
        for name in ("requests", "repeats", "alone"):
            if getattr(self, name) < 1:
                raise InputError(f"measure.{name} must be >= 1, got {getattr(self, name)}")
        for name in ("narrow", "precision"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"measure.{name} must be in (0, 1), got {getattr(self, name):g}")

    def counted(self, slo: Slo) -> int:
        """Requests to count for an SLO: some must lie beyond a percentile, or beyond the share that must meet it."""
        return max(self.requests, math.ceil(round(_BEYOND / slo.tail, 6)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One load of a search.

    Parameters
    ----------
    rate
        Requests per second [1/s]; None: one after another.
    latency_s
        Expected latency of a request [s]; 0 if unknown.
    is_far
        Whether the objective is expected to hold by a wide margin, so that a few requests may be enough.
    """

    rate: float | None = None
    latency_s: float = 0.0
    is_far: bool = False

    def warm_up(self) -> int:
        """Requests until the load is steady."""
        return max(_LEAST_WARM_UP, math.ceil(WARM_UP_TURNS * self.latency_s * (self.rate or 0.0)))

    def counted(self, least: int) -> int:
        """Requests to count."""
        return max(least, math.ceil(TURNS * self.latency_s * (self.rate or 0.0)))

    @property
    def patience_s(self) -> float:
        """How long to wait for the last request [s]."""
        return max(2.0, _PATIENCE * self.latency_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The result of a search.

    Parameters
    ----------
    max_request_rate
        The highest rate at which the SLO held [1/s]; 0: it does not hold even for one request at a time.
    failed_rate
        The lowest rate at which the SLO failed [1/s]; infinite if the client's limit came first.
    low, high
        Ends of an 80 % interval on the highest rate at which the SLO holds [1/s]; ``high`` is infinite if the client's
        limit came first.
    why
        The limiting factor, in words.
    """

    max_request_rate: float
    failed_rate: float
    low: float
    high: float
    why: str

    @classmethod
    def nothing(cls, why: str, failed_rate: float = 0.0) -> Found:
        """A result for a size at which no rate meets the objective."""
        return cls(max_request_rate=0.0, failed_rate=failed_rate, low=0.0, high=0.0, why=why)

    def to_json(self) -> Json:
        """As a JSON object; infinities are null."""
        content: Json = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: None if value == math.inf else value for name, value in content.items()}

    @classmethod
    def from_json(cls, content: Json) -> Found:
        """The inverse of :meth:`to_json`; older journals have no interval."""
        values: Json = {"low": content["max_request_rate"], "high": content["max_request_rate"]} | content
        known: Json = {
            name: math.inf if value is None else number(value, name) for name, value in values.items() if name != "why"
        }
        return record(cls, values, "found", **known)


async def find_rate(
    probe: Probe,
    slo: Slo,
    *,
    guess: float | None = None,
    effort: Effort | None = None,
    bound_s: float = math.inf,
) -> Found:
    """Find the highest request rate that meets an SLO.

    Parameters
    ----------
    probe
        Sends a load to the server and returns the result.
    slo
        The objective.
    guess
        Expected highest rate [1/s]; None: about the rate at which requests start to overlap.
    effort
        How thorough.
    bound_s
        Approximate latency of a request when the objective is just met [s].

    Raises
    ------
    MeasurementError
        The client is too slow for every rate at which the server might be.
    """
    effort = effort or Effort()
    alone = await probe(Step())
    if not alone.holds:
        return Found.nothing(_why(alone, slo))
    low, high, is_sure = 0.0, math.inf, False
    held, failed, points = alone, alone, [alone]
    rate = START_SHARE * guess if guess else 1.0 / alone.latency_s
    while (is_wide := high > low * (1 + effort.precision)) or not is_sure:
        # The upper bound failed only in a short test, which may have been disturbed: repeat that rate at full length.
        rate = rate if is_wide else high
        is_far = math.isinf(high)
        expected_s = _expected_s(rate, alone, held, guess, bound_s)
        point = await probe(Step(rate=rate, latency_s=expected_s, is_far=is_far))
        if point.holds:
            low, held = rate, point
            if not is_wide:
                high, points = math.inf, [one for one in points if one.holds]
        elif point.is_client_late:
            return _found(_limited(low, point), points, slo, low, math.inf)
        else:
            high, failed, is_sure = rate, point, not is_far
        points.append(point)
        if high * alone.latency_s < _LEAST_BATCH:
            return Found.nothing(_why(failed, slo), high)
        rate = _next(low, high, failed)
    return _found(_why(failed, slo), points, slo, low, high)


def _found(why: str, points: Sequence[Point], slo: Slo, held_rate: float, failed_rate: float) -> Found:
    """The end of a search, with its confidence interval."""
    low, high = interval(points, slo, held_rate=held_rate, failed_rate=failed_rate)
    return Found(max_request_rate=held_rate, failed_rate=failed_rate, low=low, high=high, why=why)


def _expected_s(rate: float, alone: Point, held: Point, guess: float | None, bound_s: float) -> float:
    """Expected latency at a rate above one that held, with a margin [s].

    A server whose step times grow with the number of running requests takes ``alone / (1 - rate s)``. s follows from
    the latency at the rate that held. Before any rate has held, s follows from the bound, which is reached near the
    expected highest rate. The wait never exceeds the bound: a missed objective is seen before.
    """
    most_s = bound_s if math.isfinite(bound_s) else _SLOWEST * held.latency_s
    if held.rate is not None:
        at_rate, took_s = held.rate, held.latency_s
    elif guess is not None:
        at_rate, took_s = guess, max(most_s, alone.latency_s)
    else:
        at_rate, took_s = rate, _SLOWEST * alone.latency_s
    slowdown = max(1.0 - alone.latency_s / took_s, 0.0) * rate / at_rate
    expected_s = alone.latency_s / (1.0 - slowdown) if slowdown < 1 else math.inf
    return MARGIN * max(held.latency_s, min(expected_s, most_s))


def _next(low: float, high: float, failed: Point) -> float:
    """The rate to try next: twice the last one, a rate near an observed capacity, or the geometric mean.

    The rate that a server completed while it fell behind is about its capacity, until a rate that high holds.
    """
    if math.isinf(high):
        return 2 * low
    capacity = min(failed.capacity or high, high)
    if low == 0:
        return min(high / 2, START_SHARE * capacity)
    if low >= _TOO_NEAR * capacity:
        capacity = high
    return math.sqrt(low * capacity)


def _limited(low: float, point: Point) -> str:
    """Why a search ended when the client fell behind, in words."""
    if low == 0:
        raise MeasurementError(
            f"the client falls behind its own schedule at {point.rate:.3g} requests/s, so a slow server cannot be "
            "distinguished from a slow client",
            hint="run the client on a separate machine or with more idle cores",
        )
    return f"the client fell behind its own schedule at {point.rate:.3g} requests/s; the server may handle more"


def _why(point: Point, slo: Slo) -> str:
    """Why a rate fails, in words."""
    load = "one request alone" if point.rate is None else f"{point.rate:.3g} requests/s"
    if point.failure:
        return f"{load}: {point.failure}"
    if not point.keeps_up:
        return f"{load}: the server falls behind"
    limit_s = slo.limits[point.metric]
    found = f"{ms(point.excess * limit_s):.3g} ms" if math.isfinite(point.excess) else "unbounded"
    return f"{load}: {slo.told(point.metric, found)}; the limit is {ms(limit_s):g} ms"
