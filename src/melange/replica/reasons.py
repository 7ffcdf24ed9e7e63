"""Reasons why a replica cannot serve a size, as text with figures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from melange.catalog.accelerator import Accelerator
from melange.catalog.model import Model
from melange.catalog.variants import stored_as, unsupported_dtype
from melange.replica.capacity import IDLE_BATCH, Replicas, Sizes, held_by, holds_one, metrics_s
from melange.replica.era import EngineSettings
from melange.replica.layout_cost import unsplittable, weight_bytes_on
from melange.replica.memory import kv_room_bytes, needed_bytes, usable_bytes
from melange.replica.parallelism import Layout, as_layout
from melange.units import GIB, duration
from melange.workload.workload import Array

_PHRASES = {
    "ttft": "a single request waits {} for its first token; the limit is {}",
    "tpot": "a single request takes {} per output token; the limit is {}",
    "ntpot": "a single request takes {} per output token, first one included; the limit is {}",
    "latency": "a single request takes {}; the limit is {}",
}


def obstacle(model: Model, accelerator: Accelerator, split: Layout | int, settings: EngineSettings) -> str:
    """The reason why a replica cannot serve any request; empty if it can."""
    layout = as_layout(split)
    tensor_parallel = layout.tensor_parallel
    if reason := unsplittable(model, layout):
        return reason
    if not model.is_splittable(tensor_parallel, with_experts=layout.expert_parallel == 1):
        return (
            f"{model.name} cannot be split over {tensor_parallel} accelerators: its {model.heads} heads, "
            f"{model.kv_heads} KV heads and feed-forward width must divide evenly"
        )
    if dtype := unsupported_dtype(model, accelerator):
        return f"engines have no kernels for {dtype} on {accelerator.name} ({accelerator.architecture})"
    if kv_room_bytes(model, accelerator, layout, settings) <= 0:
        needed = needed_bytes(model, accelerator, layout, settings) / GIB
        usable = usable_bytes(accelerator, settings) / GIB
        weights = weight_bytes_on(model, layout) / GIB
        return (
            f"the model in {stored_as(model)} does not fit: {needed:.1f} GiB needed on each accelerator "
            f"(weights {weights:.1f} GiB), "
            f"{usable:.1f} GiB usable"
        )
    token_bytes = model.kv_bytes_per_token(tensor_parallel)
    held = kv_room_bytes(model, accelerator, layout, settings) * layout.pipeline_parallel / max(token_bytes, 1.0)
    if token_bytes and held < settings.min_kv_tokens:
        return f"its KV cache holds {held:,.0f} tokens; profile.min_kv_tokens asks for {settings.min_kv_tokens:,}"
    return ""


def why_zero(
    rate: Array,
    replicas: Replicas,
    model: Model,
    sizes: Sizes,
    limits: Mapping[str, float | Array],
    obstacles: list[str],
) -> tuple[tuple[str, ...], npt.NDArray[np.int32]]:
    """Sentences, the first of them empty, and the index of each cell's sentence (R, I, O).

    Reasons are checked in this order: the context limit, which holds for all accelerators; a model that does not fit;
    the KV cache; the limits on latency.
    """
    sentences: dict[str, int] = {"": 0}
    reason = np.zeros(rate.shape, np.int32)
    zero = np.argwhere(rate <= 0)
    if not len(zero):
        return ("",), reason
    holds = np.broadcast_to(holds_one(replicas, model, sizes), rate.shape)
    idle = np.full_like(rate, IDLE_BATCH)
    alone = metrics_s(replicas, sizes, tuple(limits), idle, np.maximum(replicas.max_sequences, idle))
    needed = np.broadcast_to(held_by(replicas, model)(sizes.longest, replicas.block_tokens - 1), rate.shape)
    longest_tokens = sizes.longest[0]
    for r, i, o in zero.tolist():
        longest = longest_tokens[i, o]
        if longest > replicas.max_context:
            sentence = f"a request of {longest:,.0f} tokens exceeds the context limit of {replicas.max_context:,}"
        elif obstacles[r]:
            sentence = obstacles[r]
        elif not holds[r, i, o]:
            share = needed[r, i, o] / (replicas.kv_tokens / replicas.kv_parts)[r, 0, 0]
            sentence = f"one request of {longest:,.0f} tokens needs {share:.2g} times the available KV cache"
        else:
            own = {metric: float(np.broadcast_to(one, rate.shape)[r, i, o]) for metric, one in limits.items()}
            sentence = _floor({metric: float(values[r, i, o]) for metric, values in alone.items()}, own)
        reason[r, i, o] = sentences.setdefault(sentence, len(sentences))
    return tuple(sentences), reason


def _floor(alone_s: Mapping[str, float], limits: Mapping[str, float]) -> str:
    metric = max(limits, key=lambda name: alone_s[name] / limits[name])
    return _PHRASES[metric].format(duration(alone_s[metric]), duration(limits[metric]))
