"""The feed-forward part of a layer: dense, or a mixture of experts."""

from __future__ import annotations

from dataclasses import dataclass

from melange.catalog.config_file import Config
from melange.catalog.drafts import FEED_FORWARD, ROUTED, Draft
from melange.catalog.gating import UNGATED_TYPES, is_gated

WIDTH = ("intermediate_size", "block_ff_dim", "ffn_dim", "n_inner", "ffn_hidden_size", "feed_forward_size")
EXPERTS = (
    "num_local_experts",
    "n_routed_experts",
    "num_experts",
    "moe_num_experts",
    "num_routed_experts",
    "moe_num_primary_experts",
)
EXPERTS_PER_TOKEN = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "experts_per_token",
    "moe_k",
    "moe_topk",
    "moe_top_k",
    "top_k_experts",
    "num_selected_experts",
)
EXPERT_WIDTH = ("moe_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size", "expert_intermediate_size")
SHARED = ("n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts")
SHARED_WIDTH = (
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "shared_experts_intermediate_size",
    "shared_intermediate_size",
    "share_expert_dim",
)
# Keys that say which layers have experts.
_SPARSE_RULES = (
    "first_k_dense_replace", "moe_layer_freq", "decoder_sparse_step", "interleave_moe_layer_step", "mlp_only_layers",
    "num_dense_layers", "moe_layer_start_index", "moe_layer_end_index", "moe_layer_interval", "expert_layer_period",
    "expert_layer_offset", "moe_layers", "moe_layers_enum", "n_dense_layers", "num_dense_ffn_layers",
    "moe_layer_frequency",
)  # fmt: skip
# Types that are mixtures of experts although their name does not say so.
_MIXTURES = {
    "mixtral", "deepseek_v2", "deepseek_v3", "deepseek_v32", "deepseek_v4", "kimi_k2", "kimi_linear", "gpt_oss",
    "jamba",
    "minimax", "minimax_m2", "dots1", "olmoe", "flex_olmo", "llama4_text", "laguna", "bailing_hybrid", "mimo_v2_flash",
    "qwen3_next", "solar_open",
}  # fmt: skip
_DENSE_WORDS = {"dense", "mlp"}
_SPARSE_WORDS = {"sparse", "moe", "hash_moe"}
# In these types the shared expert is as wide as one routed expert, and the configuration does not mention it.
_ONE_SHARED = {"llama4", "llama4_text"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedForward:
    """Widths and experts of every layer (L).

    Parameters
    ----------
    width
        Width of a dense layer.
    experts, experts_per_token, expert_width
        Number of routed experts, how many of them a token visits, and their width; 0 experts in a dense layer.
    shared_width
        Total width of the experts that every token visits.
    is_gated
        Whether there are three matrices.
    latent
        Width to which tokens are projected before routing; 0 if they are not projected.
    is_beside
        Whether a dense feed-forward runs in parallel to the experts (Gemma 4); it then counts as shared.
    """

    width: tuple[int, ...]
    experts: tuple[int, ...]
    experts_per_token: tuple[int, ...]
    expert_width: tuple[int, ...]
    shared_width: tuple[int, ...]
    is_gated: bool
    latent: int = 0
    is_beside: bool = False


def read_feed_forward(config: Config, kind: str, layers: int, hidden: int) -> FeedForward:
    """Widths and experts of each layer."""
    gated = is_gated(config, kind)
    if ("moe" in kind or kind in _MIXTURES) and config.value(*EXPERTS) is None:
        config.number(*EXPERTS)  # a mixture whose experts have another key must not pass as a dense model
    found = _experts(config, layers)
    is_sparse = _sparse_layers(config, kind, layers) if max(found) else (False,) * layers
    experts = tuple(count if sparse else 0 for count, sparse in zip(found, is_sparse, strict=True))
    fold = config.number("expansion_ratio", "intermediate_multiple_size", default=4)
    default_width = fold * hidden if kind in UNGATED_TYPES else None
    if not any(experts):
        config.ignore(*EXPERTS_PER_TOKEN, *EXPERT_WIDTH, *SHARED, *SHARED_WIDTH, *_SPARSE_RULES)
        width = config.by_layer(layers, *WIDTH, default=default_width)
        width = _rounded(config, width) if kind in {"lfm2", "lfm2_moe"} else width
        width = tuple(one // 2 for one in width) if kind in {"recurrent_gemma", "qwen"} else width
        width = _doubled(config, width)
        none = (0,) * layers
        return FeedForward(
            width=width, experts=none, experts_per_token=none, expert_width=none, shared_width=none, is_gated=gated
        )
    config.ignore("use_moe", "is_moe", "use_mixed_mlp_moe")
    is_beside = config.flag("enable_moe_block")
    has_dense = is_beside or not all(experts)
    dense_keys = ("intermediate_size_mlp", "dense_intermediate_size", "prefix_dense_intermediate_size")
    plain = config.by_layer(
        layers, *WIDTH, default=None if has_dense and not any(k in config for k in dense_keys) else 0
    )
    width = config.by_layer(layers, *dense_keys) if any(key in config for key in dense_keys) else plain
    wide = config.value(*EXPERT_WIDTH) is not None
    expert_width = config.by_layer(layers, *EXPERT_WIDTH) if wide else plain
    if not wide and not any(plain):
        expert_width = config.by_layer(layers, *EXPERT_WIDTH)
    return FeedForward(
        width=width,
        experts=experts,
        experts_per_token=config.by_layer(layers, *EXPERTS_PER_TOKEN),
        expert_width=expert_width,
        shared_width=width if is_beside else _shared(config, kind, layers, expert_width),
        is_beside=is_beside,
        is_gated=gated,
        latent=config.number("moe_latent_size", "routed_expert_hidden_size", default=0),
    )


def _experts(config: Config, layers: int) -> tuple[int, ...]:
    """Routed experts of a layer; a list of equal numbers has one number per modality or layer."""
    if "enable_moe_block" in config and not config.flag("enable_moe_block"):
        config.ignore(*EXPERTS)
        return (0,) * layers
    found = config.by_layer(layers, *EXPERTS, default=0)
    return tuple(count if count > 1 else 0 for count in found)


def _doubled(config: Config, width: tuple[int, ...]) -> tuple[int, ...]:
    """Gemma 4: layers that share the keys and values of other layers are twice as wide."""
    shared = config.number("num_kv_shared_layers", default=0)
    if not config.flag("use_double_wide_mlp") or not shared:
        return width
    return tuple(2 * one if layer >= len(width) - shared else one for layer, one in enumerate(width))


def _rounded(config: Config, width: tuple[int, ...]) -> tuple[int, ...]:
    """LFM2: two thirds of the stated width, times a factor, rounded up to a multiple."""
    multiple = config.number("block_multiple_of", default=256)
    factor = config.ratio("block_ffn_dim_multiplier", default=1.0)
    if not config.flag("block_auto_adjust_ff_dim", default=True):
        return width
    narrowed = (int(factor * int(2 * one / 3)) for one in width)
    return tuple(multiple * -(-one // multiple) for one in narrowed)


def _shared(config: Config, kind: str, layers: int, expert_width: tuple[int, ...]) -> tuple[int, ...]:
    """Width of the experts that every token visits, by layer."""
    number = config.by_layer(layers, *SHARED, default=1 if kind == "hunyuan_v1_moe" else 0)
    if kind in _ONE_SHARED:
        return expert_width
    if kind == "arctic" and config.flag("parallel_attn_mlp_res", "use_residual"):
        return (config.number("hidden_size"),) * layers  # a dense feed-forward in parallel to the experts
    if config.flag("residual_moe"):  # the same in Grok 2
        return (config.number("intermediate_size"),) * layers
    stated = config.by_layer(layers, *SHARED_WIDTH, default=0)
    if any(stated):
        counted = number if any(number) and kind == "dots3_note_text" else (1,) * layers
        return tuple(one * count for one, count in zip(stated, counted, strict=True))
    return tuple(count * one for count, one in zip(number, expert_width, strict=True))


def _sparse_layers(config: Config, kind: str, layers: int) -> tuple[bool, ...]:
    """Which layers have experts: all layers that no key declares dense."""
    words = config.words(layers, "mlp_layer_types")
    config.ignore(*_SPARSE_RULES)
    if words:
        if others := sorted(set(words) - _DENSE_WORDS - _SPARSE_WORDS):
            raise config.fault("mlp_layer_types", f"layers of type {', '.join(others)} are not supported")
        return tuple(word in _SPARSE_WORDS for word in words)
    named = config.indices(layers, "moe_layers")
    if named is not None:
        return tuple(layer in named for layer in range(layers))
    listed = config.text("moe_layers_enum") if isinstance(config.value("moe_layers_enum"), str) else ""
    if listed:
        chosen = {part.strip() for part in listed.split(",")}
        return tuple(str(layer) in chosen for layer in range(layers))
    if isinstance(config.value("moe_layer_freq"), list):
        return tuple(bool(one) for one in config.by_layer(layers, "moe_layer_freq"))
    dense = set(range(min(layers, config.number("first_k_dense_replace", "num_dense_layers", default=0))))
    frequency = max(1, config.number("moe_layer_freq", "moe_layer_frequency", default=1))
    dense |= {layer for layer in range(layers) if layer % frequency}
    step = max(1, config.number("decoder_sparse_step", "interleave_moe_layer_step", default=1))
    dense |= {layer for layer in range(layers) if (layer + 1) % step}
    dense |= config.indices(layers, "mlp_only_layers") or frozenset()
    first = config.number("moe_layer_start_index", default=0)
    last = config.value("moe_layer_end_index")
    last = layers - 1 if last in (None, -1) else config.number("moe_layer_end_index")
    interval = max(1, config.number("moe_layer_interval", default=1))
    dense |= {layer for layer in range(layers) if not first <= layer <= last or (layer + 1) % interval}
    period = max(1, config.number("expert_layer_period", default=2 if kind == "jamba" else 1))
    offset = config.number("expert_layer_offset", default=1 if kind == "jamba" else 0)
    dense |= {layer for layer in range(layers) if layer % period != offset % period}
    return tuple(layer not in dense for layer in range(layers))


def feed(draft: Draft, hidden: int, of: FeedForward, layer: int) -> None:
    """Add the feed-forward of one layer."""
    experts = of.experts[layer]
    if not experts:
        _dense(draft, "mlp", hidden, of.width[layer], of.is_gated)
        return
    inner = of.latent or hidden
    one = experts * inner * of.expert_width[layer]
    name = "experts.0" if of.is_beside else "mlp.experts.0"
    _add(draft, ROUTED, name, one, of.is_gated)
    _dense(draft, "mlp" if of.is_beside else "mlp.shared_experts", hidden, of.shared_width[layer], of.is_gated)
    if of.latent:
        draft.add(FEED_FORWARD, mlp__fc1_latent_proj=hidden * inner, mlp__fc2_latent_proj=hidden * inner)
    draft.experts, draft.experts_per_token = experts, of.experts_per_token[layer]
    draft.router_parameters += hidden * experts


def _dense(draft: Draft, name: str, hidden: int, width: int, gated: bool) -> None:
    _add(draft, FEED_FORWARD, name, hidden * width, gated)


def _add(draft: Draft, part: str, name: str, one: int, gated: bool) -> None:
    """Add the three matrices of a gated feed-forward, or two."""
    gate = {f"{name}.gate_proj": one} if gated else {}
    draft.add(part, **gate, **{f"{name}.up_proj": one, f"{name}.down_proj": one})
