"""Workloads from request logs: one aggregate query, no rows in Python.

The clock of a log (first and last arrival) and the extents of its sizes are queried first, which Parquet answers from
its statistics; then one query groups the requests by bucket and adds up their sizes. The rate of the busiest windows
is another aggregate; for the burstiness, the arrivals of shorter logs are sorted in NumPy. Text is parsed once, into a
temporary table of DuckDB.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from melange.errors import Caution, InputError
from melange.workload.burstiness import GAPS_A_WINDOW, WINDOW_S, pooled_burstiness
from melange.workload.clock import Moment, Span, check_statistic, full_windows, span, window_statistic
from melange.workload.clock_faults import check_within, clock_cautions
from melange.workload.fields import in_words
from melange.workload.layouts import Naming, find_layout
from melange.workload.logs import Progress, opened
from melange.workload.malformed import has_malformed, has_rejected, malformed_rows
from melange.workload.read_clock import clock_of
from melange.workload.read_prefixes import prefix_fields, prefix_reuse_in
from melange.workload.rows import (
    Rows,
    all_rows,
    column_of,
    first_row,
    lasting,
    nothing_in,
    select_rows,
    window_of,
    with_buckets,
)
from melange.workload.sizes import mean_sizes, oversized, thin_data
from melange.workload.workload import Buckets, Workload

# Burstiness requires sorting all arrivals; longer logs skip it. Chosen by judgment.
_BURSTINESS_ROWS = 2_000_000

# Share of rows that may be equal by chance if the clock is finer than a second. Longer logs skip this check, which
# takes a second per million rows. Chosen by judgment.
_COPIES = 0.05
_COPIES_ROWS = 500_000


def read_trace(
    trace: str | Path | Any,
    *,
    buckets: Buckets | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    window_s: float | None = None,
    rate: str = "mean",
    request_rate: float | None = None,
    progress: Progress | None = None,
    **naming: Unpack[Naming],
) -> Workload:
    """The workload from a request log.

    Parameters
    ----------
    trace
        A Parquet, CSV or JSONL file (the last two also gzipped), a folder or glob of such files, or an Ibis table of
        any backend.
    buckets
        The grid of sizes; the default grid where None.
    start, end
        The part to read: seconds or durations from the first arrival (``"10m"``), or points in time
        (``"2023-11-16T18:20"``, UTC without a zone). ``end`` is excluded.
    window_s
        Length of the windows for ``rate`` [s].
    rate
        The statistic that gives the total rate: ``mean`` over the whole part, or, over its whole windows, empty ones
        included, ``mean``, ``max`` or ``p50`` to ``p99.9``. The mix of sizes is that of the whole part.
    request_rate
        Total rate, instead of the log's own [1/s].
    progress
        Called with the fraction of the query that is done (0-1).
    columns
        Field by role: ``arrival``, ``input``, ``output``; a field is a column, a nested field (``usage.prompt_tokens``)
        or a sum (``usage.input + usage.cached``). With ``arrival`` alone, sizes are those of the recognized layout;
        with sizes alone, the log has only lengths. None if the layout is a published one (Azure, BurstGPT, Mooncake and
        Dynamo, Vidur and etalon), that of LiteLLM, Langfuse or OpenAI, or has the columns ``input_tokens,
        output_tokens`` and a column named ``arrival_s``, ``arrival``, ``timestamp`` or similar: it is recognized by its
        names.
    trace_format
        The published layout, if names do not identify it: ``azure``, ``burstgpt``, ``mooncake``, ``vidur``, ...
    where
        Required content of a row, by field: a value or one of several (``{"model": "llama", "cache_hit": False}``).

    Returns
    -------
    Workload
        The mean rate is requests / (last - first arrival), or / length of the part. Each bucket is planned for at the
        mean size observed in it, an empty bucket at its upper edge. ``burstiness`` is measured for logs of 30 to
        2,000,000 requests, and is None if more than one gap in ten is 0 (the clock is too coarse).

    Raises
    ------
    InputError
        A missing, empty or damaged file; missing columns; malformed rows, reported together with their lines;
        requests larger than the last edge; no arrivals and no ``request_rate``.

    Notes
    -----
    Rows whose input or output is 0 tokens are failed requests (BurstGPT, arXiv 2401.17644): they are excluded,
    counted in ``failed_requests`` and reported in a caution.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> rows = ["arrival_s,input_tokens,output_tokens", "0,374,44", "2,396,109", "4,879,55"]
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = pathlib.Path(folder.name, "trace.csv")
    >>> _ = path.write_text(chr(10).join(rows))
    >>> workload = read_trace(path, buckets=Buckets(input_edges=(500, 1000), output_edges=(250,)))
    >>> workload.request_rate.tolist(), workload.input_tokens.tolist()
    ([[0.5], [0.25]], [[385.0], [879.0]])
    >>> folder.cleanup()
    """
    check_statistic(rate, window_s)
    grid = Buckets() if buckets is None else buckets
    if grid.is_ordinal:
        raise InputError("a trace needs buckets with edges in tokens; these are only numbered")
    with opened(trace, progress) as log:
        layout = find_layout(log.fields, naming, place=log.place)
        is_named = bool(layout.shared)
        layout = replace(layout, shared=prefix_fields(log.fields, layout.shared))
        rows = select_rows(log, layout)
        if layout.arrival is None:
            return _without_clock(rows, grid, request_rate, start, end, window_s)
        return _with_clock(rows, grid, request_rate, start, end, window_s, rate, is_named)


def _without_clock(
    rows: Rows,
    grid: Buckets,
    request_rate: float | None,
    start: Moment | None,
    end: Moment | None,
    window_s: float | None,
) -> Workload:
    place = rows.log.place
    if request_rate is None or start is not None or end is not None or window_s is not None:
        raise InputError(
            f"{place}: no arrival times, only sizes (columns {', '.join(map(repr, rows.log.columns[:12]))})",
            hint="set a request rate: workload.rate (--rate), or name the column: columns: {arrival: ..., input: ..., "
            "output: ...}",
        )
    counts = _Counts.of(rows, grid)
    return _workload(rows, grid, counts, request_rate, "sizes only, rate as given", None)


def _with_clock(
    rows: Rows,
    grid: Buckets,
    request_rate: float | None,
    start: Moment | None,
    end: Moment | None,
    window_s: float | None,
    rate: str,
    is_named: bool,
) -> Workload:
    first_s, last_s = clock_of(rows)
    stretch = span(first_s, last_s, start, end, place=rows.log.place)
    selected = rows.within(stretch)
    counts = _Counts.of(selected, grid)
    total = request_rate
    is_part = start is not None or end is not None
    part_s = (stretch.start_s - first_s, stretch.start_s - first_s + stretch.duration_s) if is_part else None
    if total is None:
        total, at_s = _total_rate(selected, stretch, counts.served, window_s, rate)
        if at_s is not None and window_s is not None:
            part_s = (at_s - first_s, at_s - first_s + window_s)
    words = f"over {lasting(stretch.duration_s)}"
    if request_rate is not None:
        words += ", rate as given"
    elif window_s is not None:
        words += f", rate: {rate} of windows of {lasting(window_s)}"
    workload = _workload(rows, grid, counts, total, words, _burstiness(selected, stretch, counts.served))
    cautions = (*workload.cautions, *clock_cautions(selected), *_copies(selected, counts.served))
    reuse = None
    try:
        reuse = prefix_reuse_in(selected, grid, stretch.duration_s)
    except InputError as error:
        if is_named:
            raise
        cautions = (*cautions, Caution("prefixes-unread", f"{error}; shared prefixes are ignored"))
    return replace(
        workload,
        cautions=cautions,
        log_part_s=None if request_rate is not None else part_s,
        prefix_reuse=reuse,
    )


class _Counts:
    """Requests and token sums by bucket (I, O), and requests outside of the buckets."""

    def __init__(self, grid: Buckets) -> None:
        self.requests = np.zeros(grid.shape)
        self.input_sum = np.zeros(grid.shape)
        self.output_sum = np.zeros(grid.shape)
        self.failed = 0

    @property
    def served(self) -> int:
        return int(self.requests.sum())

    @classmethod
    def of(cls, rows: Rows, grid: Buckets) -> _Counts:
        """Run the aggregate query."""
        counts = cls(grid)
        inputs, outputs = extents(rows, grid)
        rows = with_buckets(rows, "input", grid.input_edges, *inputs)
        rows = with_buckets(rows, "output", grid.output_edges, *outputs)
        table = rows.table
        grouped = table.group_by(i=table.input_bucket, o=table.output_bucket).aggregate(
            n=table.count(), inputs=table.input.sum(), outputs=table.output.sum()
        )
        for i, o, n, input_sum, output_sum in all_rows(rows.log, grouped):
            if i < 0 or o < 0:
                counts.failed += n
            else:
                counts.requests[i, o] = n
                counts.input_sum[i, o] = input_sum
                counts.output_sum[i, o] = output_sum
        if counts.served == 0:
            raise nothing_in(rows, counts.failed)
        return counts


def extents(rows: Rows, grid: Buckets) -> tuple[tuple[int, int], tuple[int, int]]:
    """Smallest and largest input and output, after checking that all are sizes within the buckets [tokens]."""
    inputs, outputs = rows.table.input, rows.table.output
    known = {"inputs": inputs.count(), "outputs": outputs.count(), "total": rows.table.count()}
    ends = {"low_i": inputs.min(), "high_i": inputs.max(), "low_o": outputs.min(), "high_o": outputs.max()}
    *filled, total, low_i, high_i, low_o, high_o = first_row(rows.log, rows.table.aggregate(**known, **ends))
    is_short = min(filled) < total
    is_negative = total > 0 and min(low_i or 0, low_o or 0) < 0
    if has_rejected(rows.log) or is_negative or (is_short and (rows.log.is_text or has_malformed(rows))):
        raise malformed_rows(rows.log, rows.layout)
    if total == 0:
        raise nothing_in(rows)
    if is_short:  # requests that failed
        rows.table = rows.table.mutate(input=inputs.fill_null(0), output=outputs.fill_null(0))
        return extents(rows, grid)
    rows.count = total
    last_i, last_o = grid.input_edges[-1], grid.output_edges[-1]
    if high_i > last_i or high_o > last_o:
        is_served = (inputs > 0) & (outputs > 0)
        larger = rows.table.filter(is_served & ((inputs > last_i) | (outputs > last_o)))
        count, *largest = first_row(
            rows.log, larger.aggregate(n=larger.count(), i=larger.input.max(), o=larger.output.max())
        )
        if count:
            raise oversized(grid, count, *largest, place=rows.log.place)
    return (low_i, high_i), (low_o, high_o)


def _total_rate(
    rows: Rows, stretch: Span, served: int, window_s: float | None, rate: str
) -> tuple[float, float | None]:
    """The planned rate, and the beginning of the window whose rate is nearest to it [s]; None if it is no window's."""
    name = rows.log.place
    if not stretch.duration_s > 0:
        raise InputError(
            f"{name}: {_at_once(served)}, so there is no rate",
            hint="set a request rate: workload.rate (--rate)",
        )
    if window_s is None:
        return served / stretch.duration_s, None
    windows = full_windows(stretch.duration_s, window_s, place=name)
    served_rows = rows.served()
    window = window_of(served_rows.arrival_s, stretch.start_s, window_s, rows.log.dialect)
    per_window = np.zeros(windows)
    for index, n in all_rows(rows.log, served_rows.group_by(window=window).aggregate(n=served_rows.count())):
        place = math.nan if index is None else index
        check_within(place, place, windows + 1, rows)
        if index < windows:  # the rest at the end is not a whole window
            per_window[max(index, 0)] += n
    total = window_statistic(per_window / window_s, rate)
    if not total > 0:
        raise InputError(
            f"{name}: {rate} over {windows} windows of {window_s:g} s is 0 requests/s",
            hint="most windows are empty: use longer windows or a higher percentile",
        )
    if rate == "mean":
        return total, None
    return total, stretch.start_s + window_s * int(np.argmin(np.abs(per_window / window_s - total)))


def _at_once(requests: int) -> str:
    return "there is only one request" if requests == 1 else f"all {requests:,} requests arrive at the same time"


def _burstiness(rows: Rows, stretch: Span, served: int) -> float | None:
    """Coefficient of variation of the gaps between arrivals within windows; None if it cannot be determined.

    Gaps are divided by the mean of their own window, so that a rate that changes over the day is not a burst. Gaps that
    span two windows are excluded. The column is fetched because NumPy sorts almost sorted values very fast.
    """
    if not 2 <= served <= _BURSTINESS_ROWS or not stretch.duration_s > 0:
        return None
    window_s = max(WINDOW_S, GAPS_A_WINDOW * stretch.duration_s / served)
    arrival_s = np.sort(column_of(rows.log, rows.served().select("arrival_s")), kind="stable")
    place = np.floor((arrival_s - stretch.start_s) / window_s)
    check_within(place[0], place[-1], served + 1, rows)
    window = np.maximum(place, 0).astype(np.int64)
    is_within = window[1:] == window[:-1]
    gap, window = np.diff(arrival_s)[is_within], window[1:][is_within]
    sums = (np.bincount(window, weights) for weights in (None, gap, gap**2, gap == 0))
    return pooled_burstiness(*sums)


def _copies(rows: Rows, served: int) -> tuple[Caution, ...]:
    """A caution if many rows are duplicates, as in a log that was joined with itself."""
    if not 1 < served < _COPIES_ROWS:
        return ()
    arrivals = rows.served()
    alike = arrivals.group_by("arrival_s", "input", "output").aggregate(n=arrivals.count())
    # On a clock of whole seconds, equal requests need not be duplicates.
    fine, copied = first_row(
        rows.log, alike.aggregate(fine=(alike.arrival_s.floor() != alike.arrival_s).sum(), copied=(alike.n - 1).sum())
    )
    if not fine or copied <= _COPIES * served:
        return ()
    return (
        Caution(
            "copied-rows",
            f"{rows.log.place}: {copied:,} of {served:,} rows are duplicates, with the same time and sizes; "
            "they count as requests. If the log was joined twice, remove them: they inflate the rate",
        ),
    )


def _workload(
    rows: Rows, grid: Buckets, counts: _Counts, total: float, words: str, burstiness: float | None
) -> Workload:
    served, failed = counts.served, counts.failed
    cautions = []
    if failed:
        cautions.append(
            Caution(
                "failed-rows",
                f"{rows.log.place}: {failed:,} of {served + failed:,} rows ({failed / (served + failed):.1%}) have no "
                "input or no output tokens; they count as failed and are left out of the rate",
            )
        )
    cautions += thin_data(grid, counts.requests)
    inputs, outputs = mean_sizes(grid, counts.requests, counts.input_sum, counts.output_sum)
    chosen = f"where {in_words(rows.layout.where)}, " if rows.layout.where else ""
    return Workload(
        buckets=grid,
        request_rate=counts.requests * (1 / served),
        input_tokens=inputs,
        output_tokens=outputs,
        source=f"{rows.log.name} ({rows.layout.name}): {served:,} requests {chosen}{words}",
        requests=served,
        failed_requests=failed,
        burstiness=burstiness,
        cautions=tuple(cautions),
    ).at_rate(total)
