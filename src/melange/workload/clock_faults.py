"""Faults of a log's clock: rows in other units or of another date, and local times that jump back by an hour."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import numpy as np

from melange.errors import Caution, InputError
from melange.units import S_PER_DAY, S_PER_H, S_PER_MIN, count_of
from melange.workload.layouts import Layout
from melange.workload.logs import DAMAGED, Log
from melange.workload.malformed import has_malformed, malformed_rows, rows_at
from melange.workload.rows import Rows, column_of, lasting
from melange.workload.time_numbers import LONGEST_S, epoch_unit
from melange.workload.workload import Array

# Rows written when requests end are this far out of order [s]; clocks change by 30 min or an hour. Chosen by judgment.
_OUT_OF_ORDER_S = 10 * S_PER_MIN
_CHANGE_S = S_PER_H
# Clocks are set back once a year, and a log may be joined from several; a log with more backward steps than this is not
# in order. Chosen by judgment.
_MOST_STEPS = 10
# The check takes 8 bytes a row, and a tenth of a second per million rows; longer logs skip it. Chosen by judgment.
_MOST_ROWS = 10_000_000
# Clocks are set forward at midnight to 03:00 on Sundays of these months. Other gaps must be ten times shorter [s], so
# that an hour without requests is unusual. Chosen by judgment.
_FORWARD, _SUNDAY, _LATEST_H, _DENSE_S = (3, 4, 9, 10, 11), 6, 3, S_PER_H / 10
_FIRST_YEAR = 2000
# At most this part of the requests, this many times as far from all others as those last, have a wrong time. With a
# larger part or nearer ones, pauses of a service are named too. Chosen by judgment.
_FAR_PART, _FAR_TIMES, _LEAST_ROWS = 0.01, 10.0, 20
_LEAST_DATE_S = 1e8  # smaller times count from the log's beginning, not from 1970
# No service has more requests per second in its log; days or hours that are read as seconds do. Chosen by judgment.
_MOST_RATE, _LEAST_DENSE = 100_000.0, 1000
_HAS_ZONE = re.compile(r"(Z|[+-]\d{2}(:?\d{2})?)\s*$", re.IGNORECASE)


def check_span(rows: Rows, first: float, last: float) -> None:
    """Check that the first and the last arrival may belong to one log.

    Parameters
    ----------
    first, last
        Smallest and largest arrival, as stored: in units of ``rows.unit_s``.

    Raises
    ------
    InputError
        They are in different units, or more than ten years apart; the error shows both rows.
    """
    unit_s = rows.unit_s or 1.0
    column = rows.layout.arrival or ""
    units = {epoch_unit(first), epoch_unit(last)} - {None}
    is_mixed = rows.is_numeric and len(units) > 1
    if not is_mixed and (last - first) * unit_s <= LONGEST_S:
        return
    ends = "; ".join(rows_at(rows.log, rows.layout, ("first", "last")))
    if is_mixed:
        raise InputError(
            f"{rows.log.place}: arrival times are in different units: {ends}",
            hint="write all of them in one unit, for example seconds since 1970",
        )
    hint = "remove or correct the rows whose time is wrong"
    is_text = rows.log.kind in ("csv", "jsonl", "json") and column not in rows.log.numbers
    if rows.is_numeric and not is_text and unit_s == 1.0 and rows.layout.unit_s is None:
        hint += "; numbers count as seconds, unless the column's name ends in _ms, _us or _ns"
    years = (last - first) * unit_s / (365.25 * S_PER_DAY)
    raise InputError(
        f"{rows.log.place}: the first and the last request are {years:,.0f} years apart: {ends}", hint=hint
    )


def check_within(first: float, last: float, count: int, rows: Rows) -> None:
    """Check that arrivals, in windows ``first`` to ``last``, are in one of ``count`` windows; rounding may give -1.

    The extent of a Parquet column comes from the file's statistics, which a damaged file may contradict, and which
    leave out NaN.

    Raises
    ------
    InputError
        A window before the first or after the last; or an arrival that is no number.
    """
    if not -1 <= first <= last < count:
        if has_malformed(rows):
            raise malformed_rows(rows.log, rows.layout)
        raise InputError(f"{rows.log.place}: has arrivals outside the range that its own statistics give", hint=DAMAGED)


def clock_cautions(rows: Rows) -> tuple[Caution, ...]:
    """Cautions about single times far from all others, times too dense, and clocks that are set back or forward.

    Times without a zone run back by an hour if they are local times in autumn, and skip one in spring.
    """
    log = rows.log
    if not log.files or not 1 < rows.count <= _MOST_ROWS:
        return ()
    arrival_s = column_of(log, rows.table.select(arrival_s=rows.seconds(rows.raw)))
    found = _far_apart(log.place, arrival_s) or _too_dense(log.place, arrival_s)
    return found if found or _has_zone(log, rows.layout) else _changes(log, arrival_s)


def _far_apart(place: str, arrival_s: Array) -> tuple[Caution, ...]:
    """A caution if a few requests are far before or after all others."""
    count = len(arrival_s)
    most = max(1, int(_FAR_PART * count))
    if count < _LEAST_ROWS:
        return ()
    inner = np.partition(arrival_s, [most, count - 1 - most])
    if float(np.ptp(arrival_s)) <= (1 + _FAR_TIMES) * float(inner[count - 1 - most] - inner[most]):
        return ()
    ordered = np.sort(arrival_s)
    step_s = np.diff(ordered)
    at = int(np.argmax(step_s))
    is_late = count - 1 - at <= most
    few, side, lasts_s = (
        (count - 1 - at, "after", ordered[at] - ordered[0])
        if is_late
        else (at + 1, "before", ordered[-1] - ordered[at + 1])
    )
    if few > most or step_s[at] <= _FAR_TIMES * lasts_s:
        return ()
    first = ordered[at + 1] if is_late else ordered[0]
    when = _clock(first) if first >= _LEAST_DATE_S else f"{first:,.0f} s"
    which = f"the request at {when} is" if few == 1 else f"{few:,} requests, the first at {when}, are"
    return (
        Caution(
            "far-requests",
            f"{place}: {which} {lasting(float(step_s[at]))} {side} all others, which last {lasting(float(lasts_s))}. "
            "All count, so the rate is far below that of the others: remove or correct rows whose time is wrong",
        ),
    )


def _too_dense(place: str, arrival_s: Array) -> tuple[Caution, ...]:
    """A caution if a log has more requests per second than any service."""
    lasts_s = float(np.ptp(arrival_s))
    if len(arrival_s) < _LEAST_DENSE or lasts_s <= 0.0 or len(arrival_s) / lasts_s <= _MOST_RATE:
        return ()
    return (
        Caution(
            "dense",
            f"{place}: {len(arrival_s):,} requests within {lasts_s:.3g} s, as the times are read. If they are in other "
            "units, such as days, write them in seconds, or name the column with _ms, _us or _ns",
        ),
    )


def _changes(log: Log, arrival_s: Array) -> tuple[Caution, ...]:
    """A caution if times without a zone run back by an hour, or skip one."""
    step_s = np.diff(arrival_s)
    back = np.flatnonzero(step_s < -_OUT_OF_ORDER_S)
    if not len(back):
        return _skipped(log.place, arrival_s, step_s)
    if len(back) > _MOST_STEPS or step_s[back].min() < -_CHANGE_S:
        return ()
    at = int(back[0])
    before, after = (_clock(arrival_s[n]) for n in (at, at + 1))
    times = "" if len(back) == 1 else f", and {count_of(len(back) - 1, 'more time')}"
    return (
        Caution(
            "clock-runs-back",
            f"{log.place}: times without a zone run back by {lasting(-float(step_s[at]))}, from {before} to "
            f"{after}{times}. They count as UTC. If they are local times at the end of daylight saving time, one hour "
            "contains the requests of two: write times in UTC or with their offset",
        ),
    )


def _skipped(place: str, arrival_s: Array, step_s: Array) -> tuple[Caution, ...]:
    """A caution if the only long gap of a log is an hour at which clocks are set forward."""
    at = int(np.argmax(step_s))
    others = np.delete(step_s, at)
    if not _CHANGE_S <= step_s[at] <= _CHANGE_S + _OUT_OF_ORDER_S or not len(others) or others.max() > _DENSE_S:
        return ()
    before, after = (datetime.fromtimestamp(float(arrival_s[n]), UTC) for n in (at, at + 1))
    is_night = before.hour < after.hour <= _LATEST_H and after.weekday() == _SUNDAY
    if not is_night or after.month not in _FORWARD or before.year < _FIRST_YEAR:
        return ()
    return (
        Caution(
            "clock-skips",
            f"{place}: times without a zone have no request from {_clock(arrival_s[at])} to "
            f"{_clock(arrival_s[at + 1])}. They count as UTC. If they are local times at the beginning of "
            "daylight saving time, the log is an hour shorter and its rate higher: write times in UTC or with "
            "their offset",
        ),
    )


def _has_zone(log: Log, layout: Layout) -> bool:
    """Whether times state their zone; for a text log the first time decides."""
    column = layout.arrival or ""
    if column not in log.columns:
        return True  # a nested field or a sum is not checked
    kind = log.table[column].type()
    if kind.is_timestamp():
        return kind.timezone is not None
    if not kind.is_string():
        return True
    query = log.connection.compile(log.table.select(column).limit(1))
    found = [value for (value,) in log.connection.raw_sql(query).fetchall() if value is not None]
    return not found or ":" not in found[0] or bool(_HAS_ZONE.search(found[0]))


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(float(seconds), UTC).strftime("%Y-%m-%d %H:%M:%S")
