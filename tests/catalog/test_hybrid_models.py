"""Layers that differ: windows, states of constant size, heads and widths layer by layer, against counts by hand."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from melange.catalog.huggingface import read_model
from melange.catalog.model import Model
from melange.errors import InputError

COMMON: dict[str, Any] = {
    "architectures": ["XForCausalLM"], "hidden_size": 2048, "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 128, "vocab_size": 32000, "num_hidden_layers": 8,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "num_experts": 0,
}  # fmt: skip
# Keys and values of one layer and one token [bytes].
LAYER = 2 * 2 * 128 * 2
MIXED = ["linear_attention", "linear_attention", "linear_attention", "full_attention"] * 2
DELTA_NET = {
    "linear_num_value_heads": 32, "linear_num_key_heads": 16, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
}  # fmt: skip
DELTA_STATE = 32 * 128 * 128 * 4 + (2 * 2048 + 4096) * 4 * 2


def read(folder: Path, **keys: Any) -> Model:
    """A model with the keys above, but for these."""
    content = {key: value for key, value in {**COMMON, **keys}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    return read_model(folder)


@pytest.mark.parametrize(
    ("keys", "cached_layers", "state_bytes"),
    [
        ({"model_type": "qwen3_next", "layer_types": MIXED, **DELTA_NET}, 2, 6 * DELTA_STATE),
        ({"model_type": "qwen3_5_text", "full_attention_interval": 4, **DELTA_NET}, 2, 6 * DELTA_STATE),
        ({"model_type": "qwen3_next", **DELTA_NET}, 2, 6 * DELTA_STATE),
        (
            {"model_type": "lfm2", "conv_L_cache": 3, "full_attn_idxs": [2, 5]}, 2,
            6 * 2048 * 3 * 2,
        ),
        (
            {"model_type": "jamba", "attn_layer_period": 4, "attn_layer_offset": 1, "mamba_d_state": 16,
             "mamba_d_conv": 4, "mamba_expand": 2, "mamba_dt_rank": 128},
            2, 6 * (4096 * 16 * 4 + 4096 * 4 * 2),
        ),
        (
            {"model_type": "granitemoehybrid", "layer_types": (["mamba"] * 3 + ["attention"]) * 2, "mamba_n_heads": 64,
             "mamba_d_head": 64, "mamba_d_state": 128, "mamba_n_groups": 1, "mamba_d_conv": 4, "mamba_expand": 2},
            2, 6 * (4096 * 128 * 4 + (4096 + 256) * 4 * 2),
        ),
        (
            {"model_type": "falcon_h1", "mamba_n_heads": 24, "mamba_d_head": 64, "mamba_d_ssm": 1536,
             "mamba_d_state": 256, "mamba_n_groups": 1, "mamba_d_conv": 4},
            8, 8 * (1536 * 256 * 4 + (1536 + 512) * 4 * 2),
        ),
        (
            {"model_type": "nemotron_h", "hybrid_override_pattern": "M-M*M-M-", "mamba_num_heads": 64,
             "mamba_head_dim": 64, "ssm_state_size": 128, "n_groups": 8, "conv_kernel": 4, "mlp_hidden_act": "relu2"},
            1, 4 * (4096 * 128 * 4 + (4096 + 2048) * 4 * 2),
        ),
        (
            {"model_type": "minimax", "attn_type_list": [0, 0, 0, 1, 0, 0, 0, 1]}, 2,
            6 * 2048 * 128 * 2,
        ),
        (
            {"model_type": "mamba2", "num_heads": 64, "head_dim": 64, "state_size": 128, "n_groups": 1,
             "conv_kernel": 4, "expand": 2, "num_attention_heads": None, "num_key_value_heads": None},
            0, 8 * (4096 * 128 * 4 + (4096 + 256) * 4 * 2),
        ),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_state_does_not_grow(keys: dict[str, Any], cached_layers: int, state_bytes: float, tmp_path: Path) -> None:
    """Layers with a state cache no tokens, and keep as much of a long request as of a short one."""
    model = read(tmp_path, **keys)
    assert model.kv_bytes_per_token() == cached_layers * LAYER
    assert model.state_bytes() == state_bytes
    assert model.kv_bytes(100_000) - model.kv_bytes(1000) == 99_000 * cached_layers * LAYER
    assert model.kv_bytes(0, tensor_parallel=2) == state_bytes / 2


def test_a_state_in_16_bits_takes_half(tmp_path: Path) -> None:
    """The configuration may say what states are kept in."""
    keys = {"model_type": "qwen3_next", **DELTA_NET}
    half = read(tmp_path, **keys, mamba_ssm_dtype="bfloat16").state_bytes()
    assert read(tmp_path, **keys).state_bytes() - half == 6 * 32 * 128 * 128 * 2


@pytest.mark.parametrize(
    ("keys", "sliding"),
    [
        ({"layer_types": ["sliding_attention", "full_attention"] * 4, "sliding_window": 512}, 4),
        ({"layer_types": ["chunked_attention"] * 6 + ["full_attention"] * 2, "attention_chunk_size": 512}, 6),
        ({"hybrid_layer_pattern": [0, 1, 1, 1, 0, 1, 1, 1], "sliding_window": 512}, 6),
        ({"model_type": "gemma3_text", "sliding_window_pattern": 4, "sliding_window": 512}, 6),
        ({"model_type": "afmoe", "global_attn_every_n_layers": 4, "sliding_window": 512}, 6),
        ({"model_type": "exaone4", "sliding_window_pattern": "LLLG", "sliding_window": 512}, 6),
        ({"model_type": "mistral", "sliding_window": 512}, 8),
        ({"model_type": "gpt_oss", "sliding_window": 512}, 4),
        ({"model_type": "qwen2", "sliding_window": 512, "use_sliding_window": False, "max_window_layers": 4}, 0),
        ({"model_type": "qwen2", "sliding_window": 512, "use_sliding_window": True, "max_window_layers": 6}, 2),
    ],
)
def test_windows_under_any_of_their_names(keys: dict[str, Any], sliding: int, tmp_path: Path) -> None:
    """Layers with a window hold the last tokens within it."""
    model = read(tmp_path, **({"model_type": "novel"} | keys))
    assert model.sliding_layers == sliding
    expected = ((8 - sliding) * 10_000 + sliding * 512) * LAYER
    assert model.kv_bytes(10_000) == expected * (2 if model.head_size == 256 else 1)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"sliding_window": 512}, "sliding_window: unclear which layers have this window"),
        (
            {"hybrid_layer_pattern": [0, 1], "sliding_window": 512},
            "hybrid_layer_pattern: must be one number or one for",
        ),
        (
            {"model_type": "nemotron_h", "hybrid_override_pattern": "M-X*M-M-"},
            "hybrid_override_pattern: must be one of M",
        ),
        ({"full_attn_idxs": [2, 9], "conv_L_cache": 3}, "full_attn_idxs: must name layers 0 to 7"),
        ({"attn_type_list": [0, 1] * 4}, "layer_types: no key says which kind of state layers"),
        ({"linear_num_value_heads": 32}, "linear_num_value_heads: is an unknown key"),
        ({"block_configs": [{}]}, "block_configs: must be an object for each of 8 layers"),
        ({"compress_ratios": [4, 128], "o_lora_rank": 64}, "compress_ratios: must be one number for each of 8 layers"),
    ],
)
def test_a_pattern_that_cannot_be_read_is_refused(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Never guessed: a window that is not there, or a cache that is, makes plans that cannot start."""
    with pytest.raises(InputError) as caught:
        read(tmp_path, **({"model_type": "novel"} | keys))
    assert message in str(caught.value)


def test_global_layers_have_their_own_heads(tmp_path: Path) -> None:
    """Gemma 4: wider heads, fewer of them, and values that are the keys in layers that look back all the way."""
    keys = {
        "model_type": "gemma4_text", "layer_types": ["sliding_attention", "full_attention"] * 4, "sliding_window": 512,
        "global_head_dim": 256, "num_global_key_value_heads": 1, "attention_k_eq_v": True,
        "hidden_activation": "gelu_pytorch_tanh",
    }  # fmt: skip
    model = read(tmp_path, **keys)
    assert model.kv_bytes(10_000) == 4 * 512 * LAYER + 4 * 10_000 * 2 * 256 * 2
    sliding, full = 2048 * 128 * (2 * 16 + 2 * 2), 2048 * 256 * (2 * 16 + 1)
    assert sum(kind.count * sum(one.parameters for one in kind.mixer) for kind in model.kinds) == 4 * (sliding + full)


def test_windows_may_have_more_kv_heads(tmp_path: Path) -> None:
    """MiMo-V2: twice as many, keys wider than values; a unit of cache fits both kinds of layers."""
    keys = {
        "model_type": "novel", "hybrid_layer_pattern": [0, 1] * 4, "sliding_window": 128, "head_dim": 192,
        "v_head_dim": 128,
        "swa_num_key_value_heads": 4, "swa_head_dim": 192, "swa_v_head_dim": 128,
    }  # fmt: skip
    model = read(tmp_path, **keys)
    assert model.kv_bytes(1000) == (4 * 1000 * 2 + 4 * 128 * 4) * (192 + 128) * 2
    shape = model.kv_shape()
    assert (shape.unit_bytes, shape.full_layers, shape.sliding_layers) == (2 * 320 * 2, 4, 8)
    shape = model.kv_shape(4)
    assert (shape.unit_bytes, shape.full_layers, shape.sliding_layers) == (320 * 2, 4, 4)


def test_layers_may_share_keys_and_values(tmp_path: Path) -> None:
    """Gemma 3n: the last layers read those of earlier ones, and have no matrices for them."""
    keys = {
        "model_type": "gemma3n_text", "layer_types": ["sliding_attention", "full_attention"] * 4, "sliding_window": 512,
        "num_kv_shared_layers": 4, "intermediate_size": [8192] * 8, "hidden_activation": "gelu_pytorch_tanh",
    }  # fmt: skip
    model, own = read(tmp_path, **keys), read(tmp_path, **{**keys, "num_kv_shared_layers": 0})
    assert model.kv_bytes_per_token() == own.kv_bytes_per_token() / 2
    assert own.parameters() - model.parameters() == 4 * 2 * 2048 * 2 * 128


def test_embeddings_of_each_layer_lie_in_memory(tmp_path: Path) -> None:
    """Gemma 3n: 256 values a layer and a word, looked up in each layer and read by none."""
    keys = {"model_type": "gemma3n_text", "hidden_size_per_layer_input": 256, "vocab_size_per_layer_input": 30_000}
    model, without = read(tmp_path, **keys), read(tmp_path, model_type="gemma3n_text")
    looked_up = 8 * 256 * (30_000 + 2048)
    assert model.parameters() - without.parameters() == looked_up + 8 * 2 * 256 * 2048
    assert model.weight_bytes_read(1) - without.weight_bytes_read(1) == 2 * 8 * 2 * 256 * 2048


def test_blocks_are_read_one_by_one(tmp_path: Path) -> None:
    """block_configs: layers without attention cache nothing, and widths differ."""
    attention = {"n_heads_in_group": 8, "no_op": False, "window_length": None}
    blocks = [{"attention": attention, "ffn": {"ffn_mult": 5.25, "no_op": False}}] * 6
    blocks += [{"attention": {"no_op": True}, "ffn": {"ffn_mult": 1.3125, "no_op": False}}] * 2
    keys = {
        "model_type": "nemotron-nas",
        "block_configs": blocks,
        "num_key_value_heads": None,
        "intermediate_size": None,
    }
    model = read(tmp_path, **keys)
    assert model.kv_bytes_per_token() == 6 * LAYER
    # Two thirds of 5.25 x 2048 and of 1.3125 x 2048, to the next multiple of 256.
    widths = 6 * 7168 + 2 * 1792
    assert model.body_parameters() == 6 * 2048 * 128 * 2 * (16 + 2) + 3 * 2048 * widths


def test_compressed_caches_hold_one_entry_for_some_tokens(tmp_path: Path) -> None:
    """DeepSeek-V4: a window in all layers, and one entry for 4 or 128 tokens in the others, with an index at 4."""
    keys = {
        "model_type": "deepseek_v4", "compress_ratios": [0, 0, 4, 128, 4, 128, 4, 128, 0], "head_dim": 512,
        "num_key_value_heads": 1, "q_lora_rank": 1024, "o_lora_rank": 1024, "o_groups": 8, "qk_rope_head_dim": 64,
        "index_head_dim": 128, "index_n_heads": 64, "index_topk": 512, "sliding_window": 128, "hc_mult": 4,
        "num_experts": None,
        "num_experts_per_tok": 6, "n_routed_experts": 64, "moe_intermediate_size": 512, "n_shared_experts": 1,
    }  # fmt: skip
    model = read(tmp_path, **keys)
    tokens = 128 * 100
    window, few, many = 8 * 128 * 512, 3 * tokens // 4 * (512 + 128), 3 * 100 * 512
    overlap = 3 * 4 * (512 + 128) * (2 + 4)
    assert model.kv_bytes(tokens) == 2 * (window + few + many) + overlap
    assert model.kv_bytes(tokens + 5) - model.kv_bytes(tokens) == 2 * (3 * (640 + 2 * (1024 + 256)) + 3 * 5 * 1024)


@pytest.mark.parametrize("words", ["deepseek_sparse_attention", "indexed_attention", None])
def test_sparse_attention_keeps_the_whole_cache(words: str | None, tmp_path: Path) -> None:
    """Named in layer_types or not: all latent keys are kept, and an index key of each token besides."""
    keys = {
        "model_type": "glm_moe_dsa", "kv_lora_rank": 512, "q_lora_rank": 1024, "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64, "v_head_dim": 128, "index_head_dim": 128, "index_n_heads": 32, "index_topk": 2048,
        "layer_types": [words] * 8 if words else None,
    }  # fmt: skip
    assert read(tmp_path, **keys).kv_bytes_per_token() == 8 * (512 + 64 + 128) * 2


def test_towers_lie_in_memory_and_take_no_step(tmp_path: Path) -> None:
    """A vision tower of 27 layers adds 0.4 B weights, none of which a step of the decoder reads."""
    vision = {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "patch_size": 14,
    }
    text = {key: value for key, value in COMMON.items() if key != "architectures"} | {"model_type": "novel"}
    outer = {"architectures": ["XForConditionalGeneration"], "model_type": "outer", "text_config": text}
    (tmp_path / "config.json").write_text(json.dumps({**outer, "vision_config": vision}), encoding="utf-8")
    model = read_model(tmp_path)
    layer = 4 * 1152 * 1152 + 2 * 1152 * 4304
    assert model.other_parameters == pytest.approx(27 * layer, rel=0.01)
    alone = replace(model, other_parameters=0)
    assert model.weight_bytes() - alone.weight_bytes() == 2 * model.other_parameters
    assert model.weight_bytes_read(8) == alone.weight_bytes_read(8)


def test_a_hybrid_can_be_quantized(tmp_path: Path) -> None:
    """Its matrices take fewer bytes, its states as many, and its cache half."""
    model = read(tmp_path, model_type="qwen3_next", layer_types=MIXED, **DELTA_NET)
    small = model.quantized(weights="fp8", kv="fp8")
    assert small.body_bytes() == model.body_bytes() / 2
    assert small.state_bytes() == model.state_bytes()
    assert small.kv_bytes_per_token() == model.kv_bytes_per_token() / 2
