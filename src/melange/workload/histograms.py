"""Workloads from a table of rates or shares by size."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from melange.errors import Caution, InputError
from melange.files import Json, read_json, read_text
from melange.parsing import table_rows
from melange.records import number, reading
from melange.workload.frozen_array import frozen_array
from melange.workload.metrics import read_metrics
from melange.workload.workload import (
    DEFAULT_INPUT_EDGES,
    DEFAULT_OUTPUT_EDGES,
    PAPER_INPUT_EDGES,
    PAPER_OUTPUT_EDGES,
    Array,
    Buckets,
    Workload,
)

__all__ = ["read_histogram", "read_metrics"]

_RATES, _SHARES, _EITHER = "rates", "shares", "rates or shares"
_ROUNDING = 1e-6  # tolerance for unrounded shares, in whatever floats they were summed
_LOOSEST = 0.005  # largest total error of shares that were printed with few digits
_KEYS = {"request_rate": _RATES, "share": _SHARES, "shares": _SHARES, "workload_distribution": _SHARES}


def read_histogram(path: str | Path, *, buckets: Buckets | None = None, request_rate: float | None = None) -> Workload:
    """The workload from a table of rates or shares by size.

    Parameters
    ----------
    path
        CSV: the first column holds the upper edges of the inputs, the first line those of the outputs
        (``input_tokens_upto,out_25,out_100``). JSON: ``input_edges``, ``output_edges`` and ``request_rate`` [1/s] or
        ``share`` (I, O); or a configuration of the Mélange release (``workload_distribution``,
        ``total_request_rate``), whose sizes are numbered but not known.
    buckets
        The grid for a file without edges; a file with edges keeps its own.
    request_rate
        Total rate; required for shares, and rates are scaled to it [1/s].

    Returns
    -------
    Workload
        Each bucket is planned for at its upper edge, since the sizes within it are unknown.

    Raises
    ------
    InputError
        Cells that are negative or not numbers, a table that is transposed or of the wrong shape, shares that do not add
        up to 1 or 100, shares without a rate.

    Notes
    -----
    The first cell of a CSV table says what the table holds (``... rate``, ``... share`` or ``... pct``). Without this
    word the table holds shares if it adds up to 1 or 100 or if a rate is requested, and rates otherwise.
    """
    with reading(f"{path}", "a table of rates or shares by size"):
        if Path(path).suffix.lower() == ".json":
            edges, values, kind, own_rate = _from_json(read_json(path), str(path), buckets)
        else:
            edges, values, kind = _from_csv(read_text(path), str(path))
            own_rate = None
    _check_cells(values, edges, str(path))
    rate = request_rate if request_rate is not None else own_rate
    total = _total_rate(values, kind, rate, str(path))
    upper = Caution(
        "upper-edges",
        f"{path}: a histogram has no sizes within its buckets; each is planned at its upper edge",
    )
    return Workload.at_upper_edges(
        edges,
        np.asarray(values) / max(float(np.sum(values)), 1.0),  # yearly counts are not rates per second
        source=f"{Path(path).name}: histogram of {edges.shape[0]} x {edges.shape[1]} sizes",
        cautions=() if edges.is_ordinal else (upper,),
    ).at_rate(total)


def _from_json(content: Json, place: str, buckets: Buckets | None) -> tuple[Buckets, Array, str, float | None]:
    key = next((key for key in _KEYS if key in content), None)
    if key is None:
        raise InputError(
            f"{place}: no table found; one of the keys {', '.join(_KEYS)} is required",
            hint=f"found: {', '.join(content)}",
        )
    if "input_edges" in content and "output_edges" in content:
        try:
            buckets = Buckets.from_json(content)
        except InputError as error:
            raise InputError(f"{place}: {error}", hint=error.hint) from error
    elif buckets is None:
        table = content[key]
        rows, columns = (len(table), len(table[0])) if _is_table(table) else (0, 0)
        buckets = Buckets.ordinal(max(rows, 1), max(columns, 1))
    own_rate = content.get("total_request_rate")
    if own_rate is not None:
        own_rate = number(own_rate, f"{place}: total_request_rate")
    return buckets, frozen_array(content[key], f"{place}: {key}", buckets.shape), _KEYS[key], own_rate


def _is_table(values: Any) -> bool:
    return (
        isinstance(values, list)
        and all(isinstance(row, list) for row in values)
        and len({len(row) for row in values}) == 1
    )


def _from_csv(text: str, place: str) -> tuple[Buckets, Array, str]:
    rows = [row for _, row in table_rows(text, place)]
    if len(rows) < 2 or len(rows[0]) < 2:
        raise InputError(
            f"{place}: must be a table: input edges down the first column, output edges across the first line"
        )
    corner, *header = rows[0]
    for line, row in enumerate(rows[1:], start=2):
        if len(row) != len(rows[0]):
            raise InputError(f"{place}:{line}: must have {len(rows[0])} cells as the first line has, got {len(row)}")
    input_edges = [_edge(row[0], f"{place}:{line}") for line, row in enumerate(rows[1:], start=2)]
    output_edges = [_edge(name, f"{place}:1") for name in header]
    _check_axes(corner, header, input_edges, output_edges, place)
    values = [[_number(cell, f"{place}:{line}") for cell in row[1:]] for line, row in enumerate(rows[1:], start=2)]
    buckets = Buckets(input_edges=tuple(input_edges), output_edges=tuple(output_edges))
    words = corner.casefold()
    kind = _RATES if "rate" in words else _SHARES if re.search("share|pct|percent|%", words) else _EITHER
    return buckets, np.array(values), kind


def _edge(text: str, place: str) -> int:
    digits = re.search(r"(\d{1,19})\D*$", text[-100:])
    if not digits:
        raise InputError(f"{place}: must be an upper edge in tokens, such as 250 or out_250, got {text[:60]!r}")
    return int(digits[1])


def _number(text: str, place: str) -> float:
    try:
        return float(text.strip().removesuffix("%"))
    except ValueError:
        raise InputError(f"{place}: must be a number, got {text[:60]!r}") from None


def _check_axes(corner: str, header: Sequence[str], inputs: list[int], outputs: list[int], place: str) -> None:
    """Reject a table whose labels or edges show that outputs run down and inputs run across."""
    by_label = corner.casefold().startswith("out") or all(name.casefold().startswith("in") for name in header)
    down, across = tuple(inputs), tuple(outputs)
    by_edges = any(
        down == output_edges and across == input_edges
        for input_edges in (PAPER_INPUT_EDGES, DEFAULT_INPUT_EDGES)
        for output_edges in (PAPER_OUTPUT_EDGES, DEFAULT_OUTPUT_EDGES)
    )
    if by_label or by_edges:
        raise InputError(
            f"{place}: the table is transposed: outputs go down (up to {inputs[-1]}) and inputs across "
            f"(up to {outputs[-1]})",
            hint="rows are input sizes, columns are output sizes",
        )


def _check_cells(values: Array, buckets: Buckets, place: str) -> None:
    bad = np.argwhere(~np.isfinite(values) | (values < 0))
    if len(bad):
        cells = "; ".join(f"{buckets.label(i, o)}: {values[i, o]:g}" for i, o in bad[:5])
        raise InputError(f"{place}: cells must be >= 0 and finite, got {cells}")
    if not values.sum() > 0:
        raise InputError(f"{place}: every cell is 0")


def _total_rate(values: Array, kind: str, request_rate: float | None, place: str) -> float:
    """The total rate, after checking that shares add up [1/s]."""
    total = float(values.sum())
    if kind == _RATES:
        return total if request_rate is None else request_rate
    adds_up = any(abs(total - whole) <= _slack(values, whole) for whole in (1.0, 100.0))
    if kind == _EITHER and not adds_up and request_rate is None:
        return total
    if not adds_up:
        raise InputError(
            f"{place}: shares must add up to 1 (or 100 %), got {total:.6g}",
            hint="mark a table of rates as such: request_rate in JSON, first cell input_tokens_upto_rate in CSV",
        )
    if request_rate is None:
        raise InputError(f"{place}: holds shares but no rate", hint="set a request rate: workload.rate (--rate)")
    return request_rate


def _slack(values: Array, whole: float) -> float:
    """Allowed error in the sum of rounded shares: half of the last digit each, at most 0.5 % of the whole."""
    digits = max(len(repr(float(value)).partition(".")[2]) for value in values.ravel())
    return min(values.size * 0.5 * 10.0**-digits + _ROUNDING * whole, _LOOSEST * whole)
