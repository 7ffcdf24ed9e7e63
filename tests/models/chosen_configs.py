"""Configurations that say what defaults leave out: patterns, states, experts; and types whose defaults do not build."""

from __future__ import annotations

from typing import Any

KEYS_BY_TYPE: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [9, 18, 27]},
    "deepseek_v2": {"num_experts_per_tok": 6},
    "dots1": {"n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "first_k_dense_replace": 1},
    "ernie4_5_moe": {"moe_layer_interval": 2, "moe_layer_start_index": 3},
    "gemma3n_text": {"num_kv_shared_layers": 10},
    "gemma4_text": {
        "enable_moe_block": True, "num_experts": 32, "top_k_experts": 4, "moe_intermediate_size": 704,
        "attention_k_eq_v": True,
    },
    "glm_moe_dsa": {"indexer_types": ["full"] * 3 + ["shared"] * 75},
    "granitemoehybrid": {"layer_types": (["mamba"] * 7 + ["attention"]) * 4},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128, "num_experts": 16, "moe_topk": 2},
    "laguna": {
        "num_attention_heads_per_layer": [48, 32] * 20, "layer_types": ["full_attention", "sliding_attention"] * 20,
    },
    "lfm2": {"full_attn_idxs": [2, 5, 8, 10, 12, 14], "layer_types": None},
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention", "conv"] * 8},
    "llama4_text": {"interleave_moe_layer_step": 2},
    "minimax_m3_vl_text": {
        "layer_types": ["full_attention"] * 3 + ["minimax_m3_sparse"] * 57,
        "mlp_layer_types": ["dense"] * 3 + ["sparse"] * 57,
    },
    "ministral": {"head_dim": 128},
    "nemotron": {"num_key_value_heads": 8},
    "nemotron_h": {
        "layers_block_type": ["linear_attention", "moe", "linear_attention", "full_attention", "moe"] * 4,
        "moe_latent_size": 1024,
    },
}  # fmt: skip
