"""From a configuration to layers: each is drafted, given data types, and counted by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from melange.catalog.attention import (
    HEADS,
    KV_HEADS,
    Heads,
    attend,
    attend_latent,
    check_heads,
    gate_values,
    index_keys,
    read_heads,
)
from melange.catalog.config_file import Config
from melange.catalog.drafts import FEED_FORWARD, MIXER, ROUTED, Draft
from melange.catalog.feed_forward import FeedForward, feed, read_feed_forward
from melange.catalog.gemma import add_inputs, looked_up_parameters, shares_cache
from melange.catalog.layer_rules import (
    FULL,
    HYBRID,
    NONE,
    SLIDING,
    SLIDING_HYBRID,
    STATE,
    Rules,
    read_rules,
)
from melange.catalog.layers import BYTES_BY_DTYPE, LayerKind, Weights
from melange.catalog.special import attend_compressed, compressed_ratios, read_blocks
from melange.catalog.state_space import ignore_states, keep_state
from melange.catalog.stored import Scheme, Stored

_ATTENDS = {FULL, SLIDING, HYBRID, SLIDING_HYBRID}
_STATES = {STATE, HYBRID, SLIDING_HYBRID}
# Types whose states are as wide as the attention heads.
_HEADS_OF_STATES = {"minimax", "recurrent_gemma"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A model's layers as described by its configuration.

    Parameters
    ----------
    drafts
        Each layer (L).
    heads, feed_forward
        Heads and feed-forward of every layer.
    latent
        Ranks and widths of multi-head latent attention, as fields of the model; empty for none.
    other_parameters
        Weights outside of the layers that are only looked up.
    """

    drafts: tuple[Draft, ...]
    heads: Heads
    feed_forward: FeedForward
    latent: dict[str, int]
    other_parameters: int = 0


def read_drafts(config: Config, kind: str, layers: int, hidden: int, vocabulary: int) -> Reading:
    """Every layer of the model."""
    ratios = compressed_ratios(config, layers) if "o_lora_rank" in config else ()
    blocks = "block_configs" in config
    rules = (
        Rules(mixers=(FULL,) * layers, windows=(0,) * layers) if ratios or blocks else read_rules(config, kind, layers)
    )
    heads = _heads(config, kind, layers, hidden, rules)
    of = _feed_forward(config, kind, layers, hidden, rules)
    if blocks:
        kv, windows, widths = read_blocks(config, layers, hidden, max(heads.query))
        mixers = tuple(
            NONE if not one else SLIDING if window else FULL for one, window in zip(kv, windows, strict=True)
        )
        rules = Rules(mixers=mixers, windows=windows, words=("block",) * layers)
        heads, of = replace(heads, kv=tuple(max(one, 1) for one in kv)), replace(of, width=widths)
    drafts = []
    for layer in range(layers):
        draft = Draft(other_parameters=(1 if rules.words and not blocks else 2) * hidden)
        if ratios:
            attend_compressed(draft, config, hidden, ratios[layer])
        else:
            _mix(draft, config, kind, layers, hidden, rules, heads, layer)
        if of.width[layer] or of.experts[layer] or not rules.words:
            feed(draft, hidden, of, layer)
        add_inputs(draft, config, hidden)
        drafts.append(draft)
    if rules.is_stated and not any(mixer in _STATES for mixer in rules.mixers):
        ignore_states(config)
    return Reading(
        drafts=tuple(drafts),
        heads=heads,
        feed_forward=of,
        latent=_latent(config) if not ratios else {},
        other_parameters=looked_up_parameters(config, layers, hidden, vocabulary),
    )


def _heads(config: Config, kind: str, layers: int, hidden: int, rules: Rules) -> Heads:
    """Heads of each layer; a single head if no layer has attention."""
    if "o_lora_rank" in config:
        query, size = (config.number(*HEADS),) * layers, (config.number("head_dim"),) * layers
        config.ignore(*KV_HEADS, "qk_rope_head_dim")
        return Heads(query=query, kv=(1,) * layers, size=size, value_size=size)
    if any(mixer in _ATTENDS for mixer in rules.mixers) or kind in _HEADS_OF_STATES:
        return read_heads(config, kind, layers, hidden, rules.is_full)
    config.ignore("num_attention_heads", "num_key_value_heads", *([] if "num_heads" in config else ["head_dim"]))
    one = (1,) * layers
    return Heads(query=one, kv=one, size=one, value_size=one)


def _feed_forward(config: Config, kind: str, layers: int, hidden: int, rules: Rules) -> FeedForward:
    """Widths of each layer; 0 if a model has no feed-forward."""
    none = (0,) * layers
    if kind in {"mamba", "mamba2", "falcon_mamba"} or "block_configs" in config:
        config.ignore("intermediate_size", "hidden_act")
        return FeedForward(
            width=none, experts=none, experts_per_token=none, expert_width=none, shared_width=none, is_gated=True
        )
    return _by_words(rules, read_feed_forward(config, kind, layers, hidden))


def _mix(
    draft: Draft, config: Config, kind: str, layers: int, hidden: int, rules: Rules, heads: Heads, layer: int
) -> None:
    """Add the attention of one layer, or its replacement."""
    mixer, window = rules.mixers[layer], rules.windows[layer]
    if mixer in _ATTENDS and config.value("kv_lora_rank"):
        attend_latent(draft, config, kind, hidden, layers, layer, window)
        if config.flag("mla_use_output_gate"):
            width = config.number("num_attention_heads") * config.number("v_head_dim")
            draft.add(MIXER, self_attn__g_proj=hidden * width)
    elif mixer in _ATTENDS:
        check_heads(config, heads, layer)
        attend(
            draft,
            hidden,
            heads,
            layer,
            window=window,
            output_gate=gate_values(config, kind, heads, layer),
            query_rank=config.number("share_q_dim", default=0),
            shared_values=config.flag("attention_k_eq_v") and not window,
            has_cache=not shares_cache(config, layers, layer),
        )
    if mixer in _ATTENDS and not window and _has_indexer(config, layers, layer):
        index_keys(draft, config, hidden, config.number("q_lora_rank", default=0))
    if mixer in _STATES:
        keep_state(draft, config, kind, hidden, heads, layer)


def _has_indexer(config: Config, layers: int, layer: int) -> bool:
    """Whether a layer selects tokens to attend to by its own index; layers may share the index of an earlier one."""
    part = config.part("sparse_attention_config")
    config.ignore("index_topk", "index_topk_freq", "index_topk_pattern", "index_skip_topk_offset", "index_block_size")
    config.ignore("index_topk_blocks", "index_local_blocks", "index_share_for_mtp_iteration")
    for key in ("sparse_topk_blocks", "sparse_block_size", "sparse_score_type", "sparse_init_block"):
        part.ignore(key)
    part.ignore("sparse_local_block", "sparse_disable_index_value")
    if part.value("sparse_attention_freq") is not None:
        return (
            part.flag("use_sparse_attention", default=True)
            and part.by_layer(layers, "sparse_attention_freq")[layer] > 0
        )
    if "index_n_heads" not in config:
        return False
    words = config.words(layers, "indexer_types")
    if "index_block_size" in config:
        words = tuple("full" if word == "minimax_m3_sparse" else "" for word in config.words(layers, "layer_types"))
        config.ignore("index_n_heads", "index_head_dim")
    return not words or words[layer] == "full"


def _by_words(rules: Rules, of: FeedForward) -> FeedForward:
    """The same, if layers are only a mixer or only a feed-forward: experts only in the layers named for them."""
    if not rules.words:
        return of
    is_moe = [word == "moe" for word in rules.words]
    is_mlp = [word == "mlp" for word in rules.words]
    return replace(
        of,
        width=tuple(one if yes else 0 for one, yes in zip(of.width, is_mlp, strict=True)),
        experts=tuple(one if yes else 0 for one, yes in zip(of.experts, is_moe, strict=True)),
    )


def _latent(config: Config) -> dict[str, int]:
    """Fields of the model for multi-head latent attention."""
    if not config.value("kv_lora_rank"):
        return {}
    config.ignore("qk_head_dim")
    keys = {
        "kv_lora_rank": "kv_lora_rank",
        "q_lora_rank": "q_lora_rank",
        "qk_rope_head_size": "qk_rope_head_dim",
        "qk_nope_head_size": "qk_nope_head_dim",
        "v_head_size": "v_head_dim",
    }
    return {field: config.number(key, default=0) for field, key in keys.items()}


def layer_kinds(drafts: Sequence[Draft], scheme: Scheme) -> tuple[LayerKind, ...]:
    """Layers with their data types; equal layers are counted together."""
    stored = scheme.reader()
    counted = Counter(_typed(draft, layer, stored) for layer, draft in enumerate(drafts))
    return tuple(replace(kind, count=count) for kind, count in counted.items())


def _typed(draft: Draft, layer: int, reader: Callable[[int, str, bool], Stored]) -> LayerKind:
    """One layer with its data types."""
    parts: dict[str, Counter[tuple[str, float, str]]] = {part: Counter() for part in (MIXER, FEED_FORWARD, ROUTED)}
    for matrix in draft.matrices:
        stored = reader(layer, matrix.name, matrix.part == ROUTED)
        parts[matrix.part][stored.dtype, stored.bits, stored.multiplied] += matrix.parameters
    weights = {
        part: tuple(
            Weights(parameters=count, dtype=dtype, bits=bits, multiplied=multiplied)
            for (dtype, bits, multiplied), count in sorted(found.items())
        )
        for part, found in parts.items()
    }
    return LayerKind(
        count=1,
        mixer=weights[MIXER],
        feed_forward=weights[FEED_FORWARD],
        routed=weights[ROUTED],
        experts=draft.experts,
        experts_per_token=draft.experts_per_token,
        other_parameters=draft.other_parameters,
        router_parameters=draft.router_parameters,
        caches=tuple(draft.caches),
        state_values=draft.state_values,
        state_bytes=draft.state_bytes,
    )


def are_alike(these: Sequence[LayerKind], those: Sequence[LayerKind]) -> bool:
    """Whether two lists of layers have the same mixers, feed-forwards and caches in total, in any combination."""

    def parts(kinds: Sequence[LayerKind]) -> Counter[object]:
        found: Counter[object] = Counter()
        for kind in kinds:
            mixer = (kind.mixer, kind.other_parameters, kind.state_values, kind.state_bytes)
            feed_forward = (
                kind.feed_forward,
                kind.routed,
                kind.experts,
                kind.experts_per_token,
                kind.router_parameters,
            )
            for part in (mixer, feed_forward, kind.caches):
                found[part] += kind.count
        return found

    return parts(these) == parts(those)


def plain_fields(reading: Reading, kinds: Sequence[LayerKind], scheme: Scheme) -> dict[str, Any]:
    """Fields of the model that describe most of its layers."""
    heads, of = reading.heads, reading.feed_forward
    windows = [(max(cache.window for cache in kind.caches), kind.count) for kind in kinds if kind.caches]
    sliding = sum(count for window, count in windows if window)
    latent = reading.latent
    size = latent["qk_nope_head_size"] + latent["qk_rope_head_size"] if latent else max(heads.size)
    experts = max(of.experts)
    shape = {
        "heads": max(heads.query),
        "kv_heads": max(heads.kv),
        "head_size": size,
        "intermediate_size": max(of.width),
        "experts": experts,
        "sliding_window": max((window for window, _ in windows), default=0) if sliding else 0,
        "sliding_layers": sliding,
        **latent,
    }
    if experts:
        shape |= {
            "experts_per_token": max(of.experts_per_token),
            "expert_intermediate_size": max(of.expert_width),
            "shared_expert_intermediate_size": max(of.shared_width),
            "dense_layers": sum(kind.count for kind in kinds if not kind.experts),
        }
    return shape | _types(kinds, scheme)


def _types(kinds: Sequence[LayerKind], scheme: Scheme) -> dict[str, Any]:
    """Data types of most weights, and of the attention if they differ."""
    linear: Counter[tuple[str, float, str]] = Counter()
    mixers: Counter[tuple[str, float, str]] = Counter()
    for kind in kinds:
        for counter, weights in ((linear, (*kind.feed_forward, *kind.routed)), (mixers, kind.mixer)):
            for one in weights:
                counter[one.dtype, one.bits, one.multiplied] += kind.count * one.parameters
    most = linear.most_common(1) or mixers.most_common(1)
    if not most:
        return {"weight_dtype": scheme.published, "activation_dtype": scheme.published}
    (dtype, bits, multiplied), _ = most[0]
    attention = mixers.most_common(1)[0][0][0] if mixers else dtype
    return {
        "weight_dtype": dtype,
        "weight_bits": bits,
        "activation_dtype": multiplied,
        "attention_weight_dtype": attention if attention != dtype and attention in BYTES_BY_DTYPE else "",
    }
