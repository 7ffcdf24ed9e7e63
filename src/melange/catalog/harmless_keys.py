"""Keys of a configuration that no rule has read and that change neither layers, experts, caches nor weights.

Name and value decide. A value that is absent, false, zero, one or empty changes nothing. An integer of two or more may
count anything, so its name must be known. A flag, a word or a fraction matters only if its name is about structure.
"""

from __future__ import annotations

import re
from typing import Any

# Known names whose numbers do not count layers, experts, heads or widths of the decoder.
_NAMES = frozenset({
    "activation_sparsity_pattern", "architectures", "attention_in_multiplier", "attention_multiplier",
    "attention_out_multiplier", "attn_res_block_size", "audio_chunk_size", "audio_merge_size", "auto_map", "block_dim",
    "candidate_resolutions", "chunk_size", "chunk_size_feed_forward", "chunk_size_lm_head", "cla_share_factor",
    "class_num", "conv_dim", "conv_dim_out", "default_theta", "dense_list", "dim_model_base", "diversity_penalty",
    "embedding_multiplier", "encoder_no_repeat_ngram_size", "ep_size", "floor_scale", "freeze_lm_head",
    "freeze_text_layers", "freeze_vision_layers", "full_attn_mod", "gated_norm_rank", "generation_config", "id2label",
    "ignore_head", "image_grid_pinpoints", "image_seq_length", "image_size", "img_token_compression_config",
    "index_topk", "initial_context_length", "input_image_size", "interpolate_factor", "key_multiplier", "label2id",
    "layer_norm_eps", "layer_norm_epsilon", "layer_scale_init_value", "layernorm_epsilon", "lm_head_multiplier",
    "log_scaling_n_floor", "logits_to_keep", "long_factor", "mamba_chunk_size", "mask_init_id", "max_attn_value",
    "max_batch_size", "max_dynamic_patch", "max_inference_chunksize", "max_length", "max_new_tokens", "max_pixels",
    "max_position_embeddings", "max_window_layers", "min_length", "min_pixels", "mla_use_nope", "mlp_expansion_factor",
    "mlp_multipliers", "mm_tokens_per_image", "moe_capacity", "moe_layer_offset", "moe_norm_min",
    "moe_router_topk_scaling_factor", "mup_width_multiplier", "n_group", "n_shared_head", "no_repeat_ngram_size",
    "num_beam_groups", "num_beams", "num_expert_group", "num_hash_layers", "num_image_tokens", "num_labels",
    "num_logits_to_keep", "num_return_sequences", "offset_alibi", "org_vocab_size", "original_max_position_embeddings",
    "patch_size", "pretraining_tp", "projector_hidden_size", "ps_version", "query_pre_attn_scalar",
    "residual_multiplier", "router_group_size", "scale_attn_by_inverse_layer_idx", "scale_depth", "scale_emb",
    "short_factor", "ssm_in_multiplier", "ssm_multipliers", "ssm_out_multiplier", "swiglu_limit",
    "task_specific_params", "tensor_parallel_degree", "time_step_floor", "time_step_limit", "time_step_rank",
    "tokens_per_second", "top_k", "topk_group", "transformers.js_config", "use_head_wise_attn_gate", "video_size",
    "vision_feature_layer", "vision_soft_tokens_per_image", "world_size",
})  # fmt: skip
_PATTERNS = re.compile(
    r"""
    ^_ | (^|_)(token|tokens)_(id|ids|index|indices)$ | (^|_)tokens?_?ids?$
    | ^(bos|eos|pad|sep|cls|unk|mask|suppress|begin_suppress)_
    | (^|_)(p|emb|embd|attn|resid|embed)?_?drop(out|path)?(_|$) | pdrop$ | (^|_)(eps|epsilon)$
    | (^|_)(rope|rotary|yarn|mrope|mscale|ntk)(?!\w*(head|rank|layers))(_|$) | ^rotary_dim$ | theta$
    | (^|_)(init|initializer|std|initial)(_|$)
    | soft_?cap(ping)?$ | (^|_)(loss|aux|coef|coeff|coefficient|jitter|noise|temperature|penalty|seed|version)(_|$)
    | (^|_)(scale|scaling|scalar|alpha|beta|bound|limit|clip|clamp|magnitude)
      (_factor|_type|_depth|_emb|_val|_value|_min|_max)?$
    | ^(output|return|remove|early|bad|forced|typical|length|repetition|exponential|finetuning|problem|prefix|summary)_
    | ^(kda_lower_bound|linear_(a_log|dt)_.*|(mamba_|linear_)?dt_(min|max|limit|init.*|floor))$
    | ^time_step_(min|max|scale)$
    | (^|_)(attn|attention|embedding|output|logits|residual|key|ssm|lm_head|mlp)(_\w+)?_multipliers?(_scale)?$
    | ^embeddings?_scale | ^pad_vocab_size_multiple$ | ^(lm|rm)_head$ | _per_chunk$ | _per_seconds$
    | ^use_parallel_(block|embedding|residual)$ | (^|_)image_size$ | _(soft_)?tokens_per_image$
    | ^(min|max)_dynamic_patch$ | (^|_)moe_(min|eval|train)_capacity(_factor)?$
    | ^(im|img|image|text|video|vision)_(start|end|newline)(_id)?$
    """,
    re.VERBOSE,
)
# Words about structure: in names with these words, flags, words and fractions matter too.
_STRUCTURE = re.compile(
    r"(^|_)(moe|mla|experts?|mamba\d?|ssm|retention|retnet|rwkv|delta|deltanet|linear_attn|linear_attention"
    r"|sparse_attention|layers?|blocks?|heads?|window|swa|sliding|mixer|shared|share|sharing|cla|recurrent|loop|hybrid|memory"
    r"|gate|gated|encoder|cross|ffn|mlp|expand|expansion|intermediate|width|hidden_dim|ratio|mult|multiplier|compress"
    r"|compression|lora|rank|attn_type|attention_type|layer_type|cache_mode|adapter|dim)(_|$)"
)
# Exceptions: flags, words and fractions under these names change no shape, although the name is about structure.
_MANNERS = re.compile(
    r"(^|_)(bias|norm|norms|renormalize|renorm|normalization|fp32|float32|dtype|kernel|kernels|fused|fusion|flash|overlap"
    r"|fn|func|act|activation|impl|implementation|strategy|prob|probs|weight_on_input|dispatch|dropping|backend|combine"
    r"|rescale|renormalized|interleave|interleaved|scan|path|mambapy|topk|method|precision|in_fp32|softmax|order|checkpoint"
    r"|checkpointing|correction|conv_bias|allow_neg_eigval|safe_gate|sink|deterministic|attend_to_self|attention_mask"
    r"|train|training)(_|$)"
)
_PLAIN_WORDS = frozenset({
    "causal", "default", "dense", "full", "full_attention", "gelu", "gqa", "mha", "relu", "sigmoid", "silu",
    "softmax", "standard", "swiglu", "swish", "topk", "vanilla",
})  # fmt: skip


def may_change(key: str, value: Any) -> bool:
    """Whether an unread key may change layers, experts, caches or weights.

    >>> may_change("experts_in_layer", 64), may_change("rope_theta", 500000), may_change("experts_in_layer", 0)
    (True, False, False)
    """
    if is_neutral(value) or key in _NAMES or _PATTERNS.search(key):
        return False
    if isinstance(value, dict):
        return any(may_change(inner, one) for inner, one in value.items())
    if isinstance(value, list):
        return any(may_change(key, one) for one in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value >= 2
    if isinstance(value, float) and value.is_integer():
        return value >= 2
    if not _STRUCTURE.search(key) or _MANNERS.search(key):
        return False
    return not (isinstance(value, str) and value.casefold() in _PLAIN_WORDS)


def is_neutral(value: Any) -> bool:
    """Whether a value means that there is none of something, or one."""
    if isinstance(value, list | dict):
        return all(is_neutral(one) for one in (value.values() if isinstance(value, dict) else value))
    if isinstance(value, str):
        return value.casefold() in ("", "none", "null")
    return value is None or value is False or (value in (0, 1) and value is not True)
