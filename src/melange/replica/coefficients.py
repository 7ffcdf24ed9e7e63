"""The coefficients of a step's time, from a model's shape and an accelerator's facts."""

from __future__ import annotations

import math
from collections import Counter

from melange.catalog.accelerator import Accelerator
from melange.catalog.layers import BYTES_BY_DTYPE, Cache, LayerKind
from melange.catalog.model import Model
from melange.replica.era import Constants


def attention_s(
    model: Model, accelerator: Accelerator, tensor_parallel: int, constants: Constants
) -> tuple[float, float, float, float]:
    """Attention time of one request per cached token, and of one prompt token per earlier token [s].

    Each is given for all layers that attend to all tokens, and for those with a window: ``context_s, window_context_s,
    position_s, window_position_s``. The time per cached token is the longer of its read and its arithmetic (latent KV).
    """
    flops = accelerator.flops("bf16") * constants.mfu_attention
    counts: Counter[Cache] = Counter()
    for kind in model.kinds:
        for cache in kind.caches:
            counts[cache] += kind.count
    context_s, position_s = [0.0, 0.0], [0.0, 0.0]
    for cache, count in counts.items():
        mba = constants.mba if cache.heads else constants.mba_latent
        entry_bytes = cache.values(tensor_parallel) * BYTES_BY_DTYPE[model.kv_dtype]
        read_s = entry_bytes / (accelerator.bandwidth_bytes_per_s * mba)
        one_s = max(read_s, cache.read_flops / tensor_parallel / flops)
        windowed = 1 if cache.window else 0
        context_s[windowed] += one_s * count / cache.tokens_per_entry
        position_s[windowed] += cache.prompt_flops / (flops * tensor_parallel) * count / cache.tokens_per_entry
    return context_s[0], context_s[1], position_s[0], position_s[1]


def token_s(model: Model, accelerator: Accelerator, constants: Constants) -> float:
    """Arithmetic of the layers' linear parts for one token on one accelerator, states included [s]."""
    routed_s = 0.0
    for kind in model.kinds:
        routed_s += _routed_s(kind, accelerator, constants) * kind.experts_per_token
    return body_token_s(model, accelerator, constants) + routed_s


def padding_s(model: Model, accelerator: Accelerator, constants: Constants) -> float:
    """Arithmetic for the empty parts of tiles, if every routed expert of all layers has tokens, on one accelerator [s].

    A step over T tokens takes the share ``1 - (1 - k/E)^T`` of it, as for reading experts.
    """
    routed_s = sum(_routed_s(kind, accelerator, constants) * kind.experts for kind in model.kinds if kind.routed)
    return routed_s * constants.expert_padding


def _routed_s(kind: LayerKind, accelerator: Accelerator, constants: Constants) -> float:
    """Arithmetic of one token in one routed expert, in all layers of a kind [s]."""
    one_s = sum(
        weights.parameters / kind.experts / _linear_rate(weights.dtype, weights.multiplied, accelerator, constants)
        for weights in kind.routed
    )
    return 2.0 * kind.count * one_s / constants.mfu_experts


def body_token_s(model: Model, accelerator: Accelerator, constants: Constants) -> float:
    """The arithmetic of :func:`token_s` without routed experts [s]."""
    body_s = 0.0
    for kind in model.kinds:
        for weights in kind.body:
            rate = _linear_rate(weights.dtype, weights.multiplied, accelerator, constants)
            body_s += kind.count * weights.parameters / rate
    router_rate = _linear_rate(model.weight_dtype, model.activation_dtype, accelerator, constants)
    # A state is decayed, updated and read: three products for each of its values.
    states = sum(kind.count * kind.state_values for kind in model.kinds)
    states_s = 3 * states / (accelerator.flops("bf16") * constants.mfu_attention)
    return 2.0 * (body_s + model.router_parameters() / router_rate + states_s)


def _linear_rate(stored: str, multiplied: str, accelerator: Accelerator, constants: Constants) -> float:
    """Arithmetic rate of linear layers with weights of this type, in 16 bits if the type has no hardware units [1/s].

    Weights in four bits use 8-bit activations if there are units for them, as in the kernels of vLLM and TensorRT-LLM
    for MXFP4 on Blackwell (``VLLM_USE_FLASHINFER_MOE_MXFP4_MXFP8``).
    """
    known = accelerator.flops_by_dtype
    dtype = "fp8" if stored == "fp4" and multiplied == "bf16" and "fp4" in known else multiplied
    share_by_dtype = {"fp8": constants.mfu_fp8, "int8": constants.mfu_fp8, "fp4": constants.mfu_fp4}
    if dtype in share_by_dtype and dtype in known:
        return accelerator.flops(dtype) * share_by_dtype[dtype]
    share = constants.mfu * (constants.mfu_int4 if stored == "int4" else 1.0)
    return accelerator.flops(dtype) * share


def host_s(model: Model, accelerator: Accelerator, constants: Constants) -> float:
    """Host time of every step, which reading, arithmetic and communication do not include [s]."""
    layer_s = constants.t_layer_s + (constants.t_latent_layer_s if model.kv_lora_rank else 0.0)
    if _has_quantized_inputs(model, accelerator):
        layer_s += constants.t_quantize_layer_s
    return constants.t_step_s + layer_s * model.layers + constants.t_moe_layer_s * model.moe_layers


def _has_quantized_inputs(model: Model, accelerator: Accelerator) -> bool:
    """Whether inputs of routed experts are converted to fp8: the experts are in fp8, and there are units for it."""
    routed = [weights for kind in model.kinds for weights in kind.routed]
    return "fp8" in accelerator.flops_by_dtype and any(one.dtype == one.multiplied == "fp8" for one in routed)


def expert_decay(model: Model) -> float:
    """Logarithm of the share of a layer's routed experts that one token leaves untouched; 0 without experts."""
    if not model.experts:
        return 0.0
    return math.log1p(-min(model.experts_per_token / model.experts, 1 - 1e-12))


def all_reduces(
    model: Model, accelerator: Accelerator, tensor_parallel: int, is_pcie: bool, constants: Constants
) -> tuple[float, float, float, float]:
    """Latency, and time for one token, of all layers' all-reduces, in one exchange and around a ring [s].

    A message of n bytes among g accelerators: ``latency + (g - 1) n / rate`` in one exchange (every accelerator sends
    all its data to all others), ``(g - 1) latency + 2 (g - 1) / g n / rate`` around a ring (Patarasuk and Yuan, 2009).
    """
    if tensor_parallel == 1:
        return 0.0, 0.0, 0.0, 0.0
    rate, latency_s = link_of(accelerator, is_pcie, constants)
    # One after attention or its replacement, one after the feed-forward.
    count = sum(kind.count * (bool(kind.mixer) + bool(kind.feed_forward or kind.routed)) for kind in model.kinds)
    token_s = count * 2.0 * model.hidden_size / rate
    peers = tensor_parallel - 1
    return count * latency_s, token_s * peers, count * latency_s * peers, token_s * 2 * peers / tensor_parallel


def link_of(accelerator: Accelerator, is_pcie: bool, constants: Constants) -> tuple[float, float]:
    """Bandwidth between accelerators of one machine in one direction [bytes/s], and the latency of a message [s]."""
    if is_pcie:
        return accelerator.pcie_bandwidth_bytes_per_s * constants.pcie_efficiency, constants.pcie_latency_s
    return accelerator.link_bandwidth_bytes_per_s * constants.link_efficiency, constants.link_latency_s
