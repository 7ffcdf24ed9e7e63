import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from melange.catalog.huggingface import read_model
from melange.catalog.model import Model
from melange.catalog.module_rules import ModuleRules, matches
from melange.errors import InputError

LAYERS, HIDDEN, WIDTH, VOCABULARY = 4, 1024, 4096, 32000
DENSE: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": WIDTH,
    "max_position_embeddings": 8192, "num_attention_heads": 8, "num_hidden_layers": LAYERS, "num_key_value_heads": 2,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "vocab_size": VOCABULARY,
}  # fmt: skip
MATRICES = {
    "self_attn.q_proj": HIDDEN * HIDDEN, "self_attn.k_proj": HIDDEN * 256, "self_attn.v_proj": HIDDEN * 256,
    "self_attn.o_proj": HIDDEN * HIDDEN, "mlp.gate_proj": HIDDEN * WIDTH, "mlp.up_proj": HIDDEN * WIDTH,
    "mlp.down_proj": HIDDEN * WIDTH,
}  # fmt: skip
ATTENTION = sum(count for name, count in MATRICES.items() if "attn" in name)
FEED_FORWARD = sum(count for name, count in MATRICES.items() if "mlp" in name)
# Two embeddings, two norms a layer and a last one, in 16 bits.
REST_BYTES = 2 * (2 * VOCABULARY * HIDDEN + (2 * LAYERS + 1) * HIDDEN)


def read(folder: Path, quantization: dict[str, Any], beside: dict[str, Any] | None = None, **more: Any) -> Model:
    """The model above, quantized."""
    content = {**DENSE, **more} | ({"quantization_config": quantization} if quantization else {})
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    if beside is not None:
        (folder / "hf_quant_config.json").write_text(json.dumps(beside), encoding="utf-8")
    return read_model(folder)


def group(bits: int, kind: str, size: int | None = None, **more: Any) -> dict[str, Any]:
    """One group of compressed-tensors."""
    weights = {"num_bits": bits, "type": kind, "group_size": size, "symmetric": True}
    return {"weights": weights, "input_activations": None, **more}


@pytest.mark.parametrize(
    ("quantization", "bits"),
    [
        ({"quant_method": "compressed-tensors", "config_groups": {"g": group(4, "int", 32)}}, 4.5),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": group(4, "int", 128)}}, 4.125),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": group(4, "float", 16)}}, 4.5),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": group(4, "float", 32)}}, 4.25),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": group(8, "int", None)}}, 8),
        ({"quant_method": "awq", "bits": 4, "group_size": 32}, 4 + 20 / 32),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, 4 + 20 / 128),
        ({"quant_method": "gptq", "bits": 3, "group_size": 128}, 3 + 19 / 128),
        ({"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True}, 4.5),
        ({"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": False}, 4.5),
        ({"quant_method": "w8a8_fp8"}, 8),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, 8),
        ({"quant_method": "auto-round", "bits": 2, "group_size": 64}, 2 + 18 / 64),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, 4.5),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 32}, 4.25),
        ({"quant_method": "modelopt", "quant_algo": "MXFP8"}, 8.25),
        ({"quant_method": "modelopt", "quant_algo": "W4A16_NVFP4"}, 4.5),
        ({"quant_method": "modelopt", "quantization": {"quant_algo": "FP8"}}, 8),
        ({"quant_algo": "FP8"}, 8),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 4.5),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_use_double_quant": True}, 4 + 8.125 / 64),
        ({"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp8_e4m3"}}}, 8),
        (
            {"quant_method": "quark", "global_quant_config": {"weight": {
                "dtype": "fp4", "qscheme": "per_group", "group_size": 32}}},
            4.25,
        ),
        (
            {"quant_method": "quark", "global_quant_config": {"weight": {
                "dtype": "int4", "qscheme": "per_group", "group_size": 128, "symmetric": True}}},
            4.125,
        ),
        ({"quant_method": "torchao", "quant_type": {"default": {
            "_type": "Int4WeightOnlyConfig", "_data": {"group_size": 64}}}}, 4 + 20 / 64),
        ({"quant_method": "torchao", "quant_type": "int8_weight_only"}, 8),
        ({"quant_method": "torchao", "quant_type": {"default": {
            "_type": "IntxWeightOnlyConfig", "_data": {"group_size": 32, "weight_dtype": {"_data": "int2"}}}}},
            2 + 18 / 32),
        ({"quant_method": "torchao", "quant_type": {"default": {
            "_type": "NVFP4DynamicActivationNVFP4WeightConfig", "_data": {}}}}, 4.5),
        ({"quant_method": "torchao", "quant_type": {"default": {
            "_type": "FqnToConfig", "_data": {"fqn_to_config": {"_default": {
                "_type": "Int4WeightOnlyConfig", "_data": {"group_size": 128}}}}}}}, 4 + 20 / 128),
        ({"quant_method": "torchao", "quant_type": {"default": {
            "_type": "Float8DynamicActivationFloat8WeightConfig", "_data": {}}}}, 8),
        ({"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}}}, 4.5),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 8),
    ],
)  # fmt: skip
def test_scales_of_groups_count(quantization: dict[str, Any], bits: float, tmp_path: Path) -> None:
    """Bits of a value with its share of scales and zeros."""
    body = LAYERS * (ATTENTION + FEED_FORWARD)
    assert read(tmp_path, quantization).weight_bytes() == pytest.approx(body * bits / 8 + REST_BYTES, rel=1e-12)


def test_each_group_has_its_own_modules(tmp_path: Path) -> None:
    """Attention in fp8 and the feed-forward in NVFP4."""
    groups = {
        "a": group(8, "float", targets=["re:.*self_attn.*"]),
        "b": group(4, "float", 16, targets=["re:.*mlp.*"]),
    }
    model = read(tmp_path, {"quant_method": "compressed-tensors", "config_groups": groups})
    assert model.body_bytes() == LAYERS * (ATTENTION + FEED_FORWARD * 4.5 / 8)
    assert (model.weight_dtype, model.attention_weight_dtype) == ("fp4", "fp8")


@pytest.mark.parametrize(
    ("pattern", "name", "is_named"),
    [
        ("lm_head", "model.layers.0.self_attn.q_proj", False),
        ("model.layers.1", "model.layers.1.mlp.up_proj", True),
        ("model.layers.1", "model.layers.10.mlp.up_proj", False),
        ("gate", "model.layers.0.mlp.gate_proj", False),
        ("mlp", "model.layers.0.mlp.gate_proj", True),
        ("model.layers.0.self_attn.q_norm", "model.layers.0.self_attn.q_proj", False),
        ("model.layers.*.self_attn", "model.layers.3.self_attn.q_proj", True),
        ("*self_attn*", "model.layers.3.self_attn.q_proj", True),
        ("re:.*mlp\\.(gate|up|gate_up|down)_proj.*", "model.layers.3.mlp.experts.0.gate_proj", False),
        ("re:.*mlp\\.(gate|up|gate_up|down)_proj.*", "model.layers.3.mlp.gate_proj", True),
        ("re:model.layers.3.*", "backbone.layers.3.mlp.gate_proj", False),
    ],
)
def test_modules_are_named_whole(pattern: str, name: str, is_named: bool) -> None:
    """By the parts of their path, never by a piece of a word."""
    assert matches(pattern, name) is is_named


@pytest.mark.parametrize("prefix", ["model.", "language_model.model.", "model.language_model.", "backbone.", ""])
def test_whatever_holds_the_layers_is_the_same_layer(prefix: str, tmp_path: Path) -> None:
    """Multimodal checkpoints put a name before the layers."""
    kept = [f"{prefix}layers.2.self_attn", f"{prefix}layers.0.mlp.down_proj"]
    model = read(tmp_path, {"quant_method": "fp8", "modules_to_not_convert": ["lm_head", *kept]})
    assert model.body_bytes() == LAYERS * (ATTENTION + FEED_FORWARD) + ATTENTION + HIDDEN * WIDTH


@pytest.mark.parametrize("seed", range(20))
def test_any_list_of_kept_modules_is_counted_module_by_module(seed: int, tmp_path: Path) -> None:
    """Against a count of its own: every matrix has its own bytes, and lists in any of the dialects' forms name them."""
    random = np.random.default_rng(seed)
    kept, expected = [], 0.0
    for layer, (name, count) in product(range(LAYERS), MATRICES.items()):
        is_kept = random.random() < 0.3
        expected += count * (2.0 if is_kept else 4.5 / 8)
        if is_kept:
            form = random.choice(
                ["model.layers.{}.{}", "re:^model\\.layers\\.{}\\.{}$", "*layers.{}.{}", "layers.{}.{}"]
            )
            escaped = name.replace(".", "\\.") if form.startswith("re:") else name
            kept.append(str(form).format(layer, escaped))
    key = str(random.choice(["ignore", "modules_to_not_convert", "exclude_modules"]))
    noise = ["lm_head", "model.layers.0.mlp.gate", "model.layers.1.self_attn.q_norm", "re:.*visual.*"]
    quantization = {"quant_method": "modelopt", "quant_algo": "NVFP4", key: [*kept, *noise]}
    assert read(tmp_path, quantization).body_bytes() == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(20))
def test_any_mixture_is_counted_module_by_module(seed: int, tmp_path: Path) -> None:
    """quantized_layers names an algorithm for each module; what it does not name stays as it was."""
    random = np.random.default_rng(100 + seed)
    bits = {"FP8": 8, "NVFP4": 4.5, "MXFP8": 8.25, "W4A16_AWQ": 4 + 20 / 128, "": 16}
    layers, expected = {}, 0.0
    for layer, (name, count) in product(range(LAYERS), MATRICES.items()):
        algorithm = str(random.choice(list(bits)))
        expected += count * bits[algorithm] / 8
        if algorithm:
            layers[f"model.layers.{layer}.{name}"] = {"quant_algo": algorithm}
    quantization = {"quant_algo": "MIXED_PRECISION", "quantized_layers": layers}
    beside = {"producer": {"name": "modelopt"}, "quantization": quantization}
    assert read(tmp_path, {}, beside).body_bytes() == pytest.approx(expected)


def test_the_file_beside_says_it_too(tmp_path: Path) -> None:
    """ModelOpt writes hf_quant_config.json; its cache in fp8 counts."""
    beside = {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}}
    model = read(tmp_path, {}, beside)
    assert (model.weight_dtype, model.kv_dtype) == ("fp8", "fp8")
    assert model.kv_bytes_per_token() == LAYERS * 2 * 256


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        ({"quant_method": "aqlm"}, "quantization_config.quant_method: aqlm is not supported"),
        ({"quant_method": "modelopt", "quant_algo": "FP3"}, "quant_algo: FP3 is not supported"),
        ({"quant_method": "modelopt"}, "quant_algo: is missing"),
        ({"quant_method": "gptq", "bits": "four"}, "bits: must be a number >= 0, got 'four'"),
        ({"quant_method": "gptq", "bits": 4, "group_size": "x"}, "group_size: must be a number >= -1, got 'x'"),
        ({"quant_method": "fp8", "ignore": "lm_head"}, "ignore: must be a list of modules, got 'lm_head'"),
        ({"quant_method": "compressed-tensors", "config_groups": {}}, "config_groups: no group says"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": False}, "load_in_4bit: must be true, or load_in_8bit"),
        (
            {"quant_method": "fp8", "kv_cache_scheme": {"num_bits": 4}},
            "kv_cache_scheme.num_bits: must be 8 or 16, got 4",
        ),
        ({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP2"}, "kv_cache_quant_algo: FP2"),
        ({"quant_method": "torchao", "quant_type": "int3_magic"}, "quant_type: int3_magic is not supported"),
        (
            {"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "odd"}}},
            "weight.dtype: odd is not supported",
        ),
        ({"quant_algo": "MIXED_PRECISION", "quantized_layers": []}, "quantized_layers: must say how each module"),
    ],
)
def test_what_is_not_known_is_named(quantization: dict[str, Any], message: str, tmp_path: Path) -> None:
    """The key, and what it says."""
    with pytest.raises(InputError) as caught:
        read(tmp_path, quantization)
    assert message in str(caught.value)


CACHED = ("*k_proj", "*v_proj")
QUARK_FP8 = {"output_tensors": {"dtype": "fp8_e4m3", "qscheme": "per_tensor"}}
QUARK_CACHE = dict.fromkeys(CACHED, QUARK_FP8)
QUARK = {"quant_method": "quark", "global_quant_config": {"weight": None}}


@pytest.mark.parametrize(
    "quantization",
    [
        {"quant_method": "compressed-tensors", "config_groups": {}, "kv_cache_scheme": {"num_bits": 8}},
        {"quant_method": "modelopt", "quant_algo": None, "kv_cache_quant_algo": "FP8"},
        {"quantization": {"quant_algo": None, "kv_cache_quant_algo": "FP8"}},
        {**QUARK, "export": {"kv_cache_group": list(CACHED)}, "layer_quant_config": QUARK_CACHE},
        {**QUARK, "kv_cache_quant_config": QUARK_CACHE},
    ],
)
def test_the_cache_alone_may_be_quantized(quantization: dict[str, Any], tmp_path: Path) -> None:
    """Weights stay as published, and a token takes half."""
    model = read(tmp_path, quantization)
    assert (model.weight_dtype, model.kv_dtype) == ("bf16", "fp8")
    assert model.weight_bytes() == 2 * model.parameters()
    beside = read(tmp_path, {}, quantization)
    assert beside.kv_dtype == "fp8"


@pytest.mark.parametrize("name", ["mlp.experts.gate_up_proj", "mlp.experts.0.gate_proj", "mlp.experts"])
def test_experts_may_be_named_together_or_one_by_one(name: str, tmp_path: Path) -> None:
    """Checkpoints hold them as one tensor or one by one."""
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 512, "model_type": "qwen3_moe"}
    kept = [f"model.layers.{layer}.{name}" for layer in range(LAYERS)]
    model = read(tmp_path, {"quant_method": "fp8", "modules_to_not_convert": kept}, **experts)
    matrices = 1 if name.endswith("0.gate_proj") else 2 if "gate_up" in name else 3
    assert model.routed_bytes() == LAYERS * 8 * HIDDEN * 512 * (3 + matrices)


def test_experts_and_shared_experts_are_recognized_by_name(tmp_path: Path) -> None:
    """Routed experts in int4 of groups of 32, all else in 16 bits, as Kimi-K2.5 is."""
    experts = {"n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 512, "n_shared_experts": 1}
    ignored = ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", "re:.*mlp\\.(gate|up|gate_up|down)_proj.*"]
    quantization = {
        "quant_method": "compressed-tensors", "config_groups": {"g": group(4, "int", 32)}, "ignore": ignored,
    }  # fmt: skip
    model = read(tmp_path, quantization, first_k_dense_replace=1, model_type="deepseek_v3", **experts)
    routed = (LAYERS - 1) * 8 * 3 * HIDDEN * 512
    assert model.routed_parameters() == routed
    assert model.routed_bytes() == routed * 4.5 / 8
    assert model.body_bytes() == 2 * model.body_parameters()


@pytest.mark.parametrize("pattern", ["[" * 200_000 + "model.layers.0*", "re:" + "a" * 5_000])
def test_a_pattern_longer_than_any_name_is_refused(pattern: str) -> None:
    """Matching it took a minute."""
    with pytest.raises(InputError, match=r"is not the name of a module: it has \d+,\d+ characters"):
        ModuleRules(["lm_head", pattern])


@pytest.mark.parametrize(
    "pattern", ["(?:(?:.|[a-z])+)+", "(.*.*)*", ".*.*.*.*.*.*.*", "(?:(.+)+)+", ".?" * 60, "(.|..|...)" * 15]
)
def test_an_expression_of_repeats_of_repeats_is_matched_in_linear_time(pattern: str) -> None:
    """Python tries all combinations of the repeats before it fails, which takes years."""
    assert ModuleRules([f"re:{pattern}!"]).rule_of(0, "q_proj") is None
    assert ModuleRules([f"re:{pattern}", "lm_head"]).rule_of(0, "q_proj") == 0


def test_an_expression_that_cannot_be_matched_in_linear_time_is_refused() -> None:
    """A look-ahead in a repeated group needs all combinations; a look-ahead alone does not."""
    with pytest.raises(InputError, match=r"may take years to match"):
        ModuleRules(["re:(?:(?!lm_head).+)+!"])
    assert ModuleRules(["re:(?!.*lm_head).*q_proj"]).rule_of(0, "q_proj") == 0
