"""Configurations as they were published, with parameters as their publishers count them: keys of all kinds occur."""

import json
from pathlib import Path
from typing import Any

import pytest

from melange.catalog.huggingface import read_model

# By name: billions of parameters, within 1.2 %, for some counts are rounded; and the configuration, shortened by keys
# that say nothing of the shape. Step-3 without its tower, of which its text configuration says nothing.
PUBLISHED: dict[str, tuple[float, dict[str, Any]]] = {
    "Falcon-H1-34B": (33.64, {
        "architectures": ["FalconH1ForCausalLM"], "attention_bias": False, "attention_in_multiplier": 1.0,
        "attention_out_multiplier": 0.11048543456039804, "attn_layer_indices": None, "embedding_multiplier":
        5.656854249492381, "head_dim": 128, "hidden_act": "silu", "hidden_size": 5120, "intermediate_size": 21504,
        "key_multiplier": 0.011048543456039804, "lm_head_multiplier": 0.0078125, "mamba_chunk_size": 128,
        "mamba_conv_bias": True, "mamba_d_conv": 4, "mamba_d_head": 128, "mamba_d_ssm": 4096, "mamba_d_state": 256,
        "mamba_expand": 2, "mamba_n_groups": 2, "mamba_n_heads": 32, "mamba_norm_before_gate": False,
        "mamba_proj_bias": False, "mamba_rms_norm": True, "mamba_use_mlp": True, "max_position_embeddings": 262144,
        "mlp_bias": False, "mlp_expansion_factor": 8, "mlp_multipliers": [0.08838834764831845, 0.02828427124746189],
        "model_type": "falcon_h1", "num_attention_heads": 20, "num_hidden_layers": 72, "num_key_value_heads": 4,
        "num_logits_to_keep": 1, "projectors_bias": False, "ssm_in_multiplier": 0.4419417382415922, "ssm_multipliers":
        [0.3535533905932738, 0.25, 0.1767766952966369, 0.5, 0.3535533905932738], "ssm_out_multiplier":
        0.05846687811637138, "tie_word_embeddings": False, "time_step_rank": "auto", "vocab_size": 261120,
    }),
    "LFM2-1.2B": (1.17, {
        "architectures": ["Lfm2ForCausalLM"], "block_auto_adjust_ff_dim": True, "block_dim": 2048, "block_ff_dim":
        12288, "block_ffn_dim_multiplier": 1.0, "block_mlp_init_scale": 1.0, "block_multiple_of": 256,
        "block_norm_eps": 1e-05, "block_out_init_scale": 1.0, "block_use_swiglu": True, "block_use_xavier_init": True,
        "conv_L_cache": 3, "conv_bias": False, "conv_dim": 2048, "conv_dim_out": 2048, "conv_use_xavier_init": True,
        "full_attn_idxs": [2, 5, 8, 10, 12, 14], "hidden_size": 2048, "max_position_embeddings": 128000, "model_type":
        "lfm2", "norm_eps": 1e-05, "num_attention_heads": 32, "num_heads": 32, "num_hidden_layers": 16,
        "num_key_value_heads": 8, "theta": 1000000.0, "tie_embedding": True, "use_pos_enc": True, "vocab_size": 65536,
    }),
    "Jamba2-3B": (3.03, {
        "architectures": ["JambaForCausalLM"], "attn_layer_offset": 7, "attn_layer_period": 14, "expert_layer_offset":
        1, "expert_layer_period": 2, "hidden_act": "silu", "hidden_size": 2560, "intermediate_size": 8192,
        "mamba_conv_bias": True, "mamba_d_conv": 4, "mamba_d_state": 16, "mamba_dt_rank": 160, "mamba_expand": 2,
        "mamba_proj_bias": False, "max_position_embeddings": 262144, "model_type": "jamba", "num_attention_heads": 20,
        "num_experts": 1, "num_experts_per_tok": 1, "num_hidden_layers": 28, "num_key_value_heads": 1,
        "num_logits_to_keep": 1, "tie_word_embeddings": True, "vocab_size": 65536,
    }),
    "Hunyuan-A13B": (80.4, {
        "add_classification_head": False, "architectures": ["HunYuanMoEV1ForCausalLM"], "attention_bias": False,
        "attention_head_dim": 128, "class_num": 0, "cla_share_factor": 2, "dense_list": [4096, 0],
        "enable_lm_head_fp32": False, "group_limited_greedy": False, "hidden_act": "silu", "hidden_size": 4096,
        "intermediate_size": 3072, "im_newline_id": 11, "kv_lora_rank": None, "mask_init_id": 12,
        "max_position_embeddings": 32768, "mlp_bias": False, "model_type": "hunyuan_v1_moe", "moe_drop_tokens": False,
        "moe_intermediate_size": [3072, 3072, 3072, 3072, 3072, 3072, 3072, 3072, 3072, 3072, 3072, 3072, 3072, 3072,
        3072, 3072, 3072, 3072, 3072, 3072, 3072, 3072, 3072, 3072, 3072, 3072, 3072, 3072, 3072, 3072, 3072, 3072],
        "moe_layer_num_skipped": 0, "moe_random_routing_dropped_token": False, "moe_topk": [8, 8, 8, 8, 8, 8, 8, 8, 8,
        8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8], "n_group": None, "norm_topk_prob": True,
        "norm_type": "rms", "num_attention_heads": 32, "num_experts": 64, "num_hidden_layers": 32,
        "num_key_value_heads": 8, "num_shared_expert": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], "org_vocab_size": 128167, "pool_type": "last", "position_embedding_xdrope":
        False, "pretraining_tp": 1, "q_lora_rank": None, "qk_nope_head_dim": None, "qk_rope_head_dim": None,
        "routed_scaling_factor": False, "skip_cls_token": False, "tie_word_embeddings": True, "topk_group": None,
        "use_cla": False, "use_mixed_mlp_moe": True, "use_mla": False, "use_qk_norm": True, "use_rotary_pos_emb":
        True, "v_head_dim": None, "vocab_size": 128167, "head_dim": 128,
    }),
    "ERNIE-4.5-300B": (300.5, {
        "architectures": ["Ernie4_5_MoeForCausalLM"], "hidden_act": "silu", "hidden_size": 8192, "intermediate_size":
        28672, "max_position_embeddings": 131072, "model_type": "ernie4_5_moe", "num_attention_heads": 64,
        "num_key_value_heads": 8, "num_hidden_layers": 54, "vocab_size": 103424, "use_rmsnorm": True,
        "tie_word_embeddings": False, "use_bias": False, "moe_num_experts": 64, "moe_num_shared_experts": 0,
        "moe_layer_start_index": 3, "moe_layer_end_index": 53, "moe_intermediate_size": 3584, "moe_capacity": [64, 64,
        64], "moe_gate": "topk", "moe_k": 8, "moe_layer_interval": 1, "moe_use_aux_free": True,
        "num_nextn_predict_layers": 1,
    }),
    "Step3": (316.3, {
        "architectures": ["Step3TextForCausalLM"], "model_type": "step3_text", "hidden_size": 7168,
        "intermediate_size": 18432, "num_attention_heads": 64, "num_attention_groups": 1, "num_hidden_layers": 61,
        "max_seq_len": 65536, "vocab_size": 128815, "moe_intermediate_size": 5120, "moe_num_experts": 48, "moe_top_k":
        3, "share_expert_dim": 5120, "share_q_dim": 2048, "head_dim": 256, "norm_expert_weight": False,
        "moe_layers_enum":
        "4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59",
        "moe_layer_offset": 0, "max_position_embedding": 65536, "tie_word_embeddings": False,
    }),
    "Mistral-Small-3.1-24B": (24.01, {
        "architectures": ["Mistral3ForConditionalGeneration"], "image_token_index": 10, "model_type": "mistral3",
        "multimodal_projector_bias": False, "projector_hidden_act": "gelu", "spatial_merge_size": 2, "text_config":
        {"head_dim": 128, "hidden_act": "silu", "hidden_size": 5120, "intermediate_size": 32768,
        "max_position_embeddings": 131072, "model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers":
        40, "num_key_value_heads": 8, "sliding_window": None, "vocab_size": 131072}, "vision_config": {"head_dim": 64,
        "hidden_act": "silu", "hidden_size": 1024, "image_size": 1540, "intermediate_size": 4096, "model_type":
        "pixtral", "num_attention_heads": 16, "num_channels": 3, "num_hidden_layers": 24, "patch_size": 14},
        "vision_feature_layer": -1,
    }),
    "SmolLM3": (3.075, {
        "architectures": ["SmolLM3ForCausalLM"], "attention_bias": False, "hidden_act": "silu", "hidden_size": 2048,
        "intermediate_size": 11008, "layer_types": ["full_attention", "full_attention", "full_attention",
        "full_attention", "full_attention", "full_attention", "full_attention", "full_attention", "full_attention",
        "full_attention", "full_attention", "full_attention", "full_attention", "full_attention", "full_attention",
        "full_attention", "full_attention", "full_attention", "full_attention", "full_attention", "full_attention",
        "full_attention", "full_attention", "full_attention", "full_attention", "full_attention", "full_attention",
        "full_attention", "full_attention", "full_attention", "full_attention", "full_attention", "full_attention",
        "full_attention", "full_attention", "full_attention"], "max_position_embeddings": 65536, "max_window_layers":
        28, "mlp_bias": False, "model_type": "smollm3", "no_rope_layer_interval": 4, "no_rope_layers": [1, 1, 1, 0, 1,
        1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0],
        "num_attention_heads": 16, "num_hidden_layers": 36, "num_key_value_heads": 4, "pretraining_tp": 2,
        "sliding_window": None, "use_sliding_window": False, "vocab_size": 128256,
    }),
    "Qwen-7B": (7.72, {
        "architectures": ["QWenLMHeadModel"], "attn_dropout_prob": 0.0, "emb_dropout_prob": 0.0, "hidden_size": 4096,
        "intermediate_size": 22016, "kv_channels": 128, "max_position_embeddings": 32768, "model_type": "qwen",
        "no_bias": True, "num_attention_heads": 32, "num_hidden_layers": 32, "rotary_emb_base": 10000, "rotary_pct":
        1.0, "scale_attn_weights": True, "seq_length": 8192, "tie_word_embeddings": False, "tokenizer_class":
        "QWenTokenizer", "use_dynamic_ntk": True, "use_logn_attn": True, "vocab_size": 151936,
    }),
    "dbrx": (131.6, {
        "architectures": ["DbrxForCausalLM"], "attn_config": {"clip_qkv": 8, "kv_n_heads": 8, "model_type": ""},
        "d_model": 6144, "ffn_config": {"ffn_hidden_size": 10752, "model_type": "", "moe_jitter_eps": 0.01,
        "moe_loss_weight": 0.05, "moe_num_experts": 16, "moe_top_k": 4}, "max_seq_len": 32768, "model_type": "dbrx",
        "n_heads": 48, "n_layers": 40, "tie_word_embeddings": False, "vocab_size": 100352,
    }),
    "arctic": (479.0, {
        "architectures": ["ArcticForCausalLM"], "hidden_act": "silu", "hidden_size": 7168, "intermediate_size": 4864,
        "max_position_embeddings": 4096, "model_type": "arctic", "moe_eval_capacity_factor": 1, "moe_layer_frequency":
        1, "moe_min_capacity": 0, "moe_token_dropping": False, "moe_train_capacity_factor": 1, "num_attention_heads":
        56, "num_experts_per_tok": 2, "num_hidden_layers": 35, "num_key_value_heads": 8, "num_local_experts": 128,
        "parallel_attn_mlp_res": True, "sliding_window": None, "use_residual": True, "vocab_size": 32000,
        "tie_word_embeddings": False, "enable_expert_tensor_parallelism": False,
    }),
    "grok-1": (314.1, {
        "architectures": ["Grok1ModelForCausalLM"], "attn_output_multiplier": 0.08838834764831845,
        "embedding_multiplier_scale": 78.38367176906169, "hidden_size": 6144, "intermediate_size": 32768,
        "max_attn_value": 30.0, "max_position_embeddings": 8192, "model_type": "grok-1", "num_attention_heads": 48,
        "num_experts": 8, "num_experts_per_tok": 2, "num_hidden_layers": 64, "num_key_value_heads": 8,
        "output_multiplier_scale": 0.5773502691896257, "tie_word_embeddings": True, "vocab_size": 131072,
    }),
    "c4ai-command-r7b": (8.03, {
        "architectures": ["Cohere2ForCausalLM"], "attention_bias": False, "head_dim": 128, "hidden_act": "silu",
        "hidden_size": 4096, "intermediate_size": 14336, "layer_switch": 4, "logit_scale": 0.25,
        "max_position_embeddings": 8192, "model_type": "cohere2", "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 8, "order_of_interleaved_layers": "local_attn_first", "position_embedding_type":
        "rope_gptj", "rotary_pct": 1.0, "sliding_window": 4096, "sliding_window_pattern": 4, "use_embedding_sharing":
        True, "use_gated_activation": True, "use_parallel_block": True, "use_parallel_embedding": False,
        "use_qk_norm": False, "vocab_size": 256000,
    }),
    "gemma-3n-E4B": (7.85, {
        "architectures": ["Gemma3nForConditionalGeneration"], "audio_config": {"conf_attention_chunk_size": 12,
        "conf_attention_context_left": 13, "conf_attention_context_right": 0, "conf_attention_logit_cap": 50.0,
        "conf_conv_kernel_size": 5, "conf_num_attention_heads": 8, "conf_num_hidden_layers": 12,
        "conf_positional_bias_size": 256, "conf_reduction_factor": 4, "conf_residual_weight": 0.5,
        "gradient_clipping": 10000000000.0, "hidden_size": 1536, "input_feat_size": 128, "model_type":
        "gemma3n_audio", "sscp_conv_channel_size": [128, 32], "sscp_conv_group_norm_eps": 0.001,
        "sscp_conv_kernel_size": [[3, 3], [3, 3]], "sscp_conv_stride_size": [[2, 2], [2, 2]], "vocab_offset": 262272,
        "vocab_size": 128}, "audio_soft_tokens_per_image": 188, "audio_token_id": 262273, "boa_token_id": 256000,
        "eoa_token_id": 262272, "model_type": "gemma3n", "text_config": {"activation_sparsity_pattern": [0.95, 0.95,
        0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
        0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], "altup_active_idx": 0, "altup_coef_clip":
        120.0, "altup_correct_scale": True, "altup_num_inputs": 4, "attention_bias": False, "final_logit_softcapping":
        30.0, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2048,
        "hidden_size_per_layer_input": 256, "intermediate_size": [16384, 16384, 16384, 16384, 16384, 16384, 16384,
        16384, 16384, 16384, 16384, 16384, 16384, 16384, 16384, 16384, 16384, 16384, 16384, 16384, 16384, 16384,
        16384, 16384, 16384, 16384, 16384, 16384, 16384, 16384, 16384, 16384, 16384, 16384, 16384], "laurel_rank": 64,
        "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention", "sliding_attention",
        "full_attention", "sliding_attention", "sliding_attention", "sliding_attention", "sliding_attention",
        "full_attention", "sliding_attention", "sliding_attention", "sliding_attention", "sliding_attention",
        "full_attention", "sliding_attention", "sliding_attention", "sliding_attention", "sliding_attention",
        "full_attention", "sliding_attention", "sliding_attention", "sliding_attention", "sliding_attention",
        "full_attention", "sliding_attention", "sliding_attention", "sliding_attention", "sliding_attention",
        "full_attention", "sliding_attention", "sliding_attention", "sliding_attention", "sliding_attention",
        "full_attention"], "max_position_embeddings": 32768, "model_type": "gemma3n_text", "num_attention_heads": 8,
        "num_hidden_layers": 35, "num_key_value_heads": 2, "num_kv_shared_layers": 15, "query_pre_attn_scalar": 256,
        "sliding_window": 512, "vocab_size": 262400, "vocab_size_per_layer_input": 262144}, "vision_config":
        {"architecture": "mobilenetv5_300m_enc", "do_pooling": False, "hidden_size": 2048, "label_names": ["LABEL_0",
        "LABEL_1"], "model_args": None, "model_type": "gemma3n_vision", "num_classes": 2, "vocab_offset": 262144,
        "vocab_size": 128}, "vision_soft_tokens_per_image": 256,
    }),
    "InternVL3-8B": (7.94, {
        "architectures": ["InternVLChatModel"], "downsample_ratio": 0.5, "dynamic_image_size": True,
        "force_image_size": 448, "hidden_size": 3584, "image_fold": None, "llm_config": {"architectures":
        ["Qwen2ForCausalLM"], "hidden_act": "silu", "hidden_size": 3584, "intermediate_size": 18944,
        "max_position_embeddings": 32768, "max_window_layers": 70, "model_type": "qwen2", "moe_config": None,
        "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4, "sliding_window": None,
        "tie_word_embeddings": False, "use_bfloat16": True, "use_sliding_window": False, "vocab_size": 151674},
        "max_dynamic_patch": 12, "min_dynamic_patch": 1, "model_type": "internvl_chat", "pad2square": False,
        "ps_version": "v2", "select_layer": -1, "template": "internvl2_5", "use_backbone_lora": 0, "use_llm_lora": 0,
        "use_thumbnail": True, "vision_config": {"architectures": ["InternVisionModel"], "drop_path_rate": 0.0,
        "hidden_act": "gelu", "hidden_size": 1024, "image_size": 448, "intermediate_size": 4096, "model_type":
        "intern_vit_6b", "norm_type": "layer_norm", "num_attention_heads": 16, "num_channels": 3, "num_hidden_layers":
        24, "patch_size": 14, "qk_normalization": False, "qkv_bias": True}, "tie_word_embeddings": False,
    }),
    "MiniCPM3-4B": (4.07, {
        "architectures": ["MiniCPM3ForCausalLM"], "attention_bias": False, "dim_model_base": 256, "hidden_act":
        "silu", "hidden_size": 2560, "intermediate_size": 6400, "kv_lora_rank": 256, "max_position_embeddings": 32768,
        "model_type": "minicpm3", "num_attention_heads": 40, "num_hidden_layers": 62, "num_key_value_heads": 40,
        "q_lora_rank": 768, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64, "scale_depth": 1.4,
        "scale_emb": 12, "vocab_size": 73448,
    }),
    "Nemotron-Nano-9B-v2": (8.89, {
        "architectures": ["NemotronHForCausalLM"], "attention_bias": False, "attention_head_dim": 128, "chunk_size":
        128, "conv_kernel": 4, "head_dim": 128, "hidden_size": 4480, "hybrid_override_pattern":
        "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-", "intermediate_size": 15680, "mamba_head_dim": 80,
        "mamba_hidden_act": "silu", "mamba_num_heads": 128, "mamba_proj_bias": False, "max_position_embeddings":
        131072, "mlp_bias": False, "mlp_hidden_act": "relu2", "model_type": "nemotron_h", "n_groups": 8,
        "num_attention_heads": 40, "num_hidden_layers": 56, "num_key_value_heads": 8, "num_logits_to_keep": 1,
        "num_query_groups": 8, "rescale_prenorm_residual": True, "residual_in_fp32": False, "sliding_window": None,
        "ssm_state_size": 128, "tie_word_embeddings": False, "time_step_rank": 256, "use_bias": False,
        "use_conv_bias": True, "use_mamba_kernels": True, "vocab_size": 131072,
    }),
    "GLM-4.5-Air": (106.85, {
        "architectures": ["Glm4MoeForCausalLM"], "attention_bias": True, "head_dim": 128, "hidden_act": "silu",
        "hidden_size": 4096, "partial_rotary_factor": 0.5, "intermediate_size": 10944, "max_position_embeddings":
        131072, "model_type": "glm4_moe", "moe_intermediate_size": 1408, "norm_topk_prob": True,
        "num_attention_heads": 96, "n_group": 1, "topk_group": 1, "n_routed_experts": 128, "n_shared_experts": 1,
        "routed_scaling_factor": 1.0, "num_experts_per_tok": 8, "first_k_dense_replace": 1, "num_hidden_layers": 46,
        "num_key_value_heads": 8, "num_nextn_predict_layers": 1, "tie_word_embeddings": False, "use_qk_norm": False,
        "vocab_size": 151552,
    }),
    "AFM-4.5B": (4.62, {
        "architectures": ["ArceeForCausalLM"], "attention_bias": False, "head_dim": 128, "hidden_act": "relu2",
        "hidden_size": 2560, "intermediate_size": 18432, "max_position_embeddings": 65536, "mlp_bias": False,
        "model_type": "arcee", "num_attention_heads": 20, "num_hidden_layers": 36, "num_key_value_heads": 4,
        "tie_word_embeddings": False, "vocab_size": 128005,
    }),
    "llava-1.5-7b": (7.06, {
        "architectures": ["LlavaForConditionalGeneration"], "ignore_index": -100, "image_token_index": 32000,
        "model_type": "llava", "projector_hidden_act": "gelu", "text_config": {"_name_or_path":
        "lmsys/vicuna-7b-v1.5", "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 4096, "model_type":
        "llama", "vocab_size": 32064}, "tie_word_embeddings": False, "vision_config": {"hidden_size": 1024,
        "image_size": 336, "intermediate_size": 4096, "model_type": "clip_vision_model", "num_attention_heads": 16,
        "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768, "vocab_size": 32000},
        "vision_feature_layer": -2, "vision_feature_select_strategy": "default", "vocab_size": 32064,
    }),
    "DeepSeek-VL2-small": (16.15, {
        "architectures": ["DeepseekVLV2ForCausalLM"], "candidate_resolutions": [[384, 384], [384, 768]],
        "global_view_pos": "head", "language_config": {"architectures": ["DeepseekV2ForCausalLM"],
        "first_k_dense_replace": 1, "hidden_size": 2048, "intermediate_size": 10944, "kv_lora_rank": None, "lm_head":
        True, "max_position_embeddings": 4096, "model_type": "deepseek_v2", "moe_intermediate_size": 1408, "n_group":
        1, "n_routed_experts": 64, "n_shared_experts": 2, "num_attention_heads": 16, "num_experts_per_tok": 6,
        "num_hidden_layers": 27, "num_key_value_heads": 16, "q_lora_rank": None, "qk_nope_head_dim": 0,
        "qk_rope_head_dim": 0, "rm_head": False, "topk_group": 1, "topk_method": "greedy", "use_mla": False,
        "v_head_dim": 0, "vocab_size": 102400}, "model_type": "deepseek_vl_v2", "projector_config": {"model_type":
        "mlp_projector", "n_embed": 2048}, "tile_tag": "2D", "vision_config": {"layers": 27, "mlp_ratio": 3.7362,
        "model_name": "siglip_so400m_patch14_384", "model_type": "vision", "patch_size": 14, "width": 1152},
    }),
    "Qwen3-Omni-30B thinker": (31.7, {
        "architectures": ["Qwen3OmniMoeForConditionalGeneration"], "model_type": "qwen3_omni_moe",
        "enable_audio_output": False, "thinker_config": {"architectures":
        ["Qwen3OmniMoeThinkerForConditionalGeneration"], "model_type": "qwen3_omni_moe_thinker", "audio_config":
        {"activation_dropout": 0, "activation_function": "gelu", "conv_chunksize": 500, "d_model": 1280,
        "downsample_hidden_size": 480, "dropout": 0, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120,
        "encoder_layers": 32, "max_source_positions": 1500, "model_type": "qwen3_omni_moe_audio_encoder", "n_window":
        50, "n_window_infer": 800, "num_hidden_layers": 32, "num_mel_bins": 128, "output_dim": 2048,
        "scale_embedding": False}, "text_config": {"attention_bias": False, "decoder_sparse_step": 1, "head_dim": 128,
        "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 768, "max_position_embeddings": 65536,
        "mlp_only_layers": [], "model_type": "qwen3_omni_moe_text", "moe_intermediate_size": 768, "norm_topk_prob":
        True, "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48,
        "num_key_value_heads": 4, "shared_expert_intermediate_size": 0, "sliding_window": None, "tie_word_embeddings":
        False, "use_qk_norm": True, "use_sliding_window": False, "vocab_size": 152064}, "vision_config":
        {"apply_vit_abs_pos_embed": True, "deepstack_visual_indexes": [8, 16, 24], "depth": 27, "hidden_act":
        "gelu_pytorch_tanh", "hidden_size": 1152, "image_size": 768, "in_channels": 3, "in_chans": 3,
        "intermediate_size": 4304, "model_type": "qwen3_omni_moe_vision_encoder", "num_heads": 16,
        "num_position_embeddings": 2304, "out_hidden_size": 2048, "patch_size": 16, "spatial_merge_size": 2,
        "temporal_patch_size": 2, "tokens_per_second": 2}, "position_id_per_seconds": 13, "seconds_per_chunk": 2},
    }),
    "bloom-7b1": (7.07, {
        "apply_residual_connection_post_layernorm": False, "architectures": ["BloomForCausalLM"],
        "attention_softmax_in_fp32": True, "bias_dropout_fusion": True, "masked_softmax_fusion": True, "model_type":
        "bloom", "n_embed": 4096, "n_layer": 30, "num_attention_heads": 32, "offset_alibi": 100, "pretraining_tp": 2,
        "skip_bias_add": True, "skip_bias_add_qkv": False, "seq_length": 2048, "unk_token_id": 0, "vocab_size":
        250880, "hidden_size": 4096,
    }),
    "mamba-2.8b-hf": (2.77, {
        "architectures": ["MambaForCausalLM"], "conv_kernel": 4, "d_inner": 5120, "d_model": 2560, "expand": 2,
        "fused_add_norm": True, "hidden_act": "silu", "hidden_size": 2560, "intermediate_size": 5120, "model_type":
        "mamba", "n_layer": 64, "num_hidden_layers": 64, "pad_vocab_size_multiple": 8, "rescale_prenorm_residual":
        False, "residual_in_fp32": True, "rms_norm": True, "ssm_cfg": {}, "state_size": 16, "time_step_init_scheme":
        "random", "time_step_rank": 160, "time_step_scale": 1.0, "use_bias": False, "use_conv_bias": True,
        "vocab_size": 50280,
    }),
    "recurrentgemma-9b": (8.58, {
        "architectures": ["RecurrentGemmaForCausalLM"], "attention_bias": False, "attention_window_size": 2048,
        "block_types": ["recurrent", "recurrent", "attention"], "conv1d_width": 4, "embeddings_scale_by_sqrt_dim":
        True, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 4096, "intermediate_size":
        24576, "logits_soft_cap": 30.0, "lru_width": 4096, "model_type": "recurrent_gemma", "num_attention_heads": 16,
        "num_hidden_layers": 38, "num_key_value_heads": 1, "partial_rotary_factor": 0.5, "w_init_variance_scale":
        0.01, "final_w_init_variance_scale": 0.0526, "vocab_size": 256000,
    }),
    "gemma-3-27b": (27.43, {
        "architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 255999, "eoi_token_index": 256000,
        "image_token_index": 262144, "mm_tokens_per_image": 256, "model_type": "gemma3", "text_config": {"head_dim":
        128, "hidden_size": 5376, "intermediate_size": 21504, "model_type": "gemma3_text", "num_attention_heads": 32,
        "num_hidden_layers": 62, "num_key_value_heads": 16, "query_pre_attn_scalar": 168, "sliding_window": 1024},
        "vision_config": {"hidden_size": 1152, "image_size": 896, "intermediate_size": 4304, "model_type":
        "siglip_vision_model", "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14,
        "vision_use_head": False},
    }),
    "DeciLM-7B": (7.04, {
        "architectures": ["DeciLMForCausalLM"], "attention_bias": False, "hidden_act": "silu", "hidden_size": 4096,
        "intermediate_size": 14336, "max_position_embeddings": 8192, "model_type": "deci", "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 32, "num_key_value_heads_per_layer": [4, 4, 4, 4, 4, 4, 4, 4,
        4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4], "tie_word_embeddings": False,
        "vocab_size": 32000,
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_their_published_parameters(name: str, tmp_path: Path) -> None:
    """None is refused for a key that changes nothing, and none is read as another model."""
    billions, config = PUBLISHED[name]
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert read_model(tmp_path).parameters() / 1e9 == pytest.approx(billions, rel=0.012)
