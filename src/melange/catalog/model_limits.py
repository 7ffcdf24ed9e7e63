"""Limits for the fields of a model's shape."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from melange.catalog.layers import BYTES_BY_DTYPE
from melange.errors import InputError
from melange.records import one_line, shown, text

# Largest count: a hundred times that of any model, and small enough that products of three are exact as floats.
_MOST_COUNT = 100_000_000
_MOST_COUNT_BY_FIELD = {"layers": 10_000, "dense_layers": 10_000, "sliding_layers": 10_000, "experts": 100_000}
_MOST_COUNT_BY_FIELD |= {"max_context": 1_000_000_000, "learned_positions": 1_000_000_000, "sliding_window": 2**63}
_MOST_COUNT_BY_FIELD |= {"other_parameters": 10**14}  # a number of parameters, not one of its factors


def check_fields(model: Any, name: str) -> None:
    """Reject texts that cannot be shown, and counts that are larger than in any model."""
    for one in fields(model):
        value = getattr(model, one.name)
        if isinstance(value, str):
            (one_line if one.name == "name" else text)(value, f"model: {one.name}")
        most = _MOST_COUNT_BY_FIELD.get(one.name, _MOST_COUNT)
        if isinstance(value, int | float) and not 0 <= value <= most:
            raise InputError(f"model {name}: {one.name} must be 0 to {most:,}, got {shown(value)}")


def check_shape(model: Any) -> None:
    """Check that the fields of a model are consistent.

    Raises
    ------
    InputError
        A count that is not positive, an unknown data type, experts without a width, layers that do not add up.
    """
    for field in ("layers", "hidden_size", "heads", "kv_heads", "head_size", "vocabulary_size", "max_context"):
        if getattr(model, field) < 1:
            raise InputError(f"model {model.name}: {field} must be >= 1, got {getattr(model, field)}")
    for field in ("weight_dtype", "kv_dtype", "attention_weight_dtype", "activation_dtype"):
        dtype = getattr(model, field)
        if dtype not in BYTES_BY_DTYPE and not (field == "attention_weight_dtype" and dtype == ""):
            raise InputError(f"model {model.name}: {field} must be one of {', '.join(BYTES_BY_DTYPE)}, got {dtype!r}")
    if model.heads % model.kv_heads:
        raise InputError(f"model {model.name}: heads ({model.heads}) must be a multiple of kv_heads ({model.kv_heads})")
    if model.experts and not (0 < model.experts_per_token <= model.experts and model.expert_intermediate_size > 0):
        raise InputError(
            f"model {model.name}: with {model.experts} experts, experts_per_token must be 1 to {model.experts} and "
            f"expert_intermediate_size >= 1, got {model.experts_per_token} and {model.expert_intermediate_size}"
        )
    if not 0 <= model.sliding_layers <= model.layers or (model.sliding_layers and model.sliding_window < 1):
        raise InputError(
            f"model {model.name}: sliding_layers must be 0 to {model.layers} and have a sliding_window >= 1, "
            f"got {model.sliding_layers} and {model.sliding_window}"
        )
    counted = sum(kind.count for kind in model.layer_kinds)
    if model.layer_kinds and counted != model.layers:
        raise InputError(f"model {model.name}: layer_kinds must be {model.layers} layers together, got {counted}")
