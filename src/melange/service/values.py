"""Types of values that several sections of a service file share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator


def as_list(value: Any) -> Any:
    """A single value as a list of one; a list unchanged."""
    return [value] if isinstance(value, str | int | float) else value


# A name or a list of names.
Names = Annotated[list[str], BeforeValidator(as_list)]
