"""Families with special layers: compressed attention, and blocks that are listed one by one."""

from __future__ import annotations

from melange.catalog.attention import HEADS
from melange.catalog.config_file import Config
from melange.catalog.drafts import MIXER, Draft
from melange.catalog.layers import Cache

_COMPRESSION_BY_WORD = {"heavily_compressed_attention": 128, "compressed_sparse_attention": 4, "sliding_attention": 0}
_OVERLAPPING = 4  # with up to this many tokens per entry, entries overlap by one and are selected by an index


def compressed_ratios(config: Config, layers: int) -> tuple[int, ...]:
    """Tokens per entry of each layer's cache (DeepSeek-V4); 0 in layers with only a window."""
    stated = config.value("compress_ratios")
    words = config.words(layers, "layer_types")
    rates = config.part("compress_rates")
    if isinstance(stated, list) and len(stated) >= layers:
        return Config({"compress_ratios": stated[:layers]}, config.place, config.prefix).by_layer(
            layers, "compress_ratios"
        )
    if not words:
        raise config.fault("compress_ratios", f"must be one number for each of {layers} layers")
    if unknown := sorted(set(words) - set(_COMPRESSION_BY_WORD)):
        raise config.fault("layer_types", f"layers of type {', '.join(unknown)} are not supported")
    return tuple(rates.number(word, default=_COMPRESSION_BY_WORD[word]) for word in words)


def attend_compressed(draft: Draft, config: Config, hidden: int, tokens_per_entry: int) -> None:
    """One key for all heads: recent tokens uncompressed, and all tokens in compressed form (DeepSeek-V4)."""
    heads, size = config.number(*HEADS), config.number("head_dim")
    queries, groups, outputs = (config.number(key) for key in ("q_lora_rank", "o_groups", "o_lora_rank"))
    draft.add(
        MIXER,
        self_attn__q_a_proj=hidden * queries,
        self_attn__q_b_proj=queries * heads * size,
        self_attn__kv_a_proj_with_mqa=hidden * size,
        self_attn__o_a_proj=heads * size * outputs,
        self_attn__o_b_proj=groups * outputs * hidden,
    )
    flops = 4 * heads * size
    window = config.number("sliding_window")
    draft.caches.append(Cache(heads=0, width=size, window=window, read_flops=flops, prompt_flops=flops))
    mixed = config.number("hc_mult", default=0)
    draft.other_parameters += 2 * mixed * (mixed + 2) * mixed * hidden
    if not tokens_per_entry:
        return
    _compress(draft, hidden, size, tokens_per_entry, "self_attn.compressor", flops)
    if tokens_per_entry <= _OVERLAPPING:
        index_size, index_heads = config.number("index_head_dim"), config.number("index_n_heads")
        name = "self_attn.compressor.indexer"
        index_flops = 2 * index_heads * index_size
        _compress(draft, hidden, index_size, tokens_per_entry, name, index_flops)
        draft.add(
            MIXER,
            **{f"{name}.q_b_proj": queries * index_heads * index_size, f"{name}.weights_proj": hidden * index_heads},
        )


def _compress(draft: Draft, hidden: int, size: int, tokens: int, name: str, flops: int) -> None:
    """Several tokens in one entry, weighted by a gate; until it is complete, both are kept for each token."""
    width = size * (2 if tokens <= _OVERLAPPING else 1)
    draft.add(MIXER, **{f"{name}.kv_proj": hidden * width, f"{name}.gate_proj": hidden * width})
    draft.other_parameters += tokens * width
    draft.caches.append(
        Cache(
            heads=0,
            width=size,
            tokens_per_entry=tokens,
            unfinished_width=2 * width,
            read_flops=flops,
            prompt_flops=flops,
        )
    )
    if tokens <= _OVERLAPPING:
        draft.keep(tokens * size, 2.0)  # the previous entry, with its gate
        draft.keep(tokens * size, 4.0)


def read_blocks(
    config: Config, layers: int, hidden: int, query: int
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """KV heads, windows and feed-forward width of each layer in ``block_configs``; 0 for parts that a layer lacks.

    Raises
    ------
    InputError
        A block that is neither attention nor a feed-forward of a stated width.
    """
    blocks = config.value("block_configs")
    if not isinstance(blocks, list) or len(blocks) != layers or not all(isinstance(one, dict) for one in blocks):
        raise config.fault("block_configs", f"must be an object for each of {layers} layers")
    heads, windows, widths = [], [], []
    for number, block in enumerate(blocks):
        whole = Config(block, config.place, f"{config.prefix}block_configs.{number}.")
        attention, feed = whole.part("attention"), whole.part("ffn")
        for part in (attention, feed):
            if part.flag("replace_with_linear"):
                raise part.fault("replace_with_linear", "layers replaced by a matrix are not supported")
            part.ignore("sparsify", "num_sink_tokens", "unshifted_sink", "use_prefill_window_in_sink_attention")
        windows.append(attention.number("window_length", default=0))
        if attention.flag("no_op"):
            heads.append(0)
            attention.ignore("n_heads_in_group", "num_key_value_heads")
        elif "num_key_value_heads" in attention:
            heads.append(attention.number("num_key_value_heads", least=1))
        else:
            heads.append(query // attention.number("n_heads_in_group", least=1))
        if feed.flag("no_op"):
            widths.append(0)
            feed.ignore("ffn_mult", "intermediate_size")
        elif "intermediate_size" in feed:
            widths.append(feed.number("intermediate_size", least=1))
        else:
            # Rounded as in DeciLM: two thirds of the factor, up to the next multiple of 256.
            widths.append(256 * -(-int(2 * feed.ratio("ffn_mult") * hidden / 3) // 256))
        whole.check_unread()
    return tuple(heads), tuple(windows), tuple(widths)
