"""Configurations drawn at random around each type's own: other widths, heads, experts, windows and patterns."""

from __future__ import annotations

from typing import Any

import numpy as np

_WIDTHS = ("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size", "n_inner", "ffn_dim")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
_PATTERNS = ("layer_types", "mlp_layer_types")


def draw(config: Any, seed: int) -> dict[str, Any]:
    """Keys to change in a configuration: a few at a time, each to another value that it could have."""
    random = np.random.default_rng(seed)
    text = config.get_text_config(decoder=True)
    changes: dict[str, Any] = {}
    for key in _WIDTHS:
        value = getattr(text, key, None)
        if isinstance(value, int) and value >= 256 and random.random() < 0.5:
            changes[key] = 64 * int(random.integers(max(2, value // 128), value // 32))
    if random.random() < 0.5:
        changes["vocab_size"] = 64 * int(random.integers(400, 4000))
    heads, kv_heads = (getattr(text, key, None) for key in ("num_attention_heads", "num_key_value_heads"))
    if isinstance(heads, int) and isinstance(kv_heads, int) and random.random() < 0.5:
        changes["num_key_value_heads"] = int(random.choice([one for one in range(1, heads + 1) if heads % one == 0]))
    for key in _EXPERTS:
        value = getattr(text, key, None)
        if isinstance(value, int) and value >= 16 and random.random() < 0.5:
            changes[key] = value // 2
    if isinstance(getattr(text, "sliding_window", None), int) and random.random() < 0.5:
        changes["sliding_window"] = int(random.integers(32, 3000))
    if random.random() < 0.3:
        changes["tie_word_embeddings"] = not getattr(config, "tie_word_embeddings", False)
    for key in _PATTERNS:
        value = getattr(text, key, None)
        if isinstance(value, list) and random.random() < 0.5:
            changes[key] = [str(one) for one in random.permutation(value)]
    layers = next((key for key in _LAYERS if isinstance(getattr(text, key, None), int)), None)
    if layers and not set(changes) & set(_PATTERNS) and random.random() < 0.5:
        count = int(random.integers(2, 40))
        changes[layers] = count
        for key in _PATTERNS:
            if isinstance(getattr(text, key, None), list):
                changes[key] = [str(one) for one in random.choice(getattr(text, key), count)]
    return changes


def changed(config: Any, changes: dict[str, Any]) -> Any:
    """The configuration with those keys, made by its own class."""
    content = config.to_dict()
    is_nested = isinstance(content.get("text_config"), dict)
    for key, value in changes.items():
        part = content["text_config"] if is_nested and key != "tie_word_embeddings" else content
        part[key] = value
        if key in {"layer_types", "num_hidden_layers"}:
            part.pop("per_layer_config", None)
    content.pop("model_type", None)
    return type(config)(**content)
