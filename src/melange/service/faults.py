"""Errors in a service.yaml as text: each with its place in the file and the nearest valid key."""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from melange.errors import first_of, unknown
from melange.parsing import compose_yaml
from melange.service.schema import Service

# Sections that a file must have, by example.
_EXAMPLES = {
    "model": "model: meta-llama/Llama-3.1-8B-Instruct",
    "slo": "slo: {ttft_ms: 1000, tpot_ms: 80}",
    "workload": "workload: {dataset: azure-conversation, rate: 16}",
}
# Keys that do not exist, and what does what they say.
_MEANT = {"slo.percentile": "attainment: 0.95, or statistic: p95"}
# What a value must be, by pydantic's name of the fault; and the unit, by the end of the key.
_NUMBERS = {
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
}
_SECTION = "must be a section of keys with values"
_OTHERS = {
    "dict_type": _SECTION,
    "model_type": _SECTION,
    "model_attributes_type": _SECTION,
    "string_type": "must be text",
}
_UNITS = {"ms": "milliseconds", "s": "seconds"}
# Number of faults listed before the rest is counted: enough to see what is wrong. Chosen by judgment.
_MOST_FAULTS = 20


def faults(
    path: str | Path,
    text: str,
    error: ValidationError,
    within: tuple[str, ...] = (),
    *,
    file: type[BaseModel] = Service,
    own: Container[str] | None = None,
) -> str:
    """All faults that pydantic found, one per line, each with its place and the nearest valid key.

    Parameters
    ----------
    path, text
        The file.
    error
        What pydantic found.
    within
        Keys of the section that was checked; none for a whole file.
    file
        The kind of file.
    own
        The faults without the settings (:func:`faults_of`); all others come from the settings. None: no settings.
    """
    lines: dict[str, str] = {}  # only the first fault of each key: a union reports one per branch
    for fault in error.errors():
        *above, last = fault["loc"] or ("",)
        # An unknown key is always a key of the file; otherwise the end of the location may be a branch of a union.
        is_end = fault["type"] in {"extra_forbidden", "missing"} or _is_key(last)
        keys = [*within, *filter(_is_key, above), *([last] if is_end else [])]
        name = ".".join(str(key) for key in keys)
        if own is not None and _identity(fault) not in own:
            place = "--set"
        else:
            line = _line(text, keys)
            place = f"{path}:{line}" if line else f"{path}"
        if fault["type"] == "extra_forbidden":
            section = ".".join(map(str, keys[:-1]))
            known = _known_keys(file, keys[:-1])
            where = ": ".join(part for part in (place, section) if part)
            message = _unknown_key(str(keys[-1]), known, where, [] if section else keys_called(file, str(keys[-1])))
        elif fault["type"] == "missing":
            example = f"; for example {_EXAMPLES[name]}" if name in _EXAMPLES else ""
            message = f"{place}: {name} is required{example}".removeprefix(": ")
        else:
            message = (_NUMBERS | _OTHERS).get(fault["type"], fault["msg"].removeprefix("Value error, "))
            if fault["type"] in _NUMBERS and (unit := _UNITS.get(name.rpartition("_")[2])):
                message = f"{message} of {unit}"
            found = "" if "got" in message else f", got {_as_written(fault['input'])}"
            words = f"{message[:1].lower()}{message[1:]}{found}"
            message = f"{place}: {words if words.startswith(f'{name}.') else f'{name}: {words}'}".removeprefix(": ")
            if fault["input"] is None and ":" in str(keys[-1]):
                message += f"; YAML takes a space after the colon: {str(keys[-1]).replace(':', ': ', 1)}"
        lines.setdefault(name, message)
    return first_of(list(lines.values()), _MOST_FAULTS)


def faults_of(kind: type[BaseModel], content: Any) -> set[str]:
    """The faults in a content, to compare others with."""
    try:
        kind.model_validate(content)
    except ValidationError as error:
        return set(map(_identity, error.errors()))
    return set()


def _identity(fault: Any) -> str:
    """What makes two faults the same; the other keys of a section may differ."""
    value = None if isinstance(fault["input"], dict) else fault["input"]
    return repr((fault["loc"], fault["type"], fault["msg"], value))


def _unknown_key(key: str, known: Sequence[str], where: str, elsewhere: Sequence[str]) -> str:
    """An unknown key with the nearest ones; with the full names of keys that are called so in a section."""
    if meant := _MEANT.get(f"{where.rpartition(': ')[2]}.{key}"):
        return f"{where}: unknown key {key!r}; use {meant}"
    if elsewhere:
        return f"{where}: unknown key {key!r}; did you mean {' or '.join(map(repr, elsewhere))}?".removeprefix(": ")
    return str(unknown("key", key, known, place=where))


def keys_called(file: type[BaseModel], name: str) -> list[str]:
    """The full names of all keys in the sections of a file that have this name.

    >>> keys_called(Service, "rate")
    ['workload.rate']
    """
    inner = {key: _section_in(field.annotation) for key, field in file.model_fields.items() if not field.exclude}
    return [f"{key}.{name}" for key, one in inner.items() if one is not None and name in _known_keys(one, [])]


def _as_written(value: object) -> str:
    """A value as YAML writes it."""
    return "nothing" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def _is_key(key: str | int) -> bool:
    """Whether a part of pydantic's location is a key of the file rather than the name of a union's branch."""
    if isinstance(key, int):
        return True
    return key not in {"str", "float", "int", "bool"} and not any(mark in key for mark in ("function-", "[", "constr"))


def _known_keys(file: type[BaseModel], keys: Sequence[str | int]) -> list[str]:
    """The keys that the mapping at ``keys`` may have."""
    section = file
    for key in keys:
        fields = {field.alias or name: field for name, field in section.model_fields.items()}
        if key not in fields:
            continue  # an item of a list, or a name that the user chose: neighboring sections have the same keys
        inner = _section_in(fields[str(key)].annotation)
        if inner is None:
            return []
        section = inner
    return [field.alias or name for name, field in section.model_fields.items() if not field.exclude]


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The model of the section in a field, whether it is given directly, in a list, or optional."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for one in get_args(annotation) if (found := _section_in(one)) is not None), None)


def _line(text: str, keys: Sequence[str | int]) -> int | None:
    """The line of the deepest of ``keys`` that is in the file; None if none is."""
    node = compose_yaml(text)
    line = None
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            found = [(k, v) for k, v in node.value if k.value == str(key)]
            if not found:
                break
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
        else:
            break
    return line
