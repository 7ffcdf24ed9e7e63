"""Parts of multimodal models besides the language model: towers for images and sound, and their projectors.

They take memory, but a step of the decoder does not use them. Their activations are not counted.
"""

from __future__ import annotations

import re

from melange.catalog.config_file import Config
from melange.units import PARAMETERS_PER_MILLION

TOWERS = (
    "vision_config",
    "audio_config",
    "sound_config",
    "speech_config",
    "vision_tower_config",
    "vit_config",
    "audio_encoder_config",
)
_WIDTHS = ("hidden_size", "vt_hidden_size", "d_model", "embed_dim", "width", "hidden_dim", "hidden_channels")
_LAYERS = (
    "num_hidden_layers",
    "vt_num_hidden_layers",
    "depth",
    "encoder_layers",
    "layers",
    "num_layers",
    "n_layer",
    "conf_num_hidden_layers",
)
_FEED_FORWARD = ("intermediate_size", "vt_intermediate_size", "encoder_ffn_dim", "ffn_dim", "mlp_dim", "fc_hidden_size")
_HEADS = (
    "num_attention_heads",
    "vt_num_attention_heads",
    "num_heads",
    "encoder_attention_heads",
    "heads",
    "conf_num_attention_heads",
)
_MERGE = ("spatial_merge_size", "merge_size")
# Towers whose feed-forward has three matrices although their activation does not show it.
_GATED = ("gemma4", "mistral", "pixtral", "qwen2_5_vl", "glm4v", "step")


def tower_parameters(content: Config, hidden: int) -> int:
    """Weights of all towers and projectors; 0 for a text-only model.

    Parameters
    ----------
    content
        The whole configuration.
    hidden
        Width of the language model.

    Raises
    ------
    InputError
        The width or the layers of a tower cannot be read.
    """
    total = 0
    merged = _merged(content)
    for key in TOWERS:
        part = content.part(key)
        if key in content:
            part.ignore(*(name for name, _ in part.items()))
            total += _tower(part, hidden, merged if key.startswith("vi") else 1)
    if total and "projector_hidden_act" in content:
        total += hidden * hidden  # the second matrix of a LLaVA projector
    return total


def _merged(content: Config) -> int:
    """Patches per side that become one token, if the configuration states this outside of the tower."""
    content.ignore("mlp_downsample_ratio")
    ratio = content.ratio("downsample_ratio", default=1.0)
    stated = content.value("spatial_merge_size")
    side = content.number("spatial_merge_size", default=1) if isinstance(stated, int) else 1
    return max(side, round(1 / ratio) if 0 < ratio <= 1 else round(ratio))


def _tower(part: Config, hidden: int, merged: int) -> int:
    """A transformer over patches or frames, with the embeddings of patches and positions, and a projector."""
    if any(isinstance(part.value(key), list) for key in (*_WIDTHS, *_LAYERS)) or part.value(*_WIDTHS) is None:
        return _by_name(part)
    width = part.number(*_WIDTHS)
    layers = part.number(*_LAYERS, default=0)
    if not layers and (named := _by_name(part)):
        return named + width * hidden
    inner = part.number(*_FEED_FORWARD, default=0) or int(width * part.ratio("mlp_ratio", default=4.0))
    heads = part.number(*_HEADS, default=1)
    queries = part.number("qkv_hidden_size", default=0) or heads * part.number(
        "head_dim", default=max(1, width // max(1, heads))
    )
    kind = part.text("model_type")
    matrices = 3 if kind.startswith(_GATED) or part.text("hidden_act", "hidden_activation") in {"silu", "swiglu"} else 2
    one = 4 * width * queries + matrices * width * inner + 4 * width + 2 * inner
    if part.value("conf_num_hidden_layers") is not None:
        one += 2 * width * inner + 3 * width * width  # a conformer has two feed-forwards, and a convolution between
    channels = part.number("num_channels", "in_channels", "in_chans", default=3)
    patch = part.number("patch_size", default=0) if not isinstance(part.value("patch_size"), list) else 14
    frames = part.number("temporal_patch_size", default=1)
    positions = part.number("num_position_embeddings", "position_embedding_size", default=0)
    if not positions and patch:
        side = part.value("image_size")
        side = side[0] if isinstance(side, list) and side else side
        positions = (
            (side // patch) ** 2 if isinstance(side, int) and part.text("position_embedding_type") != "rope" else 0
        )
    if kind == "gemma4_vision":
        positions *= 2
    embedded = width * (channels * patch * patch * frames + positions)
    bands = part.number("num_mel_bins", default=0)
    if bands:
        # Two convolutions over time, and a position embedding per frame (Whisper).
        embedded = 3 * width * (bands + width) + width * part.number("max_source_positions", default=0)
    return layers * one + embedded + _neck(part, width) + _projector(part, width, hidden, merged)


def _by_name(part: Config) -> int:
    """A convolutional tower whose size is only in its name: ``mobilenetv5_300m_enc``."""
    found = re.search(r"_(\d+)m(_|$)", part.text("architecture"))
    return round(float(found[1]) * PARAMETERS_PER_MILLION) if found else 0


def _neck(part: Config, width: int) -> int:
    """Convolutions that make fewer and wider patches (SAM, as in GOT-OCR and DeepSeek-OCR)."""
    channels = part.number("output_channels", default=0)
    return channels * (width + 9 * channels * (1 + 2 + 8)) if channels else 0


def _projector(part: Config, width: int, hidden: int, merged: int) -> int:
    """Two matrices if patches are merged into one token, otherwise one."""
    between = part.number("projector_input_dim", default=0)
    if between:  # Llama 4: four patches in one, through an adapter
        last = part.number("projector_output_dim", default=between)
        return 4 * width * between + between * last + last * hidden
    out = part.number("out_hidden_size", "projection_dim", "text_hidden_size", "output_dim", default=hidden)
    merge = part.value(*_MERGE, "merge_kernel_size")
    side = merge[0] if isinstance(merge, list) and merge else merge
    deep = part.value("deepstack_visual_indexes")
    levels = len(deep) + 1 if isinstance(deep, list) else 1
    if isinstance(side, int) and side > 1:
        wide = width * side * side
        return levels * (wide * wide + wide * out)
    return width * merged**2 * (width if merged > 1 else 0) + width * out
