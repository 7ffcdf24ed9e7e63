"""Which columns of a request log hold the arrival and the two sizes: published layouts, and columns people name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from melange.errors import InputError, unknown
from melange.units import S_PER_MS, S_PER_NS, S_PER_US

_FIELDS = ("arrival", "input", "output")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The columns of a request log.

    Parameters
    ----------
    name
        The layout, in words.
    arrival
        Column of the arrival time; None where the log has lengths only.
    input, output
        Columns of the prompt length and of the generated length.
    unit_s
        Length of one unit of a numeric arrival [s]; None where its size tells it (see :func:`time_unit`).
    """

    name: str
    arrival: str | None
    input: str
    output: str
    unit_s: float | None = None

    @property
    def columns(self) -> dict[str, str]:
        """The column of each field that there is."""
        columns = {"arrival": self.arrival, "input": self.input, "output": self.output}
        return {name: column for name, column in columns.items() if column is not None}


_LAYOUTS = {
    # Azure public dataset 2023 and 2024: naive times with seven digits, or +00:00.
    "azure": Layout(name="Azure LLM trace", arrival="TIMESTAMP", input="ContextTokens", output="GeneratedTokens"),
    # BurstGPT (arXiv 2401.17644): seconds; response tokens 0 = failed.
    "burstgpt": Layout(
        name="BurstGPT trace", arrival="Timestamp", input="Request tokens", output="Response tokens", unit_s=1.0
    ),
    # Mooncake (FAST 2025), and the same layout in NVIDIA Dynamo: milliseconds.
    "mooncake": Layout(
        name="Mooncake trace", arrival="timestamp", input="input_length", output="output_length", unit_s=S_PER_MS
    ),
    # Vidur and etalon: seconds, where they have arrivals.
    "vidur": Layout(
        name="Vidur trace", arrival="arrived_at", input="num_prefill_tokens", output="num_decode_tokens", unit_s=1.0
    ),
    "melange": Layout(
        name="melange trace", arrival="arrival_s", input="input_tokens", output="output_tokens", unit_s=1.0
    ),
}
_ALIASES = {"dynamo": "mooncake", "etalon": "vidur"}
_UNITS_S = {"_ns": S_PER_NS, "_us": S_PER_US, "_ms": S_PER_MS, "_s": 1.0}


def find_layout(
    found: Sequence[str], columns: Mapping[str, str] | None, trace_format: str | None, *, place: str
) -> Layout:
    """The layout of a log whose columns are ``found``.

    Parameters
    ----------
    found
        Names of the columns there are.
    columns
        Columns named by the user, by field: ``arrival``, ``input``, ``output``. Without ``arrival`` the log has
        lengths only.
    trace_format
        A published layout to take; None for the one whose columns are there.
    place
        The log, named in the error.

    Raises
    ------
    InputError
        When a column is absent, or no layout fits; with the columns there are and the nearest names.
    """
    if columns is not None:
        return _named(found, columns, place)
    if trace_format is not None:
        key = trace_format.lower().strip()
        key = _ALIASES.get(key, key)
        if key not in _LAYOUTS:
            raise unknown("trace format", trace_format, [*_LAYOUTS, *_ALIASES])
        return _matched(found, _LAYOUTS[key], place)
    folded = {name.casefold().strip() for name in found}
    fitting = [one for one in _LAYOUTS.values() if {one.input.casefold(), one.output.casefold()} <= folded]
    if fitting:
        # Layouts may name the sizes alike: the arrival tells them apart. A log may also have no arrivals at all.
        timed = [one for one in fitting if one.arrival and one.arrival.casefold() in folded]
        return _matched(found, (timed or fitting)[0], place)
    raise InputError(
        f"{place}: no column for the sizes of the requests; found {_listing(found)}{_near_layout(found)}",
        hint="name them: columns: {arrival: ..., input: ..., output: ...}",
    )


def time_unit(column: str, largest: float) -> float:
    """Length of one unit of a numeric arrival time, from the column's name or the size of its values [s].

    A name that ends in ``_ns``, ``_us``, ``_ms`` or ``_s`` says it. Else values are seconds, unless they would lie
    after the year 5138: then they are milliseconds, microseconds or nanoseconds since 1970.

    >>> time_unit("arrived_ms", 12.0), time_unit("ts", 3500.0), time_unit("ts", 1.7e12)
    (0.001, 1.0, 0.001)
    """
    for suffix, unit_s in _UNITS_S.items():
        if column.casefold().endswith(suffix):
            return unit_s
    for limit, unit_s in ((1e17, S_PER_NS), (1e14, S_PER_US), (1e11, S_PER_MS)):
        if abs(largest) > limit:
            return unit_s
    return 1.0


def _named(found: Sequence[str], columns: Mapping[str, str], place: str) -> Layout:
    for field in columns:
        if field not in _FIELDS:
            raise unknown("field in columns", field, _FIELDS, place=place)
    for field in ("input", "output"):
        if field not in columns:
            raise InputError(f"{place}: columns must name the {field} column", hint=f"found: {_listing(found)}")
    chosen = {field: _find(found, column) or column for field, column in columns.items()}
    absent = [column for column in chosen.values() if column not in found]
    if absent:
        raise _absent(found, absent, place)
    return Layout(name="log", arrival=chosen.get("arrival"), input=chosen["input"], output=chosen["output"])


def _matched(found: Sequence[str], layout: Layout, place: str) -> Layout:
    arrival = _find(found, layout.arrival or "")
    inputs, outputs = _find(found, layout.input), _find(found, layout.output)
    if inputs is None or outputs is None:
        missing = [name for name, column in ((layout.input, inputs), (layout.output, outputs)) if column is None]
        raise _absent(found, missing, place)
    return Layout(name=layout.name, arrival=arrival, input=inputs, output=outputs, unit_s=layout.unit_s)


def _find(found: Sequence[str], wanted: str) -> str | None:
    if wanted in found:
        return wanted
    folded = {name.casefold().strip(): name for name in found}
    return folded.get(wanted.casefold().strip())


def _absent(found: Sequence[str], absent: Sequence[str], place: str) -> InputError:
    names = ", ".join(_with_nearest(found, column) for column in absent)
    plural = "columns" if len(absent) > 1 else "column"
    return InputError(f"{place}: absent {plural}: {names}", hint=f"found: {_listing(found)}")


def _with_nearest(found: Sequence[str], column: str) -> str:
    near = difflib.get_close_matches(column.casefold(), [name.casefold() for name in found], n=1, cutoff=0.5)
    original = [name for name in found if near and name.casefold() == near[0]]
    return f"{column!r} (did you mean {original[0]!r}?)" if original else repr(column)


def _near_layout(found: Sequence[str]) -> str:
    for layout in _LAYOUTS.values():
        for have, lack in ((layout.input, layout.output), (layout.output, layout.input)):
            if _find(found, have):
                return f"; a {layout.name} would also have {_with_nearest(found, lack)}"
    return ""


def _listing(found: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in found[:20]) + (", ..." if len(found) > 20 else "")
