"""The names of one matrix in checkpoints: lists of quantized and ignored modules are matched against all of them."""

from __future__ import annotations

from functools import cache

PREFIXES = (
    "", "model.", "model.language_model.", "language_model.model.", "language_model.", "model.text_model.", "backbone.",
    "transformer.", "model.decoder.", "thinker.model.", "model.language_model.model.",
)  # fmt: skip
# The block that holds a matrix, by the names that families use for it.
_BLOCKS: dict[str, tuple[str, ...]] = {
    "self_attn": ("self_attn", "attention", "attn", "mixer", "linear_attn", "self_attention"),
    "linear_attn": ("linear_attn", "self_attn", "mixer"),
    "mamba": ("mamba", "mixer"),
    "conv": ("conv", "short_conv"),
    "mlp": ("mlp", "block_sparse_moe", "feed_forward", "mixer", "ffn", "moe"),
}
# The matrix itself, by its other names and fused forms.
_MATRICES: dict[str, tuple[str, ...]] = {
    "q_proj": ("q_proj", "qkv_proj", "query_key_value", "Wqkv", "c_attn"),
    "k_proj": ("k_proj", "qkv_proj", "query_key_value", "Wqkv", "c_attn"),
    "v_proj": ("v_proj", "qkv_proj", "query_key_value", "Wqkv", "c_attn"),
    "o_proj": ("o_proj", "out_proj", "dense", "c_proj"),
    "q_a_proj": ("q_a_proj", "fused_qkv_a_proj_with_mqa", "fused_qkv_a_proj", "wq_a"),
    "q_b_proj": ("q_b_proj", "wq_b"),
    "kv_a_proj_with_mqa": ("kv_a_proj_with_mqa", "fused_qkv_a_proj_with_mqa", "fused_qkv_a_proj", "wkv"),
    "gate_proj": ("gate_proj", "gate_up_proj", "w1"),
    "up_proj": ("up_proj", "gate_up_proj", "w3"),
    "down_proj": ("down_proj", "w2"),
    "in_proj_qkv": ("in_proj_qkv", "in_proj_qkvz"),
    "in_proj_z": ("in_proj_z", "in_proj_qkvz"),
    "in_proj_ba": ("in_proj_ba", "in_proj_b", "in_proj_a"),
}
_SHARED = ("shared_experts", "shared_expert", "shared_mlp")


def names_of(layer: int, matrix: str) -> list[str]:
    """Names of a matrix in one layer, from its name within the layer; a prefix before ``layers`` is not included.

    >>> "layers.3.mlp.gate_up_proj" in names_of(3, "mlp.gate_proj")
    True
    """
    return [f"layers.{layer}.{name}" for name in _inner(matrix)]


@cache
def _inner(matrix: str) -> tuple[str, ...]:
    """Names within the layer."""
    parts = matrix.split(".")
    blocks = _BLOCKS.get(parts[0], (parts[0],))
    last = _MATRICES.get(parts[-1], (parts[-1],))
    middle = parts[1:-1]
    if middle == ["shared_experts"]:
        held = [(*inside, shared) for shared in _SHARED for inside in [(block,) for block in blocks] + [()]]
        return tuple(".".join((*inside, one)) for inside in held for one in last)
    if middle and middle[0] == "experts":
        holders = [f"{block}.experts{number}" for block in (*blocks, "mlp.moe") for number in (".0", "")]
        return tuple(f"{holder}.{one}" for holder in holders for one in last)
    return tuple(".".join((block, *middle, one)) for block in blocks for one in last)
