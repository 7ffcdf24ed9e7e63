"""Commands with many flags: a dataclass holds them, and Typer sees each as a parameter of the command."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from typing import Any, TypeVar, get_type_hints

_Command = TypeVar("_Command", bound=Callable[..., None])


def with_flags(command: _Command) -> _Command:
    """Let a command's dataclass parameters become flags, one for each field.

    The fields are annotated like Typer parameters and replace their dataclass in the signature.
    """
    hints = get_type_hints(command, include_extras=True)
    kinds = {name: kind for name, kind in hints.items() if isinstance(kind, type) and is_dataclass(kind)}
    if not kinds:
        raise TypeError(f"{command.__name__}: a parameter must be annotated with a dataclass")
    parameters, annotations = [], {"return": None}
    for name, parameter in inspect.signature(command).parameters.items():
        for one in _fields_of(kinds[name]) if name in kinds else [parameter.replace(annotation=hints[name])]:
            parameters.append(one.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            annotations[one.name] = one.annotation
    names = {name: [one.name for one in _fields_of(kind)] for name, kind in kinds.items()}

    @wraps(command)
    def run(**values: Any) -> None:
        held = {name: kind(**{one: values.pop(one) for one in names[name]}) for name, kind in kinds.items()}
        command(**values, **held)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # what Typer reads
    run.__annotations__ = annotations
    return run  # type: ignore[return-value] # the same when called with keywords


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
