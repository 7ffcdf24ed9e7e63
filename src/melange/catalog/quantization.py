"""Reads the data types of weights, activations and KV cache from a Hugging Face ``config.json``."""

from __future__ import annotations

from typing import Any

from melange.errors import InputError
from melange.files import Json

_DTYPE_BY_TORCH_NAME = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "bf16", "float": "bf16"}
_WEIGHT_ONLY_METHODS = {"awq", "gptq", "gptq_marlin", "awq_marlin", "auto-round", "intel/auto-round", "auto_round"}
_FP8_METHODS = {"fp8", "fbgemm_fp8"}
_DTYPES_BY_ALGORITHM = {
    "FP8": ("fp8", "fp8"),
    "FP8_PB_WO": ("fp8", "fp8"),
    "NVFP4": ("fp4", "fp4"),
    "W4A16_AWQ": ("int4", "bf16"),
    "W4A8_AWQ": ("int4", "fp8"),
    "W8A8_SQ_PER_CHANNEL": ("int8", "int8"),
}


def read_quantization(content: Json, config: Json, place: str) -> dict[str, str]:
    """The data types that :class:`~melange.catalog.model.Model` wants, as its keyword arguments.

    Parameters
    ----------
    content
        The whole file: quantisation and data type may stand at its top.
    config
        The language model's part of it.
    place
        The file, for errors.

    Raises
    ------
    InputError
        A method of quantisation that is not known.
    """
    name = str(
        config.get("torch_dtype") or config.get("dtype") or content.get("torch_dtype") or content.get("dtype") or ""
    )
    published = _DTYPE_BY_TORCH_NAME.get(name.removeprefix("torch."), "bf16")
    quantization = content.get("quantization_config") or config.get("quantization_config")
    if not isinstance(quantization, dict) or not quantization:
        return {"weight_dtype": published, "activation_dtype": published, "kv_dtype": published}
    weights, activations = _weights_and_activations(quantization, place)
    found = {"weight_dtype": weights, "activation_dtype": activations or published, "kv_dtype": published}
    if _keeps_attention(quantization):
        found["attention_weight_dtype"] = published
    if _has_fp8_cache(quantization):
        found["kv_dtype"] = "fp8"
    return found


def _weights_and_activations(quantization: Json, place: str) -> tuple[str, str]:
    """Data types of weights and activations; empty activations: as published, only the weights are quantized."""
    method = str(quantization.get("quant_method") or "").lower()
    if method in _FP8_METHODS:
        return "fp8", "fp8"
    if method == "mxfp4":
        return "fp4", ""
    if method in _WEIGHT_ONLY_METHODS:
        return _integer(quantization.get("bits", 4), f"{place}: quantization_config.bits"), ""
    if method == "bitsandbytes":
        return ("int8", "") if quantization.get("load_in_8bit") else ("int4", "")
    if method == "compressed-tensors":
        return _compressed(quantization, place)
    algorithm = str(quantization.get("quant_algo") or "").upper()
    if algorithm in _DTYPES_BY_ALGORITHM:
        return _DTYPES_BY_ALGORITHM[algorithm]
    raise InputError(
        f"{place}: quantization_config.quant_method: {algorithm or method or 'nothing'} is not known",
        hint="known: fp8, mxfp4, awq, gptq, bitsandbytes, compressed-tensors, modelopt",
    )


def _compressed(quantization: Json, place: str) -> tuple[str, str]:
    """What a compressed-tensors configuration says of its first group."""
    groups = quantization.get("config_groups")
    group: Any = next(iter(groups.values()), None) if isinstance(groups, dict) else None
    if not isinstance(group, dict) or not isinstance(group.get("weights"), dict):
        raise InputError(f"{place}: quantization_config.config_groups: no group says how weights are stored")
    dtypes = []
    for part in ("weights", "input_activations"):
        stored = group.get(part)
        if not stored:
            dtypes.append("")
        elif stored.get("type") == "float":
            dtypes.append({8: "fp8", 4: "fp4"}.get(stored.get("num_bits"), "bf16"))
        else:
            dtypes.append(
                _integer(stored.get("num_bits"), f"{place}: quantization_config.config_groups {part} num_bits")
            )
    return dtypes[0], dtypes[1]


def _integer(bits: object, place: str) -> str:
    """``int4`` or ``int8``."""
    if bits not in (4, 8):
        raise InputError(f"{place} must be 4 or 8, got {bits!r}")
    return f"int{bits}"


def _keeps_attention(quantization: Json) -> bool:
    """Whether the attention projections of all layers stay as published."""
    kept = (
        quantization.get("modules_to_not_convert") or quantization.get("ignore") or quantization.get("exclude_modules")
    )
    names = [str(name) for name in kept or ()]
    patterns = [name for name in names if "attn" in name]
    return any("*" in name for name in patterns) or len(patterns) > len(names) / 2 > 0


def _has_fp8_cache(quantization: Json) -> bool:
    """Whether the checkpoint comes with scales for a KV cache in fp8."""
    scheme = quantization.get("kv_cache_scheme")
    algorithm = str(quantization.get("kv_cache_quant_algo") or "").upper()
    return algorithm == "FP8" or (isinstance(scheme, dict) and scheme.get("num_bits") == 8)
