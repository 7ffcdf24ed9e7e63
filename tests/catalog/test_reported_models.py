"""Configurations that were once read as smaller models, or refused, with what is right as others count it."""

import json
from pathlib import Path
from typing import Any

import pytest

from melange.catalog.bundled import accelerators
from melange.catalog.huggingface import read_model
from melange.errors import InputError
from melange.replica.era import find_era
from melange.replica.reasons import obstacle

ERNIE: dict[str, Any] = {
    "architectures": ["Ernie4_5_MoeForCausalLM"],
    "model_type": "ernie4_5_moe",
    "num_hidden_layers": 28,
    "hidden_size": 2560,
    "num_attention_heads": 20,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "intermediate_size": 12288,
    "moe_intermediate_size": 1536,
    "moe_num_experts": 64,
    "moe_k": 6,
    "moe_num_shared_experts": 2,
    "moe_layer_start_index": 1,
    "moe_layer_end_index": 27,
    "moe_layer_interval": 1,
    "vocab_size": 103424,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}
COMMON_NAMES = {"num_experts": 64, "num_experts_per_tok": 6, "n_shared_experts": 2, "first_k_dense_replace": 1}
HUNYUAN: dict[str, Any] = {
    "architectures": ["HunYuanMoEV1ForCausalLM"],
    "model_type": "hunyuan_v1_moe",
    "num_hidden_layers": 4,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
    "moe_intermediate_size": [3072] * 4,
    "moe_topk": [8] * 4,
    "num_experts": 64,
    "num_shared_expert": [1] * 4,
    "use_mixed_mlp_moe": True,
    "vocab_size": 128167,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
}
KIMI_LINEAR: dict[str, Any] = {
    "architectures": ["KimiLinearForCausalLM"],
    "model_type": "kimi_linear",
    "num_hidden_layers": 27,
    "hidden_size": 2304,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": 72,
    "intermediate_size": 9216,
    "vocab_size": 163840,
    "model_max_length": 1048576,
    "kv_lora_rank": 512,
    "q_lora_rank": None,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 1024,
    "moe_layer_freq": 1,
    "num_experts": 256,
    "num_experts_per_token": 8,
    "num_shared_experts": 1,
    "tie_word_embeddings": False,
    "linear_attn_config": {
        "full_attn_layers": [4, 8, 12, 16, 20, 24, 27],
        "head_dim": 128,
        "num_heads": 32,
        "short_conv_kernel_size": 4,
        "kda_layers": [1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15, 17, 18, 19, 21, 22, 23, 25, 26],
    },
}
NEMOTRON: dict[str, Any] = {
    "architectures": ["NemotronForCausalLM"],
    "model_type": "nemotron",
    "hidden_act": "relu2",
    "num_hidden_layers": 96,
    "hidden_size": 18432,
    "num_attention_heads": 96,
    "num_key_value_heads": 8,
    "intermediate_size": 73728,
    "vocab_size": 256000,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
MINIMAX: dict[str, Any] = {
    "architectures": ["MiniMaxM2ForCausalLM"],
    "model_type": "minimax_m2",
    "attn_type_list": [1] * 4,
    "num_hidden_layers": 4,
    "hidden_size": 3072,
    "num_attention_heads": 48,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 1536,
    "num_local_experts": 256,
    "num_experts_per_tok": 8,
    "vocab_size": 200064,
    "max_position_embeddings": 196608,
    "tie_word_embeddings": False,
}
KIMI_K25: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "kimi_k2", "num_hidden_layers": 61, "hidden_size": 7168,
    "num_attention_heads": 64, "num_key_value_heads": 64, "intermediate_size": 18432, "moe_intermediate_size": 2048,
    "n_routed_experts": 384, "n_shared_experts": 1, "num_experts_per_tok": 8, "first_k_dense_replace": 1,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "vocab_size": 163840,
    "max_position_embeddings": 262144, "tie_word_embeddings": False,
    "quantization_config": {
        "quant_method": "compressed-tensors",
        "config_groups": {"g": {
            "weights": {"num_bits": 4, "type": "int", "group_size": 32, "symmetric": True}, "input_activations": None}},
        "ignore": [
            "lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", "re:.*mlp\\.(gate|up|gate_up|down)_proj.*"],
    },
}  # fmt: skip


def read(folder: Path, config: dict[str, Any]) -> Any:
    """The model of that configuration."""
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return read_model(folder)


@pytest.mark.parametrize(
    ("config", "billions", "kv_bytes_per_token"),
    [
        (ERNIE, 21.83, 57_344),
        (ERNIE | COMMON_NAMES, 21.83, 57_344),
        (HUNYUAN, 10.509, 16_384),
        (KIMI_LINEAR, 49.12, 8_064),
        (NEMOTRON, 341.0, 589_824),
        (MINIMAX, 15.904, 16_384),
    ],
    ids=["ernie", "ernie, both names", "hunyuan", "kimi-linear", "nemotron", "minimax"],
)  # fmt: skip
def test_it_has_its_size(config: dict[str, Any], billions: float, kv_bytes_per_token: int, tmp_path: Path) -> None:
    """Parameters as transformers counts them, and the cache of a token."""
    model = read(tmp_path, config)
    assert model.parameters() / 1e9 == pytest.approx(billions, rel=0.001)
    assert model.kv_bytes_per_token() == kv_bytes_per_token


def test_a_trillion_weights_in_int4_do_not_fit_eight_cards_of_80_gb(tmp_path: Path) -> None:
    """594 GB with the scales of groups of 32, and every card holds the latent projections whole."""
    model = read(tmp_path, KIMI_K25)
    assert model.weight_bytes() / 1e9 == pytest.approx(594, abs=0.5)
    reason = obstacle(model, accelerators()["H100-80GB"], 8, find_era("vllm").settings)
    assert reason.startswith("the model in int4 does not fit: 71.3 GiB needed on each accelerator")
    assert obstacle(model, accelerators()["H200"], 8, find_era("vllm").settings) == ""


GROK_2: dict[str, Any] = {
    "architectures": ["Grok1ForCausalLM"],
    "model_type": "git",
    "hidden_size": 8192,
    "intermediate_size": 32768,
    "moe_intermediate_size": 16384,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "residual_moe": True,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "num_hidden_layers": 64,
    "vocab_size": 131072,
    "max_position_embeddings": 131072,
    "sliding_window_size": -1,
    "global_attn_every_n": 1,
    "torch_dtype": "bfloat16",
}


@pytest.mark.parametrize("kind", ["git", "grok-1"])
def test_grok_2_has_a_dense_part_beside_its_experts(kind: str, tmp_path: Path) -> None:
    """270 billion parameters of which 115 billion are used, as published, and no window."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(GROK_2 | {"model_type": kind}))
    model = read_model(path)
    assert model.parameters() / 1e9 == pytest.approx(270, rel=0.01)
    assert model.active_parameters() / 1e9 == pytest.approx(115, rel=0.02)
    assert model.sliding_layers == 0


@pytest.mark.parametrize(("window", "layers"), [(131072, 0), (262144, 0), (-1, 0), (4096, 32)])
def test_a_window_as_long_as_the_context_is_none(window: int, layers: int, tmp_path: Path) -> None:
    """In a family whose layers all have the window; -1 is none too."""
    config = {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
        "max_position_embeddings": 131072,
        "sliding_window": window,
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    assert read_model(path).sliding_layers == layers


def test_a_window_as_long_as_the_context_needs_no_rule_of_its_family(tmp_path: Path) -> None:
    """Where it is unclear which layers have a window, one that never ends is no obstacle."""
    config = {
        "architectures": ["UnknownForCausalLM"],
        "model_type": "unknown",
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_attention_heads": 24,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "vocab_size": 200064,
        "max_position_embeddings": 131072,
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config | {"sliding_window": 262144}))
    assert read_model(path).sliding_layers == 0
    path.write_text(json.dumps(config | {"sliding_window": 4096}))
    with pytest.raises(InputError, match="unclear which layers have this window"):
        read_model(path)


@pytest.mark.parametrize(("use_mla", "bytes_per_layer"), [(True, 2 * (512 + 64)), (False, 2 * 2 * 32 * 80)])
def test_whether_latent_attention_is_used_is_read(use_mla: bool, bytes_per_layer: int, tmp_path: Path) -> None:
    """As DeepSeek-VL2 says it: with it 512 + 64 values a token, and without it 32 heads of 80 keys and values."""
    config = {
        "architectures": ["DeepseekV2ForCausalLM"],
        "model_type": "deepseek_v2",
        "hidden_size": 2560,
        "intermediate_size": 12288,
        "moe_intermediate_size": 1536,
        "n_routed_experts": 72,
        "n_shared_experts": 2,
        "num_experts_per_tok": 6,
        "first_k_dense_replace": 1,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "num_hidden_layers": 30,
        "vocab_size": 129280,
        "max_position_embeddings": 4096,
        "use_mla": use_mla,
    }
    latent = {
        "kv_lora_rank": 512,
        "q_lora_rank": None,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
    }
    none = dict.fromkeys(latent, 0) | {"kv_lora_rank": None, "q_lora_rank": None}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config | (latent if use_mla else none)))
    model = read_model(path)
    assert model.kv_bytes_per_token() / model.layers == bytes_per_layer
