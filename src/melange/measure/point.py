"""One load point of a search: the load, the result, and whether the result meets the SLO."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from melange.files import Json
from melange.measure.window import Window, excess
from melange.profile.measurement import Measurement
from melange.records import number, record
from melange.slo import Slo


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A load on a server, compared with an SLO.

    Parameters
    ----------
    rate
        Requests sent per second [1/s]; None: each request after the previous one.
    metric
        The metric that is nearest to its limit, or furthest beyond.
    excess, excess_low, excess_high
        The metric's value for the SLO divided by its limit (:class:`~melange.measure.window.Excess`), and the ends of a
        90 % interval on this ratio.
    keeps_up
        Whether the server completed requests as fast as they arrived.
    is_client_late
        Whether the client could not keep its own schedule.
    latency_s
        Mean latency of the completed requests [s].
    achieved_rate
        Requests completed per second during sending [1/s]; None if none was.
    failure
        The error of failed requests; empty if none failed.
    measurement
        The load point for fitting step times; None if too few requests completed.
    """

    rate: float | None
    metric: str
    excess: float
    excess_low: float
    excess_high: float
    keeps_up: bool
    is_client_late: bool
    latency_s: float
    achieved_rate: float | None = None
    failure: str = ""
    measurement: Measurement | None = None

    @property
    def holds(self) -> bool:
        """Whether the server keeps up with this load and meets the SLO."""
        return self.keeps_up and self.excess <= 1

    @property
    def capacity(self) -> float | None:
        """Requests per second that the server completes if it cannot keep up [1/s]; None if it can."""
        return None if self.keeps_up else self.achieved_rate

    @property
    def is_clear(self) -> bool:
        """Whether the objective holds beyond chance."""
        return self.keeps_up and self.excess_high <= 1

    def is_settled(self, narrow: float) -> bool:
        """Whether more requests at the same load would change the answer little."""
        if not self.keeps_up or self.excess_high <= 1 or self.excess_low > 1:
            return True
        return (self.excess_high - self.excess_low) / 2 <= narrow

    def to_json(self) -> Json:
        """As a JSON object; infinities are null."""
        content: Json = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "measurement"}
        for name in ("excess", "excess_low", "excess_high", "latency_s"):
            content[name] = content[name] if math.isfinite(content[name]) else None
        content["measurement"] = None if self.measurement is None else self.measurement.to_json()
        return content

    @classmethod
    def from_json(cls, content: Json) -> Point:
        """The inverse of :meth:`to_json`."""
        values: Json = {}
        for name in ("excess", "excess_low", "excess_high", "latency_s"):
            values[name] = math.inf if content[name] is None else number(content[name], name)
        if content["measurement"] is not None:
            values["measurement"] = Measurement.from_json(content["measurement"])
        return record(cls, content, "point", **values)

    def __str__(self) -> str:
        load = "one at a time" if self.rate is None else f"{self.rate:.3g} requests/s"
        if not self.keeps_up:
            return f"{load}: falls behind"
        return f"{load}: {self.metric.upper()} at {self.excess:.0%} of its limit"


def point_of(window: Window, slo: Slo, **details: Any) -> Point:
    """A window as a point; ``details`` describe what was measured."""
    found = excess(window, slo)
    whole = window.latency_s[np.isfinite(window.latency_s)]
    is_enough = len(whole) >= max(1, len(window.latency_s) // 2)
    return Point(
        rate=window.offered_rate,
        metric=found.metric,
        excess=found.value,
        excess_low=found.low,
        excess_high=found.high,
        keeps_up=window.keeps_up,
        is_client_late=window.is_client_late,
        latency_s=float(whole.mean()) if len(whole) else math.inf,
        achieved_rate=window.achieved_rate or None,
        failure=window.failure,
        measurement=window.to_measurement(**details) if is_enough else None,
    )
