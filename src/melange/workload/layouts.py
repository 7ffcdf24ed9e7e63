"""The fields of a request log that hold arrival and both sizes: published layouts and fields named by the user."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypedDict

from melange.errors import InputError, unknown
from melange.units import S_PER_MS, S_PER_NS, S_PER_US
from melange.workload.fields import Choice, parts_of

_FIELDS = ("arrival", "input", "output")
# Fields about shared prefixes, which a user may also name (:mod:`melange.workload.read_prefixes`).
_SHARED = ("hashes", "conversation", "cached")


class Naming(TypedDict, total=False):
    """The user's names for a log's fields; missing or None: the fields are recognized automatically.

    Parameters
    ----------
    columns
        Field by role: ``arrival``, ``input``, ``output``.
    trace_format
        A published layout.
    where
        Required content of a row, by field.
    """

    columns: Mapping[str, str] | None
    trace_format: str | None
    where: Mapping[str, Choice] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The fields of a request log: columns, nested fields (``usage.prompt_tokens``), or sums (``a + b``).

    Parameters
    ----------
    name
        The layout, in words.
    arrival
        Field of the arrival time; None if the log has only lengths.
    input, output
        Fields of the prompt length and of the generated length.
    unit_s
        Length of one unit of a numeric arrival [s]; None: derived from the values (see :func:`time_unit`).
    where
        What a row must hold to count as a request, by field.
    shared
        Fields about shared prefixes, by role: ``hashes``, ``conversation`` or ``cached``; named by the user.
    """

    name: str
    arrival: str | None
    input: str
    output: str
    unit_s: float | None = None
    where: Mapping[str, Choice] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)

    @property
    def sizes(self) -> tuple[str, str]:
        """The fields of both sizes."""
        return self.input, self.output

    @property
    def columns(self) -> dict[str, str]:
        """The field of each role that the layout has."""
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
    # Vidur and etalon: arrivals, if there are any, in seconds.
    "vidur": Layout(
        name="Vidur trace", arrival="arrived_at", input="num_prefill_tokens", output="num_decode_tokens", unit_s=1.0
    ),
    "melange": Layout(
        name="melange trace", arrival="arrival_s", input="input_tokens", output="output_tokens", unit_s=1.0
    ),
    # LiteLLM's spend logs (table and payload): a cache hit never reaches a server.
    "litellm": Layout(
        name="LiteLLM log",
        arrival="startTime",
        input="prompt_tokens",
        output="completion_tokens",
        where={"cache_hit": False},
    ),
    # Langfuse's observations: spans are not requests; cached prompts and reasoning are counted separately.
    "langfuse": Layout(
        name="Langfuse log",
        arrival="startTime",
        input="usageDetails.input",
        output="usageDetails.output",
        where={"type": "GENERATION"},
    ),
    # Langfuse's export to object storage.
    "langfuse-export": Layout(
        name="Langfuse export",
        arrival="start_time",
        input="usage_details.input",
        output="usage_details.output",
        where={"type": "GENERATION"},
    ),
    # Spans by OpenTelemetry's conventions for generative AI; spans of agents and tools sum up other spans.
    "opentelemetry": Layout(
        name="OpenTelemetry spans",
        arrival="startTimeUnixNano",
        input="gen_ai.usage.input_tokens",
        output="gen_ai.usage.output_tokens",
        unit_s=S_PER_NS,
        where={"gen_ai.operation.name": ["chat", "text_completion", "generate_content"]},
    ),
    # OpenAI's own objects, one per line, as a gateway stores them: completions, responses, batch results.
    "openai": Layout(
        name="OpenAI completions", arrival="created", input="usage.prompt_tokens", output="usage.completion_tokens"
    ),
    "openai-responses": Layout(
        name="OpenAI responses", arrival="created_at", input="usage.input_tokens", output="usage.output_tokens"
    ),
    "openai-batch": Layout(
        name="OpenAI batch",
        arrival="response.body.created",
        input="response.body.usage.prompt_tokens",
        output="response.body.usage.completion_tokens",
    ),
}
_ALIASES = {"dynamo": "mooncake", "etalon": "vidur"}
_UNITS_S = {"_ns": S_PER_NS, "_us": S_PER_US, "_ms": S_PER_MS, "_s": 1.0}
# Usual names of the arrival, for a log that has a layout's sizes but not its arrival; the first name found counts.
_MOMENTS = (
    *("arrival", "arrival_time", "arrival_timestamp", "arrived_at", "request_time", "request_timestamp", "start_time"),
    *("startTime", "started_at", "timestamp", "created_at", "created", "datetime", "ts"),
)
_ARRIVALS = ("arrival_s", *(f"{name}{suffix}" for name in _MOMENTS for suffix in ("", *_UNITS_S)))


def find_layout(found: Sequence[str], naming: Naming | None = None, *, place: str) -> Layout:
    """The layout of a log whose fields are ``found``.

    Parameters
    ----------
    found
        Names of the columns, and of the fields nested in them.
    naming
        The user's settings. ``columns`` with ``arrival`` alone: sizes come from the recognized layout; with sizes
        alone: the log has only lengths. ``where`` takes precedence over the layout's condition on the same field.
    place
        The log, named in the error.

    Raises
    ------
    InputError
        A field is missing, or no layout fits; the error lists the fields and the nearest names.
    """
    said = naming or Naming()
    layout = _layout(found, said.get("columns"), said.get("trace_format"), place)
    chosen = {name: choice for name, choice in layout.where.items() if _find(found, name)}
    chosen |= said.get("where") or {}
    resolved = {_find(found, name) or name: choice for name, choice in chosen.items()}
    if absent := [name for name in resolved if name not in found]:
        raise _absent(found, absent, place)
    return replace(layout, where=resolved)


def _layout(found: Sequence[str], columns: Mapping[str, str] | None, trace_format: str | None, place: str) -> Layout:
    """The layout, before the row filter is added."""
    if columns is not None:
        return _named(found, columns, trace_format, place)
    if trace_format is not None:
        key = trace_format.lower().strip()
        key = _ALIASES.get(key, key)
        if key not in _LAYOUTS:
            raise unknown("trace format", trace_format, [*_LAYOUTS, *_ALIASES])
        return _matched(found, _LAYOUTS[key], place)
    recognized = _recognized(found)
    if recognized is not None:
        return _matched(found, recognized, place)
    raise InputError(
        f"{place}: no columns with request sizes; found {_listing(found)}{_near_layout(found)}",
        hint="name them: --columns arrival=...,input=...,output=... on the command line, or in a service's workload "
        "columns: {arrival: ..., input: ..., output: ...}; nested fields as usage.prompt_tokens",
    )


def _recognized(found: Sequence[str]) -> Layout | None:
    """The layout whose sizes the log has; among several, the layout whose arrival it has too."""
    folded = {name.casefold().strip() for name in found}
    fitting = [one for one in _LAYOUTS.values() if {one.input.casefold(), one.output.casefold()} <= folded]
    # Layouts may have the same names for sizes: then the arrival decides. A log may also have no arrivals at all.
    timed = [one for one in fitting if one.arrival and one.arrival.casefold() in folded]
    return next(iter(timed or fitting), None)


def time_unit(column: str, largest: float) -> float:
    """Length of one unit of a numeric arrival time, from the column's name or the size of its values [s].

    A name that ends in ``_ns``, ``_us``, ``_ms`` or ``_s`` states the unit. Otherwise values are seconds, unless this
    would put them after the year 5138: then they are milliseconds, microseconds or nanoseconds since 1970.

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


def stated_unit(layout: Layout) -> float | None:
    """Length of one unit of a numeric arrival that a layout or the name of the column states [s]; None if neither."""
    if layout.unit_s is not None:
        return layout.unit_s
    column = (layout.arrival or "").casefold()
    return next((unit_s for suffix, unit_s in _UNITS_S.items() if column.endswith(suffix)), None)


def _named(found: Sequence[str], columns: Mapping[str, str], trace_format: str | None, place: str) -> Layout:
    """The fields that a user names; if only the arrival is named, sizes come from the recognized layout."""
    for role in columns:
        if role not in (*_FIELDS, *_SHARED):
            raise unknown("field in columns", role, (*_FIELDS, *_SHARED), place=place)
    sizes = [role for role in ("input", "output") if role not in columns]
    is_known = len(sizes) == 2 and (trace_format is not None or _recognized(found) is not None)
    recognized = _layout(found, None, trace_format, place) if is_known else None
    for role in sizes:
        if recognized is None:
            raise InputError(f"{place}: columns must name the {role} column", hint=f"found: {_listing(found)}")
    chosen = {role: _resolved(found, column) for role, column in columns.items()}
    absent = [column for column in chosen.values() if not _is_there(found, column)]
    if absent:
        raise _absent(found, absent, place)
    return Layout(
        name=recognized.name if recognized else "log",
        arrival=chosen.get("arrival", recognized.arrival if recognized else _any_arrival(found)),
        input=chosen.get("input", recognized.input if recognized else ""),
        output=chosen.get("output", recognized.output if recognized else ""),
        where=recognized.where if recognized else {},
        shared={role: name for role, name in chosen.items() if role in _SHARED},
    )


def _matched(found: Sequence[str], layout: Layout, place: str) -> Layout:
    """A layout with the field names as spelled in this log."""
    arrival, unit_s = _find(found, layout.arrival or ""), layout.unit_s
    if arrival is None:
        arrival, unit_s = _any_arrival(found), None
    inputs, outputs = _find(found, layout.input), _find(found, layout.output)
    if inputs is None or outputs is None:
        missing = [name for name, column in ((layout.input, inputs), (layout.output, outputs)) if column is None]
        raise _absent(found, missing, place)
    if layout.name.startswith("Langfuse"):
        inputs, outputs = (_all_within(found, name) for name in (inputs, outputs))
    return replace(layout, arrival=arrival, input=inputs, output=outputs, unit_s=unit_s)


def _any_arrival(found: Sequence[str]) -> str | None:
    """The column that has a usual name for arrivals; None if there is none."""
    return next((name for one in _ARRIVALS if (name := _find(found, one))), None)


def _all_within(found: Sequence[str], name: str) -> str:
    """The sum of Langfuse's usage of one kind: ``input`` excludes ``input_cached_tokens``, and so on for outputs."""
    owner, _, kind = name.rpartition(".")
    return " + ".join([name, *(one for one in found if one.startswith(f"{owner}.") and kind in one and one != name)])


def _resolved(found: Sequence[str], column: str) -> str:
    """A field name as spelled in this log, or a sum of such names."""
    direct = _find(found, column)
    if direct is not None:
        return direct
    return " + ".join(_find(found, part) or part for part in parts_of(column))


def _is_there(found: Sequence[str], column: str) -> bool:
    """Whether a field, or every term of a sum, exists."""
    return column in found or all(part in found for part in parts_of(column))


def _find(found: Sequence[str], wanted: str) -> str | None:
    if wanted in found:
        return wanted
    folded = {name.casefold().strip(): name for name in reversed(found)}
    return folded.get(wanted.casefold().strip())


def _absent(found: Sequence[str], absent: Sequence[str], place: str) -> InputError:
    names = ", ".join(_with_nearest(found, column) for column in absent)
    plural = "columns" if len(absent) > 1 else "column"
    return InputError(f"{place}: missing {plural}: {names}", hint=f"found: {_listing(found)}")


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
