"""Replay a log: parts of its requests as recorded, and their burstiness.

A log is treated as a ring: its last requests also come before the first one. So a fleet is warm when the requests that
count arrive, and with a whole log every request counts once.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from melange.errors import InputError
from melange.validate.attainment import warm_up
from melange.workload.arrivals import Arrivals
from melange.workload.rows import lasting

# Windows for the peaks of a log, by name [s]: from the length of short bursts to that of busy hours.
_WINDOWS_S = {"second": 1.0, "10 seconds": 10.0, "minute": 60.0, "10 minutes": 600.0, "hour": 3600.0}
# Least number of windows: with fewer, the busiest window is the log itself.
_LEAST_WINDOWS = 5
# Rates that differ by less count as equal: windows counted from the first served request and windows counted from the
# first row begin at different moments.
_SAME_RATE = 0.02
# If more than this share of a log's gaps are 0, its clock is coarse, and its bursts may come from the clock; the same
# value as in read_trace.
_COARSE = 0.1
# Peaks below this are not mentioned: Poisson arrivals at 5 requests/s have one minute of 1.2 times the mean per hour.
_LEAST_PEAK = 1.25


def stretch(log: Arrivals, start: int, requests: int) -> Arrivals:
    """``requests`` requests of a log from position ``start`` on, as recorded; after the last one comes the first.

    Raises
    ------
    InputError
        All requests of the log have the same time, so it has no pace.
    """
    if not log.has_pace:
        raise InputError("arrivals: requests that all arrive at once cannot be replayed in sequence")
    # The gap between the last request and the first is the mean gap.
    round_s = len(log) / log.rate
    passes, places = np.divmod(np.arange(start, start + requests), len(log))
    arrival_s = log.arrival_s[places] + passes * round_s
    return log.chosen(places, arrival_s - arrival_s[0])


def whole_log(log: Arrivals) -> Arrivals:
    """All requests of a log in one run, in which each counts once; its last ones also come before, to warm up."""
    start, requests = counting(0, len(log))
    before = requests - len(log)
    return replace(
        stretch(log, start, requests), source=f"{log.source}; warm-up: its last {before:,} requests, replayed first"
    )


def planned_part(
    log: Arrivals, part_s: tuple[float, float], rate: float, *, whole: Arrivals | None = None
) -> tuple[Arrivals, float]:
    """The part of a log that a plan is made for, at the log's own speed, and its rate [1/s].

    Parameters
    ----------
    log
        The log that the plan is made for, or another one of the service.
    part_s
        Start and end of the planned part, counted from the log's first arrival [s].
    rate
        The planned rate [1/s]. If the same part of this log has another rate, the part of equal length with the nearest
        rate is taken: the log of another day has its busy hour elsewhere.
    whole
        The log with the requests that the plan leaves out, on the same clock; None: it leaves out none. Times and
        positions are counted in it.

    Raises
    ------
    InputError
        The log is shorter than the part.
    """
    every_s = (log if whole is None else whole).arrival_s
    start_s, end_s = part_s
    length_s, whole_s = end_s - start_s, float(every_s[-1] - every_s[0])
    if length_s > whole_s * (1 + _SAME_RATE):
        raise InputError(
            f"the plan is made for {lasting(length_s)} of a log, but this log lasts {lasting(whole_s)}",
            hint="give a longer log",
        )
    starts = np.append(start_s, np.arange(start_s % length_s, whole_s, length_s)) + every_s[0]
    first, last = np.searchsorted(log.arrival_s, starts), np.searchsorted(log.arrival_s, starts + length_s)
    away = np.abs((last - first) / length_s - rate)
    chosen = 0 if away[0] <= _SAME_RATE * rate else int(np.argmin(away))
    if last[chosen] - first[chosen] < 2:
        raise InputError(f"no {lasting(length_s)} of the log hold two requests", hint="give a busier log")
    begins = float(starts[chosen] - every_s[0])
    part = log.part(int(first[chosen]), int(last[chosen]))
    row, end = np.searchsorted(every_s, [starts[chosen], starts[chosen] + length_s]).tolist()
    some = f"{len(part):,} of " if len(part) < end - row else ""
    rows = f"{some}requests {row + 1:,} to {end:,}, from {lasting(begins)} after the first on"
    return replace(part, source=f"{log.source}: {rows}, for {lasting(length_s)}"), float(len(part) / length_s)


def counting(start: int, requests: int) -> tuple[int, int]:
    """Position of the first request and number of all, of a run in which ``requests`` from ``start`` on count."""
    total = requests
    while total - warm_up(total) < requests:
        total += max(1, requests - (total - warm_up(total)))
    return start - (total - requests), total


def peak_of(log: Arrivals) -> str:
    """How much faster than average a log's requests arrive at their peak; empty if they arrive evenly.

    It names the window that stands out most from the peaks that chance brings to windows of that length.

    Examples
    --------
    >>> hour = np.concatenate([np.arange(0, 1800, 1.0), np.arange(1800, 2400, 0.25), np.arange(2400, 3600, 1.0)])
    >>> tokens = np.ones(len(hour), np.int32)
    >>> peak_of(Arrivals(arrival_s=hour, input_tokens=tokens, output_tokens=tokens))
    'the busiest 10 minutes bring 2.7 times the mean rate'
    """
    duration_s = float(log.arrival_s[-1] - log.arrival_s[0])
    found = []
    for name, window_s in _WINDOWS_S.items():
        if duration_s < _LEAST_WINDOWS * window_s:
            break
        most = int((np.searchsorted(log.arrival_s, log.arrival_s + window_s) - np.arange(len(log))).max())
        mean = log.rate * window_s
        found.append(((most - mean) / np.sqrt(mean), most / mean, name))
    if not found:
        return ""
    _, times, name = max(found)
    verb = "bring" if name.endswith("s") else "brings"
    return f"the busiest {name} {verb} {times:.1f} times the mean rate" if times >= _LEAST_PEAK else ""


def words_of(arrivals: Arrivals) -> str:
    """Requests described in words: their source, and how unevenly those of a log arrive."""
    if arrivals.is_shuffled:
        return arrivals.source
    at_once = float((np.diff(arrivals.arrival_s) == 0).mean())
    clock = f"{at_once:.0%} of them at the same time as the previous one" if at_once > _COARSE else ""
    return "; ".join(filter(None, (arrivals.source, clock, peak_of(arrivals))))
