"""Reads the data types of weights, activations and KV cache: by module, by group and by layer.

A checkpoint says how it is quantized in ``quantization_config`` of its ``config.json`` or in an ``hf_quant_config.json``
beside it. Each of its dialects is read into the same :class:`Scheme`, which answers for one module at a time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from melange.catalog.layers import BYTES_BY_DTYPE
from melange.catalog.module_rules import ModuleRules
from melange.errors import InputError
from melange.files import Json

_DTYPE_BY_TORCH_NAME = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "bf16", "float": "bf16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """How weights are stored and multiplied.

    Parameters
    ----------
    dtype
        Data type, as :class:`~melange.catalog.layers.Weights` has it.
    bits
        Bits of a value with scales and zeros; 0: as usual for the data type.
    multiplied
        Data type in which they are multiplied; empty: that of the model as published.
    """

    dtype: str
    bits: float = 0.0
    multiplied: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How a checkpoint is quantized.

    Parameters
    ----------
    published
        Data type of what is not quantized.
    default
        What every linear layer is stored in that no rule names; None: as published.
    rules
        Patterns of modules, and what they are stored in; the first that matches decides. None: as published.
    kept
        Patterns of modules that stay as published.
    kv_dtype
        Data type of the KV cache.
    routed
        What routed experts are stored in that no rule names, where that is not ``default``.
    """

    published: str
    default: Stored | None = None
    rules: tuple[tuple[str, Stored | None], ...] = ()
    kept: tuple[str, ...] = ()
    kv_dtype: str = ""
    routed: Stored | None = None

    def reader(self) -> Callable[[int, str, bool], Stored]:
        """What a matrix is stored in, by its layer, its name there and whether it is of routed experts."""
        kept = ModuleRules(self.kept)
        rules = ModuleRules([pattern for pattern, _ in self.rules])

        def stored(layer: int, matrix: str, is_routed: bool) -> Stored:
            found = None
            if kept.rule_of(layer, matrix) is None:
                rule = rules.rule_of(layer, matrix)
                if rule is not None:
                    found = self.rules[rule][1]
                else:
                    found = self.routed if is_routed and self.routed is not None else self.default
            if found is None:
                return Stored(dtype=self.published, multiplied=self.published)
            return Stored(dtype=found.dtype, bits=found.bits, multiplied=found.multiplied or self.published)

        return stored


def read_scheme(content: Json, config: Json, beside: Json | None, place: str) -> Scheme:
    """How the checkpoint is quantized.

    Parameters
    ----------
    content
        The whole file: quantization and data type may stand at its top.
    config
        The language model's part of it.
    beside
        ``hf_quant_config.json`` of the same folder, where there is one.
    place
        The file, for errors.

    Raises
    ------
    InputError
        A method of quantization that is not known, or a number that cannot be.
    """
    name = str(next((c[k] for c in (config, content) for k in ("torch_dtype", "dtype") if c.get(k)), ""))
    published = _DTYPE_BY_TORCH_NAME.get(name.removeprefix("torch."), "bf16")
    stated = content.get("quantization_config") or config.get("quantization_config") or content.get("compression_config")
    if isinstance(stated, dict) and stated:
        place = f"{place}: quantization_config"
    elif beside:
        stated, place = beside, f"{place.removesuffix('config.json')}hf_quant_config.json"
    else:
        return Scheme(published=published, kv_dtype=published)
    details = _merged(stated, beside)
    method = str(details.get("quant_method") or "").casefold()
    algorithm = str(details.get("quant_algo") or "").upper()
    read = _READERS.get(method)
    if algorithm and (read is None or method == "fp8"):
        read = _modelopt
    if read is None:
        raise InputError(
            f"{place}.quant_method: {method or algorithm or 'nothing'} is not known",
            hint=f"known: {', '.join(sorted(_READERS))}; or plan with the weights as published",
        )
    scheme = read(details, published, place)
    routed = _expert_dtype(config, scheme, place)
    # What ModelOpt left alone of a checkpoint in fp8 is in fp8 still.
    is_layered = bool(scheme.rules) and scheme.default is not None and method == "fp8"
    kept = () if is_layered else (*scheme.kept, *_kept(details, place))
    kv = _kv_dtype(details, place) or published
    return Scheme(
        published=published, default=scheme.default, rules=scheme.rules, kept=kept, kv_dtype=kv, routed=routed
    )


def _merged(stated: Json, beside: Json | None) -> Json:
    """ModelOpt nests what it says in ``quantization``; the file beside fills in what the configuration leaves out."""
    inner = stated.get("quantization")
    merged = {**stated, **inner} if isinstance(inner, dict) else dict(stated)
    other = (beside or {}).get("quantization")
    if isinstance(other, dict):
        for key, value in other.items():
            merged[key] = merged.get(key) or value
    if merged.get("quant_algo") and not merged.get("quant_method"):
        merged["quant_method"] = "modelopt"
    return merged


def _kept(details: Json, place: str) -> tuple[str, ...]:
    """Modules that every dialect lists as left alone."""
    found: list[str] = []
    for key in (
        "modules_to_not_convert", "ignore", "ignored_layers", "exclude_modules", "exclude", "llm_int8_skip_modules",
        "skip_modules", "exclude_layers",
    ):  # fmt: skip
        value = details.get(key)
        if value is None:
            continue
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise InputError(f"{place}.{key}: must be a list of modules, got {value!r}")
        found += value
    return tuple(found)


def _expert_dtype(config: Json, scheme: Scheme, place: str) -> Stored | None:
    """Routed experts that are stored apart from the rest (DeepSeek-V4's in four bits)."""
    name = config.get("expert_dtype")
    if name in (None, "", "fp8", "bf16", "bfloat16") or scheme.rules:
        return None
    if name not in ("fp4", "mxfp4"):
        raise InputError(f"{place}: expert_dtype: {name!r} is not known", hint="known: fp4, fp8")
    return Stored(dtype="fp4", multiplied="fp8")


def _number(value: Any, place: str, least: float = 0.0) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < float("inf"):
        raise InputError(f"{place}: must be a number >= {least:g}, got {value!r}")
    return float(value)


def integer(bits: float, group: float, *, has_zeros: bool, place: str, multiplied: str = "", scale: float = 16) -> Stored:
    """Whole numbers of a few bits, with a scale and perhaps a zero for each group; no group: for each channel."""
    if not 2 <= bits <= 8 or bits != int(bits):
        raise InputError(f"{place}: must be 2 to 8 bits, got {bits:g}")
    extra = (scale + (bits if has_zeros else 0)) / group if group > 0 else 0.0
    dtype = "int8" if bits > 4 else "int4"
    return Stored(dtype=dtype, bits=_unless_usual(bits + extra, dtype), multiplied=multiplied)


def floating(bits: float, group: float, *, scale: float, multiplied: str, place: str) -> Stored:
    """Floating point of four or eight bits, with a scale for each group; no group: for each channel or block."""
    if bits not in (4, 6, 8):
        raise InputError(f"{place}: floating point of {bits:g} bits is not known")
    dtype = "fp4" if bits == 4 else "fp8"
    extra = scale / group if group > 0 else 0.0
    return Stored(dtype=dtype, bits=_unless_usual(bits + extra, dtype), multiplied=multiplied)


def _unless_usual(bits: float, dtype: str) -> float:
    """0 where the data type means these bits anyway."""
    return 0.0 if abs(bits / 8 - BYTES_BY_DTYPE[dtype]) < 1e-9 else bits


# What ModelOpt calls its algorithms: bits of a weight, its group, bits of a group's scale, and the activations' type.
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
    """What one of ModelOpt's algorithms stores."""
    name = name.upper()
    if name in ("", "NONE", "NO_QUANT"):
        return None
    if name not in _ALGORITHMS:
        raise InputError(f"{place}.quant_algo: {name} is not known", hint=f"known: {', '.join(_ALGORITHMS)}")
    kind, bits, usual, scale, multiplied = _ALGORITHMS[name]
    size = _number(group, f"{place}.group_size") if group and usual else usual
    if kind == "int":
        return integer(bits, size, has_zeros=bits == 4, place=place, multiplied=multiplied, scale=scale)
    return floating(bits, size, scale=scale, multiplied=multiplied, place=place)


def _modelopt(details: Json, published: str, place: str) -> Scheme:
    """NVIDIA's ModelOpt: one algorithm, or one for each module."""
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
        # DeepSeek's own checkpoints are in fp8 where ModelOpt has not quantized them further.
        base = Stored(dtype="fp8", multiplied="fp8") if str(details.get("quant_method")).casefold() == "fp8" else None
        return Scheme(published=published, default=base, rules=tuple(rules))
    if not algorithm and isinstance(details.get("config_groups"), dict):
        return _compressed(details, published, place)
    if not algorithm:
        raise InputError(f"{place}.quant_algo: is absent", hint=f"known: {', '.join(_ALGORITHMS)}")
    return Scheme(published=published, default=_algorithm(algorithm, details.get("group_size"), place))


def _compressed(details: Json, published: str, place: str) -> Scheme:
    """compressed-tensors: groups of modules, each stored in its own way."""
    groups = details.get("config_groups")
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
    inputs = group.get("input_activations") or {}
    bits = _number(weights.get("num_bits", 8), f"{where}.weights.num_bits")
    size = _number(weights.get("group_size") or 0, f"{where}.weights.group_size", least=-1)
    active = _number(inputs.get("num_bits", 16), f"{where}.input_activations.num_bits") if inputs else 16
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
    """AWQ, GPTQ, AutoRound: whole numbers in groups, with a zero for each group; modules may differ."""
    bits = _number(details.get("bits", details.get("w_bit", 4)), f"{place}.bits")
    group = _number(details.get("group_size", details.get("q_group_size", 128)) or 0, f"{place}.group_size", least=-1)
    default = integer(bits, group, has_zeros=True, place=f"{place}.bits")
    rules: list[tuple[str, Stored | None]] = []
    for key, sign in (("dynamic", True), ("extra_config", False)):
        for pattern, one in (details.get(key) or {}).items():
            name = f"re:{pattern.lstrip('+-').removeprefix(':')}" if sign else pattern
            own = one if isinstance(one, dict) else {}
            own_bits = _number(own.get("bits", bits), f"{place}.{key}.{pattern}.bits")
            own_group = _number(own.get("group_size", group) or 0, f"{place}.{key}.{pattern}.group_size", least=-1)
            is_kept = pattern.startswith("-:") or own_bits >= 16
            where = f"{place}.{key}.{pattern}.bits"
            rules.append((name, None if is_kept else integer(own_bits, own_group, has_zeros=True, place=where)))
    return Scheme(published=published, default=default, rules=tuple(rules))


def _bitsandbytes(details: Json, published: str, place: str) -> Scheme:
    """bitsandbytes: 8 bits, or 4 in blocks of 64 with a scale of 32 bits, or of 8 where it is quantized again."""
    if details.get("load_in_8bit"):
        return Scheme(published=published, default=Stored(dtype="int8"))
    scale = 8 + 32 / 256 if details.get("bnb_4bit_use_double_quant") else 32
    return Scheme(published=published, default=integer(4, 64, has_zeros=False, place=place, scale=scale))


def _quark(details: Json, published: str, place: str) -> Scheme:
    """AMD's Quark: one configuration for all modules, and others for some."""
    common = details.get("global_quant_config")
    default = _quark_part(common, f"{place}.global_quant_config")
    rules = []
    for key in ("layer_quant_config", "layer_type_quant_config"):
        for pattern, one in (details.get(key) or {}).items():
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
    inputs = part.get("input_tensors")
    inputs = inputs[0] if isinstance(inputs, list) and inputs else inputs
    dtype, active = str(weight.get("dtype") or ""), str((inputs or {}).get("dtype") or "")
    is_grouped = weight.get("qscheme") in ("per_group", "per_block")
    group = _number(weight.get("group_size") or 0, f"{place}.weight.group_size") if is_grouped else 0
    activation_type = next((name for name in ("fp8", "fp4", "int8") if active.startswith(name)), "")
    if dtype.startswith(("int", "uint")):
        bits = float(re.sub(r"\D", "", dtype) or 0)
        return integer(bits, group, has_zeros=not weight.get("symmetric", True), place=place, multiplied=activation_type)
    if dtype.startswith(("fp", "mxfp")) and (found := re.search(r"fp(\d)", dtype)):
        return floating(float(found[1]), group, scale=8, multiplied=activation_type, place=place)
    if dtype in ("bfloat16", "float16"):
        return None
    raise InputError(f"{place}.weight.dtype: {dtype or 'nothing'} is not known", hint="known: fp8, fp4, int8, int4")


def _torchao(details: Json, published: str, place: str) -> Scheme:
    """torchao: a type by name, with its group; or one for each module."""
    stated = details.get("quant_type")
    if isinstance(stated, dict) and "default" in stated:
        stated = stated["default"]
    if isinstance(stated, dict) and "_type" not in stated:
        raise InputError(f"{place}.quant_type: must name a type, got {stated!r}")
    data = (stated.get("_data") or {}) if isinstance(stated, dict) else details.get("quant_type_kwargs") or {}
    name = str(stated["_type"] if isinstance(stated, dict) else stated or "")
    if name == "ModuleFqnToConfig" or "module_fqn_to_config" in data:
        modules = data.get("module_fqn_to_config") or {}
        rules = [(pattern, _torchao_type(one, place)) for pattern, one in modules.items() if pattern != "_default"]
        return Scheme(
            published=published, default=_torchao_type(modules.get("_default"), place), rules=tuple(rules)
        )
    return Scheme(published=published, default=_torchao_type({"_type": name, "_data": data}, place))


def _torchao_type(one: Any, place: str) -> Stored | None:
    if not isinstance(one, dict):
        return None
    name = re.sub(r"[_\s]|config$", "", str(one.get("_type") or "").casefold())
    data = one.get("_data") or {}
    group = data.get("group_size")
    if name.startswith("int4") or name.startswith("uintx"):
        size = _number(group or 128, f"{place}.quant_type.group_size")
        return integer(4, size, has_zeros=True, place=place, multiplied="int8" if "int8dynamic" in name else "")
    if name.startswith("int8dynamicactivationint4"):
        return integer(4, _number(group or 32, f"{place}.quant_type.group_size"), has_zeros=True, place=place)
    if name.startswith("int8"):
        return Stored(dtype="int8", multiplied="int8" if "dynamicactivation" in name else "")
    if name.startswith("float8dynamicactivationint4"):
        return integer(4, 128, has_zeros=False, place=place, multiplied="fp8")
    if name.startswith("float8"):
        return Stored(dtype="fp8", multiplied="fp8" if "dynamicactivation" in name or "static" in name else "")
    if name.startswith(("nvfp4", "mxfp4")):
        return floating(4, 16 if name.startswith("nv") else 32, scale=8, multiplied="fp4", place=place)
    raise InputError(f"{place}.quant_type: {one.get('_type')} is not known", hint="known: Int4WeightOnly, Int8..., Float8...")


def _hqq(details: Json, published: str, place: str) -> Scheme:
    """Half-quadratic quantization: a scale and a zero of 16 bits for each group."""
    stated = details.get("quant_config") or {}
    part = stated.get("weight_quant_params") or details
    bits = _number(part.get("nbits", 4), f"{place}.nbits")
    group = _number(part.get("group_size") or 64, f"{place}.group_size")
    return Scheme(published=published, default=integer(bits, group, has_zeros=False, place=f"{place}.nbits", scale=32))


def _experts_int8(details: Json, published: str, place: str) -> Scheme:
    """Only routed experts, in 8 bits."""
    return Scheme(published=published, rules=(("re:.*experts\\.\\d.*", Stored(dtype="int8")),))


def _int8(details: Json, published: str, place: str) -> Scheme:
    """8 bits a channel."""
    return Scheme(published=published, default=Stored(dtype="int8"))


def _fp_quant(details: Json, published: str, place: str) -> Scheme:
    """FP-Quant: MXFP4 or NVFP4."""
    name = str(details.get("forward_dtype") or "mxfp4").casefold()
    return Scheme(published=published, default=_algorithm(name, None, place))


_READERS: dict[str, Callable[[Json, str, str], Scheme]] = {
    **dict.fromkeys(("fp8", "fbgemm_fp8", "finegrained_fp8", "ptpc_fp8", "deepgemm", "fp8_e4m3"), _fp8),
    **dict.fromkeys(("awq", "gptq", "gptq_marlin", "awq_marlin", "auto-round", "intel/auto-round", "auto_round"), _packed),
    **dict.fromkeys(("modelopt", "modelopt_fp4", "modelopt_fp8", "modelopt_mixed", "modelopt_mxfp8", "nvfp4"), _modelopt),
    "mxfp4": _mxfp4,
    "bitsandbytes": _bitsandbytes,
    "compressed-tensors": _compressed,
    "compressed_tensors": _compressed,
    "quark": _quark,
    "torchao": _torchao,
    "hqq": _hqq,
    "experts_int8": _experts_int8,
    "eetq": _int8,
    "fp_quant": _fp_quant,
}


def _kv_dtype(details: Json, place: str) -> str:
    """Data type of the KV cache that the checkpoint comes with scales for; empty: as published."""
    algorithm = str(details.get("kv_cache_quant_algo") or "").upper()
    if algorithm in ("FP8", "INT8"):
        return algorithm.casefold()
    if algorithm not in ("", "NONE"):
        raise InputError(f"{place}.kv_cache_quant_algo: {algorithm} is not known", hint="known: FP8, INT8")
    scheme = details.get("kv_cache_scheme")
    if isinstance(scheme, dict):
        bits = _number(scheme.get("num_bits", 8), f"{place}.kv_cache_scheme.num_bits")
        if bits == 16:
            return ""
        if bits != 8:
            raise InputError(f"{place}.kv_cache_scheme.num_bits: must be 8 or 16, got {bits:g}")
        return "int8" if scheme.get("type") == "int" else "fp8"
    quark = details.get("kv_cache_quant_config")
    if isinstance(quark, dict) and quark:
        stored = [str((one.get("output_tensors") or one.get("weight") or {}).get("dtype")) for one in quark.values()]
        return "fp8" if all(name.startswith("fp8") for name in stored) else ""
    return ""
