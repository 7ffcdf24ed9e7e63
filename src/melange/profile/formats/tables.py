"""Numbers and tables of other tools' JSON, checked cell by cell."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from melange.errors import InputError
from melange.files import Json, read_text
from melange.workload.workload import Array


def read_objects(path: str | Path, *, infinity: bool = False) -> list[Json]:
    """The JSON objects of a file: one, a list of them, or one a line (JSONL).

    Parameters
    ----------
    infinity
        Read ``Infinity``, which JSON does not have, as load tests write it for a rate without bound.

    Raises
    ------
    InputError
        Not JSON, anything but objects, or NaN and infinities, which JSON does not have.
    """
    text = read_text(path)
    try:
        content = _parse(text, f"{path}", infinity)
    except json.JSONDecodeError as error:
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        if len(lines) < 2 or error.msg != "Extra data":
            raise InputError(f"{path}:{error.lineno}: not valid JSON: {error.msg} (column {error.colno})") from error
        content = [_parse_line(line, f"{path}:{number}", infinity) for number, line in lines]
    found = content if isinstance(content, list) else [content]
    objects = [one for one in found if isinstance(one, dict)]
    if not objects or len(objects) < len(found):
        raise InputError(f"{path}: must hold a JSON object, a list of them, or one a line")
    return objects


def _parse(text: str, place: str, infinity: bool) -> object:
    def refuse(constant: str) -> float:
        if infinity and constant == "Infinity":
            return math.inf
        raise InputError(f"{place}: {constant} is no number", hint="write 0 where a size cannot be served")

    return json.loads(text, parse_constant=refuse)


def _parse_line(line: str, place: str, infinity: bool) -> object:
    try:
        return _parse(line, place, infinity)
    except json.JSONDecodeError as error:
        raise InputError(f"{place}: not valid JSON: {error.msg} (column {error.colno})") from error


def number(value: object, place: str) -> float:
    """``value`` as a finite float."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{place} must be a number, got {value!r}")
    return float(value)


def rates(table: object, place: str) -> Array:
    """A table of numbers that are not negative; rows of one length."""
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
