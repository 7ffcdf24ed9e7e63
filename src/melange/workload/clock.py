"""Time in a request log: durations, the span of a log, and the rate of its busiest windows."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from melange.errors import InputError
from melange.units import S_PER_DAY, S_PER_H, S_PER_MIN, S_PER_MS, S_PER_WEEK
from melange.workload.workload import Array

Moment = float | int | str | datetime

_SECONDS = {"ms": S_PER_MS, "s": 1.0, "m": S_PER_MIN, "min": S_PER_MIN, "h": S_PER_H, "d": S_PER_DAY, "w": S_PER_WEEK}
_DURATION = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(ms|min|s|m|h|d|w)?\s*")
_STATISTIC = re.compile(r"mean|max|p(\d{1,2}(?:\.\d+)?)")
# Most windows that a log may be divided into; each takes 8 bytes. Chosen by judgment.
_MOST_WINDOWS = 10_000_000
_SHORTEST_S, _LONGEST_S = 1e-6, 1e12


def parse_duration(text: str | float, *, name: str = "duration") -> float:
    """Parse a duration: a number of seconds, or ``90s``, ``5m``, ``1h30m``, ``2d`` [s].

    Parameters
    ----------
    text
        The duration; a bare number is seconds [s].
    name
        What the duration is for, named in the error.

    Raises
    ------
    InputError
        The text is not a duration, is negative or not finite, or is so short or long that sums with it mean nothing.

    Examples
    --------
    >>> parse_duration("5m"), parse_duration("1h30m"), parse_duration(90)
    (300.0, 5400.0, 90.0)
    """
    seconds = _seconds(text)
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        raise InputError(f"{name} must be a duration such as 90, '90s', '5m' or '1h30m', got {text!r}")
    if seconds and not _SHORTEST_S <= seconds <= _LONGEST_S:
        raise InputError(f"{name} must be 0, or between a microsecond and 30,000 years, got {text!r}")
    return seconds


def _seconds(text: str | float) -> float | None:
    if isinstance(text, bool):
        return None
    if isinstance(text, int | float):
        return float(text)
    trimmed = text.strip().lower()
    total, position = 0.0, 0
    while match := _DURATION.match(trimmed, position):
        total += float(match[1]) * _SECONDS[match[2] or "s"]
        position = match.end()
    return total if trimmed and position == len(trimmed) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The part of a log that is read.

    Parameters
    ----------
    start_s, end_s
        Start and end, on the log's own clock [s].
    has_start, has_end
        Whether requests before ``start_s``, or from ``end_s`` on, are excluded.
    """

    start_s: float
    end_s: float
    has_start: bool = False
    has_end: bool = False

    @property
    def duration_s(self) -> float:
        """Length of the part [s]."""
        return self.end_s - self.start_s


def span(first_s: float, last_s: float, start: Moment | None, end: Moment | None, *, place: str) -> Span:
    """The part between ``start`` and ``end`` of a log whose arrivals run from ``first_s`` to ``last_s`` [s].

    Parameters
    ----------
    first_s, last_s
        First and last arrival, on the log's own clock [s].
    start, end
        Seconds or a duration counted from the first arrival, or a point in time (ISO 8601, UTC without a zone); None
        for the log's own start and end. Requests at ``end`` are excluded.
    place
        The log, named in the error.

    Raises
    ------
    InputError
        The part contains nothing of the log.
    """
    from_s = first_s if start is None else _moment(start, first_s, "start")
    to_s = last_s if end is None else _moment(end, first_s, "end")
    if from_s > last_s or to_s < first_s or from_s > to_s or (from_s == to_s and end is not None):
        raise InputError(
            f"{place}: no request {_range_text(start, end)}",
            hint=f"the trace runs from {_clock_text(first_s)} to {_clock_text(last_s)}; "
            "give seconds or durations from its start, or dates and times, start first",
        )
    return Span(
        start_s=max(from_s, first_s),
        end_s=min(to_s, last_s),
        has_start=start is not None and from_s > first_s,
        has_end=end is not None and to_s <= last_s,
    )


def _range_text(start: Moment | None, end: Moment | None) -> str:
    if end is None:
        return f"from {start!r} on"
    return f"before {end!r}" if start is None else f"between start {start!r} and end {end!r}"


def _moment(value: Moment, first_s: float, name: str) -> float:
    if isinstance(value, datetime):
        return _epoch(value)
    seconds = _seconds(value)
    if seconds is not None:
        return first_s + parse_duration(seconds, name=name)
    try:
        return _epoch(datetime.fromisoformat(str(value)))
    except ValueError:
        raise InputError(
            f"{name} must be seconds, a duration such as '10m' or a time such as '2023-11-16T18:20', got {value!r}"
        ) from None


def _epoch(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _clock_text(seconds: float) -> str:
    if 1e8 < seconds < 1e11:  # 1973 to 5138: a date; a log that starts at 0 is never that long
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return f"{seconds:g} s"


def check_statistic(rate: str, window_s: float | None) -> None:
    """Check that ``rate`` names a statistic and that a statistic over windows has a window length.

    Raises
    ------
    InputError
        An unknown statistic, a statistic that needs windows but has none, or a window of zero length.
    """
    if not _STATISTIC.fullmatch(rate):
        raise InputError(f"rate must be 'mean', 'max' or 'p50' to 'p99.9', got {rate!r}")
    if rate != "mean" and window_s is None:
        raise InputError(f"rate {rate!r} needs time windows", hint="set workload.window (--window), for example 5m")
    if window_s is not None and not (math.isfinite(window_s) and window_s > 0):
        raise InputError(f"window must be > 0 seconds, got {window_s:g}")


def full_windows(duration_s: float, window_s: float, *, place: str) -> int:
    """Number of whole windows of ``window_s`` in ``duration_s``; the rest at the end is not a window.

    Raises
    ------
    InputError
        Not a single window fits, or more than ten million do.
    """
    windows = int(min(duration_s / window_s + 1e-9, sys.maxsize))  # infinite for the shortest windows
    if not 1 <= windows <= _MOST_WINDOWS:
        raise InputError(
            f"{place}: {windows:,} windows of {window_s:g} s fit into {duration_s:g} s; between 1 and "
            f"{_MOST_WINDOWS:,} are needed",
            hint="choose another window",
        )
    return windows


def window_statistic(rates: Array, rate: str) -> float:
    """One statistic over the rates of the windows, empty ones included [1/s].

    Parameters
    ----------
    rates
        Arrivals per second in each window (windows) [1/s].
    rate
        ``mean``, ``max`` or a percentile, ``p50`` to ``p99.9``, interpolated linearly.

    Examples
    --------
    >>> window_statistic(np.array([1.0, 2.0, 6.0]), "p50")
    2.0
    """
    if rate == "mean":
        return float(rates.mean())
    return float(np.percentile(rates, 100.0 if rate == "max" else float(rate[1:])))
