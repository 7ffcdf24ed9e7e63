"""Commands with many flags: a dataclass holds them, and Typer sees each as a parameter of the command."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from typing import Any, TypeVar, get_type_hints

_Command = TypeVar("_Command", bound=Callable[..., None])

# Commands call the parameter that holds their flags so.
_PARAMETER = "flags"


def with_flags(command: _Command) -> _Command:
    """Let a command take the fields of the dataclass that its parameter ``flags`` is annotated with, each as a flag.

    The fields are annotated as Typer wants its parameters, and stand where ``flags`` stands.
    """
    hints = get_type_hints(command, include_extras=True)
    kind = hints.pop(_PARAMETER)
    if not (isinstance(kind, type) and is_dataclass(kind)):
        raise TypeError(f"{command.__name__}: {_PARAMETER} must be annotated with a dataclass")
    parameters, annotations = [], {"return": None}
    for name, parameter in inspect.signature(command).parameters.items():
        for one in _fields_of(kind) if name == _PARAMETER else [parameter.replace(annotation=hints[name])]:
            parameters.append(one.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            annotations[one.name] = one.annotation
    names = {one.name for one in _fields_of(kind)}

    @wraps(command)
    def run(**values: Any) -> None:
        given = {name: values.pop(name) for name in names}
        command(**values, **{_PARAMETER: kind(**given)})

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # what Typer reads
    run.__annotations__ = annotations
    return run  # type: ignore[return-value] # the same to whoever calls it by keywords


def _fields_of(kind: type[Any]) -> list[inspect.Parameter]:
    """The fields of a dataclass as parameters."""
    hints = get_type_hints(kind, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(kind)
    ]
