"""Reads the shape of a model from a Hugging Face ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from melange.catalog.model import Model
from melange.catalog.quantization import read_quantization
from melange.errors import InputError
from melange.files import Json, path_of, read_json
from melange.records import reading

# One quantity, many names: the keys of LLaMA-like, GPT-2-like, OPT, Falcon, MPT and ChatGLM configurations.
_KEYS_BY_FIELD = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "hidden_size": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "multi_query_group_num"),
    "head_size": ("head_dim", "kv_channels"),
    "intermediate_size": ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size"),
    "vocabulary_size": ("vocab_size", "padded_vocab_size"),
    "max_context": ("max_position_embeddings", "n_positions", "n_ctx", "seq_length", "max_seq_len"),
    "experts": ("num_local_experts", "n_routed_experts", "num_experts"),
    "experts_per_token": ("num_experts_per_tok", "num_experts_per_token", "experts_per_token"),
}
# What transformers assumes where a published file is silent.
_DEFAULTS_BY_TYPE: Mapping[str, Json] = {
    "gemma2": {"vocab_size": 256_000, "head_dim": 256, "sliding_window": 4096, "max_position_embeddings": 8192},
    "gemma3_text": {
        "vocab_size": 262_208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
        "max_position_embeddings": 131_072,
    },
    "cohere2": {"sliding_window": 4096, "sliding_window_pattern": 4},
    "falcon": {"max_position_embeddings": 2048},
}
_UNGATED_TYPES = {"gpt2", "gpt_neox", "gptj", "gpt_bigcode", "opt", "falcon", "bloom", "mpt", "phi", "starcoder2"}
_TIED_TYPES = {
    "gpt2",
    "gpt_bigcode",
    "opt",
    "falcon",
    "bloom",
    "mpt",
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3_text",
    "cohere",
    "cohere2",
}
_TEXT_KEYS = ("text_config", "llm_config", "language_config", "thinker_config")
# Keys of designs whose cache or arithmetic does not follow from Model's fields.
_UNSUPPORTED_KEYS = {
    "is_encoder_decoder": "an encoder and a decoder",
    "ssm_cfg": "state-space layers",
    "state_size": "state-space layers",
    "mamba_d_state": "state-space layers",
    "ssm_state_size": "state-space layers",
    "hybrid_override_pattern": "state-space layers",
    "linear_num_value_heads": "linear-attention layers",
    "full_attention_interval": "linear-attention layers",
    "attn_type_list": "linear-attention layers",
    "hidden_size_per_layer_input": "per-layer embeddings",
    "global_head_dim": "layers with different head sizes",
    "block_configs": "layers of different shapes",
    "compress_ratios": "compressed attention",
}
_WINDOWED_LAYERS = {"sliding_attention", "chunked_attention"}


def read_model(path: str | Path) -> Model:
    """Shape of a model from its ``config.json`` in Hugging Face form.

    Decoders with multi-head, grouped-query or multi-head latent attention, sliding windows and mixtures of experts;
    the language part of a multimodal model. Layers that only predict ahead (``num_nextn_predict_layers``) are left
    out, and sparse attention over the latent cache (DeepSeek-V3.2) counts as dense: an upper limit.

    Parameters
    ----------
    path
        The file, or the folder that holds it.

    Raises
    ------
    InputError
        The file cannot be read, lacks a field, or describes a design that is not covered; the message names the field.
    """
    place = path_of(path)
    if place.is_dir():
        place = place / "config.json"
    content = read_json(place, infinity=True)  # transformers writes Infinity under keys that say nothing of the shape
    with reading(f"{place}", "a model's config.json"):
        return _model_of(content, place)


def _model_of(content: Json, place: Path) -> Model:
    config = _text_part(content)
    _check_supported(config, content, place)
    shape = _attention_shape(config, place) | _expert_shape(config, place)
    shape |= _sliding_shape(config, int(shape["layers"]), int(shape["max_context"]))
    shape |= read_quantization(content, config, str(place))
    try:
        return Model(
            name=_model_name(place),
            **shape,
            tied_embeddings=bool(
                config.get("tie_word_embeddings", content.get("tie_word_embeddings", _is_tied(config)))
            ),
            gated=_model_type(config) not in _UNGATED_TYPES,
            source=str(place),
        )
    except InputError as error:
        raise InputError(f"{place}: {error}", hint=error.hint) from error


def _text_part(content: Json) -> Json:
    """The language model's own configuration, with what transformers assumes where the file is silent."""
    config = content
    for key in _TEXT_KEYS:
        if isinstance(config.get(key), dict):
            config = config[key]
    kind = _model_type(config) or ("gemma3_text" if content.get("model_type") == "gemma3" else _model_type(content))
    return {**_DEFAULTS_BY_TYPE.get(kind, {}), **config, "model_type": kind}


def _model_type(config: Json) -> str:
    """The ``model_type`` of a configuration; empty where it has none."""
    return str(config.get("model_type") or "")


def _is_tied(config: Json) -> bool:
    """Whether embeddings are shared where the file does not say."""
    return _model_type(config) in _TIED_TYPES


def _check_supported(config: Json, content: Json, place: Path) -> None:
    """Refuse designs whose cost does not follow from :class:`Model`'s fields."""
    hint = "plan with a profile that was measured for this model"
    for key, design in _UNSUPPORTED_KEYS.items():
        if config.get(key) or content.get(key):
            raise InputError(f"{place}: {key}: models with {design} are not covered", hint=hint)
    others = sorted({str(kind) for kind in config.get("layer_types") or ()} - _WINDOWED_LAYERS - {"full_attention"})
    if others:
        raise InputError(f"{place}: layer_types: layers of type {', '.join(others)} are not covered", hint=hint)
    names = content.get("architectures") or ["ForCausalLM"]
    if not any(part in str(name) for name in names for part in ("CausalLM", "ConditionalGeneration", "LMHead")):
        raise InputError(
            f"{place}: architectures: {names[0]} does not generate text", hint="give a decoder's config.json"
        )


def _count(config: Json, field: str, place: Path, default: int | None = None) -> int:
    """One count of the shape, under whichever of its names the file uses."""
    for key in _KEYS_BY_FIELD.get(field, (field,)):
        value = config.get(key)
        if isinstance(value, list) and len(set(value)) == 1:
            value = value[0]
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InputError(f"{place}: {key} must be a whole number >= 0, got {value!r}")
        return value
    if default is not None:
        return default
    keys = _KEYS_BY_FIELD.get(field, (field,))
    others = f" (or {', '.join(keys[1:])})" if keys[1:] else ""
    raise InputError(
        f"{place}: {keys[0]}{others} is absent",
        hint=f"{_model_type(config) or 'this model'} is not read as it is; write a config.json with LLaMA's keys",
    )


def _attention_shape(config: Json, place: Path) -> dict[str, Any]:
    """Layers, widths, heads and context length."""
    kind = _model_type(config)
    hidden_size, heads = _count(config, "hidden_size", place), _count(config, "heads", place)
    older_falcon = kind == "falcon" and not config.get("new_decoder_architecture")
    if older_falcon or kind == "gpt_bigcode":
        kv_heads = 1 if config.get("multi_query", True) else heads
    else:
        kv_heads = _count(config, "kv_heads", place, default=heads)
    latent_keys = {
        "kv_lora_rank": "kv_lora_rank",
        "q_lora_rank": "q_lora_rank",
        "qk_rope_head_size": "qk_rope_head_dim",
        "qk_nope_head_size": "qk_nope_head_dim",
        "v_head_size": "v_head_dim",
    }
    is_latent = bool(config.get("kv_lora_rank"))
    latent = {field: int(config.get(key) or 0) for field, key in latent_keys.items()} if is_latent else {}
    head_size = hidden_size // max(1, heads)
    if is_latent:
        head_size = latent["qk_nope_head_size"] + latent["qk_rope_head_size"]
    context = _count(config, "max_context", place)
    learned = {"gpt2": context, "gpt_bigcode": context, "opt": context + 2}.get(kind, 0)
    wide = None if _experts_of(config) == 0 else 0
    four_fold = 4 * hidden_size if kind in _UNGATED_TYPES else wide
    dense_key = "intermediate_size_mlp" if "intermediate_size_mlp" in config else "intermediate_size"
    return {
        "layers": _count(config, "layers", place),
        "hidden_size": hidden_size,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_size": _count(config, "head_size", place, default=head_size),
        "intermediate_size": _count(config, dense_key, place, default=four_fold),
        "vocabulary_size": _count(config, "vocabulary_size", place),
        "max_context": context,
        "learned_positions": learned,
        **latent,
    }


def _experts_of(config: Json) -> int:
    """Routed experts of a layer; 0 for a dense model. One expert is a dense layer."""
    for key in _KEYS_BY_FIELD["experts"]:
        if config.get(key):
            return int(config[key]) if int(config[key]) > 1 else 0
    return 0


def _expert_shape(config: Json, place: Path) -> dict[str, Any]:
    """Experts, how many a token visits, their widths, and how many layers are dense."""
    experts = _experts_of(config)
    if not experts:
        return {}
    width = int(config.get("moe_intermediate_size") or _count(config, "intermediate_size", place))
    shared = int(config.get("shared_expert_intermediate_size") or config.get("shared_intermediate_size") or 0)
    shared = shared or int(config.get("n_shared_experts") or 0) * width
    if _model_type(config).startswith("llama4"):
        shared = width
    return {
        "experts": experts,
        "experts_per_token": _count(config, "experts_per_token", place),
        "expert_intermediate_size": width,
        "shared_expert_intermediate_size": shared,
        "dense_layers": _dense_layers(config, _count(config, "layers", place)),
    }


def _dense_layers(config: Json, layers: int) -> int:
    """Layers without experts: the first ones (DeepSeek), every n-th (Qwen, Llama 4) or a list."""
    if isinstance(config.get("mlp_layer_types"), list):
        return sum(kind == "dense" for kind in config["mlp_layer_types"])
    first = int(config.get("first_k_dense_replace") or 0)
    frequency = config.get("moe_layer_freq")
    if isinstance(frequency, list):
        return layers - sum(map(bool, frequency))
    step = int(config.get("decoder_sparse_step") or config.get("interleave_moe_layer_step") or 1)
    dense = {layer for layer in range(layers) if (layer + 1) % step}
    dense |= set(range(min(first, layers))) | {int(layer) for layer in config.get("mlp_only_layers") or ()}
    dense |= {layer for layer in range(layers) if layer % int(frequency or 1)}
    return len(dense)


def _sliding_shape(config: Json, layers: int, context: int) -> dict[str, int]:
    """Window and how many layers look back only so far; nothing where the window covers the whole context."""
    window = int(config.get("sliding_window") or config.get("attention_chunk_size") or 0)
    if not 0 < window < context:
        return {}
    sliding = _sliding_layers(config, layers)
    return {"sliding_window": window, "sliding_layers": sliding} if sliding else {}


def _sliding_layers(config: Json, layers: int) -> int:
    """How many layers have the window, by each family's own rule."""
    kind = _model_type(config)
    if config.get("layer_types"):
        return sum(layer in _WINDOWED_LAYERS for layer in config["layer_types"])
    if kind in {"gemma2", "gpt_oss"}:
        return -(-layers // 2)
    if kind in {"gemma3_text", "cohere2"}:
        return layers - layers // int(config["sliding_window_pattern"])
    if kind.startswith("llama4"):
        return layers - layers // 4
    if kind.startswith("qwen"):
        first_windowed = int(config.get("max_window_layers") or 0)
        return max(0, layers - first_windowed) if config.get("use_sliding_window") else 0
    return layers


def _model_name(place: Path) -> str:
    """The folder's name, or the hub name where the file lies in the hub's own cache."""
    for part in place.resolve().parts:
        if part.startswith("models--"):
            return part.removeprefix("models--").replace("--", "/", 1)
    return place.resolve().parent.name if place.name == "config.json" else place.stem
