"""How much KV cache a replica holds, and what one request takes of it."""

from __future__ import annotations

import numpy as np

from melange.catalog.accelerator import Accelerator
from melange.catalog.model import Model
from melange.replica.era import EngineSettings
from melange.workload.workload import Array


def usable_bytes(accelerator: Accelerator, settings: EngineSettings) -> float:
    """Memory of one accelerator that the engine may fill: ``utilization (memory - reserve)`` [bytes].

    All of it where utilization is a share of what weights leave.
    """
    share = 1.0 if settings.is_share_of_free else settings.memory_utilization
    return share * (accelerator.memory_bytes - settings.reserve_bytes)


def _activation_bytes(model: Model, accelerator: Accelerator, tensor_parallel: int, settings: EngineSettings) -> float:
    """What an engine keeps free for the largest step [bytes].

    ``2 tokens (4 hidden + 2 intermediate / tp) + 8 sequences vocabulary / tp``: the residual stream and its copies,
    the gated feed-forward of all tokens, and logits in 32 bits with their softmax.
    """
    sequences, tokens = settings.limits_on(accelerator)
    visited = model.experts_per_token * model.expert_intermediate_size + model.shared_expert_intermediate_size
    width = max(model.intermediate_size, visited) / tensor_parallel
    logits = 8.0 * min(sequences, tokens) * model.vocabulary_size / tensor_parallel
    return 2.0 * tokens * (4 * model.hidden_size + 2 * width) + logits


def needed_bytes(model: Model, accelerator: Accelerator, tensor_parallel: int, settings: EngineSettings) -> float:
    """Memory of one accelerator that is taken before the first request: weights, activations, graphs [bytes]."""
    activations = _activation_bytes(model, accelerator, tensor_parallel, settings)
    return model.weight_bytes() / tensor_parallel + activations + settings.graph_bytes


def kv_room_bytes(model: Model, accelerator: Accelerator, tensor_parallel: int, settings: EngineSettings) -> float:
    """Memory of one accelerator that is left for KV cache; negative where the model does not fit [bytes].

    ``utilization (memory - reserve) - weights / tp - activations - graphs``, or
    ``utilization (memory - reserve - weights / tp - activations - graphs)``.
    """
    room = usable_bytes(accelerator, settings) - needed_bytes(model, accelerator, tensor_parallel, settings)
    return room * settings.memory_utilization if settings.is_share_of_free else room


def token_layers(model: Model, context_tokens: Array, block_tokens: float) -> Array:
    """KV cache of a request of so many tokens, in tokens of one layer, with the unused end of its last block.

    ``full_layers (context + waste) + sliding_layers min(context, window) + ...``; times the bytes of one token in one
    layer it is the request's KV cache on one accelerator. ``block_tokens`` of waste at most, half of it on average.
    """
    full = model.layers - model.sliding_layers
    return held_in(full, model.sliding_layers, model.sliding_window, context_tokens, block_tokens)


def held_in(full_layers: int, sliding_layers: int, window: int, context_tokens: Array, block_tokens: float) -> Array:
    """:func:`token_layers` by numbers of layers: those that look back all the way, and those with a sliding window."""
    full = full_layers * (context_tokens + block_tokens)
    if not sliding_layers:
        return full
    return full + sliding_layers * (np.minimum(context_tokens, window) + block_tokens)
