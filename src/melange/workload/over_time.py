"""Traffic over time from a request log: one aggregate query by window and size, no rows in Python."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from melange.errors import Caution, InputError
from melange.units import S_PER_H
from melange.workload.clock import Moment, Span, span
from melange.workload.clock_faults import check_within, clock_cautions
from melange.workload.demand import Demand, Indices, check_window, zone_of
from melange.workload.fields import in_words
from melange.workload.layouts import Naming, find_layout
from melange.workload.logs import Progress, opened
from melange.workload.read_clock import clock_of
from melange.workload.rows import Rows, all_rows, lasting, nothing_in, select_rows, window_of, with_buckets
from melange.workload.sizes import mean_sizes, thin_data
from melange.workload.traces import extents
from melange.workload.workload import Array, Buckets, Mask

# Default window length: short enough to show what an autoscaler would have met, long enough to hold enough requests.
# The published traces have this window.
DEFAULT_WINDOW_S = 600.0
# An empty window is a gap of the log if the windows around it let us expect at least this many requests: with Poisson
# arrivals, one in a million such windows is empty.
_EXPECTED = 14.0
# The first and the last window count if the log covers at least this share of them. Chosen by judgment: the rate of a
# shorter part is mostly chance.
_COVERED = 0.5
# Seconds since 1970, from 1973 on; a clock with smaller values starts at the beginning of the log.
_FIRST_DATE_S = 1e8


def read_demand(
    trace: str | Path | Any,
    *,
    buckets: Buckets | None = None,
    window_s: float = DEFAULT_WINDOW_S,
    time_zone: str | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    empty_windows: str = "missing",
    progress: Progress | None = None,
    **naming: Unpack[Naming],
) -> Demand:
    """The traffic of a request log, window by window.

    Parameters
    ----------
    trace, buckets, start, end, progress, columns, trace_format, where
        As for :func:`~melange.workload.traces.read_trace`.
    window_s
        Length of a window; it must divide an hour [s].
    time_zone
        Time zone of the service's users, which defines the hours of the day; None for UTC. A log whose clock has no
        dates has no time zone.
    empty_windows
        Meaning of an empty window in which many requests were expected: ``missing`` (a gap of the log) or ``zero``.

    Returns
    -------
    Demand
        Rates by window; sizes by hour. Windows start at whole hours of UTC if the log has dates, and at the log's
        beginning otherwise. The first and the last window are excluded if the log covers less than half of them.

    Raises
    ------
    InputError
        As for ``read_trace``; a log without arrival times, an unknown time zone, or a time zone for a log without
        dates.
    """
    check_window(window_s)
    if time_zone is not None:
        zone_of(time_zone)
    grid = Buckets() if buckets is None else buckets
    if grid.is_ordinal:
        raise InputError("a trace needs buckets with edges in tokens, and these are only numbered")
    with opened(trace, progress) as log:
        layout = find_layout(log.fields, naming, place=log.place)
        if layout.arrival is None:
            raise InputError(
                f"{log.place}: no arrival times, so its traffic over time is unknown",
                hint="name the column: columns: {arrival: ..., input: ..., output: ...}",
            )
        rows = select_rows(log, layout)
        first_s, last_s = clock_of(rows)
        stretch = span(first_s, last_s, start, end, place=log.place)
        part = rows.within(stretch)
        counts = _WindowCounts(part, grid, stretch, window_s)
        cautions = clock_cautions(part)
    return _demand(rows, counts, time_zone, empty_windows, cautions)


class _WindowCounts:
    """Requests and token sums by window and bucket, and the times of the windows."""

    def __init__(self, rows: Rows, grid: Buckets, stretch: Span, window_s: float) -> None:
        has_dates = stretch.start_s > _FIRST_DATE_S
        self.grid, self.stretch, self.window_s, self.has_dates = grid, stretch, window_s, has_dates
        self.origin_s = math.floor(stretch.start_s / S_PER_H) * S_PER_H if has_dates else stretch.start_s
        inputs, outputs = extents(rows, grid)
        rows = with_buckets(rows, "input", grid.input_edges, *inputs)
        rows = with_buckets(rows, "output", grid.output_edges, *outputs)
        arrival_s = rows.seconds(rows.raw) * (rows.unit_s or 1.0)
        window = window_of(arrival_s, self.origin_s, window_s, rows.log.dialect)
        table = rows.table.mutate(window=window)
        grouped = table.group_by(w=table.window, i=table.input_bucket, o=table.output_bucket).aggregate(
            n=table.count(), inputs=table.input.sum(), outputs=table.output.sum()
        )
        found = np.array(all_rows(rows.log, grouped), float).reshape(-1, 6)
        is_failed = (found[:, 1] < 0) | (found[:, 2] < 0)
        self.failed = int(found[is_failed, 3].sum())
        served = found[~is_failed]
        if not len(served):
            raise nothing_in(rows, self.failed)
        # The last request may lie on the edge of a window that holds no other request.
        windows = max(1, math.ceil((stretch.end_s - self.origin_s) / window_s))
        check_within(served[:, 0].min(), served[:, 0].max(), windows + 1, rows)
        places = np.clip(served[:, 0], 0, windows - 1).astype(np.int64)
        cells = (served[:, 1] * grid.shape[1] + served[:, 2]).astype(np.int64)
        self.requests = np.zeros((windows, grid.shape[0] * grid.shape[1]))
        np.add.at(self.requests, (places, cells), served[:, 3])
        sums = np.zeros((2, self.requests.shape[1]))
        for axis in (0, 1):
            np.add.at(sums[axis], cells, served[:, 4 + axis])
        self.sizes = mean_sizes(grid, self.by_bucket, sums[0].reshape(grid.shape), sums[1].reshape(grid.shape))

    @property
    def by_bucket(self) -> Array:
        """Requests by bucket, over all windows (I, O)."""
        return np.asarray(self.requests.sum(axis=0).reshape(self.grid.shape))

    @property
    def covered_s(self) -> Array:
        """The time of each window that the log covers (W,) [s]."""
        begin = self.origin_s + self.window_s * np.arange(len(self.requests))
        low = np.maximum(begin, self.stretch.start_s)
        return np.asarray(np.clip(np.minimum(begin + self.window_s, self.stretch.end_s) - low, 0.0, None))


def _demand(
    rows: Rows, counts: _WindowCounts, time_zone: str | None, empty_windows: str, cautions: tuple[Caution, ...]
) -> Demand:
    place = rows.log.place
    if time_zone is not None and not counts.has_dates:
        raise InputError(
            f"{place}: workload.time_zone needs dates, but its times start at {counts.stretch.start_s:g} s",
            hint="leave the time zone out: hours are then counted from the first request",
        )
    covered = counts.covered_s
    kept = np.flatnonzero(covered >= _COVERED * counts.window_s)
    if not len(kept):
        raise InputError(
            f"{place}: lasts {lasting(counts.stretch.duration_s)}, less than half a window of "
            f"{lasting(counts.window_s)}",
            hint="take shorter windows: window: 1m",
        )
    first, end = int(kept[0]), int(kept[-1]) + 1
    requests = counts.requests[first:end]
    total = requests.sum(axis=1)
    rate = total / covered[first:end]
    missing = gaps(total) if empty_windows == "missing" else np.zeros(len(total), bool)
    rate[missing] = np.nan
    period, share = _by_hour(requests, counts.window_s)
    share = share.reshape(-1, *counts.grid.shape)
    served = int(counts.requests.sum())
    chosen = f"where {in_words(rows.layout.where)}, " if rows.layout.where else ""
    start = None
    if counts.has_dates:
        start = datetime.fromtimestamp(counts.origin_s + first * counts.window_s, UTC)
    found = Demand(
        buckets=counts.grid,
        window_s=counts.window_s,
        rate=rate,
        period=period,
        share=share,
        input_tokens=counts.sizes[0],
        output_tokens=counts.sizes[1],
        start=start,
        time_zone=time_zone or "UTC",
        source=f"{rows.log.name} ({rows.layout.name}): {served:,} requests {chosen}"
        f"over {lasting(counts.stretch.duration_s)}",
        requests=served,
        failed_requests=counts.failed,
    )
    return with_cautions(found, place, (*cautions, *thin_data(counts.grid, counts.by_bucket)), served)


def with_cautions(demand: Demand, place: str, more: tuple[Caution, ...] = (), served: int = 0) -> Demand:
    """The demand with cautions about failed rows and missing windows."""
    said = list(more)
    failed, missing = demand.failed_requests, demand.is_missing
    if failed:
        said.append(
            Caution(
                "failed-rows",
                f"{place}: {failed:,} of {served + failed:,} rows ({failed / (served + failed):.1%}) have no input or "
                "no output tokens; they count as failed and are left out of the rate",
            )
        )
    if missing.any():
        said.append(
            Caution(
                "missing-windows",
                f"{place}: {int(missing.sum()):,} of {len(demand):,} windows of {lasting(demand.window_s)} are "
                f"missing (first: {demand.label(int(np.argmax(missing)))}); they are left out, not counted as zero "
                "traffic; set workload.empty_windows: zero if they had none",
            )
        )
    return replace(demand, cautions=(*demand.cautions, *said))


def gaps(requests: Array) -> Mask:
    """Windows (W,) that are empty although the busy windows around them let us expect many requests.

    >>> gaps(np.array([50.0, 0.0, 0.0, 40.0, 0.0, 2.0])).tolist()
    [False, True, True, False, False, False]
    """
    busy = np.flatnonzero(requests > 0)
    if not len(busy):
        return np.zeros(len(requests), bool)
    places = np.arange(len(requests))
    after = np.searchsorted(busy, places).clip(0, len(busy) - 1)
    before = (np.searchsorted(busy, places, side="right") - 1).clip(0, len(busy) - 1)
    expected = np.minimum(requests[busy[before]], requests[busy[after]])
    return np.asarray((requests == 0) & (expected >= _EXPECTED), bool)


def _by_hour(requests: Array, window_s: float) -> tuple[Indices, Array]:
    """The hour that each window (W,) lies in, and the shares of sizes in each hour (P, I x O).

    An hour without requests has the sizes of all hours together.
    """
    each = round(S_PER_H / window_s)
    period = np.arange(len(requests)) // each
    by_hour = np.add.reduceat(requests, np.arange(0, len(requests), each), axis=0)
    by_hour[by_hour.sum(axis=1) == 0] = requests.sum(axis=0)
    return period, by_hour / by_hour.sum(axis=1, keepdims=True)
