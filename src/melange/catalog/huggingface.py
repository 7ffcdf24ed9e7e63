"""Reads the shape of a model from a Hugging Face ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from melange.catalog.config_file import Config
from melange.catalog.gating import is_gated
from melange.catalog.layer_rules import count_layers
from melange.catalog.model import Model
from melange.catalog.quantization import read_scheme
from melange.catalog.shaped import are_alike, layer_kinds, plain_fields, read_drafts
from melange.catalog.towers import TOWERS, tower_parameters
from melange.errors import InputError
from melange.files import Json, path_of, read_json
from melange.records import reading, shown

_VOCABULARY = ("vocab_size", "padded_vocab_size")
_CONTEXT = (
    "max_position_embeddings", "n_positions", "n_ctx", "seq_length", "max_seq_len", "model_max_length",
    "max_sequence_length", "context_length", "max_position_embedding",
)  # fmt: skip
# Defaults of transformers for keys that a published file omits.
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
# Defaults of transformers for keys that a multimodal model (LLaVA) omits in its text part.
_NESTED_DEFAULTS_BY_TYPE: Mapping[str, Json] = {
    "llama": {
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32_000,
        "max_position_embeddings": 2048,
    },
}
_TIED = ("tie_word_embeddings", "tie_embedding", "use_embedding_sharing")
_TIED_TYPES = {
    "biogpt", "bloom", "cohere", "cohere2", "cohere2_moe", "ctrl", "ernie4_5", "ernie4_5_moe", "ernie4_5_vl_moe_text",
    "falcon", "falcon_mamba", "gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "gemma4",
    "gemma4_text", "gemma4_unified", "gemma4_unified_text", "got_ocr2", "gpt-sw3", "gpt2", "gpt_bigcode", "gpt_neo",
    "gpt_neox_japanese", "granite_docling_text", "granite_swa", "hunyuan_vl_text", "lara_mini", "lfm2", "lfm2_moe",
    "lfm3", "mamba", "minicpm3", "modernbert-decoder", "mpt", "openai-gpt", "opt", "paddleocr_vl_text",
    "qwen2_5_omni_text", "qwen3_vl_moe_text", "recurrent_gemma", "smollm3", "starcoder2", "vaultgemma", "xglm", "youtu",
    "zaya",
}  # fmt: skip
# Types that load two matrices whatever the file says.
_UNTIED_TYPES = {"nemotron_h", "bailing_hybrid", "kimi_linear", "inkling_text", "inkling2_text", "inkling2_loop_text"}
_TEXT_KEYS = (
    "text_config",
    "llm_config",
    "language_config",
    "language_model_config",
    "decoder_config",
)
_GENERATES = (
    "CausalLM",
    "ConditionalGeneration",
    "LMHead",
    "LMModel",
    "ForVision2Seq",
    "ImageTextToText",
    "Chat",
    "Model",
)
_ENCODERS = {
    "bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert", "rembert",
    "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm", "xlm-roberta", "xlm-roberta-xl", "xmod", "xlnet",
    "reformer", "modernbert", "deberta", "deberta-v2", "albert", "distilbert", "git", "cohere_compass_text",
}  # fmt: skip
_ENCODER_DECODERS = {
    "bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "marian", "mbart", "mvp", "pegasus", "plbart",
    "prophetnet",
    "trocr", "whisper", "musicgen", "musicgen_melody", "moshi", "t5", "mt5", "led", "m2m_100", "speecht5",
}  # fmt: skip
# Types whose configuration may omit the context length: states have none, and biases by distance were trained to one.
_CONTEXT_BY_TYPE = {
    "mamba": 1_048_576,
    "mamba2": 1_048_576,
    "falcon_mamba": 1_048_576,
    "recurrent_gemma": 8192,
    "bloom": 2048,
}
# Types of which transformers reads only the text, without the towers, if no architecture is named.
_TEXT_ALONE = {"qwen3_5", "qwen3_5_moe", "qwen4_exp", "llama4", "mllama", "dots3_note", "emu3", "gemma4_unified"}
_UNCOVERED = {
    "longcat_flash": "two attentions in one layer",
    "zamba": "layers that share one block",
    "zamba2": "layers that share one block",
    "jetmoe": "experts in attention",
    "rwkv": "receptance-weighted states",
    "xlstm": "matrix memories",
    "hrm_text": "layers that run in cycles",
    "blt": "byte patches",
    "mllama": "cross-attention to a tower",
    "phi4_multimodal": "adapters for each modality",
    "dots3_note": "an index in 32 bits",
    "dots3_note_text": "an index in 32 bits",
}
_LEARNED_POSITIONS = {"gpt2": 0, "gpt-sw3": 0, "gpt_bigcode": 0, "gpt_neo": 0, "openai-gpt": 0, "opt": 2, "biogpt": 2}


def read_model(path: str | Path) -> Model:
    """Shape of a model from its ``config.json`` in Hugging Face form, and from ``hf_quant_config.json`` next to it.

    Covers decoders with multi-head, grouped-query or multi-head latent attention, sliding windows, linear attention and
    state-space layers, and mixtures of experts; towers of multimodal models count as weights. Layers that only predict
    ahead (``num_nextn_predict_layers``) are left out, and sparse attention counts as dense: an upper limit.

    Parameters
    ----------
    path
        The file, or its folder.

    Raises
    ------
    InputError
        The file cannot be read, lacks a field, describes a design that is not covered, or has a key that may change
        layers, experts, caches or weights and that no rule reads; the message names the key.
    """
    place = path_of(path)
    if place.is_dir():
        place = place / "config.json"
    content = read_json(place, infinity=True)  # transformers writes Infinity under keys unrelated to the shape
    with reading(f"{place}", "a model's config.json"):
        return _model_of(content, place)


def _model_of(content: Any, place: Path) -> Model:
    if not isinstance(content, dict):
        raise InputError(f"{place}: must be an object, got {shown(content)}")
    text, around, key = _text_part(content)
    outside = Config(content, place)
    holder = outside.part(around) if around else outside
    holder.ignore(key)
    config = Config(text, place, f"{holder.prefix}{key}.") if key else Config(text, place)
    whole = holder if key else config
    if around:
        # For models that also speak, the engines serve the part that reads and writes text.
        outside.ignore("talker_config", "code2wav_config", "token2wav_config", "model_type", "torch_dtype", "dtype")
    kind = config.text("model_type")
    _check_supported(config, content, kind)
    fields, kinds = _shape(config, whole, content, kind, place)
    if around:
        outside.check_unread()
    try:
        model = Model(name=_model_name(place), source=str(place), **fields)
        return model if are_alike(kinds, model.kinds) else replace(model, layer_kinds=kinds)
    except InputError as error:
        raise InputError(f"{place}: {error}", hint=error.hint) from error


def _shape(config: Config, whole: Config, content: Json, kind: str, place: Path) -> tuple[dict[str, Any], Any]:
    """Fields of the model, and its kinds of layers."""
    layers, hidden = count_layers(config), config.number("hidden_size", "n_embd", "n_embed", "d_model", least=1)
    context = _context(config, whole, kind)
    vocabulary = config.number(*_VOCABULARY, least=1)
    reading = read_drafts(config, kind, layers, hidden, vocabulary)
    beside = _quantization_beside(place)
    scheme = read_scheme(content, dict(config.items()), beside, str(place))
    kinds = layer_kinds(reading.drafts, scheme)
    # For a multimodal model the outer configuration decides, as in transformers, unless its text is read alone.
    inner = config.flag(*_TIED, default=kind in _TIED_TYPES)
    outer = whole.flag(*_TIED, default=inner)
    tied = (inner if _is_text_alone(whole) else outer) and kind not in _UNTIED_TYPES
    fields = plain_fields(reading, kinds, scheme) | {
        "layers": layers,
        "hidden_size": hidden,
        "vocabulary_size": vocabulary,
        "max_context": context,
        "tied_embeddings": tied,
        "kv_dtype": scheme.kv_dtype or scheme.published,
        "learned_positions": context + _LEARNED_POSITIONS[kind] if kind in _LEARNED_POSITIONS else 0,
        "other_parameters": reading.other_parameters + _towers(whole, config, hidden) + _before_head(kind, hidden),
        "gated": is_gated(config, kind),
    }
    _ignore_known(config, whole)
    if config.number("word_embed_proj_dim", default=hidden) != hidden:
        raise config.fault("word_embed_proj_dim", "embeddings narrower than the layers are not supported")
    config.check_unread()
    if whole is not config:
        whole.check_unread()
    return fields, kinds


def _context(config: Config, whole: Config, kind: str) -> int:
    """Longest prompt plus completion [tokens]."""
    for part in (config, whole):
        for key in _CONTEXT:
            if key in part:
                part.ignore(*_CONTEXT)
                return part.number(key, least=1)
    return _CONTEXT_BY_TYPE[kind] if kind in _CONTEXT_BY_TYPE else config.number(*_CONTEXT, least=1)


def _is_text_alone(whole: Config) -> bool:
    """Whether no architecture is named and the default architecture of the type is its text part."""
    return not whole.value("architectures") and whole.text("model_type") in _TEXT_ALONE


def _towers(whole: Config, config: Config, hidden: int) -> int:
    """Weights in addition to the language model; none if the architecture is text only."""
    names = whole.value("architectures") or []
    is_text = bool(names) and all("CausalLM" in str(name) for name in names)
    if (is_text and whole is config) or _is_text_alone(whole):
        whole.ignore(*TOWERS)
        return 0
    return tower_parameters(whole, hidden)


def _before_head(kind: str, hidden: int) -> int:
    """A matrix between the last layer and the output head."""
    return hidden * hidden if kind == "modernbert-decoder" else 0


def _quantization_beside(place: Path) -> Json | None:
    """``hf_quant_config.json`` in the same folder."""
    beside = place.parent / (place.name.removesuffix("config.json") + "hf_quant_config.json")
    if not place.name.endswith("config.json") or not beside.is_file():
        return None
    found = read_json(beside)
    if not isinstance(found, dict):
        raise InputError(f"{beside}: must be an object, got {found!r}")
    return found


def _ignore_known(config: Config, whole: Config) -> None:
    """Ignore keys that are read elsewhere, and keys of layers that only predict ahead: serving does not use them."""
    repeated = dict(config.items())
    if whole is not config:
        whole.ignore(*(key for key, value in whole.items() if key in repeated and repeated[key] == value))
    for part in (config, whole):
        part.ignore("quantization_config", "compression_config", "model_type", "torch_dtype", "dtype", *_TEXT_KEYS)
        part.ignore(
            "num_nextn_predict_layers", "num_mtp_modules", "num_mtp_layers", "mtp_transformer_layers",
            "mtp_num_hidden_layers", "mtp_layer_types",
            "mtp_mlp_layer_types", "mtp_layers_block_type", "mtp_hybrid_override_pattern", "mtp_local_layer_ids",
            "mtp_use_dedicated_embeddings", "max_position_embeddings", "expert_dtype",
            "hc_sinkhorn_iters", "projector_config",
        )  # fmt: skip


def _text_part(content: Json) -> tuple[Json, str, str]:
    """The language model's own configuration, completed with the defaults of transformers.

    Also the key of the enclosing configuration, and the key of the language model in it; both are empty if the file
    itself is the configuration.
    """
    around, holder = "", content
    if isinstance(content.get("thinker_config"), dict):
        around, holder = "thinker_config", content["thinker_config"]
    key = next((one for one in _TEXT_KEYS if isinstance(holder.get(one), dict)), "")
    config = holder[key] if key else holder
    if around and not key:
        around, key = "", around
    config = _by_use_of_mla(_flattened(config))
    own = str(config.get("model_type") or "")
    if own == "git" and content.get("architectures") == ["Grok1ForCausalLM"]:  # as published with Grok 2
        own = "grok-1"
    kind = own or ("gemma3_text" if content.get("model_type") == "gemma3" else str(content.get("model_type") or ""))
    defaults = _DEFAULTS_BY_TYPE.get(kind, {}) | (_NESTED_DEFAULTS_BY_TYPE.get(kind, {}) if key else {})
    return {**defaults, **config, "model_type": kind}, around, key


def _flattened(config: Json) -> Json:
    """DBRX and MPT nest the keys about attention and experts; this flattens them."""
    inner = {key: config.get(key) for key in ("attn_config", "ffn_config")}
    parts = {key: one for key, one in inner.items() if isinstance(one, dict)}
    if not parts or config.get("model_type") not in ("dbrx", "mpt"):
        return config
    attention, feed = parts.get("attn_config", {}), parts.get("ffn_config", {})
    found = {"num_key_value_heads": attention.get("kv_n_heads")}
    if attention.get("attn_type") == "multiquery_attention":
        found["num_key_value_heads"] = 1
    found |= {key: feed.get(key) for key in ("ffn_hidden_size", "moe_num_experts", "moe_top_k")}
    kept = {key: value for key, value in config.items() if key not in parts}
    return kept | {key: value for key, value in found.items() if value is not None}


def _by_use_of_mla(config: Json) -> Json:
    """DeepSeek-VL2 says beside the ranks of latent attention whether it is used."""
    if config.get("use_mla") is True and config.get("kv_lora_rank"):
        return {key: value for key, value in config.items() if key != "use_mla"}
    if config.get("use_mla") is False:
        return {key: value for key, value in config.items() if key not in ("use_mla", "kv_lora_rank", "q_lora_rank")}
    return config


def _check_supported(config: Config, content: Json, kind: str) -> None:
    """Reject a model that is not a decoder which engines serve with its own KV cache."""
    if content.get("is_encoder_decoder") or kind in _ENCODER_DECODERS:
        key = "is_encoder_decoder" if content.get("is_encoder_decoder") else "model_type"
        raise config.fault(key, f"{kind}: encoder-decoder models are not supported")
    if kind in _UNCOVERED or str(content.get("model_type")) in _UNCOVERED:
        found = kind if kind in _UNCOVERED else str(content["model_type"])
        raise config.fault("model_type", f"{found}: models with {_UNCOVERED[found]} are not supported")
    names = content.get("architectures") or ["ForCausalLM"]
    if not isinstance(names, list):
        raise config.fault("architectures", f"must be a list of names, got {names!r}")
    if kind in _ENCODERS or not any(part in str(name) for name in names for part in _GENERATES):
        raise config.fault(
            "architectures",
            f"{names[0] if content.get('architectures') else kind} does not generate text",
            "give a decoder's config.json",
        )


def _model_name(place: Path) -> str:
    """The folder's name, or the hub name if the file lies in the hub's own cache."""
    for part in place.resolve().parts:
        if part.startswith("models--"):
            return part.removeprefix("models--").replace("--", "/", 1)
    return place.resolve().parent.name if place.name == "config.json" else place.stem
