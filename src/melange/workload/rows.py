"""The three fields of a request log as Ibis expressions, parsed and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from melange.errors import InputError
from melange.units import S_PER_DAY, S_PER_H, S_PER_MIN
from melange.workload.clock import Span
from melange.workload.dialects import DUCKDB, as_number, as_whole, epoch_s, only_in_duckdb
from melange.workload.fields import in_words, json_number, with_fields
from melange.workload.layouts import Layout
from melange.workload.logs import Log
from melange.workload.workload import Array

_LOOKUP_SIZES = 1_000_000  # DuckDB uses an array for a join's keys up to this number of keys
_LOOKUP_ROWS = 5_000_000  # with fewer rows, building the table of sizes takes longer than it saves


@dataclass(slots=True, kw_only=True)
class Rows:
    """The rows of a log with the columns ``input``, ``output`` and, if there are arrivals, ``arrival``.

    Parameters
    ----------
    log, layout
        The log and the layout that the rows come from.
    table
        The Ibis table; values that could not be parsed are null.
    is_numeric
        Whether arrivals are numbers; otherwise they are points in time.
    unit_s
        Length of one unit of a numeric arrival [s]; None until it has been derived from the values
        (:func:`melange.workload.read_clock.clock_of`).
    count
        Number of rows; 0 until they have been counted.
    """

    log: Log
    layout: Layout
    table: Any
    is_numeric: bool
    unit_s: float | None
    count: int = 0

    @property
    def has_text(self) -> bool:
        """Whether arrivals were text; then the column ``dated`` tells dates from numbers."""
        return "dated" in self.table.columns

    @property
    def raw(self) -> Any:
        """Arrivals as they are stored."""
        return self.table.arrival

    def seconds(self, moment: Any) -> Any:
        """A stored arrival as a number; points in time are seconds since 1970 UTC."""
        return epoch_s(moment, self.log.dialect) if moment.type().is_timestamp() else moment.cast("float64")

    def within(self, stretch: Span) -> Rows:
        """The rows that arrive within a span of time."""
        arrival = self.seconds(self.raw)
        table, unit_s = self.table, self.unit_s or 1.0
        if stretch.has_start:
            table = table.filter(arrival >= stretch.start_s / unit_s)
        if stretch.has_end:
            table = table.filter(arrival < stretch.end_s / unit_s)
        return replace(self, table=table)

    def served(self) -> Any:
        """Arrival in seconds, ``arrival_s``, and sizes of the requests that did not fail."""
        served = self.table.filter(self.table.input >= 1, self.table.output >= 1)
        arrival_s = self.seconds(served.arrival) * (self.unit_s or 1.0)
        return served.select(arrival_s=arrival_s, input=served.input, output=served.output)


def select_rows(log: Log, layout: Layout) -> Rows:
    """The rows of ``log`` with columns named and parsed according to ``layout``.

    Fields about common prefixes are included if the layout has them: token counts parsed, hashes and conversations raw.
    """
    if log.is_text:
        from melange.workload.typed_text import parsed_text

        log, table = parsed_text(log, layout)
    else:
        table = role_columns(log.table, layout, log.dialect)
    is_numeric = "arrival" in table.columns and table.arrival.type().is_numeric()
    return Rows(
        log=log,
        layout=layout,
        table=table,
        is_numeric=is_numeric,
        unit_s=None if is_numeric else 1.0,
    )


def role_columns(table: Any, layout: Layout, dialect: str = DUCKDB) -> Any:
    """The selected rows of a log's table, with a parsed column for each role."""
    names = [*layout.columns.values(), *layout.shared.values()]
    table = with_fields(table, names, layout.where, dialect, layout.sizes)
    fields = parse_fields(table, layout, dialect)
    fields |= {
        role: _tokens(table[column], dialect) if role == "cached" else table[column]
        for role, column in layout.shared.items()
    }
    return table.select(**fields)


def parse_fields(table: Any, layout: Layout, dialect: str = DUCKDB) -> dict[str, Any]:
    """The columns of ``table`` by field, parsed."""
    import ibis

    parsers = {"arrival": _moments, "input": _tokens, "output": _tokens}
    fields = {field: parsers[field](table[column], dialect) for field, column in layout.columns.items()}
    if layout.arrival is not None and table[layout.arrival].type().is_string():
        fields["dated"] = table[layout.arrival].contains(":")
    if layout.arrival is None:  # a row without both sizes, such as a line that is not JSON, is no request that failed
        is_empty = table[layout.input].isnull() & table[layout.output].isnull()
        fields["input"] = ibis.cases((is_empty, ibis.null("int64")), else_=fields["input"])
    return fields


def _tokens(column: Any, dialect: str) -> Any:
    """A column as integers: 0 for missing values of requests that failed, null for values that are not integers.

    A column of integers stays as it is, missing values included: Parquet then answers from its statistics.
    """
    if column.type().is_integer():
        return column
    if column.type().is_json():
        only_in_duckdb(dialect, "JSON")
        return as_whole(json_number(column), DUCKDB, column)
    if not (column.type().is_numeric() or column.type().is_string()):
        raise InputError(f"the column {column.get_name()} must hold numbers, and holds {_kind_of(column.type())}")
    return as_whole(column if column.type().is_floating() else as_number(column, dialect), dialect, column)


def _moments(column: Any, dialect: str) -> Any:
    """A column as numbers or points in time; null for all other values."""
    import ibis

    kind = column.type()
    if kind.is_date():
        return column.cast("timestamp")
    if kind.is_numeric() or kind.is_timestamp():
        return column
    if kind.is_json():
        only_in_duckdb(dialect, "JSON")
        return json_number(column)
    if not kind.is_string():
        raise InputError(f"the column {column.get_name()} must hold times, and holds {_kind_of(kind)}")
    only_in_duckdb(dialect, f"times as text ({column.get_name()})")
    # Text: ISO 8601 with any number of digits, with or without a zone (then UTC), or numbers. Casts that fail are slow.
    # Only what DuckDB does not read is rewritten: a comma before the fraction, and a space before the offset.
    plain = column.replace(",", ".").re_replace(r" ([+-]\d)", r"\1")
    moment = epoch_s(ibis.coalesce(*(one.try_cast("timestamp('UTC')") for one in (column, plain))))
    return ibis.cases((column.contains(":"), moment), else_=column.try_cast("float64"))


def _kind_of(kind: Any) -> str:
    """A column's type in words."""
    if kind.is_time():
        return "times without a date"
    return "nothing" if kind.is_unknown() or kind.is_null() else str(kind)


def with_buckets(rows: Rows, field: str, upper_edges: Sequence[int], smallest: int, largest: int) -> Rows:
    """The rows with one more column, ``{field}_bucket``: the bucket of a size, -1 for zero tokens.

    All sizes must lie between ``smallest`` and ``largest``. For a long log, DuckDB looks buckets up in a table with a
    row for every size: it runs a join on small integers as an array look-up, which takes half the time of a CASE.
    """
    name = f"{field}_bucket"
    if rows.log.connection is None or largest > _LOOKUP_SIZES or rows.count < _LOOKUP_ROWS:
        return replace(
            rows, table=rows.table.mutate(**{name: _bucket_of(rows.table[field], upper_edges, smallest, largest)})
        )
    import ibis

    sizes = ibis.range(smallest, largest + 1).unnest().name("size").as_table()
    lookup = sizes.select(
        size=sizes["size"].cast(rows.table[field].type().copy(nullable=True)),
        **{name: _bucket_of(sizes["size"], upper_edges, smallest, largest).cast("int8")},
    )
    lookup = rows.log.connection.create_table(f"{field}_buckets", lookup, temp=True)
    table = rows.table.join(lookup, rows.table[field] == lookup["size"]).drop("size")
    return replace(rows, table=table)


def _bucket_of(size: Any, upper_edges: Sequence[int], smallest: int, largest: int) -> Any:
    """Index of the bucket of a size, -1 for zero tokens; all sizes must lie between ``smallest`` and ``largest``.

    Impossible cases get no branch: every branch costs a nanosecond or two per row, most of the query's time.
    """
    import ibis

    last = int(np.searchsorted(upper_edges[:-1], largest))
    branches = [(size == 0, -1)] if smallest == 0 else []
    branches += [(size <= edge, index) for index, edge in enumerate(upper_edges[:last])]
    return ibis.cases(*branches, else_=last) if branches else ibis.literal(last)


def window_of(arrival_s: Any, origin_s: float, window_s: float, dialect: str) -> Any:
    """The number of the window in which a request arrives; null in DuckDB if its arrival is NaN or infinite."""
    import ibis

    number = (arrival_s - origin_s) / window_s
    if dialect != DUCKDB:
        return number.floor().cast("int64")

    @ibis.udf.scalar.builtin(name="floor", signature=(("float64",), "float64"))
    def floor(number):  # type: ignore[no-untyped-def] # that of Ibis casts to integers, which NaN does not survive
        """The largest whole number that is not larger."""

    return floor(number).try_cast("int64")


def column_of(log: Log, expression: Any) -> Array:
    """Fetch the only column of a table (N,), in the order of the file."""
    if log.connection is not None:
        (found,) = log.connection.raw_sql(log.connection.compile(expression)).fetchnumpy().values()
        return np.asarray(found, float)
    return np.asarray(expression.to_pyarrow()[0].to_numpy(), float)


def all_rows(log: Log, expression: Any) -> list[tuple[Any, ...]]:
    """Fetch a small aggregate as tuples."""
    if log.connection is not None:  # avoids pandas, whose import through Ibis takes a quarter of a second
        found: list[tuple[Any, ...]] = log.connection.raw_sql(log.connection.compile(expression)).fetchall()
        return found
    table = expression.to_pyarrow()
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def first_row(log: Log, expression: Any) -> tuple[Any, ...]:
    """Fetch an aggregate of one row as a tuple."""
    return all_rows(log, expression)[0]


def nothing_in(rows: Rows, failed: int = 0) -> InputError:
    """The error for a log without requests, or with failed requests only."""
    if failed:
        return InputError(f"{rows.log.place}: no requests: all {failed:,} rows have no input or no output tokens")
    if rows.layout.where:
        return InputError(
            f"{rows.log.place}: no requests where {in_words(rows.layout.where)}",
            hint="choose other rows with where: {FIELD: VALUE}",
        )
    return InputError(f"{rows.log.place}: no requests: the trace has columns but no rows")


def lasting(seconds: float) -> str:
    """A duration in words.

    >>> lasting(300), lasting(3501.7), lasting(1.2)
    ('5 min', '58.4 min', '1.2 s')
    """
    for unit, length in (("d", S_PER_DAY), ("h", S_PER_H), ("min", S_PER_MIN)):
        if seconds >= 2 * length or seconds == length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
