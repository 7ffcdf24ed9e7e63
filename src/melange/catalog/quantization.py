"""Reads the data types of weights, activations and KV cache: by module, by group and by layer.

A checkpoint states its quantization in ``quantization_config`` of its ``config.json``, or in ``hf_quant_config.json``
next to it. Each dialect is read into the same :class:`~melange.catalog.stored.Scheme`, which gives the data type of one
module at a time.
"""

from __future__ import annotations

from melange.catalog.quantization_dialects import READERS, modelopt
from melange.catalog.stored import Scheme, Stored, checked, part_of
from melange.errors import InputError
from melange.files import Json

_DTYPE_BY_TORCH_NAME = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "bf16", "float": "bf16"}


def read_scheme(content: Json, config: Json, beside: Json | None, place: str) -> Scheme:
    """The quantization of a checkpoint.

    Parameters
    ----------
    content
        The whole file: quantization and data type may be at its top level.
    config
        The language model's part of it.
    beside
        ``hf_quant_config.json`` in the same folder, if there is one.
    place
        The file, for errors.

    Raises
    ------
    InputError
        The quantization method is unknown, or a number is out of range.
    """
    name = str(next((c[k] for c in (config, content) for k in ("torch_dtype", "dtype") if c.get(k)), ""))
    published = _DTYPE_BY_TORCH_NAME.get(name.removeprefix("torch."), "bf16")
    stated = (
        content.get("quantization_config") or config.get("quantization_config") or content.get("compression_config")
    )
    if stated and not isinstance(stated, dict):
        raise InputError(f"{place}: quantization_config: must be an object, got {stated!r}")
    if isinstance(stated, dict) and stated:
        place = f"{place}: quantization_config"
    elif beside:
        stated, place = beside, f"{place.removesuffix('config.json')}hf_quant_config.json"
    else:
        return Scheme(published=published, kv_dtype=published)
    details = _merged(stated, beside)
    method = str(details.get("quant_method") or "").casefold()
    algorithm = str(details.get("quant_algo") or "").upper()
    read = READERS.get(method)
    if (algorithm or details.get("kv_cache_quant_algo")) and (read is None or (algorithm and method == "fp8")):
        read = modelopt
    if read is None:
        raise InputError(
            f"{place}.quant_method: {method or algorithm or 'nothing'} is not supported",
            hint=f"known: {', '.join(sorted(READERS))}; or plan with unquantized weights",
        )
    scheme = read(details, published, place)
    routed = _expert_dtype(config, scheme, place)
    # In an fp8 checkpoint, modules that ModelOpt did not quantize remain in fp8.
    is_layered = bool(scheme.rules) and scheme.default is not None and method == "fp8"
    kept = () if is_layered else (*scheme.kept, *_kept(details, place))
    kv = _kv_dtype(details, place) or published
    return Scheme(
        published=published, default=scheme.default, rules=scheme.rules, kept=kept, kv_dtype=kv, routed=routed
    )


def _merged(stated: Json, beside: Json | None) -> Json:
    """ModelOpt nests its keys in ``quantization``; the separate file adds keys that the configuration omits."""
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
    """Modules that a dialect lists as not quantized, for all dialects."""
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
    """Data type of routed experts that differ from the other weights (DeepSeek-V4's in four bits)."""
    name = config.get("expert_dtype")
    if name in (None, "", "fp8", "bf16", "bfloat16") or scheme.rules:
        return None
    if name not in ("fp4", "mxfp4"):
        raise InputError(f"{place}: expert_dtype: {name!r} is not supported", hint="known: fp4, fp8")
    return Stored(dtype="fp4", multiplied="fp8")


def _kv_dtype(details: Json, place: str) -> str:
    """Data type of the KV cache for which the checkpoint has scales; empty: as published."""
    algorithm = str(details.get("kv_cache_quant_algo") or "").upper()
    if algorithm in ("FP8", "INT8"):
        return algorithm.casefold()
    if algorithm not in ("", "NONE"):
        raise InputError(f"{place}.kv_cache_quant_algo: {algorithm} is not supported", hint="known: FP8, INT8")
    scheme = details.get("kv_cache_scheme")
    if isinstance(scheme, dict):
        bits = checked(scheme.get("num_bits", 8), f"{place}.kv_cache_scheme.num_bits")
        if bits == 16:
            return ""
        if bits != 8:
            raise InputError(f"{place}.kv_cache_scheme.num_bits: must be 8 or 16, got {bits:g}")
        return "int8" if scheme.get("type") == "int" else "fp8"
    quark = details.get("kv_cache_quant_config") or _of_cache_group(details, place)
    if isinstance(quark, dict) and quark:
        parts = [part_of(one, f"{place}.kv_cache_quant_config") for one in quark.values()]
        tensors = [one.get("output_tensors") or one.get("weight") for one in parts]
        tensors = [one[0] if isinstance(one, list) and one else one for one in tensors]
        stored = [str(part_of(one, f"{place}.kv_cache_quant_config").get("dtype")) for one in tensors]
        return "fp8" if all(name.startswith("fp8") for name in stored) else ""
    return ""


def _of_cache_group(details: Json, place: str) -> Json:
    """Settings of cached modules in Quark's older files: ``export.kv_cache_group`` names these modules."""
    group = part_of(details.get("export"), f"{place}.export").get("kv_cache_group") or []
    layers = part_of(details.get("layer_quant_config"), f"{place}.layer_quant_config")
    if not isinstance(group, list):
        raise InputError(f"{place}.export.kv_cache_group: must be a list of modules, got {group!r}")
    of_group = {str(name): part_of(layers.get(name), f"{place}.layer_quant_config.{name}") for name in group}
    return {name: one for name, one in of_group.items() if one.get("output_tensors")}
