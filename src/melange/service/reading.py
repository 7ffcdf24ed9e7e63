"""Read a ``service.yaml``, or sections given by flags, with the command-line settings."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from melange.errors import InputError, unknown
from melange.files import path_of, read_text
from melange.parsing import named_value, parse_yaml
from melange.paths import is_pipe
from melange.service.faults import faults, faults_of
from melange.service.schema import PlanSection, Service
from melange.service.traffic_sections import SOURCES, Section, SloSection, WorkloadSection

_SectionT = TypeVar("_SectionT", bound=Section)


def read_service(path: str | Path, settings: Sequence[str] = (), text: str | None = None) -> Service:
    """Read a ``service.yaml``.

    Parameters
    ----------
    path
        The file.
    settings
        ``key.key=value`` each, overriding the file; values are YAML.
    text
        The text of the file if it has been read (:func:`text_of_service`).

    Raises
    ------
    InputError
        Not YAML, unknown keys (with the nearest valid one), or values out of range: every fault, with its line.
    """
    hint = "melange init writes one"
    return read_document(Service, path, settings, holds="model, slo and workload", hint=hint, text=text)


def text_of_service(path: str | Path) -> str:
    """The text of a file that describes a service or a fleet.

    Raises
    ------
    InputError
        A pipe: it can be read only once, and files that a service names are relative to its folder. No file: the hint
        says how to write one.
    """
    if is_pipe(path):
        raise InputError(
            f"{path}: is a pipe, not a regular file", hint="save the service to a file whose name ends in .yaml"
        )
    try:
        return read_text(path)
    except InputError as error:
        if not Path(path).exists():
            error.hint = "melange init writes one"
        raise


def is_regional(path: str | Path, settings: Sequence[str] = ()) -> bool:
    """Whether a service.yaml has ``regions``; other faults of the file are reported when it is opened."""
    if Path(path).suffix not in {".yaml", ".yml"}:
        return False
    content = parse_yaml(text_of_service(path), f"{path}")
    named = any(one.partition("=")[0].split(".")[0] == "regions" for one in settings)
    return isinstance(content, dict) and ("regions" in content or named)


def read_document(
    kind: type[_SectionT],
    path: str | Path,
    settings: Sequence[str],
    *,
    holds: str,
    hint: str = "",
    text: str | None = None,
) -> _SectionT:
    """A file of a kind that stores its folder; ``holds`` describes the expected content for error messages.

    Raises
    ------
    InputError
        As in :func:`read_service`.
    """
    text = text_of_service(path) if text is None else text
    content = parse_yaml(text, f"{path}")
    if not isinstance(content, dict):
        raise InputError(f"{path}: must hold a mapping with {holds}", hint=hint)
    if kind is Service and "services" in content and "model" not in content:
        raise InputError(
            f"{path}: lists several services, but this is for one",
            hint="give the file of one of them; melange plan and melange ui take all together",
        )
    for setting in settings:
        apply_setting(content, setting)
    if "folder" in content:
        raise unknown("key", "folder", kind.model_fields, place=str(path))
    try:
        return kind.model_validate(content | {"folder": Path(path).parent})
    except ValidationError as error:
        own = faults_of(kind, parse_yaml(text, f"{path}") | {"folder": Path(path).parent}) if settings else None
        raise InputError(faults(path, text, error, file=kind, own=own)) from error


def read_section(content: Mapping[str, Any], settings: Sequence[str] = ()) -> WorkloadSection:
    """A ``workload`` section from flags; missing flags are None.

    Raises
    ------
    InputError
        As in :func:`read_service`; also a setting that contradicts a flag.
    """
    # A null in a row filter is a condition: rows without a value.
    given = {
        key: value if key == "where" else _without_none(value) for key, value in content.items() if value is not None
    }
    for setting in settings:
        _check_once(given, setting)
    return _section(WorkloadSection, "workload", given, settings)


def read_plan_section(content: Mapping[str, Any], settings: Sequence[str] = ()) -> PlanSection:
    """A ``plan`` section for inputs without a service.

    Raises
    ------
    InputError
        As in :func:`read_service`; also a setting outside ``plan``.
    """
    return _section(PlanSection, "plan", dict(content), settings)


def read_slo_section(content: Mapping[str, Any]) -> SloSection:
    """An ``slo`` section from flags.

    Raises
    ------
    InputError
        As in :func:`read_service`.
    """
    return _section(SloSection, "slo", dict(content), ())


def _section(kind: type[_SectionT], name: str, content: dict[str, Any], settings: Sequence[str]) -> _SectionT:
    whole: dict[str, Any] = {name: deepcopy(content)}
    for setting in settings:
        apply_setting(whole, setting)
    if set(whole) != {name}:
        stray = ", ".join(sorted(set(whole) - {name}))
        raise InputError(
            f"--set {stray}: only {name}.* applies here", hint=f"without a service.yaml there is no {stray}"
        )
    try:
        return kind.model_validate(whole[name])
    except ValidationError as error:
        own = faults_of(kind, content) if settings else None
        raise InputError(faults("", "", error, (name,), own=own)) from error


def _without_none(value: Any) -> Any:
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


# Keys that exclude each other: if the command line names another one, it replaces the file's.
_ALTERNATIVES = (
    ("plan.shares", "plan.slices"),
    tuple(f"workload.{source}" for source in SOURCES),
)


def _check_once(given: Mapping[str, Any], setting: str) -> None:
    """Reject a traffic setting that differs from the value of a flag, also within a section."""
    said: dict[str, Any] = {}
    apply_setting(said, setting)
    for name, value in _nodes(said):
        for key in next((keys for keys in _ALTERNATIVES if name in keys), (name,)):
            held: Any = {"workload": given}
            for part in key.split("."):
                held = held.get(part) if isinstance(held, Mapping) else None
            if key == name and isinstance(held, Mapping) and isinstance(value, Mapping):
                continue  # their keys are compared one by one
            if held is not None and (key != name or held != value):
                raise InputError(f"--set {setting} contradicts {_flag(key)} {held}", hint="give one of them")


def _nodes(content: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every key within a mapping with its value, the outer ones first."""
    for key, value in content.items():
        yield f"{above}{key}", value
        if isinstance(value, Mapping):
            yield from _nodes(value, f"{above}{key}.")


def _flag(key: str) -> str:
    """The flag for a key of the traffic, for commands without a service."""
    name = key.removeprefix("workload.")
    special = {
        "trace": "the log",
        "file": "--workload",
        "buckets.input": "--input-edges",
        "buckets.output": "--output-edges",
    }
    return special.get(name, f"--{name}")


def apply_setting(content: dict[str, Any], setting: str) -> None:
    """Apply one ``key.key=value``."""
    name, equals, value = setting.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise InputError(f"--set {setting}: must be KEY=VALUE", hint="for example --set workload.rate=32")
    target = content
    for depth, key in enumerate(keys[:-1]):
        inner = target.setdefault(key, {})
        if not isinstance(inner, dict):
            place = ".".join(keys[: depth + 1])
            raise InputError(
                f"--set {setting}: {place} holds a value, not keys",
                hint=_as_keys(place, inner, keys[depth + 1 :], value),
            )
        target = inner
    for alternatives in _ALTERNATIVES:
        if name in alternatives:
            for other in alternatives:
                target.pop(other.rpartition(".")[2], None)
    target[keys[-1]] = parse_yaml(value, f"--set {name}")


def _as_keys(place: str, held: Any, inner: Sequence[str], value: str) -> str:
    """The setting that replaces a value by keys; an engine's keys include its name. Lists have no keys."""
    if isinstance(held, list):
        return ""
    for key in reversed(inner[1:]):
        value = f"{{{key}: {value}}}"
    name = f"name: {held}, " if place == "engine" and isinstance(held, str) else ""
    return f"--set {shlex.quote(f'{place}={{{name}{inner[0]}: {value}}}')}"


def with_anchors(service: Service, anchors: Sequence[str], factors: str | Path | None = None) -> Service:
    """The service with additional anchors and observed factors, relative to the working directory."""
    if not anchors and factors is None:
        return service
    given = [named_path(text, lambda name: path_of(name).absolute()) for text in anchors]
    changes: dict[str, Any] = {"anchors": [*service.profile.anchors, *given]}
    if factors is not None:
        changes["observed"] = str(path_of(factors).absolute())
    section = service.profile.model_copy(update=changes)
    return service.model_copy(update={"profile": section})


def named_path(text: str, path: Callable[[str], Path]) -> str:
    """``PATH`` or ``NAME=PATH``, with the path resolved."""
    name, equals, rest = named_value(text)
    return f"{name}={path(rest.strip())}" if equals and not path(text).exists() else f"{path(text)}"
