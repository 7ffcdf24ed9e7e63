"""The first lines of text logs: the names of columns and the values in the first rows."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from melange.errors import InputError
from melange.parsing import csv_rows

# Longest part of a line that is inspected [characters]; a file without line ends would otherwise fill memory.
_MOST_LINE = 1 << 20
# Rows that are inspected for field names. Chosen by judgment: a field in none of them is unlikely to be used.
FIRST = 100
DOUBLED = 'a quote within a quoted cell is doubled, as in "say ""hi"""'
_FIRST_TEXT = 1 << 20  # the same limit for a JSON list, in characters


def csv_header(file: Path) -> tuple[str, list[str]]:
    """The delimiter and the column names in the first line of a CSV file.

    Raises
    ------
    InputError
        The line is not text, or names a column twice or not at all.
    """
    line = header_line(file)
    delimiter = max(",\t;|", key=line.count)
    _, names = next(csv_rows([line], f"{file}", delimiter=delimiter), (1, []))
    if not all(names) or not names:
        where = f"column {names.index('') + 1} has no name" if any(names) else "the first line is empty"
        raise InputError(f"{file}:1: {where}", hint="the first line must name every column")
    if len({name.casefold() for name in names}) < len(names):
        raise InputError(f"{file}:1: must name each column once, got {line[:200]!r}")
    return delimiter, names


def header_line(file: Path) -> str:
    """The first line of a text file, without its end."""
    with open_text(file) as stream:
        return stream.readline(_MOST_LINE).rstrip("\r\n")


def first_rows(file: Path) -> list[dict[str, Any]]:
    """The first rows of a CSV file, by column."""
    delimiter, names = csv_header(file)
    with open_text(file) as stream:
        rows = csv_rows(stream, f"{file}", delimiter=delimiter, strict=False)
        next(rows, None)
        return [dict(zip(names, row, strict=False)) for _, row in itertools.islice(rows, FIRST)]


def is_array(file: Path) -> bool:
    """Whether a JSON file holds a list of requests, rather than one object per line."""
    with open_text(file) as stream:
        return stream.read(1000).lstrip()[:1] == "["


def first_objects(file: Path) -> list[dict[str, Any]]:
    """The objects in the first lines, or the first objects of a list."""
    with open_text(file) as stream:
        found = list(_of_list(stream.read(_FIRST_TEXT)) if is_array(file) else _of_lines(stream))
    objects = [one for one in found if isinstance(one, dict) and one]
    if not objects:
        with open_text(file) as stream:
            line = stream.readline(_MOST_LINE).strip()[:60]
        raise InputError(f"{file}:1: must be a JSON object, got {line!r}", hint="write one request per line")
    return objects


def _of_lines(stream: IO[str]) -> Iterator[Any]:
    """The values in the first lines; lines that are not JSON are skipped."""
    for line in itertools.islice(iter(lambda: stream.readline(_MOST_LINE), ""), FIRST):
        with suppress(ValueError, RecursionError):
            yield json.loads(line)


def _of_list(text: str) -> Iterator[Any]:
    """The first values of a list, given the beginning of its text."""
    decoder, position = json.JSONDecoder(), text.index("[") + 1
    for _ in range(FIRST):
        position += len(text[position:]) - len(text[position:].lstrip(" \t\r\n,"))
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            return
        yield value


def open_text(file: Path) -> IO[str]:
    """Open a text file, decompressed if it is gzipped; invalid UTF-8 bytes are replaced."""
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8-sig", errors="replace", newline="")
    return file.open(encoding="utf-8-sig", errors="replace", newline="")


def check_quotes(file: Path) -> None:
    """Check the quotes of a CSV file.

    Raises
    ------
    InputError
        A quote is not closed, or text follows a closing quote; the error names the line.
    """
    try:
        with open_text(file) as stream:
            for _ in csv_rows(stream, f"{file}", delimiter=csv_header(file)[0]):
                pass
    except InputError as error:
        raise InputError(f"{error}", hint=DOUBLED) from error


def numbers_of(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Columns of a CSV file whose non-empty cells are all numbers."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if all(_is_number(row[name]) for row in rows if row.get(name))]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
