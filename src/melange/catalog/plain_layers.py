"""The layers of a model whose layers are equal, from the fields that describe it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from melange.catalog.layers import Cache, LayerKind, Weights

if TYPE_CHECKING:
    from melange.catalog.model import Model


@lru_cache(maxsize=64)  # an estimate reads the layers of its model and its variants thousands of times
def plain_kinds(model: Model) -> tuple[LayerKind, ...]:
    """The layers of a model described by its fields, including windows and dense layers among experts.

    Grouped-query attention has ``hidden (2 heads + 2 kv_heads) head_size`` weights; multi-head latent attention the
    down and up projections of query and latent KV, and the output (DeepSeek-V2, arXiv 2405.04434, section 2.1).
    """
    dense = model.layers - (model.layers - model.dense_layers if model.experts else 0)
    shared = model.shared_expert_intermediate_size
    kinds = []
    for window, within in ((0, model.layers - model.sliding_layers), (model.sliding_window, model.sliding_layers)):
        # It changes no sum which of the layers with a window are dense.
        few = min(dense, within) if not window else dense - min(dense, model.layers - model.sliding_layers)
        for count, is_dense in ((few, True), (within - few, False)):
            if count:
                width = model.intermediate_size if is_dense else shared
                kinds.append(_plain_kind(model, count, window, width, 0 if is_dense else model.experts))
    return tuple(kinds)


def _plain_kind(model: Model, count: int, window: int, width: int, experts: int) -> LayerKind:
    """Layers with one window and one feed-forward."""

    def stored(parameters: int, is_attention: bool = False) -> tuple[Weights, ...]:
        own = model.attention_weight_dtype if is_attention else ""
        multiplied = "bf16" if own == "bf16" else model.activation_dtype
        if not parameters:
            return ()
        bits = 0.0 if own else model.weight_bits
        return (Weights(parameters=parameters, dtype=own or model.weight_dtype, bits=bits, multiplied=multiplied),)

    matrices = (3 if model.gated else 2) * model.hidden_size
    return LayerKind(
        count=count,
        mixer=stored(_attention_parameters(model), is_attention=True),
        feed_forward=stored(matrices * width),
        routed=stored(experts * matrices * model.expert_intermediate_size),
        experts=experts,
        experts_per_token=model.experts_per_token if experts else 0,
        other_parameters=2 * model.hidden_size,
        router_parameters=model.hidden_size * experts,
        caches=(_plain_cache(model, window),),
    )


def _attention_parameters(model: Model) -> int:
    """Weights of one layer's attention projections."""
    if not model.kv_lora_rank:
        return model.hidden_size * model.head_size * 2 * (model.heads + model.kv_heads)
    query = model.heads * (model.qk_nope_head_size + model.qk_rope_head_size)
    queries = model.q_lora_rank * (model.hidden_size + query) if model.q_lora_rank else model.hidden_size * query
    latent = model.hidden_size * (model.kv_lora_rank + model.qk_rope_head_size)
    expanded = model.kv_lora_rank * model.heads * (model.qk_nope_head_size + model.v_head_size)
    return queries + latent + expanded + model.heads * model.v_head_size * model.hidden_size


def _plain_cache(model: Model, window: int) -> Cache:
    """The cache of one layer, and the operations per query token and attended token."""
    if model.kv_lora_rank:
        return Cache(
            heads=0,
            width=model.kv_lora_rank + model.qk_rope_head_size,
            window=window,
            read_flops=2 * model.heads * (2 * model.kv_lora_rank + model.qk_rope_head_size),
            prompt_flops=2 * model.heads * (model.qk_nope_head_size + model.qk_rope_head_size + model.v_head_size),
        )
    flops = 4 * model.heads * model.head_size
    return Cache(heads=model.kv_heads, width=2 * model.head_size, window=window, read_flops=flops, prompt_flops=flops)
