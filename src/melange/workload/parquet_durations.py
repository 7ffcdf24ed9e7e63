"""Durations in Parquet files, as pandas and Polars write a column of time differences.

Parquet has no such type: the file stores whole numbers, and Arrow's copy of the schema beside them says which unit they
have. DuckDB reads the numbers alone, from which the unit of a short log cannot be derived.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from melange.errors import InputError

_SCHEMA = "ARROW:schema"
# The point in time that lies one duration after 1970, by Arrow's unit. Times that have no date become null.
_MOMENT_BY_UNIT = {
    "s": "make_timestamp({} * 1000000)",
    "ms": "make_timestamp({} * 1000)",
    "us": "make_timestamp({})",
    "ns": "make_timestamp_ns({})",
}


def with_durations(connection: Any, table: Any, files: Sequence[Path]) -> Any:
    """The table of Parquet files in which durations are points in time, counted from 1970.

    Raises
    ------
    InputError
        A column has different units in the files.
    """
    units = [_units_in(connection, file) for file in files]
    unit_by_column: dict[str, str] = {}
    for file, found in zip(files, units, strict=True):
        for name, unit in found.items():
            if unit_by_column.setdefault(name, unit) != unit:
                raise InputError(
                    f"{file}: the column {name} has another unit than in other files of this log",
                    hint="write the times of all files in one unit",
                )
    unit_by_column = {name: unit for name, unit in unit_by_column.items() if unit}
    if not unit_by_column:
        return table
    view = _quoted(table.get_name())
    moments = ", ".join(
        f"TRY({_MOMENT_BY_UNIT[unit].format(_quoted(name))}) AS {_quoted(name)}"
        for name, unit in unit_by_column.items()
    )
    connection.con.execute(f"CREATE OR REPLACE TEMP VIEW timed_rows AS SELECT * REPLACE ({moments}) FROM {view}")
    return connection.table("timed_rows")


def _units_in(connection: Any, file: Path) -> dict[str, str]:
    """The unit of each column, empty if it holds no durations; no columns if Arrow's schema cannot be read."""
    query = f"SELECT count(*) FROM parquet_kv_metadata(?) WHERE key = '{_SCHEMA}'"
    ((schemas,),) = connection.con.execute(query, [str(file)]).fetchall()
    if not schemas:
        described = connection.con.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(file)]).fetchall()
        return {name: "" for name, *_ in described}
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(file)
    except (pa.ArrowException, OSError, ValueError):
        return {}
    return {field.name: field.type.unit if pa.types.is_duration(field.type) else "" for field in schema}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
