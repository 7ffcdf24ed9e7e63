"""Whether a feed-forward has three matrices, one of them a gate, or two.

Known types have one form or the other whatever their activation, in transformers as in the engines: Llama's is gated
even with GELU, and Nemotron's is not gated even with SiLU. For other types the activation decides.
"""

from __future__ import annotations

from melange.catalog.config_file import Config

ACTIVATION = ("hidden_act", "hidden_activation", "mlp_hidden_act", "activation_function", "ff_activation", "activation")

# Activations that mean two matrices, for unknown types; all other activations mean a gate.
_PLAIN_ACTIVATIONS = {
    "gelu", "gelu_fast", "gelu_new", "gelu_python", "quick_gelu", "relu", "relu2", "relu_squared", "squared_relu",
    "xielu",
}  # fmt: skip
# Types with two matrices, from their modules in transformers 5.24 and vLLM.
UNGATED_TYPES = {
    "apertus", "apertus1p5_text", "arcee", "biogpt", "bloom", "codegen", "ctrl", "falcon", "gpt-sw3", "gpt2",
    "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_neox_japanese", "gptj", "jais2", "mpt", "nanochat", "nemotron",
    "nemotron_h", "openai-gpt", "opt", "persimmon", "phi", "phi-msft", "refinedweb", "refinedwebmodel", "starcoder2",
    "xglm",
}  # fmt: skip
# Prefixes of the families whose feed-forward has three matrices.
_GATED_FAMILIES = (
    "afmoe", "aria", "aya", "axk", "baichuan", "bailing", "bamba", "beam", "bitnet", "chatglm", "cohere", "cwm", "dbrx",
    "deepseek", "diffllama", "doge", "dory", "dots", "emu3", "ernie4_5", "exaone", "falcon_h1", "flex_olmo", "flint",
    "gemma", "glm", "gpt_oss", "granite", "grok", "helium", "hunyuan", "hy_v", "hyperclovax", "inkling", "internlm",
    "iquestcoder", "jamba", "jetmoe", "kimi", "kolibri", "laguna", "lara", "lfm", "llama", "longcat", "mellum", "mimo",
    "minicpm", "minimax", "ministral", "mistral", "mixtral", "mllama", "modernbert-decoder", "olmo", "orion", "phi3",
    "phi4", "phimoe", "qwen", "recurrent_gemma", "sarvam", "seed_oss", "smollm", "smolvlm", "solar", "stablelm", "step",
    "vaultgemma", "yi", "youtu", "zamba", "zaya",
)  # fmt: skip


def is_gated(config: Config, kind: str) -> bool:
    """Whether the feed-forward has three matrices."""
    activation = config.text(*ACTIVATION)
    says_so = config.flag("block_use_swiglu", "use_gated_activation", default=True)
    if kind in UNGATED_TYPES or not says_so:
        return False
    return kind.startswith(_GATED_FAMILIES) or activation not in _PLAIN_ACTIVATIONS
