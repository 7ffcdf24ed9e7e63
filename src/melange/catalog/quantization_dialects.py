"""The dialects in which checkpoints state their quantization, each read into one scheme."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from melange.catalog.stored import Scheme, Stored, checked, floating, integer, part_of
from melange.errors import InputError
from melange.files import Json

# ModelOpt's names of algorithms: bits of a weight, its group, bits of a group's scale, and the activations' type.
_ALGORITHMS: dict[str, tuple[str, float, float, float, str]] = {
    "FP8": ("float", 8, 0, 0, "fp8"),
    "FP8_PB_WO": ("float", 8, 0, 0, "fp8"),
    "FP8_PB_REAL": ("float", 8, 0, 0, "fp8"),
    "FP8_PER_CHANNEL_PER_TOKEN": ("float", 8, 0, 0, "fp8"),
    "MXFP8": ("float", 8, 32, 8, "fp8"),
    "NVFP4": ("float", 4, 16, 8, "fp4"),
    "NVFP4_AWQ": ("float", 4, 16, 8, "fp4"),
    "NVFP4_SVDQUANT": ("float", 4, 16, 8, "fp4"),
    "W4A16_NVFP4": ("float", 4, 16, 8, ""),
    "W4A8_NVFP4_FP8": ("float", 4, 16, 8, "fp8"),
    "MXFP4": ("float", 4, 32, 8, "fp4"),
    "W4A8_MXFP4_FP8": ("float", 4, 32, 8, "fp8"),
    "W4A16_MXFP4": ("float", 4, 32, 8, ""),
    "W4A16_AWQ": ("int", 4, 128, 16, ""),
    "W4A16": ("int", 4, 128, 16, ""),
    "W4A16_GPTQ": ("int", 4, 128, 16, ""),
    "INT4_AWQ": ("int", 4, 128, 16, ""),
    "W4A8_AWQ": ("int", 4, 128, 16, "fp8"),
    "W8A16": ("int", 8, 0, 0, ""),
    "W8A8_SQ_PER_CHANNEL": ("int", 8, 0, 0, "int8"),
    "W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN": ("int", 8, 0, 0, "int8"),
    "INT8": ("int", 8, 0, 0, "int8"),
}


def _algorithm(name: str, group: Any, place: str) -> Stored | None:
    """The storage format of one of ModelOpt's algorithms."""
    name = name.upper()
    if name in ("", "NONE", "NO_QUANT"):
        return None
    if name not in _ALGORITHMS:
        raise InputError(f"{place}.quant_algo: {name} is not supported", hint=f"known: {', '.join(_ALGORITHMS)}")
    kind, bits, usual, scale, multiplied = _ALGORITHMS[name]
    size = checked(group, f"{place}.group_size") if group and usual else usual
    if kind == "int":
        return integer(bits, size, has_zeros=bits == 4, place=place, multiplied=multiplied, scale=scale)
    return floating(bits, size, scale=scale, multiplied=multiplied, place=place)


def modelopt(details: Json, published: str, place: str) -> Scheme:
    """NVIDIA's ModelOpt: one algorithm for all modules, or one for each."""
    algorithm = str(details.get("quant_algo") or "").upper()
    layers = details.get("quantized_layers")
    if algorithm in ("MIXED_PRECISION", "MIXED") or (not algorithm and layers):
        if not isinstance(layers, dict) or not layers:
            raise InputError(f"{place}.quantized_layers: must say how each module is stored, got {layers!r}")
        rules = []
        for name, one in layers.items():
            if not isinstance(one, dict):
                raise InputError(f"{place}.quantized_layers.{name}: must be an object, got {one!r}")
            where = f"{place}.quantized_layers.{name}"
            rules.append((name, _algorithm(str(one.get("quant_algo") or ""), one.get("group_size"), where)))
        # DeepSeek's own checkpoints are in fp8 in all modules that ModelOpt has not quantized further.
        base = Stored(dtype="fp8", multiplied="fp8") if str(details.get("quant_method")).casefold() == "fp8" else None
        return Scheme(published=published, default=base, rules=tuple(rules))
    if not algorithm and isinstance(details.get("config_groups"), dict):
        return _compressed(details, published, place)
    if not algorithm and details.get("kv_cache_quant_algo"):
        return Scheme(published=published)  # only the cache is quantized
    if not algorithm:
        raise InputError(f"{place}.quant_algo: is missing", hint=f"known: {', '.join(_ALGORITHMS)}")
    return Scheme(published=published, default=_algorithm(algorithm, details.get("group_size"), place))


def _compressed(details: Json, published: str, place: str) -> Scheme:
    """compressed-tensors: groups of modules, each stored in its own way."""
    groups = details.get("config_groups")
    if groups == {} and details.get("kv_cache_scheme"):
        return Scheme(published=published)  # only the cache is quantized
    if not isinstance(groups, dict) or not groups:
        raise InputError(f"{place}.config_groups: no group says how weights are stored")
    default: Stored | None = None
    rules: list[tuple[str, Stored | None]] = []
    for name, group in groups.items():
        where = f"{place}.config_groups.{name}"
        if not isinstance(group, dict):
            raise InputError(f"{where}: must be an object, got {group!r}")
        stored = _group(group, where)
        targets = group.get("targets") or ["Linear"]
        if not isinstance(targets, list):
            raise InputError(f"{where}.targets: must be a list of modules, got {targets!r}")
        for target in targets:
            if target in ("Linear", "FusedMoE", "LinearBase"):
                default = stored
            else:
                rules.append((str(target), stored))
    return Scheme(published=published, default=default, rules=tuple(rules))


def _group(group: Json, where: str) -> Stored | None:
    """One group of compressed-tensors."""
    weights = group.get("weights")
    if not weights:
        return None  # only activations are quantized
    if not isinstance(weights, dict):
        raise InputError(f"{where}.weights: must be an object, got {weights!r}")
    inputs = part_of(group.get("input_activations"), f"{where}.input_activations")
    bits = checked(weights.get("num_bits", 8), f"{where}.weights.num_bits")
    size = checked(weights.get("group_size") or 0, f"{where}.weights.group_size", least=-1)
    active = checked(inputs.get("num_bits", 16), f"{where}.input_activations.num_bits") if inputs else 16
    if weights.get("type") == "float":
        if bits == 16:
            return None
        multiplied = "" if active == 16 else "fp4" if active == 4 else "fp8"
        return floating(bits, size, scale=8, multiplied=multiplied, place=where)
    multiplied = "" if active == 16 else "fp8" if inputs.get("type") == "float" else "int8"
    zeros = weights.get("symmetric") is False
    return integer(bits, size, has_zeros=zeros, place=f"{where}.weights.num_bits", multiplied=multiplied)


def _fp8(details: Json, published: str, place: str) -> Scheme:
    """DeepSeek's block-wise fp8, and fp8 of vLLM and FBGEMM."""
    return Scheme(published=published, default=Stored(dtype="fp8", multiplied="fp8"))


def _mxfp4(details: Json, published: str, place: str) -> Scheme:
    """MXFP4 of gpt-oss."""
    return Scheme(published=published, default=Stored(dtype="fp4"))


def _packed(details: Json, published: str, place: str) -> Scheme:
    """AWQ, GPTQ, AutoRound: integers in groups, with a zero for each group unless symmetric; modules may differ.

    GPTQ files hold zeros even if they are symmetric; engines drop these.
    """
    bits = checked(details.get("bits", details.get("w_bit", 4)), f"{place}.bits")
    group = checked(details.get("group_size", details.get("q_group_size", 128)) or 0, f"{place}.group_size", least=-1)
    has_zeros = details.get("sym") is not True and details.get("zero_point") is not False
    default = integer(bits, group, has_zeros=has_zeros, place=f"{place}.bits")
    rules: list[tuple[str, Stored | None]] = []
    for key, sign in (("dynamic", True), ("extra_config", False)):
        for pattern, one in part_of(details.get(key), f"{place}.{key}").items():
            name = f"re:{pattern.lstrip('+-').removeprefix(':')}" if sign else pattern
            own = one if isinstance(one, dict) else {}
            own_bits = checked(own.get("bits", bits), f"{place}.{key}.{pattern}.bits")
            own_group = checked(own.get("group_size", group) or 0, f"{place}.{key}.{pattern}.group_size", least=-1)
            is_kept = pattern.startswith("-:") or own_bits >= 16
            where = f"{place}.{key}.{pattern}.bits"
            zeros = own.get("sym") is not True if "sym" in own else has_zeros
            rules.append((name, None if is_kept else integer(own_bits, own_group, has_zeros=zeros, place=where)))
    return Scheme(published=published, default=default, rules=tuple(rules))


def _bitsandbytes(details: Json, published: str, place: str) -> Scheme:
    """bitsandbytes: 8 bits, or 4 in blocks of 64 with a 32-bit scale, or an 8-bit scale if scales are quantized too."""
    if details.get("load_in_8bit") or details.get("_load_in_8bit"):
        return Scheme(published=published, default=Stored(dtype="int8"))
    if not details.get("load_in_4bit") and not details.get("_load_in_4bit"):
        raise InputError(f"{place}.load_in_4bit: must be true, or load_in_8bit")
    scale = 8 + 32 / 256 if details.get("bnb_4bit_use_double_quant") else 32
    return Scheme(published=published, default=integer(4, 64, has_zeros=False, place=place, scale=scale))


def _quark(details: Json, published: str, place: str) -> Scheme:
    """AMD's Quark: one configuration for all modules, with exceptions for some."""
    common = details.get("global_quant_config")
    default = _quark_part(common, f"{place}.global_quant_config")
    rules = []
    for key in ("layer_quant_config", "layer_type_quant_config"):
        for pattern, one in part_of(details.get(key), f"{place}.{key}").items():
            if key == "layer_type_quant_config" and pattern != "Linear":
                continue
            where = f"{place}.{key}.{pattern}"
            rules.append((pattern if key == "layer_quant_config" else "*", _quark_part(one, where)))
    return Scheme(published=published, default=default, rules=tuple(rules))


def _quark_part(part: Any, place: str) -> Stored | None:
    weight = part.get("weight") if isinstance(part, dict) else None
    if isinstance(weight, list):
        weight = weight[0] if weight else None
    if weight is None:
        return None
    weight = part_of(weight, f"{place}.weight")
    inputs = part.get("input_tensors")
    inputs = inputs[0] if isinstance(inputs, list) and inputs else inputs
    inputs = part_of(inputs, f"{place}.input_tensors")
    dtype, active = str(weight.get("dtype") or ""), str(inputs.get("dtype") or "")
    is_grouped = weight.get("qscheme") in ("per_group", "per_block")
    group = checked(weight.get("group_size") or 0, f"{place}.weight.group_size") if is_grouped else 0
    activation_type = next((name for name in ("fp8", "fp4", "int8") if active.startswith(name)), "")
    if dtype.startswith(("int", "uint")):
        bits = float(re.sub(r"\D", "", dtype) or 0)
        return integer(
            bits, group, has_zeros=not weight.get("symmetric", True), place=place, multiplied=activation_type
        )
    if dtype.startswith(("fp", "mxfp")) and (found := re.search(r"fp(\d)", dtype)):
        return floating(float(found[1]), group, scale=8, multiplied=activation_type, place=place)
    if dtype in ("bfloat16", "float16"):
        return None
    raise InputError(f"{place}.weight.dtype: {dtype or 'nothing'} is not supported", hint="known: fp8, fp4, int8, int4")


def _torchao(details: Json, published: str, place: str) -> Scheme:
    """torchao: a named type with its group, or one for each module."""
    stated = details.get("quant_type")
    if isinstance(stated, dict) and "default" in stated:
        stated = stated["default"]
    if isinstance(stated, dict) and "_type" not in stated:
        raise InputError(f"{place}.quant_type: must name a type, got {stated!r}")
    given = stated.get("_data") if isinstance(stated, dict) else details.get("quant_type_kwargs")
    data = part_of(given, f"{place}.quant_type")
    name = str(stated["_type"] if isinstance(stated, dict) else stated or "")
    key = next((one for one in ("module_fqn_to_config", "fqn_to_config") if one in data), "")
    if key or name in ("ModuleFqnToConfig", "FqnToConfig"):
        key = key or "fqn_to_config"
        modules = part_of(data.get(key), f"{place}.quant_type.{key}")
        rules = [(pattern, _torchao_type(one, place)) for pattern, one in modules.items() if pattern != "_default"]
        return Scheme(published=published, default=_torchao_type(modules.get("_default"), place), rules=tuple(rules))
    return Scheme(published=published, default=_torchao_type({"_type": name, "_data": data}, place))


# Types of torchao by the longest prefix of their names: kind, bits (0: stated by weight_dtype), usual group, and data
# type of multiplication.
_TORCHAO: dict[str, tuple[str, float, float, str]] = {
    "int4": ("int", 4, 128, ""),
    "int4dynamicactivationint4": ("int", 4, 128, ""),
    "int8dynamicactivationint4": ("int", 4, 32, ""),
    "float8dynamicactivationint4": ("scaled", 4, 128, "fp8"),
    "uintx": ("int", 0, 64, ""),
    "gemliteuintx": ("int", 0, 64, ""),
    "intx": ("int", 0, 32, ""),
    "int8dynamicactivationintx": ("int", 0, 32, "int8"),
    "int8": ("int", 8, 0, ""),
    "int8dynamicactivationint8": ("int", 8, 0, "int8"),
    "int8staticactivationint8": ("int", 8, 0, "int8"),
    "float8": ("float", 8, 0, ""),
    "float8dynamicactivationfloat8": ("float", 8, 0, "fp8"),
    "float8staticactivationfloat8": ("float", 8, 0, "fp8"),
    "nvfp4": ("float", 4, 16, "fp4"),
    "nvfp4weightonly": ("float", 4, 16, ""),
    "mxfp4": ("float", 4, 32, "fp4"),
    "mx": ("float", 0, 32, "fp8"),
}


def _torchao_type(one: Any, place: str) -> Stored | None:
    """The storage format of one of torchao's types."""
    if not isinstance(one, dict):
        return None
    stated = str(one.get("_type") or "")
    name = re.sub(r"[_\s]|config$", "", stated.casefold())
    data = part_of(one.get("_data"), f"{place}.quant_type")
    begins = max((begin for begin in _TORCHAO if name.startswith(begin)), key=len, default="")
    if not begins:
        raise InputError(f"{place}.quant_type: {stated} is not supported", hint=f"known: {', '.join(_TORCHAO)}")
    kind, bits, usual, multiplied = _TORCHAO[begins]
    bits = bits or _torchao_bits(data, f"{place}.quant_type")
    given = data.get("group_size", data.get("block_size")) if usual or kind == "int" else None
    group = checked(given or usual, f"{place}.quant_type.group_size", least=-1)
    if kind == "float":
        return floating(bits, group, scale=8, multiplied=multiplied, place=place)
    return integer(bits, group, has_zeros=kind == "int" and bits < 8, place=place, multiplied=multiplied)


def _torchao_bits(data: Json, place: str) -> float:
    """Bits of a weight whose type has its own key: ``uint4``, ``torch.int4``, ``float4_e2m1fn_x2``."""
    stated = next((data[key] for key in ("weight_dtype", "dtype", "elem_dtype", "bit_width") if key in data), None)
    stated = stated.get("_data", stated) if isinstance(stated, dict) else stated
    found = re.search(r"(?:int|float)?(\d+)", str(stated))
    if found is None:
        raise InputError(f"{place}.weight_dtype: must be a type such as int4, got {stated!r}")
    return float(found[1])


def _hqq(details: Json, published: str, place: str) -> Scheme:
    """Half-quadratic quantization: a 16-bit scale and a 16-bit zero for each group."""
    stated = part_of(details.get("quant_config"), f"{place}.quant_config")
    part = part_of(stated.get("weight_quant_params"), f"{place}.quant_config.weight_quant_params") or details
    bits = checked(part.get("nbits", 4), f"{place}.nbits")
    group = checked(part.get("group_size") or 64, f"{place}.group_size")
    return Scheme(published=published, default=integer(bits, group, has_zeros=False, place=f"{place}.nbits", scale=32))


def _experts_int8(details: Json, published: str, place: str) -> Scheme:
    """Only routed experts, in 8 bits."""
    return Scheme(published=published, rules=(("re:.*experts\\.\\d.*", Stored(dtype="int8")),))


def _int8(details: Json, published: str, place: str) -> Scheme:
    """8 bits, with a scale per channel."""
    return Scheme(published=published, default=Stored(dtype="int8"))


def _fp_quant(details: Json, published: str, place: str) -> Scheme:
    """FP-Quant: MXFP4 or NVFP4."""
    name = str(details.get("forward_dtype") or "mxfp4").casefold()
    return Scheme(published=published, default=_algorithm(name, None, place))


READERS: dict[str, Callable[[Json, str, str], Scheme]] = {
    **dict.fromkeys(("fp8", "fbgemm_fp8", "finegrained_fp8", "ptpc_fp8", "deepgemm", "fp8_e4m3", "w8a8_fp8"), _fp8),
    **dict.fromkeys(
        ("awq", "gptq", "gptq_marlin", "awq_marlin", "auto-round", "intel/auto-round", "auto_round"), _packed
    ),
    **dict.fromkeys(
        ("modelopt", "modelopt_fp4", "modelopt_fp8", "modelopt_mixed", "modelopt_mxfp8", "nvfp4"), modelopt
    ),
    "mxfp4": _mxfp4,
    "bitsandbytes": _bitsandbytes,
    "compressed-tensors": _compressed,
    "compressed_tensors": _compressed,
    "quark": _quark,
    "torchao": _torchao,
    "hqq": _hqq,
    "experts_int8": _experts_int8,
    **dict.fromkeys(("eetq", "w8a8_int8", "blockwise_int8"), _int8),
    "fp_quant": _fp_quant,
}
