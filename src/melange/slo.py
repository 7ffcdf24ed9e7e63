"""The latency objective of a service."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from melange.errors import InputError
from melange.records import record
from melange.units import S_PER_DAY, limit_in_ms, ms

METRICS = ("ttft", "tpot", "ntpot", "latency")
# What the limits apply to: by default each request by itself; a mean must be requested explicitly.
REQUESTS, MEAN = "requests", "mean"
# Default share of requests that must meet the limits. If higher, a few of the longest requests decide the whole fleet,
# and a simulation needs many more requests to be sure; if lower, users see slow answers every day. Chosen by judgment:
# it is the usual p99.
DEFAULT_ATTAINMENT = 0.99
_STATISTIC = re.compile(rf"{REQUESTS}|{MEAN}|p(\d{{1,2}}(\.\d+)?)")
# Longest limit [s]: a year; every request has ended by then.
_MOST_LIMIT_S = 366.0 * S_PER_DAY
# The smallest tail that requests are counted for: no finite number of requests shows that all meet a limit, and ten
# thousand are enough for p99.9.
_LEAST_TAIL = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestClass:
    """Requests of a service that share the replicas with others but have their own objective.

    Parameters
    ----------
    name
        The name of the class.
    slo
        The limits, for each request by itself, and the share of the class's requests that must meet them.
    priority
        An engine runs requests with a lower number first, as vLLM does.
    """

    name: str
    slo: Slo
    priority: int = 0

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"name": self.name, "slo": self.slo.to_json(), "priority": self.priority}


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """Limits on latency that a share of requests must meet, each request by itself; or limits on a statistic.

    Parameters
    ----------
    ttft_s
        Limit on the time to first token, queueing included [s].
    tpot_s
        Limit on (latency - TTFT) / (output tokens - 1) [s].
    ntpot_s
        Limit on latency / output tokens [s]: what the Mélange paper calls TPOT.
    latency_s
        Limit on the time from arrival to the last token [s].
    statistic
        What the limits apply to: ``requests``, each by itself; or the ``mean`` of each metric, as in the Mélange paper;
        or
        a percentile, ``p50`` to ``p99.9``.
    attainment
        Share of arrived requests that must meet every limit by themselves, 0-1. Under ``requests`` None becomes 0.99;
        otherwise it stays None: no target.
    classes
        All classes of requests (K), the first with these limits; empty if there are no classes.

    Raises
    ------
    InputError
        No limit at all, a limit that is not positive and finite, an unknown statistic.

    Examples
    --------
    >>> print(Slo(tpot_s=0.12))
    TPOT <= 120 ms for 99% of requests
    >>> print(Slo(tpot_s=0.12, statistic="mean"))
    mean TPOT <= 120 ms
    """

    ttft_s: float | None = None
    tpot_s: float | None = None
    ntpot_s: float | None = None
    latency_s: float | None = None
    statistic: str = REQUESTS
    attainment: float | None = None
    classes: tuple[RequestClass, ...] = ()

    def __post_init__(self) -> None:
        limits = self.limits
        if not limits:
            raise InputError("slo: at least one limit is needed", hint="for example slo: {tpot_ms: 120}")
        for metric, limit in limits.items():
            if not (math.isfinite(limit) and limit > 0):
                raise InputError(f"slo.{metric}_ms must be > 0 and finite, got {ms(limit):g}")
            if limit > _MOST_LIMIT_S:
                raise InputError(f"slo.{metric}_ms must be <= {ms(_MOST_LIMIT_S):g}, got {ms(limit):g}")
        if not _STATISTIC.fullmatch(self.statistic):
            raise InputError(f"slo.statistic must be 'requests', 'mean' or 'p50' to 'p99.9', got {self.statistic!r}")
        if self.attainment is not None and not 0 < self.attainment <= 1:
            raise InputError(f"slo.attainment must be in (0, 1], got {self.attainment:g}")
        if self.attainment is None and self.is_on_requests:
            object.__setattr__(self, "attainment", DEFAULT_ATTAINMENT)
        for one in self.classes:
            if not (self.is_on_requests and one.slo.is_on_requests) or one.slo.classes:
                raise InputError(f"classes.{one.name}.slo: with classes, every limit applies to each request")

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, by metric (``ttft``, ``tpot``, ``ntpot``, ``latency``) [s]."""
        pairs = ((metric, getattr(self, f"{metric}_s")) for metric in METRICS)
        return {metric: limit for metric, limit in pairs if limit is not None}

    def limits_of(self, class_of: npt.NDArray[np.integer] | None) -> Mapping[str, float | npt.NDArray[np.float64]]:
        """The limits by metric [s]: one for all, or (N,) by the requests' place in ``classes``, infinite if none.

        >>> loose = RequestClass(name="batch", slo=Slo(latency_s=600.0), priority=1)
        >>> slo = Slo(tpot_s=0.1, classes=(RequestClass(name="default", slo=Slo(tpot_s=0.1)), loose))
        >>> {name: limit.tolist() for name, limit in slo.limits_of(np.array([0, 1])).items()}
        {'tpot': [0.1, inf], 'latency': [inf, 600.0]}
        """
        if not self.classes:
            return self.limits
        if class_of is None:
            raise InputError("simulation: the SLO has classes, but the requests have none")
        of_class = [one.slo.limits for one in self.classes]
        named = [metric for metric in METRICS if any(metric in limits for limits in of_class)]
        return {name: np.array([limits.get(name, math.inf) for limits in of_class])[class_of] for name in named}

    @property
    def levels(self) -> tuple[int, ...]:
        """The rank of each class's priority (K,): rank 0 runs first; classes of equal priority share a rank."""
        ranks = sorted({one.priority for one in self.classes})
        return tuple(ranks.index(one.priority) for one in self.classes)

    @property
    def offsets(self) -> tuple[float, ...]:
        """The difference between the target of each class and that of the first (K,); a single 0 without classes."""
        return tuple(one.slo.target - self.target for one in self.classes) or (0.0,)

    @property
    def is_on_requests(self) -> bool:
        """Whether each request must meet the limits by itself."""
        return self.statistic == REQUESTS

    @property
    def is_on_mean(self) -> bool:
        """Whether the limits apply to means."""
        return self.statistic == MEAN

    @property
    def has_closed_form(self) -> bool:
        """Whether rates can come from the closed form, which computes means; a percentile needs simulation.

        Under ``requests`` the search for a certified plan starts from such rates.
        """
        return self.is_on_requests or self.is_on_mean

    @property
    def target(self) -> float:
        """Share of requests that must meet every limit by themselves, 0-1; 0.99 if not set."""
        return DEFAULT_ATTAINMENT if self.attainment is None else self.attainment

    @property
    def tail(self) -> float:
        """Share of requests beyond the limits' percentile, 0-1: 0.01 for a p99 or for 99 % of requests; 1 for a mean.

        At least 0.001 under ``requests``: no number of requests shows that all of them meet a limit.

        >>> round(Slo(tpot_s=0.06, statistic="p99").tail, 6), Slo(tpot_s=0.06, statistic="mean").tail
        (0.01, 1.0)
        >>> round(Slo(tpot_s=0.06).tail, 6), Slo(tpot_s=0.06, attainment=1).tail
        (0.01, 0.001)
        """
        if self.is_on_mean:
            return 1.0
        return max(1.0 - self.target, _LEAST_TAIL) if self.is_on_requests else 1.0 - float(self.statistic[1:]) / 100

    @property
    def metric_statistic(self) -> str:
        """The statistic for one metric alone; under ``requests`` the percentile at the attainment.

        >>> Slo(tpot_s=0.06, attainment=0.995).metric_statistic, Slo(tpot_s=0.06, statistic="mean").metric_statistic
        ('p99.5', 'mean')
        """
        return f"p{_percent(self.target)}" if self.is_on_requests else self.statistic

    def longest_stay_s(self, output_tokens: npt.ArrayLike) -> npt.NDArray[np.float64] | None:
        """The longest time that requests may take within the limits [s].

        The least of three bounds: latency, NTPOT times output, and TTFT (0 without a limit) plus TPOT times output.
        None if no limit bounds the time. With several classes, the longest time of any class.

        >>> Slo(ttft_s=2.0, tpot_s=0.05).longest_stay_s([100, 200]).tolist(), Slo(ttft_s=2.0).longest_stay_s([100])
        ([7.0, 12.0], None)
        """
        if self.classes:
            stays = [one.slo.longest_stay_s(output_tokens) for one in self.classes]
            bounded = [stay for stay in stays if stay is not None]
            return np.maximum.reduce(bounded) if len(bounded) == len(stays) else None
        outputs, limits = np.asarray(output_tokens, float), self.limits
        bounds = [np.full(outputs.shape, limits["latency"])] if "latency" in limits else []
        bounds += [outputs * limits["ntpot"]] if "ntpot" in limits else []
        bounds += [limits.get("ttft", 0.0) + outputs * limits["tpot"]] if "tpot" in limits else []
        return np.minimum.reduce(bounds) if bounds else None

    def on_mean(self) -> Slo:
        """The same limits on the mean, which the closed form can handle."""
        return replace(self, statistic=MEAN, classes=())

    def agrees_with(self, other: Slo) -> bool:
        """Whether limits and statistic are the same, and the attainment if both name one."""
        is_open = self.attainment is None or other.attainment is None
        is_same = (self.limits, self.statistic, self.classes) == (other.limits, other.statistic, other.classes)
        return is_same and (is_open or self.attainment == other.attainment)

    def bound_in_words(self) -> str:
        """What the limits apply to, in words.

        >>> Slo(tpot_s=0.06).bound_in_words(), Slo(tpot_s=0.06, statistic="p99").bound_in_words()
        ('99% of requests', 'p99')
        """
        return f"{_percent(self.target)}% of requests" if self.is_on_requests else self.statistic

    def told(self, metric: str, found: str, which: str = "") -> str:
        """The value found for a metric, in words; ``which`` names the requests, if not all are meant.

        >>> Slo(tpot_s=0.06).told("tpot", "71 ms")
        'TPOT is up to 71 ms for 99% of requests'
        >>> Slo(tpot_s=0.06, statistic="p95").told("tpot", "71 ms", "that come one at a time")
        'p95 TPOT of requests that come one at a time is 71 ms'
        """
        if self.is_on_requests:
            return f"{metric.upper()} is up to {found} for {self.bound_in_words()} {which}".rstrip()
        return f"{self.statistic} {metric.upper()}{f' of requests {which}' if which else ''} is {found}"

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, in seconds."""
        content: dict[str, Any] = {f"{metric}_s": limit for metric, limit in self.limits.items()}
        content["statistic"] = self.statistic
        if self.attainment is not None:
            content["attainment"] = self.attainment
        if self.classes:
            content["classes"] = [one.to_json() for one in self.classes]
        return content

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Slo:
        """From the JSON object that :meth:`to_json` makes."""
        return record(cls, content)

    def __str__(self) -> str:
        if self.classes:
            return "; ".join(f"{one.name}: {one.slo}" for one in self.classes)
        limits = [f"{metric.upper()} <= {limit_in_ms(limit)}" for metric, limit in self.limits.items()]
        share = "" if self.attainment is None else f"for {_percent(self.attainment)}% of requests"
        if self.is_on_requests:
            return f"{' and '.join(limits)} {share}"
        text = ", ".join(f"{self.statistic} {limit}" for limit in limits)
        return f"{text}, {share}" if share else text


def _percent(share: float) -> str:
    """A share in percent, without trailing zeros."""
    return f"{100 * share:.10g}"
