"""Kinds of values that several sections of a service file have."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator


def as_list(value: Any) -> Any:
    """One value as a list of it; a list as it is."""
    return [value] if isinstance(value, str | int | float) else value


# A name or a list of names.
Names = Annotated[list[str], BeforeValidator(as_list)]
