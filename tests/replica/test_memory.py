"""The memory rule, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from melange.catalog.accelerator import Accelerator
from melange.catalog.bundled import find_model
from melange.catalog.model import Model
from melange.replica.era import EngineSettings
from melange.replica.memory import kv_room_bytes, token_layers

GIB = 2**30


def test_what_is_left_for_the_cache(llama: Model, plain: Accelerator) -> None:
    """0.9 of 100 GB without half a GiB, less 13.48 GB of weights, less activations of 2048 tokens and 256 logits."""
    activations = 2 * 2048 * (4 * 4096 + 2 * 11008) + 8 * 256 * 32000
    expected = 0.9 * (100e9 - GIB / 2) - 2 * 6_738_415_616 - activations
    assert kv_room_bytes(llama, plain, 1, EngineSettings()) == pytest.approx(expected)


def test_two_accelerators_hold_half_the_weights_each(llama: Model, plain: Accelerator) -> None:
    """Splitting frees half the weights on each accelerator, and half of what is split of the activations."""
    freed = kv_room_bytes(llama, plain, 2, EngineSettings()) - kv_room_bytes(llama, plain, 1, EngineSettings())
    assert freed == pytest.approx(6_738_415_616 + 2 * 2048 * 11008 + 4 * 256 * 32000)


def test_a_request_takes_its_blocks(llama: Model) -> None:
    """1000 tokens and at most 15 of waste, in each of 32 layers."""
    assert token_layers(llama, np.array([1000.0]), 15) == pytest.approx([32 * 1015])


def test_a_window_bounds_what_is_kept() -> None:
    """Gemma 3 keeps 1024 tokens in its sliding layers and all in the others."""
    gemma = find_model("google/gemma-3-27b-it")
    kept = token_layers(gemma, np.array([10_000.0]), 0)[0] * gemma.kv_bytes_per_layer()
    assert kept == pytest.approx(gemma.kv_bytes(10_000))


def test_a_share_of_what_is_free(llama: Model, plain: Accelerator) -> None:
    """TensorRT-LLM's fraction is of what weights leave, vLLM's of the whole: 0.9 of each."""
    whole = kv_room_bytes(llama, plain, 1, EngineSettings(memory_utilization=1.0))
    found = kv_room_bytes(llama, plain, 1, EngineSettings(is_share_of_free=True))
    assert found == pytest.approx(0.9 * whole)
