"""Placeholders for values in help texts: FILE, N or SECONDS, and not the names of Python types."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo, OptionInfo

_Command = TypeVar("_Command", bound=Callable[..., None])


def with_placeholders(command: _Command) -> _Command:
    """Give each option a placeholder for its value, and each argument its name in capitals, where none is set."""
    hints = get_type_hints(command, include_extras=True)
    for name in inspect.signature(command).parameters:
        hint = hints[name]
        if get_origin(hint) is not Annotated:
            continue
        of_type, *notes = get_args(hint)
        for info in notes:
            if isinstance(info, ArgumentInfo) and info.metavar is None and not _is_enum(of_type):
                info.metavar = name.upper()
            elif isinstance(info, OptionInfo) and info.metavar is None:
                info.metavar = _placeholder(_bare(of_type), info.help or "")
    command.__annotations__ = hints  # the notes that were changed, not new ones
    return command


def _placeholder(of_type: Any, help_text: str) -> str | None:
    if of_type is bool:
        return None
    if of_type is Path:
        return "FOLDER" if "older" in help_text.split(";")[0] else "FILE"
    if of_type is int:
        return "N"
    if of_type is float:
        return "SECONDS" if "[s]" in help_text else "NUMBER"
    return "TEXT"


def _bare(of_type: Any) -> Any:
    """The type of one value: without None, and without the list of a repeatable option."""
    while get_origin(of_type) in (Union, UnionType, list):
        of_type = next(one for one in get_args(of_type) if one is not type(None))
    return of_type


def _is_enum(of_type: Any) -> bool:
    return isinstance(of_type, type) and issubclass(of_type, Enum)
