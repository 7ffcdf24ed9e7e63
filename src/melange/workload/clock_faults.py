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
    """A caution if times without a zone run back by an hour, as local time does in autumn, or skip one."""
    log = rows.log
    if not log.files or not 1 < rows.count <= _MOST_ROWS or _has_zone(log, rows.layout):
        return ()
    arrival_s = column_of(log, rows.table.select(arrival_s=rows.seconds(rows.raw)))
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
