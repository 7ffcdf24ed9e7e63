"""Numbers and tables of other tools' JSON, checked cell by cell."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from melange.errors import InputError
from melange.files import Json, read_text
from melange.parsing import is_json, parse_json
from melange.records import number
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
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    # Several lines of which the first is a document of its own are one document a line.
    if len(lines) > 1 and is_json(lines[0][1]):
        content = [parse_json(line, f"{path}:{number}", infinity=infinity) for number, line in lines]
    else:
        content = parse_json(text, f"{path}", infinity=infinity)
    found = content if isinstance(content, list) else [content]
    objects = [one for one in found if isinstance(one, dict)]
    if not objects or len(objects) < len(found):
        raise InputError(f"{path}: must hold a JSON object, a list of them, or one a line")
    return objects


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
