"""Attention layers: their matrices and the cache entries per token."""

from __future__ import annotations

from dataclasses import dataclass

from melange.catalog.config_file import Config
from melange.catalog.drafts import MIXER, Draft
from melange.catalog.layers import Cache

KV_HEADS = (
    "num_key_value_heads_per_layer",
    "num_key_value_heads",
    "num_kv_heads",
    "multi_query_group_num",
    "n_head_kv",
    "num_query_groups",
    "num_attention_groups",
)
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads")
HEAD_SIZE = ("head_dim", "kv_channels", "attention_head_dim", "d_head")

# Layers with an output gate of their own, computed from the hidden state: as many values as the queries have.
_GATED_OUTPUT = {
    "qwen3_next",
    "qwen3_5",
    "qwen3_5_text",
    "qwen3_5_moe",
    "qwen3_5_moe_text",
    "afmoe",
    "beam",
    "dory",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """Heads of every layer, from the configuration.

    Parameters
    ----------
    query, kv
        Query heads and KV heads of each layer.
    size, value_size
        Width of a key, and of a value, in each layer.
    """

    query: tuple[int, ...]
    kv: tuple[int, ...]
    size: tuple[int, ...]
    value_size: tuple[int, ...]


def read_heads(config: Config, kind: str, layers: int, hidden: int, full: tuple[bool, ...]) -> Heads:
    """Heads of each layer; layers with a window may differ from layers without.

    Parameters
    ----------
    config, kind, layers, hidden
        The configuration, its type, the number of layers and their width.
    full
        Which layers attend to all tokens: keys about global or sliding layers apply accordingly.
    """
    query = config.by_layer(layers, "num_attention_heads_per_layer", *HEADS)
    kv = _kv_heads(config, kind, layers, query)
    default = hidden // max(1, query[0])
    if config.value("kv_lora_rank"):
        config.ignore(*HEAD_SIZE)
        size = (default,) * layers
    else:
        size = config.by_layer(layers, *HEAD_SIZE, default=default)
    value = size if config.value("kv_lora_rank") else _by_layer_or(config, layers, size, "v_head_dim")
    query = _of_some(config, query, full, sliding=("swa_num_attention_heads",))
    if kind == "mimo_v2_flash" and "swa_num_key_value_heads" not in config:
        kv = tuple(one if all_ else 2 * one for one, all_ in zip(kv, full, strict=True))
    whole_kv = ("num_global_key_value_heads",) if config.flag("attention_k_eq_v") else ()
    config.ignore("num_global_key_value_heads")
    kv = _of_some(config, kv, full, sliding=("swa_num_key_value_heads",), whole=whole_kv)
    sizes = _of_some(config, size, full, sliding=("swa_head_dim",), whole=("global_head_dim",))
    values = _of_some(config, value, full, sliding=("swa_v_head_dim",), whole=("global_head_dim",))
    return Heads(query=query, kv=kv, size=sizes, value_size=values)


def _by_layer_or(config: Config, layers: int, otherwise: tuple[int, ...], *keys: str) -> tuple[int, ...]:
    return config.by_layer(layers, *keys) if config.value(*keys) not in (None, 0) else otherwise


def _of_some(
    config: Config,
    values: tuple[int, ...],
    full: tuple[bool, ...],
    *,
    sliding: tuple[str, ...] = (),
    whole: tuple[str, ...] = (),
) -> tuple[int, ...]:
    """The values by layer, with the values of sliding or global layers replaced if a key gives them."""
    for keys, is_full in ((sliding, False), (whole, True)):
        if keys and config.value(*keys) is not None and "per_layer_config" not in config:
            own = config.by_layer(len(values), *keys)
            values = tuple(mine if all_ is is_full else one for mine, one, all_ in zip(own, values, full, strict=True))
    return values


def _kv_heads(config: Config, kind: str, layers: int, query: tuple[int, ...]) -> tuple[int, ...]:
    """KV heads of each layer; older designs have a single one, or as many as query heads."""
    is_old_falcon = kind == "falcon" and not config.flag("new_decoder_architecture")
    if is_old_falcon or kind == "gpt_bigcode":
        config.ignore(*KV_HEADS)
        return (1,) * layers if config.flag("multi_query", default=True) else query
    if config.value(*KV_HEADS) is None:
        return query
    return config.by_layer(layers, *KV_HEADS)


def check_heads(config: Config, heads: Heads, layer: int) -> None:
    """Check that a layer has KV heads, and that their number divides that of its query heads."""
    query, kv = heads.query[layer], heads.kv[layer]
    if not kv or query % kv:
        raise config.fault(
            next((key for key in KV_HEADS if key in config), KV_HEADS[0]),
            f"must be >= 1 and divide the {query} query heads, got {kv} in layer {layer}",
            "correct config.json",
        )


def attend(
    draft: Draft,
    hidden: int,
    heads: Heads,
    layer: int,
    *,
    window: int = 0,
    output_gate: int = 0,
    query_rank: int = 0,
    shared_values: bool = False,
    has_cache: bool = True,
) -> None:
    """Multi-head or grouped-query attention.

    Parameters
    ----------
    draft
        The layer, which is changed in place.
    hidden, heads, layer
        Width of the residual stream, the heads, and the index of the layer.
    window
        Number of past tokens that the layer attends to; 0 for all.
    output_gate
        Number of values that gate the output; 0 for no gate.
    query_rank
        Width of the vector from which queries are computed (Step-3); 0 for the residual stream itself.
    shared_values
        Whether values equal the keys, and need no matrix of their own.
    has_cache
        False if the layer reads the keys and values of another layer.
    """
    query, kv = heads.query[layer], heads.kv[layer]
    size, value = heads.size[layer], heads.value_size[layer]
    draft.add(
        MIXER,
        self_attn__q_a_proj=hidden * query_rank,
        self_attn__q_proj=(query_rank or hidden) * query * size,
        self_attn__k_proj=hidden * kv * size if has_cache else 0,
        self_attn__v_proj=hidden * kv * value if has_cache and not shared_values else 0,
        self_attn__o_proj=query * value * hidden,
        self_attn__gate_proj=hidden * output_gate,
    )
    if has_cache:
        flops = 2 * query * (size + value)
        draft.caches.append(Cache(heads=kv, width=size + value, window=window, read_flops=flops, prompt_flops=flops))


def attend_latent(draft: Draft, config: Config, kind: str, hidden: int, layers: int, layer: int, window: int) -> None:
    """Multi-head latent attention: one compressed key and value for all heads (DeepSeek-V2, arXiv 2405.04434, 2.1)."""

    def one(*keys: str, default: int | None = None) -> int:
        return config.by_layer(layers, *keys, default=default)[layer]

    heads = one("num_attention_heads", "n_head", "n_heads", "num_heads")
    rank, rope, nope, value = (
        one(key) for key in ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
    )
    queries = one("q_lora_rank", default=0)
    query = heads * (nope + rope)
    # A.X K2 computes queries and the output gate in one product, from the latent query and a second vector as wide.
    gated = 2 * queries * (query + heads * value) if kind == "axk2" else 0
    draft.add(
        MIXER,
        self_attn__q_gate_proj=gated,
        self_attn__q_a_proj=hidden * queries,
        self_attn__q_b_proj=0 if gated else queries * query,
        self_attn__q_proj=0 if queries else hidden * query,
        self_attn__kv_a_proj_with_mqa=hidden * (rank + rope),
        self_attn__kv_b_proj=rank * heads * (nope + value),
        self_attn__o_proj=heads * value * hidden,
    )
    draft.caches.append(
        Cache(
            heads=0,
            width=rank + rope,
            window=window,
            read_flops=2 * heads * (2 * rank + rope),
            prompt_flops=2 * heads * (nope + rope + value),
        )
    )


def index_keys(draft: Draft, config: Config, hidden: int, queries: int) -> None:
    """The indexer of sparse attention (DeepSeek-V3.2, MiniMax-M3): its matrices, and its own key for each token.

    The tokens that sparse attention skips are not subtracted: the time is an upper limit.
    """
    part = config.part("sparse_attention_config")
    own = part if "sparse_index_dim" in part else config
    size = own.number("index_head_dim", "sparse_index_dim")
    heads = own.number("index_n_heads", "sparse_num_index_heads")
    draft.add(
        MIXER,
        self_attn__indexer__wq_b=(queries or hidden) * heads * size,
        self_attn__indexer__wk=hidden * size,
        self_attn__indexer__weights_proj=hidden * heads if queries else 0,
    )
    flops = 2 * heads * size
    draft.caches.append(Cache(heads=0, width=size, read_flops=flops, prompt_flops=flops))


def gate_values(config: Config, kind: str, heads: Heads, layer: int) -> int:
    """Number of values that gate the attention output of a layer; 0 for none."""
    config.ignore("use_attention_gate")  # one value per head
    is_gated = config.flag(
        "attn_output_gate", "attention_output_gate", "use_attn_output_gate", default=kind in _GATED_OUTPUT
    )
    return heads.query[layer] * heads.value_size[layer] if is_gated else 0
