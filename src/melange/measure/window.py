"""Results of a load test in steady state, and conclusions from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from melange.profile.measurement import LATENCIES, Measurement
from melange.replica.simulated.outcome import excess_of, place_within
from melange.slo import METRICS, Slo
from melange.workload.workload import Array

# Statistics that a load point records.
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
# Level of the interval on a statistic, number of bootstrap blocks, and number of draws.
_CONFIDENCE, BLOCKS, _DRAWS = 0.9, 12, 400
# A server that falls behind by more than this share of the elapsed time does not keep up.
DRIFT = 0.05
# A client whose requests or clock are later than this is too slow: as a share of the latency and of the time between
# tokens that it measures, and an absolute delay that is normal on any machine [s].
_LATE_SHARE, _LATE_S = 0.1, 0.01


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Window:
    """N requests of one size, sent one after another or at random times at one rate, in steady state.

    Parameters
    ----------
    input_tokens, output_tokens
        Size of the requests.
    offered_rate
        Rate at which they were sent [1/s]; None: each request after the previous one.
    scheduled_s
        When they were scheduled, from the first on (N,) [s].
    ttft_s, tpot_s, ntpot_s, latency_s
        Times of each request (N,) [s]; infinite if it was given up.
    itl_s
        Gaps between tokens, of all requests (G,) [s].
    lag_s
        Delay of the client in sending each request (N,) [s].
    tick_lag_s
        Delay of the client's own clock, sampled (T,) [s].
    finished
        Requests that completed while the counted requests were being sent.
    span_s
        Time over which the counted requests were sent [s].
    failed
        Number of failed requests.
    failure
        The error of the first failed request.
    is_cut
        Whether the test was ended early because the server was far behind.
    repeats
        Number of windows that were joined into this one.
    """

    input_tokens: int
    output_tokens: int
    offered_rate: float | None
    scheduled_s: Array
    ttft_s: Array
    tpot_s: Array
    ntpot_s: Array
    latency_s: Array
    itl_s: Array
    lag_s: Array
    tick_lag_s: Array
    finished: int
    span_s: float
    failed: int = 0
    failure: str = ""
    is_cut: bool = False
    repeats: int = 1

    @property
    def achieved_rate(self) -> float:
        """Requests completed per second during sending [1/s]."""
        return self.finished / self.span_s if self.span_s > 0 else 0.0

    def metric(self, name: str) -> Array:
        """Values of ``ttft``, ``tpot``, ``ntpot`` or ``latency`` (N,) [s]."""
        values: Array = getattr(self, f"{name}_s")
        return values

    @property
    def drift(self) -> tuple[float, float]:
        """How much later a request completes per second of later arrival, and the standard error of this slope.

        0 in steady state; ``1 - capacity / rate`` under overload, because every request waits for those before it.
        """
        time = self.scheduled_s - self.scheduled_s.mean()
        spread = float((time**2).sum())
        if self.offered_rate is None or len(time) < 8 or spread <= 0 or not np.isfinite(self.latency_s).all():
            return 0.0, 0.0
        slope = float((time * self.latency_s).sum()) / spread
        left = self.latency_s - self.latency_s.mean() - slope * time
        # Neighbors wait for the same things, so a block of them counts as one sample.
        alike = max(1.0, len(time) / BLOCKS / self.repeats)
        return slope, math.sqrt(float((left**2).sum()) / (len(time) - 2) / spread * alike)

    @property
    def keeps_up(self) -> bool:
        """Whether the server completes requests as fast as they arrive."""
        slope, error = self.drift
        return not self.is_cut and not (slope > DRIFT and slope > 2 * error)

    @property
    def is_client_late(self) -> bool:
        """Whether the client, and not the server, was too slow for this load."""
        if self.offered_rate is None:
            return False
        latency = self.latency_s[np.isfinite(self.latency_s)]
        sends = float(np.quantile(self.lag_s, 0.95)) if len(self.lag_s) else 0.0
        ticks = float(self.tick_lag_s.mean()) if len(self.tick_lag_s) else 0.0
        steps = self.itl_s.mean() if len(self.itl_s) else 0.0
        allowed_s = max(_LATE_S, _LATE_SHARE * float(latency.mean()) if len(latency) else 0.0)
        return sends > allowed_s or ticks > max(_LATE_S, _LATE_SHARE * float(steps))

    def to_measurement(self, **details: Any) -> Measurement:
        """The window as a load point."""
        whole = np.isfinite(self.latency_s)
        values = {
            name: _statistics(getattr(self, name)[whole] if name != "itl_s" else self.itl_s) for name in LATENCIES
        }
        return Measurement(
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            offered_rate=self.offered_rate,
            achieved_rate=self.achieved_rate or None,
            concurrency=None if self.offered_rate else 1.0,
            duration_s=self.span_s or None,
            samples=int(whole.sum()),
            failed=self.failed,
            **(values | details),
        )


def merged(windows: Sequence[Window]) -> Window:
    """Windows of the same load, joined into one, each in its own time order."""
    first = windows[0]
    if len(windows) == 1:
        return first
    arrays = {
        name: np.concatenate([getattr(one, name) for one in windows])
        for name in ("ttft_s", "tpot_s", "ntpot_s", "latency_s", "itl_s", "lag_s", "tick_lag_s")
    }
    centered = np.concatenate([one.scheduled_s - one.scheduled_s.mean() for one in windows])
    return Window(
        input_tokens=first.input_tokens,
        output_tokens=first.output_tokens,
        offered_rate=first.offered_rate,
        scheduled_s=centered,
        finished=sum(one.finished for one in windows),
        span_s=sum(one.span_s for one in windows),
        failed=sum(one.failed for one in windows),
        failure=next((one.failure for one in windows if one.failure), ""),
        is_cut=any(one.is_cut for one in windows),
        repeats=sum(one.repeats for one in windows),
        **arrays,
    )


def _statistics(values: Array) -> dict[str, float]:
    if not len(values):
        return {}
    return {"mean": float(values.mean())} | {name: float(np.quantile(values, at)) for name, at in _QUANTILES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Excess:
    """The metric with the largest ratio of value to limit, for an SLO.

    Parameters
    ----------
    metric
        Name of the metric.
    value
        Statistic divided by its limit. Under limits per request: the multiple of the limits that the required share of
        requests stays within. The SLO holds if this is at most 1.
    low, high
        Ends of a 90 % interval on the value.
    """

    metric: str
    value: float
    low: float
    high: float


def excess(window: Window, slo: Slo, *, seed: int = 0) -> Excess:
    """Compare a window with an SLO.

    The interval comes from a block bootstrap: consecutive requests wait for the same things, so the bootstrap draws
    blocks of them and not single requests (Künsch, The jackknife and the bootstrap for general stationary observations,
    1989).
    """
    if slo.is_on_requests:
        return _excess_of_requests(window, slo, seed)
    found = []
    for metric in METRICS:
        if metric not in slo.limits:
            continue
        limit, values = slo.limits[metric], window.metric(metric)
        value, low, high = _statistic(values, slo.statistic), math.inf, math.inf
        if np.isfinite(values).all():
            low, high = _interval(values, lambda drawn: _statistic(drawn, slo.statistic), window.repeats, seed)
        found.append(Excess(metric=metric, value=value / limit, low=low / limit, high=high / limit))
    return max(found, key=lambda one: one.value)


def _excess_of_requests(window: Window, slo: Slo, seed: int) -> Excess:
    """The same for limits that each request must meet: requests without an answer have missed them."""
    if not len(window.latency_s):
        return Excess(metric=next(iter(slo.limits)), value=math.inf, low=math.inf, high=math.inf)
    values = {metric: window.metric(metric) for metric in slo.limits}
    metric, value = excess_of(values, slo)
    largest = np.max([values[name] / limit for name, limit in slo.limits.items()], axis=0)
    low, high = _interval(largest, lambda drawn: float(drawn[place_within(drawn, slo.target)]), window.repeats, seed)
    return Excess(metric=metric, value=value, low=low, high=high)


def _statistic(values: npt.NDArray[np.float64], name: str) -> float:
    """The mean or a percentile, such as ``p99``; infinite if there is no value, or if too many are infinite."""
    if not len(values):
        return math.inf
    if name == "mean":
        return float(values.mean())
    return float(np.quantile(values, float(name[1:]) / 100, method="higher"))


def _interval(values: Array, statistic: Callable[[Array], float], repeats: int, seed: int) -> tuple[float, float]:
    """Ends of the interval on a statistic."""
    if not len(values):
        return math.inf, math.inf
    blocks = np.array_split(values, min(BLOCKS * repeats, len(values)))
    random = np.random.default_rng(seed)
    chosen = random.integers(len(blocks), size=(_DRAWS, len(blocks)))
    drawn = np.array([statistic(np.concatenate([blocks[place] for place in row])) for row in chosen])
    tail = (1 - _CONFIDENCE) / 2
    if not np.isfinite(drawn).all():  # no interpolation between a finite and an infinite value
        return float(np.quantile(drawn, tail, method="lower")), float(np.quantile(drawn, 1 - tail, method="higher"))
    return float(np.quantile(drawn, tail)), float(np.quantile(drawn, 1 - tail))
