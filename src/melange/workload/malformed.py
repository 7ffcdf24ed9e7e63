"""Malformed rows of a request log, reported together with their lines."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from melange.errors import InputError
from melange.parsing import csv_rows
from melange.workload.dialects import epoch_s
from melange.workload.fields import with_fields
from melange.workload.first_lines import DOUBLED, csv_header, open_text
from melange.workload.layouts import Layout
from melange.workload.logs import REJECTS, TYPED_REJECTS, Log, connect, open_files
from melange.workload.rows import Rows, parse_fields

# Malformed rows listed in an error before the rest is counted: enough to see the problem. Chosen by judgment.
_SHOWN = 20
_COMMAS = re.compile(r"\s*[+-]?\d+(,\d+)+(\.\d*)?\s*")
_TIMES = "write times in ISO 8601, as 2026-03-01 14:05:09.25, local ones with their offset (+01:00); or as numbers"
_MUST_BE = {
    "arrival": "a time (seconds, or like 2023-11-16 18:15:46.68)",
    "input": "a whole number >= 0",
    "output": "a whole number >= 0",
}


def malformed_rows(log: Log, layout: Layout) -> InputError:
    """The error for a log with malformed rows: it lists the first twenty, each with its line."""
    found: list[str] = []
    hints: dict[str, None] = {}
    count = 0
    for part in _parts(log):
        sentences, number = _malformed_in(part, layout, hints)
        found += sentences[: _SHOWN - len(found)]
        count += number
    listing = "".join(f"\n  {sentence}" for sentence in found)
    more = f"\n  and {count - _SHOWN:,} more" if count > _SHOWN else ""
    return InputError(
        f"{log.place}: {count:,} malformed {'rows' if count > 1 else 'row'}:{listing}{more}",
        hint="; ".join(hints) or "fix or remove them; failed requests have no output tokens, or 0",
    )


def has_malformed(rows: Rows) -> bool:
    """Whether sizes of a Parquet file or a table are malformed, rather than missing."""
    return any(_malformed_table(part, rows.layout).count().to_pyarrow().as_py() for part in _parts(rows.log))


def rows_at(log: Log, layout: Layout, ends: Sequence[str]) -> list[str]:
    """The places of the ``first`` and the ``last`` arrival of a log, and the stored values."""
    found: dict[str, tuple[float, str]] = {}
    for part in _parts(log):
        for end, moment, line, stored in _ends_of(part, layout):
            sentence = f"{_at(part, line)} has {layout.arrival} {_shown(stored)}"
            is_further = end not in found or (moment < found[end][0]) == (end == "first")
            found[end] = (moment, sentence) if is_further else found[end]
    return [found[end][1] for end in ends if end in found]


def _ends_of(log: Log, layout: Layout) -> Iterator[tuple[str, float, int, str]]:
    """The first and the last arrival of one file: which one, its value, its line and the stored text."""
    import ibis

    row = ibis.row_number() if log.files else ibis.literal(0)
    table = with_fields(log.table.mutate(row=row), layout.columns.values(), layout.where, log.dialect, layout.sizes)
    moment = parse_fields(table, layout, log.dialect)["arrival"]
    seconds = epoch_s(moment, log.dialect) if moment.type().is_timestamp() else moment.cast("float64")
    stored = table[layout.columns["arrival"]].cast("string")
    rows = table.select(row=table.row, moment=seconds, stored=stored)
    rows = rows.filter(rows.moment.notnull())
    rejected = _rejected_lines(log)
    for end, order in (("first", rows.moment), ("last", rows.moment.desc())):
        for one in rows.order_by(order).limit(1).to_pyarrow().to_pylist():
            (line,) = _lines(log, [one["row"]], rejected)
            yield end, one["moment"], line, one["stored"]


def has_rejected(log: Log) -> bool:
    """Whether DuckDB has rejected lines of a CSV file for their shape."""
    if log.connection is None or log.kind != "csv":
        return False
    raw = log.connection.con
    found = raw.execute(f"SELECT table_name FROM duckdb_tables() WHERE table_name IN ('{REJECTS}', '{TYPED_REJECTS}')")
    return any(
        raw.execute(f"SELECT 1 FROM {name} WHERE error_type <> 'CAST' LIMIT 1").fetchall()
        for (name,) in found.fetchall()
    )


def _rejected_lines(log: Log) -> dict[int, str]:
    """The lines of a CSV file that DuckDB has rejected, with the reason."""
    if not has_rejected(log):
        return {}
    query = f"SELECT DISTINCT line_byte_position, error_message FROM {REJECTS} ORDER BY 1"
    reason_by_byte = dict(log.connection.con.execute(query).fetchall())
    # DuckDB's own line numbers skip empty lines.
    lines = _lines_at(log.sources[0], list(reason_by_byte))
    return {line: str(reason).partition("\n")[0] for line, reason in zip(lines, reason_by_byte.values(), strict=True)}


def _rejected_texts(log: Log) -> list[str]:
    """The first of the lines of a CSV file that DuckDB has rejected for their shape."""
    if not has_rejected(log):
        return []
    found = log.connection.con.execute(f"SELECT csv_line FROM {REJECTS} LIMIT {_SHOWN}").fetchall()
    return [text or "" for (text,) in found]


def _lines_at(file: Path, positions: Sequence[int]) -> list[int]:
    """The line of each of these byte positions of a text file, ascending."""
    line, read, lines = 1, 0, []
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
        for position in positions:
            while read < position:
                chunk = stream.read(min(position - read, 1 << 24))
                if not chunk:
                    break
                line += chunk.count(b"\n")
                read += len(chunk)
            lines.append(line)
    return lines


def _parts(log: Log) -> Iterator[Log]:
    """The log's files one by one, so that rows are counted within a file."""
    if not log.files:
        yield log
    for file in log.files:
        part = open_files(connect(), [file], str(file), is_even=log.is_even)
        # The statistics of a Parquet file leave out NaN: DuckDB would find no row with it.
        part.connection.con.execute("SET disabled_optimizers = 'statistics_propagation'")
        yield part


def _malformed_in(log: Log, layout: Layout, hints: dict[str, None]) -> tuple[list[str], int]:
    """Sentences about the first malformed rows of one file, and how many there are; adds what helps to ``hints``."""
    rows = _malformed_table(log, layout)
    count = int(rows.count().to_pyarrow().as_py())
    first = rows.order_by("row").limit(_SHOWN).to_pyarrow().to_pylist()
    rejected = _rejected_lines(log)
    lines = _lines(log, [row["row"] for row in first], rejected)
    sentences = [(line, f"{_at(log, line)}: {reason}") for line, reason in rejected.items()]
    for line, row in zip(lines, first, strict=True):
        faults = [
            f"{column} must be {_MUST_BE[field]}, got {_shown(row[f'stored_{field}'])}"
            for field, column in layout.columns.items()
            if row[f"bad_{field}"]
        ]
        sentences.append((line, f"{_at(log, line)}: {'; '.join(faults)}"))
        hints |= dict.fromkeys(
            hint for field in layout.columns if row[f"bad_{field}"] and (hint := _hint(field, row[f"stored_{field}"]))
        )
    if any('\\"' in text for text in _rejected_texts(log)):
        hints[DOUBLED] = None
    return [sentence for _, sentence in sorted(sentences)], count + len(rejected)


def _hint(field: str, stored: str | None) -> str:
    """How to write a value that cannot be read; empty if that depends on the log."""
    if not stored or stored.casefold() in ("nan", "inf", "-inf"):
        return ""
    if _COMMAS.fullmatch(stored):
        return "write numbers with a decimal point, and without commas"
    return _TIMES if field == "arrival" and any(one.isdigit() for one in stored) else ""


def _malformed_table(log: Log, layout: Layout) -> Any:
    """Row number, stored values and faults of the malformed rows."""
    import ibis

    row = ibis.row_number() if log.files else ibis.literal(0)
    table = with_fields(log.table.mutate(row=row), layout.columns.values(), layout.where, log.dialect, layout.sizes)
    parsed = parse_fields(table, layout, log.dialect)
    stored = {f"stored_{field}": table[column].cast("string") for field, column in layout.columns.items()}
    # As numbers: not every database has booleans.
    faults = {
        f"bad_{field}": _is_bad(parsed[field], field, table[column]).ifelse(1, 0)
        for field, column in layout.columns.items()
    }
    rows = table.select(row=table.row, **stored, **faults)
    return rows.filter(ibis.or_(*(rows[name] == 1 for name in faults)))


def _is_bad(value: Any, field: str, stored: Any) -> Any:
    if field != "arrival":
        # A missing integer is that of a request that failed; other missing values have been read as 0.
        return ((value.isnull() & stored.notnull()) if stored.type().is_integer() else value.isnull()) | (value < 0)
    if value.type().is_floating():
        return value.isnull() | value.isnan() | value.isinf()
    return value.isnull()


def _lines(log: Log, rows: Sequence[int], rejected: dict[int, str]) -> list[int]:
    """The line at which each of these rows starts; for Parquet the row number itself."""
    if log.kind not in ("csv", "jsonl") or not rows:
        return [row + 1 for row in rows]
    wanted, found = set(rows), []
    starts = (line for line in _starts(log.files[0], log.kind) if line not in rejected)
    for row, line in enumerate(starts):
        if row in wanted:
            found.append(line)
        if row == rows[-1]:
            break
    return found


def _starts(file: Path, kind: str) -> Iterator[int]:
    """The lines at which rows of a text file start; empty lines are no rows, and a quoted line end does not end one."""
    with open_text(file) as stream:
        if kind == "jsonl":
            yield from (number for number, line in enumerate(stream, start=1) if line.strip())
            return
        delimiter, _ = csv_header(file)
        rows = csv_rows(stream, f"{file}", delimiter=delimiter, strict=False)
        next(rows)
        yield from (start for start, _ in rows)


def _at(log: Log, line: int) -> str:
    if log.kind == "table":
        return log.place
    return f"{log.place}:{'row ' if log.kind in ('parquet', 'json', 'spans') else ''}{line}"


def _shown(value: str | None) -> str:
    return "nothing" if value is None or value == "" else repr(value[:40])
