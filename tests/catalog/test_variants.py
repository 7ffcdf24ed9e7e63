"""Quantized variants: what changes, what stays, which are worth comparing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melange.catalog.bundled import accelerators, find_model, models
from melange.catalog.variants import VARIANTS, distinct_variants, is_unlisted, unsupported_dtype, variant_of
from melange.errors import InputError

LLAMA = find_model("meta-llama/Llama-3.1-8B")


def test_only_linear_layers_are_quantized() -> None:
    """Embeddings, norms and head of Llama-3.1-8B, 1.05 billion weights, stay in two bytes; the other 6.98 take one."""
    linear = 32 * (4096 * 128 * 2 * (32 + 8) + 3 * 4096 * 14336)
    rest = LLAMA.parameters() - linear
    assert rest == 2 * 128256 * 4096 + 65 * 4096
    assert LLAMA.quantized(weights="fp8").weight_bytes() == 2 * rest + linear
    assert LLAMA.quantized(weights="int4").weight_bytes() == 2 * rest + linear * (4 + 20 / 128) / 8


def test_routers_stay_and_experts_are_quantized() -> None:
    """Mixtral in fp8: experts in one byte, routers in two."""
    mixtral = find_model("mistralai/Mixtral-8x7B-v0.1")
    saved = mixtral.weight_bytes() - mixtral.quantized(weights="fp8").weight_bytes()
    assert saved == mixtral.body_parameters() + mixtral.routed_parameters()


@pytest.mark.parametrize(("weights", "multiplied"), [("fp8", "fp8"), ("int8", "fp16"), ("int4", "fp16")])
def test_integers_are_unpacked_and_fp8_is_multiplied(weights: str, multiplied: str) -> None:
    """Weight-only formats compute in the 16-bit type of the model, fp8 in fp8 where a card can."""
    llama = find_model("meta-llama/Llama-2-7b-hf").quantized(weights=weights)
    assert (llama.weight_dtype, llama.activation_dtype, llama.kv_dtype) == (weights, multiplied, "fp16")


def test_the_cache_alone_leaves_weights_alone() -> None:
    """fp8-kv halves the cache and nothing else."""
    narrow = variant_of(LLAMA, "fp8-kv")
    assert narrow.kv_bytes_per_token() == LLAMA.kv_bytes_per_token() / 2
    assert narrow.weight_bytes() == LLAMA.weight_bytes()
    assert variant_of(LLAMA, "fp8+fp8-kv") == variant_of(LLAMA, "fp8").quantized(kv="fp8")


def test_a_variant_like_the_published_one_is_not_repeated() -> None:
    """DeepSeek-V3 is published in fp8, gpt-oss in four bits, an AWQ release in int4; repetitions are dropped."""
    assert distinct_variants(find_model("deepseek-v3"), ["fp8", "int8"]) == ("",)
    assert distinct_variants(find_model("gpt-oss-20b"), ["fp8", "int8", "int4", "fp8-kv"]) == ("", "int4", "fp8-kv")
    assert distinct_variants(find_model("Qwen2.5-7B-Instruct-AWQ"), ["fp8", "int4"]) == ("",)
    assert distinct_variants(LLAMA, ["fp8", "fp8", "fp8-kv"]) == ("", "fp8", "fp8-kv")


@given(st.sampled_from(sorted(models())), st.sampled_from(VARIANTS))
def test_a_variant_never_takes_more(name: str, variant: str) -> None:
    """Neither weights nor cache grow, the shape stays, and quantizing twice changes nothing further."""
    model = models()[name]
    changed = variant_of(model, variant)
    assert changed.weight_bytes() <= model.weight_bytes()
    assert changed.kv_bytes_per_token() <= model.kv_bytes_per_token()
    assert (changed.name, changed.parameters()) == (model.name, model.parameters())
    assert variant_of(changed, variant) == changed


@pytest.mark.parametrize("name", ["fp9", "int4-kv", "fp8-kv+fp8", "bf16"])
def test_unknown_variants_are_answered_with_known_ones(name: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(InputError, match="unknown variant"):
        variant_of(LLAMA, name)


def test_a_model_refuses_what_it_cannot_be_quantized_to() -> None:
    """fp4 weights and an int8 cache are not among the variants."""
    with pytest.raises(InputError, match="weights can be quantized to fp8, int8, int4, got 'fp4'"):
        LLAMA.quantized(weights="fp4")
    with pytest.raises(InputError, match="KV cache can be quantized to fp8, got 'int8'"):
        LLAMA.quantized(kv="int8")


def test_where_there_are_no_kernels() -> None:
    """No weights in fp8 on Volta, no cache in fp8 before Ampere; integers on AMD are not in vLLM's table."""
    volta, turing, ampere, cdna = (accelerators()[name] for name in ("V100-16GB", "T4", "A100-80GB", "MI300X"))
    assert unsupported_dtype(variant_of(LLAMA, "fp8"), turing) == ""
    assert unsupported_dtype(variant_of(LLAMA, "fp8+fp8-kv"), turing) == "a KV cache in fp8"
    assert unsupported_dtype(variant_of(LLAMA, "fp8"), volta) == "weights in fp8"
    assert unsupported_dtype(variant_of(LLAMA, "int4+fp8-kv"), volta) == "a KV cache in fp8"
    assert unsupported_dtype(variant_of(LLAMA, "int4"), volta) == ""
    assert unsupported_dtype(variant_of(LLAMA, "fp8+fp8-kv"), ampere) == ""
    assert [is_unlisted(name, cdna) for name in ("", "fp8", "int4", "int8+fp8-kv")] == [False, False, True, True]
    assert not is_unlisted("int4", ampere)
