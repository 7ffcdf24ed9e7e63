"""Effects of an engine's features on capacity: draft models if they help, and hits of the prefix cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from melange.catalog.accelerator import Accelerator
from melange.catalog.model import Model
from melange.catalog.variants import unsupported_dtype, variant_of
from melange.errors import InputError, some_of
from melange.replica.capacity import INTERVAL_BISECTIONS, Replicas, Sizes, max_request_rate
from melange.replica.era import Era
from melange.replica.hardware import Hardware
from melange.workload.prefix_reuse import PrefixReuse
from melange.workload.workload import Array

if TYPE_CHECKING:
    from melange.profile.estimate_inputs import EstimateInputs

# Routing of requests that share a prefix: to any replica of a type, or always to the same one.
SPREAD, AFFINITY = "spread", "affinity"
# Engines without expert or pipeline parallelism.
_ONE_MACHINE = ("vllm-0.2",)
# Iterations to make a replica's rate and its cache content consistent: each halves the remaining difference.
_ROUNDS = 6


def check_kv_dtype(model: Model, hardware: Sequence[Hardware], facts: Mapping[str, Accelerator], era: Era) -> None:
    """Check that some of the hardware has kernels for the data type of the engine's KV cache.

    Raises
    ------
    InputError
        None has; the error lists the accelerators.
    """
    if not era.settings.kv_dtype:
        return
    without = [one for one in hardware if unsupported_dtype(variant_of(model, one.variant), facts[one.accelerator])]
    if len(without) == len(hardware):
        names = some_of(sorted({one.accelerator for one in without}))
        raise InputError(
            f"engine.kv_cache_dtype: {era.settings.kv_dtype} has no kernels on {names}",
            hint="set engine.kv_cache_dtype: auto, or offer newer accelerators: Ampere and later",
        )


def check_layouts(era: Era, experts: Sequence[int], stages: Sequence[int]) -> None:
    """Check that the engine supports expert and pipeline parallelism, if they are set.

    Raises
    ------
    InputError
        The engine does not support it.
    """
    if era.name in _ONE_MACHINE and max(*experts, *stages) > 1:
        key = "expert_parallel" if max(experts) > 1 else "pipeline_parallel"
        raise InputError(
            f"profile.{key}: engine {era.name} splits layers only", hint="leave it out, or name a newer engine"
        )


def drafting_of(inputs: EstimateInputs, distinct: Sequence[Hardware]) -> frozenset[Hardware]:
    """The hardware that serves the traffic with fewer replicas if its steps verify drafts, or only with drafts.

    Drafts help at small batch sizes, which result from tight limits or little memory. If arithmetic is the limit, they
    cost throughput.
    """
    # On other layouts, engines draft badly or not at all.
    distinct = tuple(one for one in distinct if one.layout.is_plain)
    if not distinct:  # no offer holds the model
        return frozenset()
    needed = [
        _replicas_needed(inputs, [replace(one, is_drafting=is_on) for one in distinct]) for is_on in (True, False)
    ]
    return frozenset(one for one, on, off in zip(distinct, *needed, strict=True) if on < off)


def _replicas_needed(inputs: EstimateInputs, hardware: Sequence[Hardware]) -> list[tuple[float, float]]:
    """For each hardware, the traffic that it cannot serve, and the replicas that the rest keeps busy (R)."""
    rates = _rates(inputs, inputs.replicas_on(hardware), inputs.planned_sizes)
    weight = np.broadcast_to(inputs.weight, rates.shape)
    busy = np.divide(weight, rates, out=np.zeros_like(rates), where=rates > 0)
    unserved = np.where(rates > 0, 0.0, weight).sum(axis=(1, 2))
    return list(zip(unserved.tolist(), busy.sum(axis=(1, 2)).tolist(), strict=True))


def _rates(inputs: EstimateInputs, replicas: Replicas, sizes: Sizes) -> Array:
    limits = inputs.limits
    return max_request_rate(replicas, inputs.model, sizes, limits, bisections=INTERVAL_BISECTIONS)


def with_cached(sizes: Sizes, reuse: PrefixReuse, kept: Sequence[float]) -> Sizes:
    """Sizes with the prompt tokens in a prefix cache, which keeps a share of the reusable tokens (R, I, O).

    The last token of a prompt is always computed.
    """
    share = reuse.reusable_share[None, :, None] * np.asarray(kept)[:, None, None]
    return replace(sizes, cached=np.minimum(sizes.inputs * share, sizes.inputs - 1.0))


def kept_on(inputs: EstimateInputs, reuse: PrefixReuse, distinct: Sequence[Hardware]) -> dict[Hardware, float]:
    """The share of the reusable tokens that the prefix cache of one fully used replica holds, by hardware.

    The more a replica serves, the sooner its cache evicts, and the less it holds, the less it serves: the result is
    consistent with both. A replica's cache is its KV memory without the completions of running requests. If the traffic
    needs several replicas of a type and is spread over them, requests that share a prefix often reach a replica whose
    cache does not have it.
    """
    if not reuse.depends_on_cache or not distinct:
        return dict.fromkeys(distinct, 1.0)
    replicas, sizes = inputs.replicas_on(distinct), inputs.planned_sizes
    weight = np.asarray(inputs.weight, float)
    room = _cache_tokens(inputs, distinct, replicas, sizes, weight)
    kept = np.ones(len(distinct))
    for place in range(_ROUNDS):
        rates = _rates(inputs, replicas, with_cached(sizes, reuse, kept.tolist()))
        served = rates > 0
        busy = np.divide(np.broadcast_to(weight, rates.shape), rates, out=np.zeros_like(rates), where=served)
        needed = busy.sum(axis=(1, 2))
        carried = (weight * served).sum(axis=(1, 2))
        for r in range(len(distinct)):
            if needed[r] <= 0:
                kept[r] = 0.0
                continue
            rate = carried[r] / needed[r]
            caches = max(needed[r], 1.0) if inputs.prefix_routing == SPREAD else 1.0
            found = reuse.kept_share(float(room[r]), min(rate, carried[r]), caches)
            kept[r] = found if place == 0 else (kept[r] + found) / 2
    return dict(zip(distinct, kept.round(4).tolist(), strict=True))


def _cache_tokens(
    inputs: EstimateInputs, distinct: Sequence[Hardware], replicas: Replicas, sizes: Sizes, weight: Array
) -> Array:
    """Prompt tokens that the KV memory of each replica holds (R,)."""
    layers = [variant_of(inputs.model, one.variant).kv_shape(one.tensor_parallel) for one in distinct]
    per_token = np.array([one.full_layers + one.sliding_layers for one in layers], float)
    stay = weight * sizes.outputs[0]  # the time of a request is proportional to the tokens that it generates
    prompts = float((stay * sizes.inputs[0]).sum() / (stay * sizes.residency[0]).sum())
    return np.asarray(replicas.kv_tokens[:, 0, 0] / np.maximum(per_token, 1.0) * prompts)
