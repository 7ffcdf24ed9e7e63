"""How large the counts of a model's shape may be."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from melange.errors import InputError
from melange.records import shown, text

# Counts of a shape: a hundred times those of any model, and small enough that products of three are exact as floats.
_MOST_COUNT = 100_000_000
_MOST_COUNT_BY_FIELD = {"layers": 10_000, "dense_layers": 10_000, "sliding_layers": 10_000, "experts": 100_000}
_MOST_COUNT_BY_FIELD |= {"max_context": 1_000_000_000, "learned_positions": 1_000_000_000, "sliding_window": 2**63}
_MOST_COUNT_BY_FIELD |= {"other_parameters": 10**14}  # parameters themselves, and none of their factors


def check_fields(model: Any, name: str) -> None:
    """Refuse texts that cannot be shown, and counts that no model has."""
    for one in fields(model):
        value = getattr(model, one.name)
        if isinstance(value, str):
            text(value, f"model: {one.name}")
        most = _MOST_COUNT_BY_FIELD.get(one.name, _MOST_COUNT)
        if isinstance(value, int | float) and not 0 <= value <= most:
            raise InputError(f"model {name}: {one.name} must be 0 to {most:,}, got {shown(value)}")
