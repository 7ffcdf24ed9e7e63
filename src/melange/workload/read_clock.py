"""The first and the last arrival of a log in seconds, whatever its times are written as."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from melange.errors import InputError
from melange.workload.clock_faults import check_span
from melange.workload.dialects import epoch_s, only_in_duckdb
from melange.workload.malformed import has_rejected, malformed_rows, rows_at
from melange.workload.rows import Rows, first_row, nothing_in
from melange.workload.time_numbers import implausible, is_implausible, moment_of, reading_of

# Steps of numbers in single precision that change a rate [s]. Chosen by judgment.
_COARSE_S = 1.0


def clock_of(rows: Rows) -> tuple[float, float]:
    """First and last arrival [s]; also sets the unit of numeric times. Arrivals that cannot be one log are an error."""
    known = {
        "first": rows.seconds(rows.raw.min()),
        "last": rows.seconds(rows.raw.max()),
        "timed": rows.raw.count(),
        "total": rows.table.count(),
    }
    if rows.has_text:
        known |= _ends_by_kind(rows)
    first, last, timed, total, *by_kind = first_row(rows.log, rows.table.aggregate(**known))
    is_whole = total == 0 or (timed == total and math.isfinite(first) and math.isfinite(last))
    if not is_whole or has_rejected(rows.log):
        raise malformed_rows(rows.log, rows.layout)
    if total == 0:
        raise nothing_in(rows)
    if rows.has_text and by_kind[0]:
        first, last = _with_dates(rows, total, *by_kind)
    elif rows.is_numeric:
        first, last = _as_numbers(rows, first, last)
    check_span(rows, first, last)
    unit_s = rows.unit_s or 1.0
    return first * unit_s, last * unit_s


def _ends_by_kind(rows: Rows) -> dict[str, Any]:
    """How many times are dates, and the extent of dates and of numbers."""
    import ibis

    dated = rows.table.dated
    dates, numbers = (ibis.cases((chosen, rows.raw), else_=ibis.null("float64")) for chosen in (dated, ~dated))
    return {
        "dated": dated.sum(),
        "first_date": dates.min(),
        "last_date": dates.max(),
        "first_number": numbers.min(),
        "last_number": numbers.max(),
    }


def _with_dates(
    rows: Rows,
    total: int,
    dated: int,
    first_date: float,
    last_date: float,
    first_number: float | None,
    last_number: float | None,
) -> tuple[float, float]:
    """The extent of times of which some or all are dates [s]; a unit that a layout or a name states is for numbers."""
    import ibis

    if dated < total and first_number is not None and last_number is not None:
        first_number, last_number = _as_numbers(rows, first_number, last_number)
        unit_s = rows.unit_s or 1.0
        seconds = ibis.cases((rows.table.dated, rows.raw), else_=rows.raw * unit_s)
        rows.table = rows.table.mutate(arrival=seconds)
        first_date, last_date = min(first_date, first_number * unit_s), max(last_date, last_number * unit_s)
    rows.unit_s, rows.is_numeric = 1.0, False
    return first_date, last_date


def _as_numbers(rows: Rows, first: float, last: float) -> tuple[float, float]:
    """The extent of times that are numbers; sets their unit, and reads dates that are written as digits."""
    log, layout = rows.log, rows.layout
    reading = reading_of(layout, first, last, log.place)
    if isinstance(reading, str):
        _read_digits(rows, reading)
        return moment_of(first, reading), moment_of(last, reading)
    rows.unit_s = reading
    if is_implausible(layout, last):
        raise implausible(layout, last, "; ".join(rows_at(log, layout, ("first", "last"))), log.place)
    if rows.raw.type().is_float32():
        step = float(np.spacing(np.float32(max(abs(first), abs(last)))))
        if step * reading >= _COARSE_S:
            raise InputError(
                f"{log.place}: {layout.arrival} is in single precision (float32), whose steps are {step * reading:g} s "
                f"at {last:.10g}",
                hint="store arrival times as float64, integers or timestamps",
            )
    return first, last


def _read_digits(rows: Rows, form: str) -> None:
    """Replace numbers whose digits are a date by seconds since 1970.

    Raises
    ------
    InputError
        Some numbers are no dates.
    """
    import ibis

    only_in_duckdb(rows.log.dialect, f"dates written as digits ({rows.layout.arrival})")

    @ibis.udf.scalar.builtin(name="try_strptime", signature=(("string", "string"), "timestamp"))
    def try_strptime(text, form):  # type: ignore[no-untyped-def] # DuckDB's own; Ibis reads the signature
        """A date in a format; null if it is none."""

    whole = rows.raw.floor().cast("int64")
    seconds = epoch_s(try_strptime(whole.cast("string"), form)) + (rows.raw - whole)
    if rows.has_text:
        seconds = ibis.cases((rows.table.dated, rows.raw), else_=seconds)
    rows.table = rows.table.mutate(arrival=seconds)
    rows.unit_s, rows.is_numeric = 1.0, False
    (undated,) = first_row(rows.log, rows.table.aggregate(undated=rows.raw.isnull().sum()))
    if undated:
        raise InputError(
            f"{rows.log.place}: {rows.layout.arrival} has dates written as digits, and {undated:,} "
            f"{'numbers' if undated > 1 else 'number'} with digits of no date",
            hint="write times as 2026-03-01 14:05:09",
        )
