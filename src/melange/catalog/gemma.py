"""Additions of Gemma 3n and Gemma 4 to a layer: its own embeddings, shared keys and values, more residual streams."""

from __future__ import annotations

from melange.catalog.config_file import Config
from melange.catalog.drafts import FEED_FORWARD, Draft


def shares_cache(config: Config, layers: int, layer: int) -> bool:
    """Whether a layer reads keys and values of an earlier layer, and has none of its own."""
    return layer >= layers - config.number("num_kv_shared_layers", default=0)


def add_inputs(draft: Draft, config: Config, hidden: int) -> None:
    """Add the matrices around a layer's own embedding, and those of its additional residual streams (AltUp, LAuReL)."""
    width = config.number("hidden_size_per_layer_input", default=0)
    rank = config.number("laurel_rank", default=0)
    draft.add(
        FEED_FORWARD,
        per_layer_input_gate=hidden * width,
        per_layer_projection=width * hidden,
        laurel__linear_left=hidden * rank,
        laurel__linear_right=rank * hidden,
    )
    streams = config.number("altup_num_inputs", default=1)
    draft.other_parameters += streams * hidden if streams > 1 else 0


def looked_up_parameters(config: Config, layers: int, hidden: int, vocabulary: int) -> int:
    """Parameters of the layers' own embeddings and of merging the residual streams; 0 for other families."""
    width = config.number("hidden_size_per_layer_input", default=0)
    rows = config.number("vocab_size_per_layer_input", default=vocabulary)
    streams = config.number("altup_num_inputs", default=1)
    config.ignore("altup_active_idx", "altup_coef_clip", "altup_correct_scale")
    return layers * width * (rows + hidden) + 2 * (streams - 1) * hidden * hidden
