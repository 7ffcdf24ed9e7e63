"""Numbers and tables of other tools' JSON, checked cell by cell."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from melange import records
from melange.errors import InputError
from melange.files import Json, read_text
from melange.parsing import is_json, parse_json
from melange.workload.workload import Array

# Statistics of a latency that are used, by our names for them.
STATISTICS = ("mean", "p50", "p90", "p95", "p99")


def read_objects(path: str | Path, *, infinity: bool = False) -> list[Json]:
    """The JSON objects of a file: a single one, a list of them, or one per line (JSONL).

    Parameters
    ----------
    infinity
        Read ``Infinity`` and ``NaN``, which are not JSON: load tests write the first for an unlimited rate, and the
        second for a missing figure. If such a figure is needed, :func:`number` reports it.

    Raises
    ------
    InputError
        The file is not JSON, holds anything but objects, or, unless ``infinity`` is set, holds NaN or infinities.
    """
    text = read_text(path)
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    # If the first of several lines is a complete document, each line is a document.
    if len(lines) > 1 and is_json(lines[0][1]):
        content = [parse_json(line, f"{path}:{number}", infinity=infinity) for number, line in lines]
    else:
        content = parse_json(text, f"{path}", infinity=infinity)
    found = content if isinstance(content, list) else [content]
    objects = [one for one in found if isinstance(one, dict)]
    if not objects or len(objects) < len(found):
        raise InputError(f"{path}: must hold a JSON object, a list of them, or one a line")
    return objects


def number(value: object, place: str) -> float:
    """``value`` as a finite float."""
    if isinstance(value, float) and math.isnan(value):
        raise InputError(
            f"{place} is NaN: the load test has no value for it",
            hint="remove the key, or repeat the test so that it has one (with streaming, and completed requests)",
        )
    return records.number(value, place)


def rates(table: object, place: str) -> Array:
    """A table of numbers >= 0, with rows of equal length."""
    if not isinstance(table, list) or not table or not all(isinstance(row, list) and row for row in table):
        raise InputError(f"{place} must be a table: a list of rows, each a list of numbers")
    widths = sorted({len(row) for row in table})
    if len(widths) > 1:
        raise InputError(f"{place} must have rows of one length, got {' and '.join(map(str, widths))}")
    values = [[number(cell, f"{place}[{i}][{o}]") for o, cell in enumerate(row)] for i, row in enumerate(table)]
    array = np.array(values)
    bad = np.argwhere(array < 0)
    if len(bad):
        i, o = bad[0]
        raise InputError(f"{place}[{i}][{o}] must be >= 0, got {array[i, o]:g}")
    return array


def positive(content: Json, key: str, place: str) -> float:
    """A number above zero under a key."""
    if key not in content:
        raise InputError(f"{place}: the key {key} is missing")
    value = number(content[key], f"{place}: {key}")
    if not value > 0:
        raise InputError(f"{place}: {key} must be > 0, got {value:g}")
    return value


def optional(content: Json, key: str, place: str) -> float | None:
    """A number under a key; None if it is absent."""
    return None if content.get(key) is None else number(content[key], f"{place}: {key}")


def count(content: Json, key: str, place: str) -> int | None:
    """An integer under a key; None if it is absent."""
    value = optional(content, key, place)
    return None if value is None else int(value)


def mapping(value: Any) -> Json:
    """An object unchanged; any other value becomes an empty object."""
    return value if isinstance(value, dict) else {}


def text(value: Any) -> str:
    """Text unchanged; any other value becomes an empty text."""
    return value if isinstance(value, str) else ""
