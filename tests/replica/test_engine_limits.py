"""Whole numbers of an engine: at least one, and no more than the simulator counts to."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
from simulated import engine

from melange.errors import InputError
from melange.replica.engine import Engine
from melange.replica.step import StepCost


@pytest.mark.parametrize(
    ("name", "most"),
    [
        *((name, "65,536") for name in ("max_sequences", "block_tokens", "kv_parts")),
        *((name, "2,147,483,647") for name in ("max_batched_tokens", "max_context")),
    ],
)
@pytest.mark.parametrize("value", [0, 2**31, 2**53])
def test_a_number_that_no_engine_has_is_refused(name: str, most: str, value: int) -> None:
    """With the field's name; the simulator takes memory for each running request and each token of a block."""
    with pytest.raises(InputError, match=rf"engine\.{name} must be 1 to {most}, got {value}"):
        replace(engine(), **{name: value})


@pytest.mark.parametrize("name", [field.name for field in fields(StepCost)])
def test_null_is_infinite_only_where_a_step_stays_finite(name: str) -> None:
    """A window and the largest measured batch may be without end; any other coefficient would make steps infinite."""
    content = engine().to_json()
    content["cost"][name] = None
    if name in ("window", "most_batch"):
        assert getattr(Engine.from_json(content).cost, name) == math.inf
    else:
        with pytest.raises(InputError, match=rf"engine\.cost\.{name}"):
            Engine.from_json(content)
