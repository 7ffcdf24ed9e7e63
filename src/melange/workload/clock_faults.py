"""Faults of a log's clock: rows in different units or of another age, and local times that run back by an hour."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import numpy as np

from melange.errors import Caution, InputError
from melange.units import S_PER_DAY, S_PER_H, S_PER_MIN
from melange.workload.layouts import Layout, time_unit
from melange.workload.logs import DAMAGED, Log
from melange.workload.malformed import rows_at
from melange.workload.rows import Rows, column_of, lasting

# A log of requests is no longer than this: a longer one has rows in another unit (seconds and milliseconds since 1970
# are 50 years apart), or a first or last row without a real time (0, or the year 9999). A judgment.
_LONGEST_S = 10 * 365.25 * S_PER_DAY
# Numbers from here on may be times since 1970 (1973 in seconds).
_FIRST_EPOCH = 1e8
# Rows written when requests end are this far out of order [s]; clocks change by 30 min or an hour. Judgments.
_OUT_OF_ORDER_S = 10 * S_PER_MIN
_CHANGE_S = S_PER_H
# Clocks go back once a year, and a log may be pieced together; a log with more steps back is not in order. A judgment.
_MOST_STEPS = 10
# The look takes 8 bytes a row, and a tenth of a second for a million rows; longer logs are spared it. A judgment.
_MOST_ROWS = 10_000_000
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
        They are in different units, or more than ten years apart; with the rows of both.
    """
    unit_s = rows.unit_s or 1.0
    column = rows.layout.arrival or ""
    is_mixed = rows.is_numeric and first > _FIRST_EPOCH and time_unit(column, first) != time_unit(column, last)
    if not is_mixed and (last - first) * unit_s <= _LONGEST_S:
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


def check_within(first: float, last: float, count: int, log: Log) -> None:
    """Check that arrivals are in one of ``count`` windows, ``first`` to ``last`` being theirs; -1 by rounding.

    The extents of a Parquet column come from the file's statistics, which a damaged file contradicts.

    Raises
    ------
    InputError
        A window before the first or after the last.
    """
    if not -1 <= first <= last < count:
        raise InputError(f"{log.place}: has arrivals outside the range that its own statistics give", hint=DAMAGED)


def clock_cautions(rows: Rows) -> tuple[Caution, ...]:
    """A caution where times without a zone run back as when local time goes back by an hour in autumn."""
    log = rows.log
    if not log.files or not 1 < rows.count <= _MOST_ROWS or _has_zone(log, rows.layout):
        return ()
    arrival_s = column_of(log, rows.table.select(arrival_s=rows.seconds(rows.raw)))
    step_s = np.diff(arrival_s)
    back = np.flatnonzero(step_s < -_OUT_OF_ORDER_S)
    if not 0 < len(back) <= _MOST_STEPS or step_s[back].min() < -_CHANGE_S:
        return ()
    at = int(back[0])
    before, after = (_clock(arrival_s[n]) for n in (at, at + 1))
    times = "" if len(back) == 1 else f", and {len(back) - 1} more times"
    return (
        Caution(
            "clock-runs-back",
            f"{log.place}: times without a zone run back by {lasting(-float(step_s[at]))}, from {before} to "
            f"{after}{times}. They count as UTC. If they are local times at the end of daylight saving time, one hour "
            "contains the requests of two: write times in UTC or with their offset",
        ),
    )


def _has_zone(log: Log, layout: Layout) -> bool:
    """Whether times say their zone: those of a text log by the first of them."""
    column = layout.arrival or ""
    if column not in log.columns:
        return True  # nested or a sum: not looked at
    kind = log.table[column].type()
    if kind.is_timestamp():
        return kind.timezone is not None
    if not kind.is_string():
        return True
    query = log.connection.compile(log.table.select(column).limit(1))
    found = log.connection.raw_sql(query).fetchone()
    return found is None or found[0] is None or ":" not in found[0] or bool(_HAS_ZONE.search(found[0]))


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(float(seconds), UTC).strftime("%Y-%m-%d %H:%M:%S")
