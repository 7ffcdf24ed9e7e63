"""Functions that differ between databases: points in time as seconds, and text as numbers."""

from __future__ import annotations

from typing import Any

from melange.errors import InputError
from melange.units import US_PER_S

DUCKDB = "duckdb"
# Each database's own function for microseconds since 1970 (seconds for Postgres and Trino). Ibis has functions in whole
# seconds only, or differences of times that not every database supports.
_EPOCH = {
    "duckdb": ("epoch_us", US_PER_S),
    "postgres": ("date_part", 1),
    "clickhouse": ("toUnixTimestamp64Micro", US_PER_S),
    "pyspark": ("unix_micros", US_PER_S),
    "bigquery": ("unix_micros", US_PER_S),
    "snowflake": ("date_part", US_PER_S),
    "trino": ("to_unixtime", 1),
}
# Functions that take the unit as well.
_UNIT = {"postgres": "epoch", "snowflake": "epoch_microsecond"}
# Text that is a number; in databases other than DuckDB a failed cast aborts the query.
_NUMBER = r"^[-+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]{1,2})?$"
# Whole numbers that a float can hold.
_MOST_WHOLE = 2.0**53


def epoch_s(moment: Any, dialect: str = DUCKDB) -> Any:
    """A point in time as seconds since 1970 UTC; a time without a zone counts as UTC."""
    import ibis

    if dialect not in _EPOCH:
        origin = ibis.literal("1970-01-01T00:00:00", "timestamp")
        return moment.cast("timestamp").delta(origin, unit="microsecond") / US_PER_S
    # With a zone and microseconds: the type that these functions accept.
    stored = moment.cast("timestamp('UTC', 6)") if dialect in ("clickhouse", "bigquery", "pyspark") else moment
    name, per_s = _EPOCH[dialect]
    kind = "float64" if per_s == 1 else "int64"
    if unit := _UNIT.get(dialect):

        @ibis.udf.scalar.builtin(name=name, signature=(("string", stored.type()), kind))
        def epoch_part(unit, moment):  # type: ignore[no-untyped-def] # the database's own; Ibis reads the signature
            """Time since 1970."""

        found = epoch_part(unit, stored)
    else:

        @ibis.udf.scalar.builtin(name=name, signature=((stored.type(),), kind))
        def epoch(moment):  # type: ignore[no-untyped-def] # the database's own; Ibis reads the signature
            """Time since 1970."""

        found = epoch(stored)
    return found if per_s == 1 else found / per_s


def as_number(column: Any, dialect: str = DUCKDB) -> Any:
    """A column of numbers or text as floats; null for text that is not a number."""
    import ibis

    if column.type().is_numeric():
        return column.cast("float64")
    if dialect == DUCKDB:
        return column.try_cast("float64")
    text = column.strip()
    return ibis.cases((text.re_search(_NUMBER), text.cast("float64")), else_=ibis.null("float64"))


def as_whole(number: Any, dialect: str, stored: Any) -> Any:
    """Floats as integers: 0 where the ``stored`` value is missing, null where it is not an integer."""
    import ibis

    if dialect == DUCKDB:
        whole = number.try_cast("int64")  # takes half the time of computing a remainder
        return ibis.cases((whole == number, whole), (stored.isnull(), 0), else_=ibis.null("int64"))
    inside = ibis.cases((number.between(-_MOST_WHOLE, _MOST_WHOLE), number), else_=ibis.null("float64"))
    whole = inside.cast("int64")
    return ibis.cases((whole.cast("float64") == inside, whole), (stored.isnull(), 0), else_=ibis.null("int64"))


def only_in_duckdb(dialect: str, what: str) -> None:
    """Reject an operation that other databases have no common function for.

    Raises
    ------
    InputError
        The database is not DuckDB; the hint says what to do.
    """
    if dialect != DUCKDB:
        raise InputError(
            f"{what} cannot be read from {dialect}",
            hint="make a view with columns of numbers and timestamps, and name it as workload.table",
        )
