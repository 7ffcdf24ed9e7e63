"""The kinds of layers of a model: their weights, cache per token, and state per request."""

from __future__ import annotations

from dataclasses import dataclass, replace

# Bytes of one stored value. Four-bit formats include their scales: AWQ and GPTQ one 16-bit scale and one 4-bit zero
# for each group of 128 (4.156 bits), MXFP4 one 8-bit scale for each block of 32 (4.25 bits).
BYTES_BY_DTYPE = {
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "int4": (4 + 20 / 128) / 8,
    "fp4": (4 + 8 / 32) / 8,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Matrices of one layer that are stored and multiplied in the same way.

    Parameters
    ----------
    parameters
        Number of values.
    dtype
        Data type of storage.
    bits
        Bits of a value with its share of scales and zeros; 0: the usual number for the data type.
    multiplied
        Data type of multiplication, if the accelerator supports it.
    """

    parameters: int
    dtype: str = "bf16"
    bits: float = 0.0
    multiplied: str = "bf16"

    @property
    def stored_bytes(self) -> float:
        """Memory of the matrices, scales included [bytes]."""
        return self.parameters * (self.bits / 8 if self.bits else BYTES_BY_DTYPE[self.dtype])

    def narrowed(self, dtype: str, multiplied: str) -> Weights:
        """The same weights in another data type, if that takes less memory."""
        other = replace(self, dtype=dtype, bits=0.0, multiplied=multiplied)
        return other if other.stored_bytes < self.stored_bytes else self


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """The cache of one layer for the tokens of a request.

    Parameters
    ----------
    heads
        Heads that are split over accelerators; 0 if every accelerator holds the whole cache (latent attention).
    width
        Values of one head and one entry, keys and values together.
    window
        How many of the last tokens are kept [tokens]; 0: all.
    tokens_per_entry
        Tokens per entry: 1, or more if the cache is compressed.
    unfinished_width
        Values that are kept for each token until its entry is complete, if entries stand for several tokens.
    read_flops
        Operations of one new token on one entry.
    prompt_flops
        Operations of one prompt token on one earlier token, for which the latent cache is expanded.
    """

    heads: int
    width: int
    window: int = 0
    tokens_per_entry: int = 1
    unfinished_width: int = 0
    read_flops: int = 0
    prompt_flops: int = 0

    def values(self, tensor_parallel: int = 1) -> int:
        """Values of one entry on one accelerator: with more accelerators than heads, each still holds one head."""
        return self.width * (-(-self.heads // tensor_parallel) if self.heads else 1)

    def held_values(self, tokens: float, tensor_parallel: int = 1) -> float:
        """Values held on one accelerator for a request with this many tokens."""
        kept = min(tokens, self.window) if self.window else tokens
        if self.tokens_per_entry == 1:
            return self.values(tensor_parallel) * kept
        entries, rest = divmod(kept, self.tokens_per_entry)
        return self.values(tensor_parallel) * entries + self.unfinished_width * rest


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerKind:
    """Layers of one kind.

    Parameters
    ----------
    count
        Number of layers.
    mixer
        Weights of attention, or of its replacement (linear attention, a state-space model, a convolution).
    feed_forward
        Weights of the feed-forward that every token passes through, shared experts included.
    routed
        Weights of all routed experts.
    experts, experts_per_token
        Number of routed experts, and how many of them a token visits; 0 for none.
    other_parameters, router_parameters
        Norms, biases and similar parameters; the router. Both stay in 16 bits.
    caches
        The cache for each token.
    state_values, state_bytes
        Number of values kept per request whatever its length, and their memory [bytes].
    """

    count: int
    mixer: tuple[Weights, ...] = ()
    feed_forward: tuple[Weights, ...] = ()
    routed: tuple[Weights, ...] = ()
    experts: int = 0
    experts_per_token: int = 0
    other_parameters: int = 0
    router_parameters: int = 0
    caches: tuple[Cache, ...] = ()
    state_values: int = 0
    state_bytes: float = 0.0

    @property
    def body(self) -> tuple[Weights, ...]:
        """Weights that every token passes through."""
        return (*self.mixer, *self.feed_forward)

    @property
    def body_parameters(self) -> int:
        """Number of these weights in one layer."""
        return sum(weights.parameters for weights in self.body)

    @property
    def routed_parameters(self) -> int:
        """Number of weights of all routed experts in one layer."""
        return sum(weights.parameters for weights in self.routed)

    def narrowed(self, dtype: str, multiplied: str) -> LayerKind:
        """The same layers with their matrices in another data type, if that takes less memory."""
        mixer, feed_forward, routed = (
            tuple(one.narrowed(dtype, multiplied) for one in part)
            for part in (self.mixer, self.feed_forward, self.routed)
        )
        return replace(self, mixer=mixer, feed_forward=feed_forward, routed=routed)


@dataclass(frozen=True, slots=True, kw_only=True)
class KvShape:
    """The size of a request's KV cache on one accelerator, in the units that engines count.

    Parameters
    ----------
    unit_bytes
        Size of one unit [bytes]: a token in one layer if all layers are equal.
    full_layers, sliding_layers
        Units per token in layers that attend to all tokens, and in layers with a sliding window.
    window
        That window [tokens], the longest if there are several; 0 for none.
    state_units
        Units per request whatever its length.
    """

    unit_bytes: float
    full_layers: int
    sliding_layers: int
    window: int
    state_units: int = 0
