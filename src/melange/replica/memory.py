"""The KV cache capacity of a replica, and the KV cache size of one request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from melange.catalog.accelerator import Accelerator
from melange.catalog.layers import KvShape
from melange.catalog.model import Model
from melange.replica.draft_cost import draft_memory
from melange.replica.era import EngineSettings
from melange.replica.layout_cost import weight_bytes_on
from melange.replica.parallelism import Layout, as_layout
from melange.workload.workload import Array


def usable_bytes(accelerator: Accelerator, settings: EngineSettings) -> float:
    """Memory of one accelerator that the engine may fill: ``utilization (memory - reserve)`` [bytes].

    All memory after the reserve, if utilization is a share of the memory left by weights.
    """
    share = 1.0 if settings.is_share_of_free else settings.memory_utilization
    return share * (accelerator.memory_bytes - settings.reserve_bytes)


def _activation_bytes(model: Model, accelerator: Accelerator, tensor_parallel: int, settings: EngineSettings) -> float:
    """Memory that an engine keeps free for the largest step [bytes].

    ``2 tokens (4 hidden + 2 intermediate / tp) + 8 sequences vocabulary / tp``: the residual stream and its copies,
    the gated feed-forward of all tokens, and logits in 32 bits with their softmax.
    """
    sequences, tokens = settings.limits_on(accelerator)
    visited = model.experts_per_token * model.expert_intermediate_size + model.shared_expert_intermediate_size
    width = max(model.intermediate_size, visited) / tensor_parallel
    logits = 8.0 * min(sequences, tokens) * model.vocabulary_size / tensor_parallel
    return 2.0 * tokens * (4 * model.hidden_size + 2 * width) + logits


def needed_bytes(model: Model, accelerator: Accelerator, split: Layout | int, settings: EngineSettings) -> float:
    """Memory of one accelerator in use before the first request: weights, activations, graphs [bytes]."""
    layout = as_layout(split)
    activations = _activation_bytes(model, accelerator, layout.tensor_parallel, settings)
    drafts = draft_memory(model, settings.speculation, layout.tensor_parallel).weight_bytes
    return weight_bytes_on(model, layout) + activations + settings.graph_bytes + drafts


def kv_room_bytes(model: Model, accelerator: Accelerator, split: Layout | int, settings: EngineSettings) -> float:
    """Memory of one accelerator that remains for the KV cache; negative if the model does not fit [bytes].

    ``utilization (memory - reserve) - weights / tp - activations - graphs``, or
    ``utilization (memory - reserve - weights / tp - activations - graphs)``.
    """
    room = usable_bytes(accelerator, settings) - needed_bytes(model, accelerator, split, settings)
    return room * settings.memory_utilization if settings.is_share_of_free else room


def token_layers(model: Model, context_tokens: Array, block_tokens: float, tensor_parallel: int = 1) -> Array:
    """KV cache of a request, in tokens of one layer, with the unused end of its last block.

    ``full_layers (context + waste) + sliding_layers min(context, window) + ... + state``. Multiplied by the bytes of
    one token in one layer, it is the KV cache on one accelerator. The waste is at most ``block_tokens``, and half of
    that on average. If layers differ, one layer means their common unit
    (:meth:`~melange.catalog.model.Model.kv_shape`).
    """
    shape = model.kv_shape(tensor_parallel)
    layers = (shape.full_layers, shape.sliding_layers, shape.window)
    return held_in(*layers, context_tokens, block_tokens, shape.state_units)


def held_in(
    full_layers: Array | int,
    sliding_layers: Array | int,
    window: Array | int,
    context_tokens: Array,
    block_tokens: float,
    state_units: Array | int = 0,
) -> Array:
    """:func:`token_layers` from numbers of layers: those that attend to all tokens, and those with a sliding window.

    Numbers, or arrays that broadcast with the tokens; ``state_units`` is the size per request whatever its length.
    """
    held = np.asarray(full_layers * (context_tokens + block_tokens))
    if np.any(sliding_layers):
        held = held + sliding_layers * (np.minimum(context_tokens, window) + block_tokens)
    return held + state_units if np.any(state_units) else held


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KvLayers:
    """:class:`~melange.catalog.layers.KvShape` of R replicas.

    Parameters
    ----------
    full_layers, sliding_layers, window, state_units
        As in that class (R, 1, 1).
    """

    full_layers: Array
    sliding_layers: Array
    window: Array
    state_units: Array

    def held(self, context_tokens: Array, block_tokens: float) -> Array:
        """:func:`token_layers` of each replica (R, I, O)."""
        layers = (self.full_layers, self.sliding_layers, self.window)
        return held_in(*layers, context_tokens, block_tokens, self.state_units)


def kv_layers(shapes: Sequence[KvShape]) -> KvLayers:
    """The KV shapes of several replicas as arrays."""
    names = ("full_layers", "sliding_layers", "window", "state_units")
    return KvLayers(**{name: np.array([getattr(one, name) for one in shapes], float)[:, None, None] for name in names})
