"""Quantized variants of a model that a plan may choose in addition to the model as published.

A variant is named after the parts that are stored differently: weights in ``fp8``, ``int8`` or ``int4``, the KV cache
in ``fp8`` (``fp8-kv``), or both (``fp8+fp8-kv``). The empty name is the model as published.
"""

from __future__ import annotations

from collections.abc import Sequence

from melange.catalog.accelerator import Accelerator
from melange.catalog.layers import BYTES_BY_DTYPE
from melange.catalog.model import KV_DTYPES, QUANTIZED_DTYPES, Model
from melange.errors import unknown

_KV_SUFFIX = "-kv"
_PARTS = (*QUANTIZED_DTYPES, *(f"{dtype}{_KV_SUFFIX}" for dtype in KV_DTYPES))
VARIANTS = (*_PARTS, *(f"{weights}+{kv}{_KV_SUFFIX}" for weights in QUANTIZED_DTYPES for kv in KV_DTYPES))
# vLLM's table of supported hardware (https://docs.vllm.ai/en/v0.14.0/features/quantization/) has weight-only integers
# for NVIDIA but not for AMD. Weights in fp8 need Turing or later (Marlin), a cache in fp8 Ampere or later (FlashInfer:
# https://github.com/vllm-project/vllm/issues/47549).
_WITHOUT_FP8_WEIGHTS = ("Volta",)
_WITHOUT_FP8_KV = ("Volta", "Turing")
_WITHOUT_INTEGERS = ("amd",)


def variant_of(model: Model, name: str) -> Model:
    """The variant with this name; the model itself for the empty name.

    Raises
    ------
    InputError
        The name is unknown; the error gives the nearest names.

    >>> from melange.catalog.bundled import find_model
    >>> llama = find_model("meta-llama/Llama-3.1-8B")
    >>> [round(variant_of(llama, name).weight_bytes() / 1e9, 1) for name in ("", "fp8", "int4")]
    [16.1, 9.1, 5.7]
    """
    if not name:
        return model
    if name not in VARIANTS:
        raise unknown("variant", name, VARIANTS, place="variants")
    parts = name.split("+")
    weights = next((part for part in parts if not part.endswith(_KV_SUFFIX)), "")
    kv = next((part.removesuffix(_KV_SUFFIX) for part in parts if part.endswith(_KV_SUFFIX)), "")
    return model.quantized(weights=weights, kv=kv)


def distinct_variants(model: Model, names: Sequence[str]) -> tuple[str, ...]:
    """The empty name and the ``names`` of variants that take fewer bytes than the model as published.

    A part of a name that saves no bytes is dropped: a name lists only the parts that an engine must store differently.
    If several names have the same result, the first is kept.

    >>> from melange.catalog.bundled import find_model
    >>> distinct_variants(find_model("deepseek-ai/DeepSeek-V3"), ["fp8", "int4", "fp8+fp8-kv", "fp8-kv"])
    ('', 'int4', 'fp8-kv')
    """
    name_by_model = {model: ""}
    for name in names:
        variant = variant_of(model, name)
        parts = [part for part in name.split("+") if variant_of(model, part) != model]
        name_by_model.setdefault(variant, "+".join(parts))
    return tuple(name_by_model.values())


def stored_as(model: Model) -> str:
    """Data types of weights and, where they differ from 16 bits, of the KV cache, in words.

    >>> from melange.catalog.bundled import find_model
    >>> stored_as(find_model("meta-llama/Llama-3.1-8B").quantized(weights="int4", kv="fp8"))
    'int4 with KV cache in fp8'
    """
    is_narrow = BYTES_BY_DTYPE[model.kv_dtype] < BYTES_BY_DTYPE["bf16"]
    return model.weight_dtype + (f" with KV cache in {model.kv_dtype}" if is_narrow else "")


def unsupported_dtype(model: Model, accelerator: Accelerator) -> str:
    """The part of the model for which engines have no kernels on this accelerator; empty if all have kernels."""
    if model.weight_dtype == "fp8" and accelerator.architecture in _WITHOUT_FP8_WEIGHTS:
        return "weights in fp8"
    return "a KV cache in fp8" if model.kv_dtype == "fp8" and accelerator.architecture in _WITHOUT_FP8_KV else ""


def is_unlisted(name: str, accelerator: Accelerator) -> bool:
    """Whether vLLM's table lists no kernels for the weights of a variant on that accelerator."""
    return name.startswith("int") and accelerator.vendor in _WITHOUT_INTEGERS
