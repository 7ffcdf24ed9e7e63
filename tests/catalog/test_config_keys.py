import json
from pathlib import Path
from typing import Any

import pytest

from melange.catalog.config_file import Config
from melange.catalog.harmless_keys import may_change
from melange.catalog.huggingface import read_model
from melange.errors import InputError

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "max_position_embeddings": 131072, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "vocab_size": 128256,
}  # fmt: skip


def write(folder: Path, config: dict[str, Any]) -> Path:
    """A folder in Hugging Face form."""
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("number_of_experts", 64),
        ("moe_count", 8.0),
        ("experts_by_layer", [0, 64, 64]),
        ("extra_layers", 3),
        ("anything", 17),
        ("block_ffn_dim_multiplier", 1.3),
        ("ffn_ratio", 2.5),
        ("attention_type", "lightning"),
        ("use_mla", True),
        ("mixture", {"experts": 64}),
        ("qk_rope_heads", 64),
        ("vision_num_layers", 24),
    ],
)
def test_a_key_that_no_rule_reads_is_named(key: str, value: object, tmp_path: Path) -> None:
    """Whatever may change layers, experts, caches or weights is an error rather than a smaller model."""
    with pytest.raises(InputError, match=rf"config\.json: {key}: is an unknown key, and .* may change") as caught:
        read_model(write(tmp_path, {**LLAMA, key: value}))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("number_of_experts", 0),
        ("number_of_experts", None),
        ("number_of_experts", 1),
        ("experts_by_layer", [0, 0, 0]),
        ("mixture", {}),
        ("use_mla", False),
        ("attention_type", "full"),
        ("attn_type_list", [1] * 32),
        ("layer_types", ["full_attention"] * 32),
        ("layer_types", ["deepseek_sparse_attention"] * 32),
        ("rope_theta", 500000),
        ("rope_scaling", {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}),
        ("bos_token_id", 128000),
        ("eos_token_id", [128001, 128008]),
        ("attention_dropout", 0.1),
        ("initializer_range", 0.02),
        ("routed_scaling_factor", 2.5),
        ("transformers_version", "4.46.3"),
        ("unsloth_fixed", True),
        ("num_nextn_predict_layers", 1),
        ("per_layer_config", {}),
    ],
)
def test_what_changes_nothing_is_passed_over(key: str, value: object, tmp_path: Path) -> None:
    """Decided on values: the presence of a key is no reason to refuse a model."""
    assert read_model(write(tmp_path, {**LLAMA, key: value})).parameters() == 8_030_261_248


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe", "deepseek_v3", "novel_moe"])
def test_a_mixture_without_experts_is_no_dense_model(kind: str, tmp_path: Path) -> None:
    """Its experts stand somewhere else, or the file is cut."""
    with pytest.raises(InputError, match=r"num_local_experts \(or .*\) is missing"):
        read_model(write(tmp_path, {**LLAMA, "model_type": kind}))
    assert read_model(write(tmp_path, {**LLAMA, "model_type": kind, "num_experts": 0})).experts == 0


def test_names_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    """Either could be meant."""
    with pytest.raises(InputError, match=r"n_layer: says 24, but num_hidden_layers says 32"):
        read_model(write(tmp_path, {**LLAMA, "n_layer": 24}))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, "must be a whole number >= 0, got True"),
        ("8", "must be a whole number >= 0, got '8'"),
        (8.5, "must be a whole number >= 0, got 8.5"),
        (-8, "must be a whole number >= 0, got -8"),
        ([8, 8, 4], "must be one number or one for each of 32 layers, got 3"),
        ([8] * 31 + [0], "must be >= 1 and divide the 32 query heads, got 0 in layer 31"),
        ([8] * 31 + ["8"], "must be a whole number >= 0, got '8'"),
        ([8], "must be one number or one for each of 32 layers, got 1"),
        ({"0": 8}, "must be a whole number >= 0, got {'0': 8}"),
        (float("inf"), "must be a whole number >= 0, got inf"),
    ],
)
def test_a_number_that_is_none_is_named(value: object, message: str, tmp_path: Path) -> None:
    """One reader checks them all."""
    with pytest.raises(InputError) as caught:
        read_model(write(tmp_path, {**LLAMA, "num_key_value_heads": value}))
    assert f"config.json: num_key_value_heads: {message}" in str(caught.value)


@pytest.mark.parametrize("value", [8, 8.0, [8] * 32, [8] * 33])
def test_equal_numbers_are_one_number(value: object, tmp_path: Path) -> None:
    """A list of equal values says no more than one value."""
    assert read_model(write(tmp_path, {**LLAMA, "num_key_value_heads": value})).kv_bytes_per_token() == 131_072


def test_numbers_by_layer_count_layer_by_layer(tmp_path: Path) -> None:
    """Half of the layers with two KV heads instead of eight hold 5/8 of the cache."""
    model = read_model(write(tmp_path, {**LLAMA, "num_key_value_heads": [8, 2] * 16}))
    assert model.kv_bytes_per_token() == 131_072 * 5 / 8
    assert model.parameters() == 8_030_261_248 - 16 * 2 * 4096 * 6 * 128


def test_overrides_of_single_layers_are_read(tmp_path: Path) -> None:
    """Transformers writes what single layers have otherwise into per_layer_config."""
    override = {"per_layer_config": {"31": {"num_key_value_heads": 2}}}
    assert read_model(write(tmp_path, {**LLAMA, **override})).kv_bytes_per_token() == 4096 * 31 + 1024
    unknown = {"per_layer_config": {"31": {"number_of_experts": 64}}}
    with pytest.raises(
        InputError, match=r"per_layer_config\.31\.number_of_experts: is an unknown key for single layers"
    ):
        read_model(write(tmp_path, {**LLAMA, **unknown}))


def test_a_part_of_a_configuration_is_checked_too() -> None:
    """Its keys are named with their place."""
    config = Config({"outer": {"inner_experts": 5}}, "config.json")
    config.part("outer")
    with pytest.raises(InputError, match=r"outer\.inner_experts: is an unknown key"):
        config.check_unread()


@pytest.mark.parametrize(
    ("activation", "matrices"),
    [("silu", 3), ("relu2", 2), ("xielu", 2), ("gelu", 2), ("gelu_pytorch_tanh", 3), ("swigluoai", 3), ("relu", 2)],
)
def test_the_activation_says_how_many_matrices_there_are(activation: str, matrices: int, tmp_path: Path) -> None:
    """A type that is not known is gated by its activation."""
    model = read_model(write(tmp_path, {**LLAMA, "model_type": "novel", "hidden_act": activation}))
    assert model.kinds[0].feed_forward[0].parameters == matrices * 4096 * 14336


@pytest.mark.parametrize("activation", ["silu", "gelu", "relu2", "xielu", "gelu_pytorch_tanh"])
@pytest.mark.parametrize(
    ("kind", "matrices"),
    [("llama", 3), ("gemma2", 3), ("grok-1", 3), ("qwen2_5_vl_text", 3), ("nemotron", 2), ("arcee", 2)],
)
def test_a_known_type_has_its_matrices_whatever_the_activation(
    kind: str, matrices: int, activation: str, tmp_path: Path
) -> None:
    """As transformers builds them."""
    config = {**LLAMA, "model_type": kind, "hidden_act": activation, "head_dim": 128}
    model = read_model(write(tmp_path, config))
    assert model.kinds[0].feed_forward[0].parameters == matrices * 4096 * 14336


def test_names_and_values_decide_together() -> None:
    """The same name may be harmless with one value and not with another."""
    assert may_change("shared_layers", 2)
    assert not may_change("shared_layers", 0)
    assert not may_change("shared_layers", [1, 1, 1])
    assert may_change("shared_layers", [1, 2])
    assert may_change("layer_sharing", True)
    assert not may_change("tokenizer_class", "LlamaTokenizer")
