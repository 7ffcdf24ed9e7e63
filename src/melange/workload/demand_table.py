"""Traffic over time from two tables: request rates by window, and the share of each size in each period."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from melange.errors import Caution, InputError, first_of
from melange.files import read_text
from melange.parsing import table_rows
from melange.units import S_PER_DAY
from melange.workload.demand import Demand, check_window
from melange.workload.over_time import gaps, with_cautions
from melange.workload.rows import lasting
from melange.workload.workload import Array, Buckets

# Column names: our own first, then those of published tables (ServeGen).
_RATES = {"start": ("start", "window_start", "window_start_s"), "rate": ("rate", "request_rate", "rate_rps")}
_SIZES = {
    "start": ("start", "period_start", "window_start_s"),
    "input": ("input_tokens_upto", "in_hi"),
    "output": ("output_tokens_upto", "out_hi"),
    "share": ("share", "prob"),
}
# How far the sum of a period's shares may be from 1 if they were printed with few digits.
_LOOSEST = 0.005
# As for a log: seconds since 1970, from 1973 on.
_FIRST_DATE_S = 1e8


def read_demand_tables(
    rates: str | Path, sizes: str | Path, *, time_zone: str | None = None, empty_windows: str = "missing"
) -> Demand:
    """Traffic over time from two tables in CSV.

    Parameters
    ----------
    rates
        ``start, rate``: the beginning of each window (seconds, or ISO 8601, UTC without a zone) and its requests per
        second [1/s]. The most frequent distance between two rows is the window length; windows without a row, or
        without a rate, are missing.
    sizes
        ``start, input_tokens_upto, output_tokens_upto, share``: the upper edges of a size [tokens] and the share of
        requests of this size (0-1) in the period that begins at ``start`` and ends where the next one begins.
    time_zone, empty_windows
        As for :func:`~melange.workload.over_time.read_demand`. A rate of 0 between busy windows is a gap, with a
        caution.

    Returns
    -------
    Demand
        Each size is planned for at its upper edges, as the sizes within it are unknown.

    Raises
    ------
    InputError
        Missing columns, rates that are negative or not numbers, overlapping windows, shares that do not add up to 1.
    """
    rate_rows = _table(Path(rates), _RATES)
    window_s, origin_s, rate = _windows(rate_rows, str(rates))
    buckets, starts, share = _periods(_table(Path(sizes), _SIZES), str(sizes))
    begin = origin_s + window_s * np.arange(len(rate))
    if begin[0] < starts[0]:
        raise InputError(
            f"{sizes}: the first period begins at {starts[0]:g} s, after the first window of {rates} ({begin[0]:g} s)"
        )
    if empty_windows == "missing":
        rate[gaps(np.nan_to_num(rate) * window_s) & (rate == 0)] = np.nan
    inputs, outputs = buckets.upper_sizes()
    has_dates = origin_s > _FIRST_DATE_S
    if time_zone is not None and not has_dates:
        raise InputError(
            f"{rates}: workload.time_zone needs dates, but its times start at {origin_s:g} s",
            hint="leave the time zone out: hours are then counted from the first window",
        )
    upper = Caution(
        "upper-edges",
        f"{sizes}: a histogram does not say the sizes within its buckets: each is planned for at its upper edge",
    )
    found = Demand(
        buckets=buckets,
        window_s=window_s,
        rate=rate,
        period=np.searchsorted(starts, begin, side="right") - 1,
        share=share,
        input_tokens=inputs,
        output_tokens=outputs,
        start=datetime.fromtimestamp(origin_s, UTC) if has_dates else None,
        time_zone=time_zone or "UTC",
        source=f"{Path(rates).name}: {len(rate):,} windows of {lasting(window_s)}",
        cautions=(upper,),
    )
    return with_cautions(found, str(rates))


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of a table: its line number, and its cells as numbers."""

    line: int
    values: Mapping[str, float]


def _table(path: Path, columns: Mapping[str, Sequence[str]]) -> list[_Row]:
    """The rows of a CSV table, each cell a number; an empty rate is nan."""
    rows = table_rows(read_text(path), f"{path}")
    _, header = next(rows, (1, []))
    names = [name.strip().casefold() for name in header]
    place_of = {}
    for role, known in columns.items():
        found = [name for name in known if name in names]
        if not found:
            raise InputError(
                f"{path}: no column {known[0]} (it has {', '.join(names[:12]) or 'none'})",
                hint=f"the columns are {', '.join(one[0] for one in columns.values())}",
            )
        place_of[role] = names.index(found[0])
    read, faults = [], []
    for line, cells in rows:
        values = {}
        for role, place in place_of.items():
            cell = cells[place].strip() if place < len(cells) else ""
            value = _value(cell, role)
            if value is None:
                faults.append(f"{path}:{line}: {columns[role][0]} must be {_WANTED[role]}, got {cell[:40]!r}")
                break
            values[role] = value
        else:
            read.append(_Row(line, values))
    if faults:
        raise InputError(first_of(faults, what="row"), hint="correct or remove these rows")
    if not read:
        raise InputError(f"{path}: has columns and no rows")
    return read


_WANTED = {
    "start": "seconds or a date and time",
    "rate": "a number >= 0, or empty if unknown",
    "input": "a whole number >= 1",
    "output": "a whole number >= 1",
    "share": "a number from 0 to 1",
}


def _value(cell: str, role: str) -> float | None:
    """A cell as a number; None if it is not a number, or if the column does not allow the value."""
    if role == "rate" and not cell:
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        return _moment(cell) if role == "start" else None
    if not math.isfinite(value):
        return None
    fits = {
        "start": True,
        "rate": value >= 0,
        "input": value >= 1 and value == int(value),
        "output": value >= 1 and value == int(value),
        "share": 0 <= value <= 1,
    }
    return value if fits[role] else None


def _moment(cell: str) -> float | None:
    try:
        moment = datetime.fromisoformat(cell)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _windows(rows: Sequence[_Row], place: str) -> tuple[float, float, Array]:
    """Window length, beginning of the first window, and the rates of all windows, nan for those without a row."""
    ordered = sorted(rows, key=lambda row: row.values["start"])
    starts = np.array([row.values["start"] for row in ordered])
    if len(starts) < 2:
        raise InputError(f"{place}: at least two windows are needed, got {len(starts)}")
    steps = np.diff(starts)
    if (steps <= 0).any():
        twice = ordered[int(np.argmax(steps <= 0)) + 1]
        raise InputError(f"{place}:{twice.line}: two rows begin at {twice.values['start']:g} s")
    lengths, counts = np.unique(steps, return_counts=True)
    window_s = float(lengths[np.argmax(counts)])
    check_window(window_s)
    reach_s = float(starts[-1] - starts[0])
    if reach_s > 3 * 366 * S_PER_DAY:
        raise InputError(f"{place}: its windows span {lasting(reach_s)}, but at most three years are supported")
    offsets = (starts - starts[0]) / window_s
    off = np.flatnonzero(np.abs(offsets - np.round(offsets)) > 1e-6)
    if len(off):
        row = ordered[int(off[0])]
        raise InputError(
            f"{place}:{row.line}: begins at {row.values['start']:g} s, which is not a whole number of windows of "
            f"{window_s:g} s after the first row"
        )
    places = np.round(offsets).astype(np.int64)
    rate = np.full(places[-1] + 1, np.nan)
    rate[places] = [row.values["rate"] for row in ordered]
    return window_s, float(starts[0]), rate


def _periods(rows: Sequence[_Row], place: str) -> tuple[Buckets, Array, Array]:
    """The grid of all sizes, the beginning of each period (P,), and its shares (P, I, O)."""
    inputs = sorted({int(row.values["input"]) for row in rows})
    outputs = sorted({int(row.values["output"]) for row in rows})
    buckets = Buckets(input_edges=tuple(inputs), output_edges=tuple(outputs))
    starts = np.array(sorted({row.values["start"] for row in rows}))
    share = np.zeros((len(starts), *buckets.shape))
    index = (
        np.searchsorted(starts, [row.values["start"] for row in rows]),
        np.searchsorted(inputs, [row.values["input"] for row in rows]),
        np.searchsorted(outputs, [row.values["output"] for row in rows]),
    )
    np.add.at(share, index, [row.values["share"] for row in rows])
    sums = share.sum(axis=(1, 2))
    off = np.flatnonzero(np.abs(sums - 1) > _LOOSEST)
    if len(off):
        raise InputError(
            f"{place}: shares must add up to 1 in each period, got {sums[off[0]]:.6g} in the one that begins at "
            f"{starts[off[0]]:g} s (period {off[0] + 1} of {len(starts)})"
        )
    return buckets, starts, share / sums[:, None, None]
