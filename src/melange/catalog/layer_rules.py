"""The kind of each layer: attention over all tokens or within a window, a constant-size state, or only feed-forward."""

from __future__ import annotations

from dataclasses import dataclass

from melange.catalog.config_file import Config

FULL, SLIDING, STATE, HYBRID, SLIDING_HYBRID, NONE = "full", "sliding", "state", "hybrid", "sliding hybrid", "none"

_MIXER_BY_WORD = {
    "full_attention": FULL,
    "attention": FULL,
    "full_attn": FULL,
    "full": FULL,
    "global": FULL,
    "global_attention": FULL,
    # Sparse attention reads some of the cache and keeps all of it: it counts as attention over all tokens.
    "indexed_attention": FULL,
    "deepseek_sparse_attention": FULL,
    "sparse_attention": FULL,
    "minimax_m3_sparse": FULL,
    "sliding_attention": SLIDING,
    "sliding_window_attention": SLIDING,
    "sliding_window": SLIDING,
    "sliding": SLIDING,
    "chunked_attention": SLIDING,
    "local": SLIDING,
    "local_attention": SLIDING,
    "linear_attention": STATE,
    "linear": STATE,
    "gated_deltanet": STATE,
    "mamba": STATE,
    "mamba2": STATE,
    "conv": STATE,
    "recurrent": STATE,
    "hybrid": HYBRID,
    "hybrid_sliding": SLIDING_HYBRID,
    "mlp": NONE,
    "moe": NONE,
}
# Letters of Nemotron-H's pattern, and the corresponding words.
_WORD_BY_LETTER = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
# Keys that state by a rule what ``layer_types`` states layer by layer.
_RULES = (
    "sliding_window_pattern", "_sliding_window_pattern", "full_attention_interval", "global_attn_every_n_layers",
    "attn_layer_period", "attn_layer_offset", "attn_layer_indices", "full_attn_idxs", "no_rope_layers",
    "no_rope_layer_interval", "hybrid_layer_pattern", "attn_type_list", "layer_group_size", "max_window_layers",
    "hybrid_override_pattern", "local_layer_ids", "attention_layers", "attention_types", "hybrid_layer_ids",
    "prefix_dense_sliding_window_pattern", "window_attn_skip_freq", "layer_switch",
)  # fmt: skip
_MOST_LAYERS = 10_000  # a larger number is a typing error
_STATED = ("layer_types", "layers_block_type", "attention_layers")
_WINDOWS = (
    "sliding_window", "attention_chunk_size", "sliding_window_size", "attention_window_size", "window_size",
    "local_attention",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The kind of every layer (L).

    Parameters
    ----------
    mixers
        One of the words above.
    windows
        Number of past tokens that a layer with a window attends to; 0 for the others.
    words
        The configuration's words for layers that are only a mixer or only a feed-forward (Nemotron-H); otherwise empty.
    is_stated
        Whether the configuration names every layer: keys of designs that no layer has then change nothing.
    """

    mixers: tuple[str, ...]
    windows: tuple[int, ...]
    words: tuple[str, ...] = ()
    is_stated: bool = False

    @property
    def is_full(self) -> tuple[bool, ...]:
        """Which layers attend to all tokens."""
        return tuple(mixer not in {SLIDING, SLIDING_HYBRID} for mixer in self.mixers)


def count_layers(config: Config) -> int:
    """Number of layers; a pattern that names each layer also gives their number."""
    keys = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
    pattern = config.value("hybrid_override_pattern", "layers_block_type")
    if config.value(*keys) is None and isinstance(pattern, str | list):
        return len(pattern)
    layers = config.number(*keys, least=1)
    if layers > _MOST_LAYERS:
        raise config.fault(keys[0], f"must be at most {_MOST_LAYERS:,}, got {layers:,}", "correct config.json")
    return layers


def read_rules(config: Config, kind: str, layers: int) -> Rules:
    """The kind of every layer.

    Raises
    ------
    InputError
        A pattern is unknown, or names too few layers.
    """
    words = _words(config, kind, layers)
    if unknown := sorted(set(words) - set(_MIXER_BY_WORD)):
        key = next((one for one in ("layer_types", "layers_block_type", "block_types") if one in config), "layer_types")
        raise config.fault(key, f"layers of type {', '.join(unknown)} are not supported")
    mixers = [_MIXER_BY_WORD[word] for word in words]
    if kind == "gpt_neo":  # engines keep all tokens for its local layers
        mixers = [FULL] * layers
    if kind == "falcon_h1":
        mixers = [HYBRID] * layers
    windows = _windows(config, kind, layers, mixers)
    config.ignore(*_RULES)
    for layer, window in enumerate(windows):
        if mixers[layer] in {SLIDING, SLIDING_HYBRID} and not window:
            mixers[layer] = FULL if mixers[layer] == SLIDING else HYBRID
    kept = (window if mixer in {SLIDING, SLIDING_HYBRID} else 0 for window, mixer in zip(windows, mixers, strict=True))
    single = words if kind == "nemotron_h" or "mlp" in words or "moe" in words else ()
    is_stated = any(key in config for key in _STATED)
    return Rules(mixers=tuple(mixers), windows=tuple(kept), words=single, is_stated=is_stated)


def _windows(config: Config, kind: str, layers: int, mixers: list[str]) -> tuple[int, ...]:
    """The window of each layer; 0 without a window."""
    config.ignore(*_WINDOWS, "use_sliding_window")
    if not any(mixer in {SLIDING, SLIDING_HYBRID} for mixer in mixers):
        return (0,) * layers
    chunked = "attention_chunk_size" if kind.startswith("llama4") else "sliding_window"
    key = chunked if chunked in config else next((one for one in _WINDOWS if one in config), "sliding_window")
    return config.by_layer(layers, key, default=0)


def _words(config: Config, kind: str, layers: int) -> tuple[str, ...]:
    """The name of each layer, in the words of ``layer_types``."""
    pattern = config.value("hybrid_override_pattern")
    if isinstance(pattern, str):
        return _letters(config, pattern, layers)
    explicit = config.words(layers, *_STATED)
    if explicit:
        config.ignore(*_RULES)
        return explicit
    cycle = config.value("block_types", "_block_types")
    if isinstance(cycle, list) and cycle:
        return tuple(str(cycle[layer % len(cycle)]) for layer in range(layers))
    for rule in (_by_list, _by_state, _by_window):
        words = rule(config, kind, layers)
        if words:
            return words
    return ("full_attention",) * layers


def _letters(config: Config, pattern: str, layers: int) -> tuple[str, ...]:
    if set(pattern) - set(_WORD_BY_LETTER) or len(pattern) != layers:
        raise config.fault(
            "hybrid_override_pattern",
            f"must be one of {' '.join(_WORD_BY_LETTER)} for each of {layers} layers, got {pattern[:40]!r}",
        )
    return tuple(_WORD_BY_LETTER[letter] for letter in pattern)


def _by_list(config: Config, kind: str, layers: int) -> tuple[str, ...]:
    """Rules given as a list of layer numbers: the layers with attention, or with a window."""
    if config.value("hybrid_layer_pattern") is not None:
        numbers = config.by_layer(layers, "hybrid_layer_pattern")
        return tuple("sliding_attention" if number else "full_attention" for number in numbers)
    if config.value("attn_type_list") is not None:
        numbers = config.by_layer(layers, "attn_type_list")
        return tuple("full_attention" if number else "linear_attention" for number in numbers)
    for key in ("full_attn_idxs", "attn_layer_indices"):
        named = config.indices(layers, key)
        if named is not None:
            state = "conv" if key == "full_attn_idxs" else "mamba"
            return tuple("attention" if layer in named else state for layer in range(layers))
    local = config.indices(layers, "local_layer_ids")
    if local is not None:
        return tuple("hybrid_sliding" if layer in local else "hybrid" for layer in range(layers))
    linear = config.part("linear_attn_config")
    named = linear.indices(layers, "full_attn_layers", first=1)
    if named is not None:
        return tuple("full_attention" if layer in named else "linear_attention" for layer in range(layers))
    return ()


def _by_state(config: Config, kind: str, layers: int) -> tuple[str, ...]:
    """Attention in some layers and a state in the others, with a fixed period."""
    if config.value("full_attention_interval", "layer_group_size") is not None:
        every = config.number("full_attention_interval", "layer_group_size", least=1)
        return tuple("linear_attention" if (layer + 1) % every else "full_attention" for layer in range(layers))
    if "attn_layer_period" in config or kind == "jamba":
        period = config.number("attn_layer_period", default=8, least=1)
        offset = config.number("attn_layer_offset", default=4)
        return tuple("attention" if layer % period == offset else "mamba" for layer in range(layers))
    if kind in {"mamba", "mamba2", "falcon_mamba", "bamba", "granitemoehybrid"}:
        return ("mamba",) * layers
    if kind.startswith(("qwen3_next", "qwen3_5")):
        return tuple("linear_attention" if (layer + 1) % 4 else "full_attention" for layer in range(layers))
    return ()


def _by_window(config: Config, kind: str, layers: int) -> tuple[str, ...]:
    """A window in all or most layers, by each family's own rule."""
    window, context = config.value(*_WINDOWS), config.value("max_position_embeddings")
    # -1 is for none, and a window as long as the context changes nothing.
    is_whole = isinstance(window, int) and isinstance(context, int) and window >= context > 0
    if window is None or window == -1 or is_whole:
        config.ignore(*_RULES)
        return ()
    steps = ("sliding_window_pattern", "_sliding_window_pattern", "global_attn_every_n_layers", "layer_switch")
    every = config.value(*steps)
    if isinstance(every, str):
        return tuple("sliding_attention" if every[i % len(every)] == "L" else "full_attention" for i in range(layers))
    if every is not None:
        step = config.number(*steps, least=1)
        return tuple("sliding_attention" if (layer + 1) % step else "full_attention" for layer in range(layers))
    if kind in {"gemma2", "gpt_oss", "vaultgemma"}:
        return tuple("full_attention" if layer % 2 else "sliding_attention" for layer in range(layers))
    if kind.startswith("llama4"):
        return _chunked(config, layers)
    if kind.startswith("qwen"):
        first = config.number("max_window_layers", default=0)
        is_used = config.flag("use_sliding_window")
        return tuple("sliding_attention" if is_used and layer >= first else "full_attention" for layer in range(layers))
    if "use_sliding_window" in config and not config.flag("use_sliding_window"):
        return ()
    if kind in {"mistral", "mixtral", "starcoder2", "phi3", "phimoe", "phi4_multimodal"}:
        return ("sliding_attention",) * layers
    if kind in {"deepseek_v4", "laguna", "mellum", "lara_mini", "persimmon"}:
        return ()
    raise config.fault(
        next(key for key in _WINDOWS if key in config), "unclear which layers have this window", "add layer_types"
    )


def _chunked(config: Config, layers: int) -> tuple[str, ...]:
    """Llama 4: layers without rotary positions attend to all tokens."""
    config.ignore("no_rope_layer_interval", "no_rope_layers")
    listed = config.value("no_rope_layers")
    if isinstance(listed, list) and listed:
        rotary = config.by_layer(layers, "no_rope_layers")
        return tuple("chunked_attention" if one else "full_attention" for one in rotary)
    every = config.number("no_rope_layer_interval", default=4, least=1)
    return tuple("chunked_attention" if (layer + 1) % every else "full_attention" for layer in range(layers))
