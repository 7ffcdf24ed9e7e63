"""Measured load points of a replica, from any load-test tool.

Internally, everything is in seconds, tokens and requests per second; :mod:`melange.profile.formats.load_tests` converts
the results of other tools. Our own format is JSON, ``{"melange": "measurements/1", "measurements": [{...}]}``, a bare
list of such objects, one object per line, or CSV with one point per row. Keys and columns are the fields of
:class:`Measurement`. A latency is a number, which is its mean, or ``{"mean": 0.03, "p99": 0.05}``; in CSV, the columns
are ``tpot_s`` and ``tpot_p99_s``. The journal of ``melange measure`` is read too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from melange.errors import InputError, unknown
from melange.files import Json
from melange.records import number, one_line, record, shown, text, whole
from melange.slo import Slo

# First key of the journal of ``melange measure``.
JOURNAL = "measure-journal/1"
LATENCIES = ("ttft_s", "tpot_s", "ntpot_s", "itl_s", "latency_s")
_ENDLESS = ("offered_rate", "max_request_rate_high")
TEXTS = ("accelerator", "replica_type", "engine", "model", "source")
# Smallest and largest value of any measured quantity, except 0 [s, 1/s, tokens]: a value outside is not a measurement,
# and a fit to it would overflow.
_LEAST, _MOST = 1e-9, 1e9
_STATISTIC = re.compile(r"mean|p\d{1,2}(\.\d+)?")
_NAMED = re.compile(r"(?P<accelerator>.+?) tp(?P<degree>\d+)")
_LATENCY_COLUMN = re.compile(r"(?P<metric>ttft|tpot|ntpot|itl|latency)_(?P<statistic>p\d{1,2}(\.\d+)?)_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One load point of one replica.

    Parameters
    ----------
    input_tokens, output_tokens
        Mean length of prompt and completion [tokens].
    replica_type
        Name of the measured replica type; empty if the file does not say.
    accelerator, tensor_parallel
        Its accelerator and degree, instead of the name; empty and None if the file does not say.
    engine, model
        The engine, and the model that it served; empty if the file does not say.
    offered_rate
        Requests sent [1/s]; infinite if all were sent at once, or as fast as ``concurrency`` allowed.
    achieved_rate
        Requests answered [1/s].
    concurrency
        Requests that the client kept in flight, or the most that it allowed in flight; None: any number.
    ttft_s, tpot_s, ntpot_s, itl_s, latency_s
        By statistic (``mean``, ``p50``, ``p99``) [s]: time to first token, time per output token after the first,
        latency over output tokens, gap between two tokens, latency.
    tokens_per_step
        Tokens per step and request, if the file says: more than 1 with speculative decoding.
    duration_s
        Length of the test [s].
    samples, failed
        Requests answered and requests that failed; None if the file does not say.
    max_request_rate, slo
        The highest rate that met this objective, if it was searched for; 0: no rate met it [1/s].
    max_request_rate_low, max_request_rate_high
        Ends of its 80 % interval [1/s]; None if the error is unknown. The high end is infinite if the search ended
        before any rate failed.
    source
        File and place in it.

    Raises
    ------
    InputError
        Sizes below 1 token, figures that are not positive, unknown statistics, or nothing that determines a step's
        time: no mean TPOT, ITL, NTPOT or latency, no achieved rate, and no maximum rate.

    Examples
    --------
    >>> point = Measurement(input_tokens=1024, output_tokens=256, concurrency=8, tpot_s={"mean": 0.07})
    >>> Measurement.from_json(point.to_json()) == point
    True
    """

    input_tokens: float
    output_tokens: float
    replica_type: str = ""
    accelerator: str = ""
    tensor_parallel: int | None = None
    engine: str = ""
    model: str = ""
    offered_rate: float | None = None
    achieved_rate: float | None = None
    concurrency: float | None = None
    ttft_s: Mapping[str, float] = field(default_factory=dict)
    tpot_s: Mapping[str, float] = field(default_factory=dict)
    ntpot_s: Mapping[str, float] = field(default_factory=dict)
    itl_s: Mapping[str, float] = field(default_factory=dict)
    latency_s: Mapping[str, float] = field(default_factory=dict)
    tokens_per_step: float | None = None
    duration_s: float | None = None
    samples: int | None = None
    failed: int | None = None
    max_request_rate: float | None = None
    max_request_rate_low: float | None = None
    max_request_rate_high: float | None = None
    slo: Slo | None = None
    source: str = ""

    def __post_init__(self) -> None:
        place = self.source or "measurement"
        for key in TEXTS[:-1]:
            one_line(getattr(self, key), f"{place}: {key}")
        for name in ("input_tokens", "output_tokens"):
            if not 1 <= getattr(self, name) <= _MOST:
                raise InputError(f"{place}: {name} must be 1 to {_MOST:g}, got {getattr(self, name):g}")
        for name in (
            "achieved_rate",
            "concurrency",
            "duration_s",
            "max_request_rate",
            "offered_rate",
            "tokens_per_step",
        ):
            value = getattr(self, name)
            is_none = value == 0 and name == "max_request_rate"
            is_endless = value == math.inf and name == "offered_rate"
            if not (value is None or is_none or is_endless or _LEAST <= value <= _MOST):
                raise InputError(f"{place}: {name} must be {_LEAST:g} to {_MOST:g}, got {value:g}")
        if self.tensor_parallel is not None and self.tensor_parallel < 1:
            raise InputError(f"{place}: tensor_parallel must be >= 1, got {self.tensor_parallel}")
        for name in LATENCIES:
            _check_latency(getattr(self, name), f"{place}: {name}")
        self._check_interval(place)
        if self.max_request_rate is not None and self.slo is None:
            raise InputError(f"{place}: max_request_rate needs the slo under which it was found")
        told = any("mean" in getattr(self, name) for name in LATENCIES[1:])
        if not told and self.achieved_rate is None and self.max_request_rate is None:
            raise InputError(
                f"{place}: a mean tpot_s, itl_s, ntpot_s or latency_s is needed, or achieved_rate, or max_request_rate"
            )

    @property
    def rate_interval(self) -> tuple[float, float, float]:
        """The low end, the maximum rate and the high end [1/s]; all equal if the error is unknown.

        >>> slo = Slo(tpot_s=0.05)
        >>> Measurement(input_tokens=9, output_tokens=9, slo=slo, max_request_rate=2.0).rate_interval
        (2.0, 2.0, 2.0)
        """
        middle = self.max_request_rate or 0.0
        low, high = self.max_request_rate_low, self.max_request_rate_high
        return middle if low is None else low, middle, middle if high is None else high

    def _check_interval(self, place: str) -> None:
        """Reject invalid ends of an interval."""
        low, middle, high = self.rate_interval
        if not 0 <= low <= middle <= high:
            raise InputError(
                f"{place}: max_request_rate must be >= max_request_rate_low >= 0 and <= max_request_rate_high, got "
                f"{middle:g} between {low:g} and {high:g}"
            )

    def to_json(self) -> Json:
        """As a JSON object of the known fields."""
        content: Json = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, Slo):
                value = value.to_json()
            elif isinstance(value, Mapping):
                value = dict(value)
            elif value == math.inf:
                value = "inf"
            if value not in (None, "", {}):
                content[one.name] = value
        return content

    @classmethod
    def from_json(cls, content: Json, source: str = "") -> Measurement:
        """From an object in our own format; errors name ``source`` and the key."""
        place = source or "measurement"
        known = {one.name for one in fields(cls)}
        for key in content:
            if key not in known:
                raise unknown("key", key, known, place=place)
        values: dict[str, Any] = {}
        for key, value in content.items():
            if value is not None:
                values[key] = _value(key, value, f"{place}: {key}")
        for key in ("input_tokens", "output_tokens"):
            if key not in values:
                raise InputError(f"{place}: the key {key} is absent")
        return cls(**({"source": source} | values))


def split_name(name: str) -> tuple[str, int]:
    """Accelerator and degree in a name such as ``A10G tp2``; a name without a degree means one accelerator.

    >>> split_name("A10G tp2"), split_name("L4")
    (('A10G', 2), ('L4', 1))
    """
    found = _NAMED.fullmatch(name)
    return (found["accelerator"], int(found["degree"])) if found else (name, 1)


def _value(key: str, value: Any, place: str) -> Any:
    """Check one value in our own format."""
    if key in TEXTS:
        return text(value, place)
    if key in LATENCIES:
        given = value if isinstance(value, dict) else {"mean": value}
        return {name: number(one, f"{place}.{name}") for name, one in given.items()}
    if key == "slo":
        if not isinstance(value, dict):
            raise InputError(f"{place} must hold limits in seconds such as {{'tpot_s': 0.05}}, got {shown(value)}")
        return record(Slo, value, place)
    if key in _ENDLESS and value in ("inf", math.inf):
        return math.inf
    return whole(value, place) if key in ("samples", "failed", "tensor_parallel") else number(value, place)


def _check_latency(values: Mapping[str, float], place: str) -> None:
    for statistic, value in values.items():
        if not _STATISTIC.fullmatch(statistic):
            raise InputError(f"{place}: statistics are mean, p50, p99, ..., got {statistic!r}")
        if value != 0 and not _LEAST <= value <= _MOST:
            raise InputError(f"{place}.{statistic} must be 0 or {_LEAST:g} to {_MOST:g}, got {value:g}")
