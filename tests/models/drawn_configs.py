"""Configurations drawn at random around each type's own: other widths, heads, experts, windows and patterns."""

from __future__ import annotations

import re
import zlib
from typing import Any

import numpy as np

_WIDTHS = ("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size", "n_inner", "ffn_dim")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
_PATTERNS = ("layer_types", "mlp_layer_types", "layers_block_type")
_ACTIVATIONS = ("silu", "gelu", "relu", "relu2", "gelu_pytorch_tanh", "gelu_new", "quick_gelu", "gelu_fast")
# What says nothing of the decoder's shape, or makes another kind of model of it.
_LEFT_ALONE = re.compile(
    r"token|_id$|position|eps|dropout|initializer|theta|version|chunk|seed|beam|length|label|rope|router_aux|topk_group"
    r"|n_group|index_topk|image|audio_|vocab_size_per|is_encoder|is_decoder|cross_attention|output_|return_|use_cache"
)


def draw(config: Any, seed: int) -> dict[str, Any]:
    """Keys to change in a configuration: a few at a time, each to another value that it could have."""
    random = np.random.default_rng(seed)
    content = config.to_dict()
    text = content["text_config"] if isinstance(content.get("text_config"), dict) else content
    changes: dict[str, Any] = {}
    for key in _WIDTHS:
        value = text.get(key)
        if isinstance(value, int) and value >= 256 and random.random() < 0.5:
            changes[key] = 64 * int(random.integers(max(2, value // 128), value // 32))
    if random.random() < 0.5:
        changes["vocab_size"] = 64 * int(random.integers(400, 4000))
    heads, kv_heads = (text.get(key) for key in ("num_attention_heads", "num_key_value_heads"))
    if isinstance(heads, int) and isinstance(kv_heads, int) and random.random() < 0.5:
        changes["num_key_value_heads"] = int(random.choice([one for one in range(1, heads + 1) if heads % one == 0]))
    for key in _EXPERTS:
        value = text.get(key)
        if isinstance(value, int) and value >= 16 and random.random() < 0.5:
            changes[key] = value // 2
    if isinstance(text.get("sliding_window"), int) and random.random() < 0.5:
        changes["sliding_window"] = int(random.integers(32, 3000))
    if random.random() < 0.3:
        changes["tie_word_embeddings"] = not content.get("tie_word_embeddings", False)
    return changes | _drawn_pattern(text, random)


def _drawn_pattern(text: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
    """Layers in another order, or another number of layers."""
    patterns = {key: text[key] for key in _PATTERNS if isinstance(text.get(key), list)}
    layers = next((key for key in _LAYERS if isinstance(text.get(key), int)), None)
    choice = random.random()
    if choice < 0.4:
        return {key: [str(one) for one in random.permutation(value)] for key, value in patterns.items()}
    if layers is None or choice < 0.6:
        return {}
    count = int(random.integers(2, 40))
    return {layers: count} | {key: [str(one) for one in random.choice(value, count)] for key, value in patterns.items()}


def draw_any(config: Any, kind: str, seed: int) -> dict[str, Any]:
    """Any numbers, flags and activations at once, in a model of few layers."""
    random = np.random.default_rng([seed, zlib.crc32(kind.encode())])
    content = config.to_dict()
    text = content["text_config"] if isinstance(content.get("text_config"), dict) else content
    share, flags = random.choice([0.1, 0.25]), random.choice([0.05, 0.2])
    changes: dict[str, Any] = {}
    for key, value in text.items():
        if _LEFT_ALONE.search(key):
            continue
        if isinstance(value, bool):
            if random.random() < flags:
                changes[key] = not value
        elif isinstance(value, int) and value >= 1 and random.random() < share:
            changes[key] = _another(value, random)
        elif value in _ACTIVATIONS and "act" in key and random.random() < 0.4:
            changes[key] = str(random.choice(_ACTIVATIONS))
    heads, kv = (changes.get(key, text.get(key)) for key in ("num_attention_heads", "num_key_value_heads"))
    if isinstance(heads, int) and isinstance(kv, int) and heads % kv:
        changes["num_key_value_heads"] = int(random.choice([one for one in range(1, heads + 1) if heads % one == 0]))
    layers = next((key for key in _LAYERS if isinstance(text.get(key), int)), None)
    if layers is None:
        return changes
    count, first = int(random.integers(3, 10)), int(random.integers(0, 3))
    lists = {key: value for key, value in text.items() if isinstance(value, list) and len(value) == text[layers]}
    return changes | {layers: count} | {key: (value[first:] + value)[:count] for key, value in lists.items()}


def _another(value: int, random: np.random.Generator) -> int:
    """A number of the same order."""
    if value >= 64:
        return int(random.choice([value // 2, 2 * value, 64 * random.integers(1, max(2, value // 32))]))
    return int(random.choice([max(1, value // 2), 2 * value, value + 1, max(1, value - 1)]))


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
