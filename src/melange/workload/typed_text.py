"""Text logs read fast: DuckDB's own readers parse numbers, and rows are read as text only if necessary.

DuckDB's CSV reader converts a number in half the time of a cast from text, and rejects rows whose number it cannot
read. Only these rows are read again as text, by the rules for text: they may be rows that do not count, or have
arrivals of another kind. Its JSON reader turns every value into text, which for numbers takes as long as the rest of
the work. JSON numbers are therefore typed too; where a typed read could turn true and false into 1 and 0, values stay
JSON, a copy of the file's own characters.
"""

from __future__ import annotations

import json
import mmap
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from melange.workload.fields import parts_of
from melange.workload.first_lines import check_quotes, header_line
from melange.workload.layouts import Layout
from melange.workload.logs import TYPED_REJECTS, Log, connect, open_files, read_csv, read_json
from melange.workload.rows import first_row, role_columns

_PARSED = "parsed_rows"
# Most lines that are read again; with more, the whole file is. Chosen by judgment.
_MOST_LINES = 100_000


def parsed_text(log: Log, layout: Layout) -> tuple[Log, Any]:
    """The selected rows of a text file, with a column for each role; parsed once, into a table of DuckDB.

    DuckDB gives up on CSV with several kinds of line ends, as in a log joined from two machines. Then the log is opened
    again, as a copy in which they are alike; the log that has been read is the first result.
    """
    import duckdb

    try:
        return log, _parsed(log, layout)
    except duckdb.InvalidInputException:
        if log.kind != "csv":
            raise
    log = open_files(connect(), log.files, log.place, is_even=True)
    try:
        return log, _parsed(log, layout)
    except duckdb.InvalidInputException:
        for file in log.files:
            check_quotes(file)
        raise


def _parsed(log: Log, layout: Layout) -> Any:
    if log.kind == "spans":
        return _stored(log, role_columns(log.table, layout))
    numbers = _number_columns(log, layout)
    if log.kind != "csv":
        typed = _json_kinds(log, layout, numbers)
        kinds = dict.fromkeys(log.columns, "VARCHAR") | typed
        table = _stored(log, role_columns(read_json(log.connection, log.sources, kinds, log.kind), layout))
        plain = [name for name, kind in typed.items() if kind == "DOUBLE"]
        if not plain or not _has_empty(log, table) or not any(_holds_parts(file, plain) for file in log.files):
            return table
        kinds |= dict.fromkeys(plain, "JSON")
        again = read_json(log.connection, log.sources, kinds, log.kind)
        return _stored(log, role_columns(again, layout), "rows_as_json")
    import duckdb

    try:
        return _typed_csv(log, layout, numbers)
    except duckdb.Error:  # its reader gave up on rejected rows, such as those of a truncated line
        return _all_as_text(log, layout)


def _typed_csv(log: Log, layout: Layout, numbers: Sequence[str]) -> Any:
    """The rows of a CSV file; only rows with an unreadable number are read as text."""
    import ibis

    typed = read_csv(
        log.connection,
        log.sources,
        dict.fromkeys(numbers, "DOUBLE"),
        rejects_table=TYPED_REJECTS,
        rejects_scan="typed_scans",
    )
    parsed = role_columns(typed, layout)
    is_number = "arrival" in parsed.columns and "dated" not in parsed.columns
    table = _stored(log, parsed.mutate(dated=ibis.literal(False)) if is_number else parsed)
    lines = _lines_set_aside(log)
    if not lines:
        return table.drop("dated") if is_number else table
    if layout.shared or len(lines) > _MOST_LINES:  # common prefixes depend on the order of rows
        return _all_as_text(log, layout)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "lines.csv")
        file.write_text("\n".join([header_line(log.files[0]), *lines, ""]), encoding="utf-8")
        again = _as_text(log, layout, read_csv(log.connection, [file]))
    log.connection.insert(_PARSED, role_columns(again, layout).select(*table.columns))
    return table


def _all_as_text(log: Log, layout: Layout) -> Any:
    return _stored(log, role_columns(_as_text(log, layout, log.table, "all_as_text"), layout), "all_rows_as_text")


def _as_text(log: Log, layout: Layout, table: Any, name: str = "rows_as_text") -> Any:
    """Store the columns that a layout needs as text: DuckDB would otherwise cast while reading, and reject rows."""
    fields = [*layout.columns.values(), *layout.shared.values(), *layout.where]
    columns = dict.fromkeys(_column_of(log, part) for field in fields for part in parts_of(field))
    return _stored(log, table.select(*columns), name)


def _number_columns(log: Log, layout: Layout) -> list[str]:
    """Columns to read as numbers: their first values are numbers, they have a role, and no row filter uses them."""
    named = [part for field in (*layout.columns.values(), *layout.shared.values()) for part in parts_of(field)]
    chosen_by = {_column_of(log, part) for field in layout.where for part in parts_of(field)}
    # Hashes and conversations are not numbers, although they may look like numbers.
    kept = {_column_of(log, field) for role, field in layout.shared.items() if role != "cached"}
    columns = {_column_of(log, part): part for part in named}
    return [
        column
        for column, part in columns.items()
        if column in log.numbers
        and column not in chosen_by | kept
        and not (log.kind == "csv" and _owns(log, column, named))
    ]


def _json_kinds(log: Log, layout: Layout, numbers: Sequence[str]) -> dict[str, str]:
    """Types for columns of JSON numbers: numbers, or JSON if a column might hold true, false or objects."""
    named = [part for field in (*layout.columns.values(), *layout.shared.values()) for part in parts_of(field)]
    is_plain = log.kind == "jsonl" and not any(_may_hold_flags(file) for file in log.files)
    return {
        name: "DOUBLE" if is_plain and name in named and not _owns(log, name, named) else "JSON" for name in numbers
    }


def _owns(log: Log, column: str, named: Sequence[str]) -> bool:
    return any(part != column and _column_of(log, part) == column for part in named)


def _may_hold_flags(file: Path) -> bool:
    """Whether ``true`` or ``false`` may be a value in a file."""
    if file.suffix.lower() == ".gz":
        return True
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"true") >= 0 or content.find(b"false") >= 0


def _has_empty(log: Log, table: Any) -> bool:
    """Whether a request has no tokens: a typed read also turns a list or an object into nothing."""
    empty = table.filter((table.input == 0) | (table.output == 0)).limit(1)
    return bool(first_row(log, empty.aggregate(n=empty.count()))[0])


def _holds_parts(file: Path, names: Sequence[str]) -> bool:
    """Whether a field of these names may hold a list or an object."""
    keys = b"|".join(re.escape(json.dumps(name, ensure_ascii=False).encode()) for name in names)
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return re.search(rb"(?:" + keys + rb")\s*:\s*[\[{]", content) is not None


def _column_of(log: Log, field: str) -> str:
    """The column that holds a field, which may be nested in it; a column's own name may contain dots."""
    steps = field.split(".")
    owners = (".".join(steps[:n]) for n in range(len(steps), 0, -1))
    return next((name for name in owners if name in log.columns), field)


def _stored(log: Log, table: Any, name: str = _PARSED) -> Any:
    return log.connection.create_table(name, table, temp=True)


def _lines_set_aside(log: Log) -> list[str]:
    """The lines with an unreadable number; at most one more than can be used."""
    found = log.connection.con.execute(
        f"SELECT any_value(csv_line) FROM {TYPED_REJECTS} GROUP BY file_id, line_byte_position "
        f"HAVING bool_and(error_type = 'CAST') LIMIT {_MOST_LINES + 1}"
    )
    return [line for (line,) in found.fetchall()]
