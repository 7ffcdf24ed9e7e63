import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from melange.catalog.bundled import find_model
from melange.catalog.huggingface import read_model
from melange.catalog.model import Model
from melange.errors import InputError

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}
SIGLIP: dict[str, Any] = {
    "hidden_size": 1152, "image_size": 896, "intermediate_size": 4304, "model_type": "siglip_vision_model",
    "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14,
}  # fmt: skip
# Published configurations, cut to the keys that tell the shape; each must give the bundled model of that name.
PUBLISHED: dict[str, dict[str, Any]] = {
    "meta-llama/Llama-3.1-8B": LLAMA,
    "meta-llama/Llama-2-7b-hf": {
        **LLAMA, "intermediate_size": 11008, "max_position_embeddings": 4096, "num_key_value_heads": 32,
        "torch_dtype": "float16", "vocab_size": 32000,
    },
    "mistralai/Mistral-7B-v0.1": {
        "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_size": 4096,
        "intermediate_size": 14336, "max_position_embeddings": 32768, "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "sliding_window": 4096, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "vocab_size": 32000,
    },
    "mistralai/Mixtral-8x7B-v0.1": {
        "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_size": 4096,
        "intermediate_size": 14336, "max_position_embeddings": 32768, "num_attention_heads": 32,
        "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 8,
        "sliding_window": None, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "vocab_size": 32000,
    },
    "Qwen/Qwen2.5-7B": {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944,
        "max_position_embeddings": 131072, "max_window_layers": 28, "num_attention_heads": 28, "num_hidden_layers": 28,
        "num_key_value_heads": 4, "sliding_window": 131072, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
        "use_sliding_window": False, "vocab_size": 152064,
    },
    "Qwen/Qwen3-0.6B": {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 128, "hidden_size": 1024,
        "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28,
        "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "sliding_window": None,
        "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_sliding_window": False, "vocab_size": 151936,
    },
    "Qwen/Qwen3-30B-A3B": {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "decoder_sparse_step": 1,
        "head_dim": 128, "hidden_size": 2048, "intermediate_size": 6144, "max_position_embeddings": 40960,
        "mlp_only_layers": [], "moe_intermediate_size": 768, "num_attention_heads": 32, "num_experts": 128,
        "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4, "sliding_window": None,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_sliding_window": False, "vocab_size": 151936,
    },
    "deepseek-ai/DeepSeek-V3": {
        "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "first_k_dense_replace": 3,
        "hidden_size": 7168, "intermediate_size": 18432, "kv_lora_rank": 512, "max_position_embeddings": 163840,
        "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_routed_experts": 256, "n_shared_experts": 1,
        "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61, "num_key_value_heads": 128,
        "num_nextn_predict_layers": 1, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
        "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                                "weight_block_size": [128, 128]},
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "v_head_dim": 128, "vocab_size": 129280,
    },
    "google/gemma-2-9b": {
        "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "head_dim": 256, "hidden_size": 3584,
        "intermediate_size": 14336, "max_position_embeddings": 8192, "num_attention_heads": 16,
        "num_hidden_layers": 42, "num_key_value_heads": 8, "sliding_window": 4096, "torch_dtype": "float32",
        "vocab_size": 256000,
    },
    "google/gemma-3-27b-it": {
        "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
        "text_config": {
            "head_dim": 128, "hidden_size": 5376, "intermediate_size": 21504, "model_type": "gemma3_text",
            "num_attention_heads": 32, "num_hidden_layers": 62, "num_key_value_heads": 16, "sliding_window": 1024,
        },
        "torch_dtype": "bfloat16", "vision_config": SIGLIP,
    },
    "google/gemma-3-4b-it": {
        "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
        "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
                        "num_hidden_layers": 34, "sliding_window": 1024},
        "torch_dtype": "bfloat16", "vision_config": SIGLIP,
    },
    "microsoft/phi-4": {
        "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "hidden_size": 5120, "intermediate_size": 17920,
        "max_position_embeddings": 16384, "num_attention_heads": 40, "num_hidden_layers": 40,
        "num_key_value_heads": 10, "sliding_window": None, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
        "vocab_size": 100352,
    },
    "openai/gpt-oss-20b": {
        "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "experts_per_token": 4, "head_dim": 64,
        "hidden_size": 2880, "intermediate_size": 2880, "max_position_embeddings": 131072,
        "layer_types": ["sliding_attention", "full_attention"] * 12, "num_attention_heads": 64,
        "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 8, "num_local_experts": 32,
        "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": [
            "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]},
        "sliding_window": 128, "tie_word_embeddings": False, "vocab_size": 201088,
    },
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct": {
        "architectures": ["Llama4ForConditionalGeneration"], "model_type": "llama4",
        "text_config": {
            "attention_chunk_size": 8192, "head_dim": 128, "hidden_size": 5120, "interleave_moe_layer_step": 2,
            "intermediate_size": 8192, "intermediate_size_mlp": 16384, "max_position_embeddings": 1048576,
            "model_type": "llama4_text", "num_attention_heads": 40, "num_experts_per_tok": 1,
            "num_hidden_layers": 48, "num_key_value_heads": 8, "num_local_experts": 128, "torch_dtype": "bfloat16",
            "vocab_size": 202048,
        },
        "vision_config": {
            "hidden_size": 1408, "image_size": 336, "intermediate_size": 5632, "model_type": "llama4_vision_model",
            "num_attention_heads": 16, "num_hidden_layers": 34, "patch_size": 14, "projector_input_dim": 4096,
            "projector_output_dim": 4096,
        },
    },
    "zai-org/GLM-4.5-Air": {
        "architectures": ["Glm4MoeForCausalLM"], "model_type": "glm4_moe", "first_k_dense_replace": 1,
        "head_dim": 128, "hidden_size": 4096, "intermediate_size": 10944, "max_position_embeddings": 131072,
        "moe_intermediate_size": 1408, "n_routed_experts": 128, "n_shared_experts": 1, "num_attention_heads": 96,
        "num_experts_per_tok": 8, "num_hidden_layers": 46, "num_key_value_heads": 8, "num_nextn_predict_layers": 1,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "vocab_size": 151552,
    },
}  # fmt: skip


def write(folder: Path, config: dict[str, Any]) -> Path:
    """A folder in Hugging Face form."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations_give_the_bundled_shape(name: str, tmp_path: Path) -> None:
    """What we ship by name is what its config.json says."""
    read = read_model(write(tmp_path / "model", PUBLISHED[name]))
    bundled = find_model(name)
    if not bundled.dense_layers and bundled.experts and "moe_intermediate_size" not in PUBLISHED[name]:
        read = replace(read, intermediate_size=bundled.intermediate_size)  # no layer is dense, and nobody reads it
    assert replace(read, name="", source="") == replace(bundled, name="", source="")


def test_a_folder_and_its_file_are_the_same_model(tmp_path: Path) -> None:
    """Either can be given; the name is the folder's."""
    folder = write(tmp_path / "my-llama", LLAMA)
    assert find_model(folder) == find_model(folder / "config.json")
    assert find_model(folder).name == "my-llama"


def test_a_local_folder_comes_before_a_bundled_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the engines: phi-4 in the working directory is that folder."""
    write(tmp_path / "phi-4", {**LLAMA, "num_hidden_layers": 7})
    monkeypatch.chdir(tmp_path)
    assert find_model("phi-4").layers == 7


def test_the_hubs_cache_tells_the_models_name(tmp_path: Path) -> None:
    """models--org--name/snapshots/hash is how the hub's own cache names folders."""
    snapshots = tmp_path / "models--meta-llama--Llama-3.1-8B" / "snapshots"
    snapshots.mkdir(parents=True)
    assert read_model(write(snapshots / "abc", LLAMA)).name == "meta-llama/Llama-3.1-8B"


def shape(model: Model) -> tuple[object, ...]:
    """The counts that every decoder has."""
    return (model.layers, model.hidden_size, model.heads, model.kv_heads, model.head_size, model.intermediate_size)


@pytest.mark.parametrize(
    ("config", "expected", "billions"),
    [
        (
            {"model_type": "gpt2", "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024,
             "vocab_size": 50257, "architectures": ["GPT2LMHeadModel"]},
            (12, 768, 12, 12, 64, 3072), 0.1244,
        ),
        (
            {"model_type": "opt", "hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32,
             "ffn_dim": 16384, "max_position_embeddings": 2048, "vocab_size": 50272, "torch_dtype": "float16"},
            (32, 4096, 32, 32, 128, 16384), 6.658,
        ),
        (
            {"model_type": "gpt_neox", "hidden_size": 6144, "num_attention_heads": 64, "num_hidden_layers": 44,
             "intermediate_size": 24576, "max_position_embeddings": 2048, "vocab_size": 50432},
            (44, 6144, 64, 64, 96, 24576), 20.55,
        ),
        (
            {"model_type": "falcon", "hidden_size": 4544, "num_attention_heads": 71, "num_hidden_layers": 32,
             "multi_query": True, "new_decoder_architecture": False, "vocab_size": 65024},
            (32, 4544, 71, 1, 64, 18176), 6.922,
        ),
        (
            {"model_type": "falcon", "hidden_size": 8192, "num_attention_heads": 128, "num_hidden_layers": 60,
             "num_kv_heads": 8, "new_decoder_architecture": True, "vocab_size": 65024},
            (60, 8192, 128, 8, 64, 32768), 41.3,
        ),
    ],
)  # fmt: skip
def test_older_families_are_read_by_their_own_keys(
    config: dict[str, Any], expected: tuple[int, ...], billions: float, tmp_path: Path
) -> None:
    """GPT-2, OPT, GPT-NeoX and both Falcons: two-matrix feed-forward, their own names, their defaults."""
    model = read_model(write(tmp_path / "model", config))
    assert shape(model) == expected
    assert not model.gated
    assert model.parameters() / 1e9 == pytest.approx(billions, rel=0.005)


@pytest.mark.parametrize(
    ("quantization", "weights", "activations"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "int4", "bf16"),
        ({"quant_method": "gptq", "bits": 8}, "int8", "bf16"),
        ({"quant_method": "fp8", "activation_scheme": "static"}, "fp8", "fp8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "int4", "bf16"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8", "bf16"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "fp4", "fp4"),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"group_0": {
                "weights": {"num_bits": 8, "type": "float"}, "input_activations": {"num_bits": 8, "type": "float"}}}},
            "fp8", "fp8",
        ),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"group_0": {
                "weights": {"num_bits": 8, "type": "int"}, "input_activations": {"num_bits": 8, "type": "int"}}}},
            "int8", "int8",
        ),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"group_0": {
                "weights": {"num_bits": 4, "type": "int"}, "input_activations": None}}},
            "int4", "bf16",
        ),
    ],
)  # fmt: skip
def test_quantisation_is_read(quantization: dict[str, Any], weights: str, activations: str, tmp_path: Path) -> None:
    """What weights are stored in, and what they are multiplied in."""
    model = read_model(write(tmp_path / "model", {**LLAMA, "quantization_config": quantization}))
    assert (model.weight_dtype, model.activation_dtype) == (weights, activations)


def test_an_fp8_cache_is_read(tmp_path: Path) -> None:
    """A checkpoint with scales for its KV cache is served with one of half the size."""
    quantization = {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}
    model = read_model(write(tmp_path / "model", {**LLAMA, "quantization_config": quantization}))
    assert model.kv_bytes_per_token() == find_model("llama-3.1-8b").kv_bytes_per_token() / 2


def test_float32_checkpoints_are_served_in_bf16(tmp_path: Path) -> None:
    """No engine serves float32 unless told to."""
    assert read_model(write(tmp_path / "model", {**LLAMA, "torch_dtype": "float32"})).weight_dtype == "bf16"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": None}, r"num_hidden_layers \(or n_layer, .*\) is missing"),
        ({"vocab_size": "many"}, "vocab_size: must be a whole number >= 1, got 'many'"),
        (
            {"num_key_value_heads": 5},
            r"num_key_value_heads: must be >= 1 and divide the 32 query heads, got 5 in layer 0",
        ),
        ({"linear_num_value_heads": 32}, "linear_num_value_heads: is an unknown key, and 32 may change"),
        ({"ssm_state_size": 128}, "ssm_state_size: is an unknown key, and 128 may change"),
        ({"layer_types": ["full_attention", "conv"]}, "layer_types: must have an entry for each of 32 layers, got 2"),
        ({"layer_types": ["full_attention", "conv"] * 16}, "layer_types: no key says which kind"),
        ({"layer_types": ["full_attention", "odd"] * 16}, "layer_types: layers of type odd are not supported"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder"),
        ({"architectures": ["BertForMaskedLM"]}, "architectures: BertForMaskedLM does not generate text"),
        ({"quantization_config": {"quant_method": "aqlm"}}, "quant_method: aqlm is not supported"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 1}}, "bits: must be 2 to 8 bits, got 1"),
    ],
)
def test_what_cannot_be_read_is_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    """File, field and what was found."""
    folder = write(tmp_path / "model", {**LLAMA, **change})
    with pytest.raises(InputError, match=message) as caught:
        read_model(folder)
    assert "config.json: " in str(caught.value)


def test_a_broken_file_is_an_input_error(tmp_path: Path) -> None:
    """Truncated JSON names the line."""
    (tmp_path / "config.json").write_text('{"hidden_size": 4096,\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"config\.json:\d+: not valid JSON"):
        read_model(tmp_path)
