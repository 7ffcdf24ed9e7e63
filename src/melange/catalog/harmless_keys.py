"""Which keys of a configuration change neither layers, experts, caches nor weights, when no rule has read them.

Decided on name and value. What is absent, false, zero, one or empty changes nothing. A whole number of two or more may
count anything, so its name must be known. A flag, a word or a fraction matters only under a name that speaks of structure.
"""

from __future__ import annotations

import re
from typing import Any

# Known names whose numbers are no counts of layers, experts, heads or widths of the decoder.
_NAMES = frozenset(
    """
    attn_res_block_size audio_chunk_size audio_merge_size chunk_size chunk_size_feed_forward chunk_size_lm_head default_theta
    diversity_penalty dim_model_base encoder_no_repeat_ngram_size ep_size floor_scale gated_norm_rank id2label
    image_grid_pinpoints image_seq_length image_size img_token_compression_config index_topk initial_context_length
    input_image_size label2id layer_norm_eps layer_norm_epsilon layernorm_epsilon log_scaling_n_floor logits_to_keep
    mamba_chunk_size max_batch_size max_dynamic_patch max_inference_chunksize max_length max_new_tokens max_pixels
    max_position_embeddings max_window_layers min_length min_pixels mm_tokens_per_image moe_norm_min n_group no_repeat_ngram_size
    num_beam_groups num_beams num_expert_group num_hash_layers num_image_tokens num_labels num_logits_to_keep num_return_sequences
    original_max_position_embeddings patch_size pretraining_tp projector_hidden_size ps_version query_pre_attn_scalar
    router_group_size scale_depth scale_emb swiglu_limit tensor_parallel_degree time_step_limit time_step_rank time_step_floor
    tokens_per_second top_k topk_group video_size vision_feature_layer vision_soft_tokens_per_image world_size
    mlp_multipliers ssm_multipliers mup_width_multiplier attention_in_multiplier attention_out_multiplier lm_head_multiplier
    attention_multiplier embedding_multiplier residual_multiplier key_multiplier ssm_in_multiplier ssm_out_multiplier
    activation_sparsity_pattern auto_map architectures task_specific_params generation_config transformers.js_config
    moe_router_topk_scaling_factor long_factor short_factor layer_scale_init_value
    """.split()
)
_PATTERNS = re.compile(
    r"""
    ^_ | (^|_)(token|tokens)_(id|ids|index|indices)$ | (^|_)tokens?_?ids?$ | ^(bos|eos|pad|sep|cls|unk|mask|suppress|begin_suppress)_
    | (^|_)(p|emb|embd|attn|resid|embed)?_?drop(out|path)?(_|$) | pdrop$ | (^|_)(eps|epsilon)$
    | (^|_)(rope|rotary|yarn|mrope|mscale|ntk)(?!\w*(head|rank|layers))(_|$) | ^rotary_dim$ | theta$ | (^|_)(init|initializer|std|initial)(_|$)
    | soft_?cap(ping)?$ | (^|_)(loss|aux|coef|coeff|coefficient|jitter|noise|temperature|penalty|seed|version)(_|$)
    | (^|_)(scale|scaling|scalar|alpha|beta|bound|limit|clip|clamp|magnitude)(_factor|_type|_depth|_emb|_val|_value|_min|_max)?$
    | ^(output|return|remove|early|bad|forced|typical|length|repetition|exponential|finetuning|problem|prefix|summary)_
    | ^(kda_lower_bound|linear_(a_log|dt)_.*|(mamba_|linear_)?dt_(min|max|limit|init.*|floor)|time_step_(min|max|scale))$
    """,
    re.VERBOSE,
)
# Words that speak of structure: under them, flags, words and fractions matter too.
_STRUCTURE = re.compile(
    r"(^|_)(moe|mla|experts?|mamba\d?|ssm|retention|retnet|rwkv|delta|deltanet|linear_attn|linear_attention|sparse_attention"
    r"|layers?|blocks?|heads?|window|swa|sliding|mixer|shared|share|sharing|recurrent|loop|hybrid|memory|gate|gated|encoder|cross"
    r"|ffn|mlp|expand|expansion|intermediate|width|hidden_dim|ratio|mult|multiplier|compress|compression|lora|rank"
    r"|attn_type|attention_type|layer_type|cache_mode|adapter|dim)(_|$)"
)
# What flags, words and fractions are about when they change no shape, though their name speaks of structure.
_MANNERS = re.compile(
    r"(^|_)(bias|norm|norms|renormalize|renorm|normalization|fp32|float32|dtype|kernel|kernels|fused|fusion|flash|overlap|fn|func"
    r"|act|activation|impl|implementation|strategy|prob|probs|weight_on_input|dispatch|backend|combine|rescale|renormalized"
    r"|interleave|interleaved|scan|path|mambapy|topk|method|precision|in_fp32|softmax|order|checkpoint|checkpointing"
    r"|correction|conv_bias|allow_neg_eigval|safe_gate|sink|deterministic|attend_to_self|attention_mask|train|training)(_|$)"
)
_PLAIN_WORDS = frozenset(
    "full full_attention default vanilla softmax mha gqa causal standard dense silu swish swiglu sigmoid gelu relu".split()
)


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
    """Whether a value says that there is nothing, or one of it."""
    if isinstance(value, list | dict):
        return all(is_neutral(one) for one in (value.values() if isinstance(value, dict) else value))
    if isinstance(value, str):
        return value.casefold() in ("", "none", "null")
    return value is None or value is False or (value in (0, 1) and value is not True)
