"""What models take in memory, against figures that others publish."""

from __future__ import annotations

import pytest

from melange.catalog.bundled import find_model
from melange.catalog.variants import variant_of

GPT_OSS_120B = "openai/gpt-oss-120b"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        # Keys and values of all layers: 2 layers kv_heads head_size.
        ("meta-llama/Llama-2-7b-hf", 2 * 32 * 32 * 128),
        ("meta-llama/Llama-2-70b-hf", 2 * 80 * 8 * 128),
        ("meta-llama/Llama-3.1-8B", 2 * 32 * 8 * 128),
        ("meta-llama/Llama-3.3-70B-Instruct", 2 * 80 * 8 * 128),
        ("mistralai/Mistral-7B-Instruct-v0.3", 2 * 32 * 8 * 128),
        ("mistralai/Mixtral-8x7B-v0.1", 2 * 32 * 8 * 128),
        ("Qwen/Qwen2.5-7B", 2 * 28 * 4 * 128),
        ("Qwen/Qwen3-8B", 2 * 36 * 8 * 128),
        ("Qwen/Qwen3-30B-A3B", 2 * 48 * 4 * 128),
        ("Qwen/Qwen3-235B-A22B", 2 * 94 * 4 * 128),
        ("microsoft/phi-4", 2 * 40 * 10 * 128),
        # The latent vector and the rotary part of the key, for all heads together.
        ("deepseek-ai/DeepSeek-V3", 61 * (512 + 64)),
        # Within the window, where every layer holds the token.
        ("google/gemma-3-27b-it", 2 * 62 * 16 * 128),
        ("openai/gpt-oss-20b", 2 * 24 * 8 * 64),
        (GPT_OSS_120B, 2 * 36 * 8 * 64),
    ],
)
def test_kv_cache_of_a_token_by_hand(name: str, values: int) -> None:
    """Two bytes for each value as published, one with the cache in fp8."""
    model = find_model(name)
    assert model.kv_bytes_per_token() == 2 * values
    assert model.quantized(kv="fp8").kv_bytes_per_token() == values


@pytest.mark.parametrize(
    ("name", "kilobytes"),
    [("deepseek-ai/DeepSeek-V3", 70.272), ("Qwen/Qwen2.5-72B", 327.680), ("meta-llama/Llama-3.1-405B", 516.096)],
)
def test_kv_cache_of_a_token_as_deepseek_compares_it(name: str, kilobytes: float) -> None:
    """Table 1 of Insights into DeepSeek-V3 (arXiv 2505.09343), in kB of 1,000 bytes."""
    assert find_model(name).kv_bytes_per_token() == pytest.approx(kilobytes * 1000, abs=0.5)


@pytest.mark.parametrize(
    ("name", "window", "per_token_beyond"),
    [
        ("google/gemma-3-27b-it", 1024, 2 * 10 * 16 * 128 * 2),  # one layer of six is global: 10 of 62
        ("openai/gpt-oss-20b", 128, 2 * 12 * 8 * 64 * 2),  # every other layer
        (GPT_OSS_120B, 128, 2 * 18 * 8 * 64 * 2),
        ("mistralai/Mistral-7B-v0.1", 4096, 0),  # all layers slide
    ],
)
def test_beyond_the_window_only_global_layers_grow(name: str, window: int, per_token_beyond: int) -> None:
    """A request's cache has the full slope up to the window and that of the global layers from there on."""
    model = find_model(name)
    assert model.kv_bytes(window) == window * model.kv_bytes_per_token()
    assert model.kv_bytes(window + 1000) - model.kv_bytes(window) == 1000 * per_token_beyond


@pytest.mark.parametrize(
    ("name", "variant", "gigabytes"),
    [
        # Sizes of the safetensors files, as the Hugging Face hub lists them.
        ("meta-llama/Llama-2-7b-hf", "int4", 3.89),  # TheBloke/Llama-2-7B-AWQ
        ("meta-llama/Llama-2-13b-hf", "int4", 7.25),  # TheBloke/Llama-2-13B-chat-AWQ
        ("meta-llama/Llama-2-70b-hf", "int4", 36.61),  # TheBloke/Llama-2-70B-AWQ
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "int4", 24.65),  # TheBloke/Mixtral-8x7B-Instruct-v0.1-AWQ
        ("meta-llama/Llama-3.1-8B", "int4", 5.73),  # thesven/Meta-Llama-3.1-8B-Instruct-AWQ
        ("meta-llama/Llama-3.1-8B", "int8", 9.08),  # neuralmagic/Meta-Llama-3.1-8B-Instruct-quantized.w8a8
        ("meta-llama/Llama-3.1-8B", "fp8", 9.08),  # SicariusSicariiStuff/Meta-Llama-3.1-8B-Instruct_FP8
        ("meta-llama/Llama-3.1-70B", "int8", 72.7),  # RedHatAI/Meta-Llama-3.1-70B-Instruct-quantized.w8a8
    ],
)
def test_quantized_releases_have_their_published_size(name: str, variant: str, gigabytes: float) -> None:
    """Within half a percent: linear layers quantized with their scales, all else in 16 bits."""
    assert variant_of(find_model(name), variant).weight_bytes() / 1e9 == pytest.approx(gigabytes, rel=0.005)


def test_int8_with_scales_by_group_is_a_little_larger() -> None:
    """alpindale/Meta-Llama-3.1-70B-Instruct-GPTQ-INT8 (74.28 GB) has scales by group, which the count leaves out."""
    weights = variant_of(find_model("meta-llama/Llama-3.1-70B"), "int8").weight_bytes()
    assert 0.97 < weights / 74.28e9 < 0.985


@pytest.mark.parametrize(
    ("name", "tokens", "touched"),
    [
        ("mistralai/Mixtral-8x7B-v0.1", 1, 2.0),
        ("mistralai/Mixtral-8x7B-v0.1", 2, 8 * (1 - 0.75**2)),
        (GPT_OSS_120B, 8, 128 * (1 - (124 / 128) ** 8)),
        ("deepseek-ai/DeepSeek-V3", 32, 256 * (1 - (248 / 256) ** 32)),
    ],
)
def test_experts_that_a_batch_touches_by_hand(name: str, tokens: int, touched: float) -> None:
    """Each token draws its experts evenly: of Mixtral's eight, two tokens visit 3.5."""
    assert find_model(name).experts_touched(tokens) == pytest.approx(touched)
