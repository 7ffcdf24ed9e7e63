"""Traffic over time: request rates by window, and the distribution of sizes in each period.

Windows follow each other on the log's own clock, in UTC if it has dates. A window without any data is missing, which is
not the same as a window without requests.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from melange.errors import Caution, InputError, printable
from melange.files import Json, dump_document, read_as, write_document
from melange.records import items, number, records, text, value_of
from melange.units import S_PER_DAY, S_PER_H, S_PER_MIN
from melange.workload.frozen_array import frozen_array
from melange.workload.workload import LEAST_RATE, MOST_RATE, MOST_TOKENS, Array, Buckets, Mask, Workload

Indices = npt.NDArray[np.int64]

# Most windows of a demand: two years of five minutes. A larger table takes more memory than a plan justifies.
_MOST_WINDOWS = 250_000
# How far the sum of a period's shares may be from 1: the rounding error of some hundred rounded shares.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Demand:
    """Arrival rate and sizes of requests, window by window.

    Parameters
    ----------
    buckets
        The grid of sizes (I, O).
    window_s
        Length of a window; an hour is a whole number of them [s].
    rate
        Arrivals per second in each window (W,); nan if unknown [1/s].
    period
        Index of the period that each window lies in (W,).
    share
        Share of a period's requests that have each size (P, I, O), 0-1; sums to 1 over the sizes.
    input_tokens, output_tokens
        The size that each bucket is planned for (I, O), over all windows [tokens].
    start
        Beginning of the first window, with its time zone; None if the log's clock has no dates: then days are counted
        from its beginning.
    time_zone
        Time zone of the service's users, which defines the hours of the day: ``Europe/Berlin``.
    source
        Where the figures come from, in words.
    requests
        Number of requests observed; None if the source does not say.
    failed_requests
        Rows that were left out because they failed.
    cautions
        What a reader should know about these figures.

    Raises
    ------
    InputError
        Rates that are negative, or all missing or 0; shares that do not add up; windows that do not divide an hour.
    """

    buckets: Buckets
    window_s: float
    rate: Array
    period: Indices
    share: Array
    input_tokens: Array
    output_tokens: Array
    start: datetime | None = None
    time_zone: str = "UTC"
    source: str = ""
    requests: int | None = None
    failed_requests: int = 0
    cautions: tuple[Caution, ...] = field(default=())

    def __post_init__(self) -> None:
        check_window(self.window_s)
        zone_of(self.time_zone)
        if self.start is not None and self.start.tzinfo is None:
            raise InputError("demand.start must name its time zone", hint="UTC: 2026-03-02T00:00:00+00:00")
        count, periods = len(np.atleast_1d(self.rate)), len(np.atleast_1d(self.share))
        if not 1 <= count <= _MOST_WINDOWS:
            raise InputError(f"demand: 1 to {_MOST_WINDOWS:,} windows are planned for, got {count:,}")
        for name, shape in (("rate", (count,)), ("share", (periods, *self.buckets.shape))):
            object.__setattr__(self, name, frozen_array(getattr(self, name), f"demand.{name}", shape))
        for name in ("input_tokens", "output_tokens"):
            sizes = frozen_array(getattr(self, name), f"demand.{name}", self.buckets.shape)
            if not ((sizes >= 1) & (sizes <= MOST_TOKENS)).all():
                raise InputError(f"demand.{name}: the size of a bucket must be 1 to {MOST_TOKENS:,} tokens")
            object.__setattr__(self, name, sizes)
        period = frozen_array(self.period, "demand.period", (count,)).astype(np.int64)
        if (period < 0).any() or (period >= periods).any():
            raise InputError(f"demand.period must name one of the {periods} periods, 0 to {periods - 1}")
        period.flags.writeable = False
        object.__setattr__(self, "period", period)
        object.__setattr__(self, "source", printable(self.source))
        self._check_values()

    def _check_values(self) -> None:
        is_usual = (self.rate == 0) | ((self.rate >= LEAST_RATE) & (self.rate <= MOST_RATE))
        bad = np.flatnonzero(~np.isnan(self.rate) & ~is_usual)
        if len(bad):
            first = int(bad[0])
            raise InputError(
                f"demand.rate must be 0, or {LEAST_RATE:g} to {MOST_RATE:g}, got {self.rate[first]:g} in the window at "
                f"{self.label(first)}{f' and in {len(bad) - 1} more' if len(bad) > 1 else ''}"
            )
        if not np.nansum(self.rate) > 0:
            raise InputError("demand: no requests at all: every window is missing or 0")
        if not ((self.share >= 0) & (self.share <= 1 + _ROUNDING)).all():
            raise InputError("demand.share must be 0 to 1")
        sums = self.share.sum(axis=(1, 2))
        off = np.flatnonzero(np.abs(sums - 1) > _ROUNDING)
        if len(off):
            raise InputError(f"demand.share must add up to 1 in every period, got {sums[off[0]]:.6g} in {off[0]}")

    def __len__(self) -> int:
        return len(self.rate)

    @property
    def is_missing(self) -> Mask:
        """Windows without data (W,)."""
        return np.asarray(np.isnan(self.rate), bool)

    @property
    def duration_s(self) -> float:
        """From the beginning of the first window to the end of the last one [s]."""
        return len(self) * self.window_s

    @property
    def windows_per_hour(self) -> int:
        """Windows in an hour."""
        return round(S_PER_H / self.window_s)

    @property
    def mean_rate(self) -> float:
        """Mean arrivals per second over the known windows [1/s]."""
        return float(np.nanmean(self.rate))

    @property
    def peak_rate(self) -> float:
        """Arrivals per second in the busiest window [1/s]."""
        return float(np.nanmax(self.rate))

    def rates(self) -> Array:
        """Arrivals per second by window and size (W, I x O), nan where a window is missing [1/s]."""
        flat = self.share.reshape(len(self.share), -1)
        return np.asarray(self.rate[:, None] * flat[self.period])

    def moments(self) -> list[datetime] | None:
        """Beginning of each window in the demand's time zone (W); None where its clock has no dates."""
        if self.start is None:
            return None
        zone = zone_of(self.time_zone)
        return [(self.start + timedelta(seconds=k * self.window_s)).astimezone(zone) for k in range(len(self))]

    def label(self, window: int) -> str:
        """The beginning of a window in words: a date and a time, or the day and the time since the beginning.

        >>> demand = constant_demand(2.0, hours=30)
        >>> demand.label(25)
        'day 2 01:00'
        """
        seconds = window * self.window_s
        if self.start is None:
            day, rest = divmod(seconds, S_PER_DAY)
            return f"day {int(day) + 1} {clock_text(rest)}"
        moment = (self.start + timedelta(seconds=seconds)).astimezone(zone_of(self.time_zone))
        return moment.strftime("%a %Y-%m-%d %H:%M")

    def part(self, first: int, end: int) -> Demand:
        """The windows from ``first`` up to, but without, ``end``."""
        start = None if self.start is None else self.start + timedelta(seconds=first * self.window_s)
        return replace(self, rate=self.rate[first:end], period=self.period[first:end], start=start, requests=None)

    def workload(self) -> Workload:
        """The mean over all known windows, as one workload."""
        known = ~self.is_missing
        weight = np.bincount(self.period[known], self.rate[known], minlength=len(self.share)) / known.sum()
        return Workload(
            buckets=self.buckets,
            request_rate=np.tensordot(weight, self.share, axes=1),
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            source=self.source,
            requests=self.requests,
            failed_requests=self.failed_requests,
            cautions=self.cautions,
        )

    def to_json(self) -> Json:
        """As a JSON object; the rate of a missing window is null."""
        return self.buckets.to_json() | {
            "start": None if self.start is None else self.start.isoformat(),
            "time_zone": self.time_zone,
            "window_s": self.window_s,
            "rate": [None if np.isnan(rate) else float(rate) for rate in self.rate],
            "period": self.period.tolist(),
            "share": self.share.tolist(),
            "input_tokens": self.input_tokens.tolist(),
            "output_tokens": self.output_tokens.tolist(),
            "source": self.source,
            "requests": self.requests,
            "failed_requests": self.failed_requests,
            "warnings": [caution.to_json() for caution in self.cautions],
        }

    @classmethod
    def from_json(cls, content: Json) -> Demand:
        """From the JSON object that :meth:`to_json` makes."""
        start = content.get("start")
        rates = items(content["rate"], "rate")
        return cls(
            buckets=Buckets.from_json(content),
            window_s=number(content["window_s"], "window_s"),
            rate=np.array([np.nan if value is None else number(value, place) for place, value in rates]),
            period=np.asarray(value_of(tuple[int, ...], content["period"], "period"), np.int64),
            share=content["share"],
            input_tokens=content["input_tokens"],
            output_tokens=content["output_tokens"],
            start=None if start is None else datetime.fromisoformat(text(start, "start")),
            time_zone=text(content.get("time_zone", "UTC"), "time_zone"),
            source=text(content.get("source", ""), "source"),
            requests=value_of(int | None, content.get("requests"), "requests"),
            failed_requests=value_of(int, content.get("failed_requests", 0), "failed_requests"),
            cautions=records(Caution, content.get("warnings", ()), "warnings"),
        )

    def dumps(self) -> str:
        """The text of a ``demand.json``."""
        return dump_document("demand", self.to_json())

    def save(self, path: str | Path) -> Path:
        """Write a ``demand.json``."""
        return write_document(path, "demand", self.to_json())

    @classmethod
    def read(cls, path: str | Path) -> Demand:
        """Read a ``demand.json``."""
        return read_as(path, "demand", cls.from_json)


def check_window(window_s: float) -> None:
    """Reject a window length that does not divide an hour.

    Raises
    ------
    InputError
        The window does not divide an hour; the error suggests lengths that do.
    """
    parts = S_PER_H / window_s if np.isfinite(window_s) and window_s > 0 else 0.0
    if not (1 <= parts <= S_PER_H and abs(parts - round(parts)) < _ROUNDING):
        raise InputError(
            f"workload.window must be a whole part of an hour, got {window_s:g} s", hint="for example window: 10m"
        )


def zone_of(name: str, what: str = "workload.time_zone") -> ZoneInfo:
    """A time zone by its name; ``what`` is the setting that errors name.

    Raises
    ------
    InputError
        No time zone has this name.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise InputError(
            f"{what}: {name!r} is not a known time zone",
            hint="an IANA name such as Europe/Berlin or America/New_York, or UTC",
        ) from error


def clock_text(seconds: float) -> str:
    """Seconds since midnight as a clock time.

    >>> clock_text(34200)
    '09:30'
    """
    hour, rest = divmod(seconds, S_PER_H)
    return f"{int(hour):02d}:{int(rest // (S_PER_MIN)):02d}"


def constant_demand(rate: float, *, hours: int, window_s: float = S_PER_H) -> Demand:
    """A demand with one size and one rate, for examples and tests [1/s]."""
    windows = round(hours * S_PER_H / window_s)
    return Demand(
        buckets=Buckets(input_edges=(1000,), output_edges=(250,)),
        window_s=window_s,
        rate=np.full(windows, rate),
        period=np.zeros(windows, np.int64),
        share=np.ones((1, 1, 1)),
        input_tokens=np.full((1, 1), 500.0),
        output_tokens=np.full((1, 1), 100.0),
    )
