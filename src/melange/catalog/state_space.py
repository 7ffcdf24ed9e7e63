"""Layers that keep a state of constant size instead of a cache: linear attention, state-space models, convolutions.

States are stored in 32 bits unless the configuration says otherwise, and the last inputs of convolutions in 16.
"""

from __future__ import annotations

from melange.catalog.attention import Heads
from melange.catalog.config_file import Config
from melange.catalog.drafts import MIXER, Draft

_CONVOLUTION_BYTES = 2.0
_BYTES_BY_NAME = {"": 4.0, "auto": 4.0, "float32": 4.0, "bfloat16": 2.0, "float16": 2.0}


def _state_bytes(config: Config) -> float:
    """Bytes of one number of a state: 4 unless the configuration says otherwise."""
    name = config.text("mamba_ssm_cache_dtype", "mamba_ssm_dtype")
    if name not in _BYTES_BY_NAME:
        raise config.fault("mamba_ssm_cache_dtype", f"must be one of {', '.join(_BYTES_BY_NAME)}, got {name!r}")
    return _BYTES_BY_NAME[name]


def keep_state(draft: Draft, config: Config, kind: str, hidden: int, heads: Heads, layer: int) -> None:
    """Add the state of the design that the configuration's keys describe.

    Raises
    ------
    InputError
        No key determines the design of the layer.
    """
    if "conv_L_cache" in config:
        _short_convolution(draft, config, hidden)
    elif "linear_num_value_heads" in config:
        _gated_delta_net(draft, config, hidden)
    elif "linear_attn_config" in config or "linear_num_heads" in config:
        _kimi_delta_attention(draft, config, kind, hidden)
    elif kind.startswith("minimax"):
        config.ignore("block_size")
        _lightning(draft, hidden, heads, layer)
    elif kind == "recurrent_gemma":
        _real_gated_unit(draft, config, hidden, heads, layer)
    elif any(key in config for key in ("mamba_num_heads", "mamba_n_heads", "n_mamba_heads", "num_heads")):
        _second_mamba(draft, config, hidden)
    elif "mamba_d_state" in config or "state_size" in config:
        _first_mamba(draft, config, hidden)
    else:
        raise config.fault("layer_types", f"no key says which kind of state layers is in {kind or 'this model'}")


def ignore_states(config: Config) -> None:
    """Ignore the keys of these designs: no layer uses them."""
    config.ignore(
        *(key for key, _ in config.items() if key.startswith(("mamba_", "linear_", "conv_", "ssm_", "block_size")))
    )


def _gated_delta_net(draft: Draft, config: Config, hidden: int) -> None:
    """Gated delta networks (Qwen3-Next, arXiv 2412.06464)."""
    value_heads = config.number("linear_num_value_heads")
    key_size, value_size = config.number("linear_key_head_dim"), config.number("linear_value_head_dim")
    keys, values = config.number("linear_num_key_heads") * key_size, value_heads * value_size
    draft.add(
        MIXER,
        linear_attn__in_proj_qkv=hidden * (2 * keys + values),
        linear_attn__in_proj_z=hidden * values,
        linear_attn__in_proj_ba=hidden * 2 * value_heads,
        linear_attn__out_proj=values * hidden,
    )
    _convolve(draft, 2 * keys + values, config.number("linear_conv_kernel_dim", default=4))
    draft.keep(value_heads * key_size * value_size, _state_bytes(config))


def _kimi_delta_attention(draft: Draft, config: Config, kind: str, hidden: int) -> None:
    """Kimi delta attention (arXiv 2510.26692): its gates are low-rank unless the configuration says otherwise."""
    part = config.part("linear_attn_config")
    own = config if "linear_num_heads" in config else part
    heads = own.number("linear_num_heads", "num_heads")
    size = own.number("linear_head_dim", "head_dim") if own is not config else own.number("linear_head_dim")
    kernel = own.number("short_conv_kernel_size", "linear_conv_kernel_dim", default=4)
    part.ignore("full_attn_layers", "kda_layers")
    width = heads * size
    low = hidden * size + size * width
    is_full_rank = kind == "bailing_hybrid"
    draft.add(
        MIXER,
        self_attn__q_proj=hidden * width,
        self_attn__k_proj=hidden * width,
        self_attn__v_proj=hidden * width,
        self_attn__f_proj=hidden * width if is_full_rank else low,
        self_attn__g_proj=hidden * width if is_full_rank or part.flag("use_full_rank_gate") else low,
        self_attn__b_proj=hidden * heads,
        self_attn__o_proj=width * hidden,
    )
    _convolve(draft, 3 * width, kernel)
    draft.keep(width * size, _state_bytes(config))


def _lightning(draft: Draft, hidden: int, heads: Heads, layer: int) -> None:
    """Lightning attention (MiniMax-01, arXiv 2501.08313)."""
    width = heads.query[layer] * heads.size[layer]
    draft.add(
        MIXER,
        self_attn__qkv_proj=hidden * 3 * width,
        self_attn__output_gate=hidden * width,
        self_attn__out_proj=width * hidden,
    )
    draft.keep(width * heads.size[layer], _CONVOLUTION_BYTES)  # engines store it in the model's own data type


def _real_gated_unit(draft: Draft, config: Config, hidden: int, heads: Heads, layer: int) -> None:
    """Real-gated linear recurrent units (Griffin, arXiv 2402.19427)."""
    width = config.number("lru_width", default=hidden)
    draft.add(
        MIXER,
        temporal_block__linear_x=hidden * width,
        temporal_block__linear_y=hidden * width,
        temporal_block__linear_out=width * hidden,
        temporal_block__rg_lru=2 * width * width // heads.query[layer],
    )
    _convolve(draft, width, config.number("conv1d_width", default=4))
    draft.keep(width, _state_bytes(config))


def _second_mamba(draft: Draft, config: Config, hidden: int) -> None:
    """Mamba-2 (arXiv 2405.21060)."""
    if not config.flag("mamba_use_mlp", default=True):
        raise config.fault("mamba_use_mlp", "layers without a feed-forward are not covered")
    heads = config.number("mamba_num_heads", "mamba_n_heads", "n_mamba_heads", "num_heads")
    state = config.number("ssm_state_size", "mamba_d_state", "state_size")
    expand = config.number("expand", "mamba_expand", default=2)
    size = _head_size(config, heads, expand * hidden)
    groups = config.number("n_groups", "mamba_n_groups", "mamba_ngroups", default=1)
    kernel = config.number("conv_kernel", "mamba_d_conv", default=4)
    inner = config.number("mamba_d_ssm", default=heads * size)
    mixed = inner + 2 * groups * state
    draft.add(MIXER, mamba__in_proj=hidden * (inner + mixed + heads), mamba__out_proj=inner * hidden)
    _convolve(draft, mixed, kernel)
    draft.keep(inner * state, _state_bytes(config))


def _head_size(config: Config, heads: int, inner: int) -> int:
    """Width of a Mamba-2 head; some configurations say ``auto``."""
    keys = ("mamba_head_dim", "mamba_d_head", "mamba_headdim")
    if config.value(*keys) in (None, "auto"):
        return config.number("head_dim", default=inner // heads) if "num_heads" in config else inner // heads
    return config.number(*keys)


def _first_mamba(draft: Draft, config: Config, hidden: int) -> None:
    """Mamba (arXiv 2312.00752)."""
    state = config.number("mamba_d_state", "state_size")
    config.ignore("expand", "mamba_expand")
    widths = ("intermediate_size", "d_inner")
    inner = config.number(*widths) if "state_size" in config and config.value(*widths) is not None else 0
    inner = inner or config.number("mamba_expand", "expand", default=2) * hidden
    rank_keys = ("mamba_dt_rank", "time_step_rank")
    rank = -(-hidden // 16) if config.value(*rank_keys) in (None, "auto") else config.number(*rank_keys)
    draft.add(
        MIXER,
        mamba__in_proj=hidden * 2 * inner,
        mamba__x_proj=inner * (rank + 2 * state),
        mamba__dt_proj=rank * inner,
        mamba__out_proj=inner * hidden,
    )
    draft.other_parameters += inner * state
    _convolve(draft, inner, config.number("mamba_d_conv", "conv_kernel", default=4))
    draft.keep(inner * state, _state_bytes(config))


def _short_convolution(draft: Draft, config: Config, hidden: int) -> None:
    """Gated short convolutions (LFM2)."""
    draft.add(MIXER, conv__in_proj=hidden * 3 * hidden, conv__out_proj=hidden * hidden)
    _convolve(draft, hidden, config.number("conv_L_cache"))


def _convolve(draft: Draft, channels: int, kernel: int) -> None:
    """Add a convolution along the tokens, one kernel per channel: its weights, and the last inputs that it keeps."""
    draft.other_parameters += channels * kernel
    draft.keep(channels * kernel, _CONVOLUTION_BYTES)
