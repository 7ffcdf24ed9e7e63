"""Whole numbers of an engine: at least one, and no more than the simulator counts to."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulated import engine

from melange.errors import InputError


@pytest.mark.parametrize("name", ["max_sequences", "max_batched_tokens", "block_tokens", "max_context", "kv_parts"])
@pytest.mark.parametrize("value", [0, 2**31, 2**53])
def test_a_number_that_no_engine_has_is_refused(name: str, value: int) -> None:
    """With the field's name."""
    with pytest.raises(InputError, match=rf"engine\.{name} must be 1 to 2,147,483,647, got {value}"):
        replace(engine(), **{name: value})
