"""The shape of a language model, and its serving cost in weights, arithmetic and KV cache."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, reduce
from math import gcd, lcm

from melange.catalog.layers import BYTES_BY_DTYPE, KvShape, LayerKind
from melange.catalog.model_limits import check_fields, check_shape
from melange.catalog.plain_layers import plain_kinds
from melange.catalog.remembered import remembered
from melange.errors import InputError

# Data types to which a model can be quantized after its publication.
QUANTIZED_DTYPES = ("fp8", "int8", "int4")
KV_DTYPES = ("fp8",)


# No slots: values computed from the fields are cached on the instance.
@dataclass(frozen=True, kw_only=True)
class Model:
    """The shape of a language model, as far as serving cost depends on it.

    Biases are excluded from every count: they are below 0.1 % of the weights.

    Parameters
    ----------
    name
        The usual name, as on the Hugging Face Hub.
    layers, hidden_size, heads, kv_heads, head_size, intermediate_size, vocabulary_size
        Counts of the decoder; ``intermediate_size`` is that of the dense feed-forward layers.
    max_context
        Longest prompt plus completion [tokens].
    weight_dtype
        Data type of the weights as published: ``bf16``, ``fp16``, ``fp8``, ``int8``, ``int4``, ``fp4``. All engines
        serve a float32 checkpoint in bf16, so it counts as bf16.
    kv_dtype
        Data type of the KV cache.
    experts, experts_per_token, expert_intermediate_size, shared_expert_intermediate_size, dense_layers
        Mixture of experts: routed experts of a layer, how many a token visits, their feed-forward width, the total
        width of the experts every token visits, and how many layers are dense. All 0 for a dense model.
    sliding_window, sliding_layers
        Window of the layers with a limited window [tokens], and the number of these layers; 0 for none.
    kv_lora_rank, qk_rope_head_size, q_lora_rank, qk_nope_head_size, v_head_size
        Multi-head latent attention (DeepSeek); 0 for none.
    tied_embeddings
        True if input and output embeddings are one matrix.
    gated
        True if the feed-forward has three matrices (SwiGLU), False if it has two.
    source
        Where the shape comes from.
    attention_weight_dtype
        Data type of the attention projections if the checkpoint quantizes only the feed-forward (gpt-oss);
        empty: as ``weight_dtype``.
    activation_dtype
        Data type in which the linear layers multiply, if the accelerator supports it: ``fp8`` for weights and
        activations in fp8, ``bf16`` for weight-only quantization.
    learned_positions
        Rows of a learned position embedding (GPT-2, OPT); 0 for rotary or none.
    weight_bits
        Bits of a quantized weight with its scales, if its group size is not the usual one for its data type; 0: usual.
    other_parameters
        Weights in memory that a step of the decoder does not use: towers for images and sound, look-up tables.
    layer_kinds
        The kinds of layers, if not all layers match the fields above (hybrids with a state, layers of different shapes
        or data types); the fields then describe most layers. Empty: all layers match.

    Raises
    ------
    InputError
        A count that is not positive, an unknown data type, experts without a width.
    """

    name: str
    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate_size: int
    vocabulary_size: int
    max_context: int
    weight_dtype: str = "bf16"
    kv_dtype: str = "bf16"
    experts: int = 0
    experts_per_token: int = 0
    expert_intermediate_size: int = 0
    shared_expert_intermediate_size: int = 0
    dense_layers: int = 0
    sliding_window: int = 0
    sliding_layers: int = 0
    kv_lora_rank: int = 0
    qk_rope_head_size: int = 0
    q_lora_rank: int = 0
    qk_nope_head_size: int = 0
    v_head_size: int = 0
    tied_embeddings: bool = False
    gated: bool = True
    source: str = ""
    attention_weight_dtype: str = ""
    activation_dtype: str = "bf16"
    learned_positions: int = 0
    weight_bits: float = 0.0
    other_parameters: int = 0
    layer_kinds: tuple[LayerKind, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, self.name)
        check_shape(self)

    @cached_property
    def kinds(self) -> tuple[LayerKind, ...]:
        """The kinds of layers."""
        return self.layer_kinds or plain_kinds(self)

    def quantized(self, *, weights: str = "", kv: str = "") -> Model:
        """The same model with weights or KV cache stored in fewer bytes; unchanged if this saves none.

        All linear layers of the body and all routed experts are quantized; embeddings, norms, routers and the output
        head stay in 16 bits. Weights in fp8 are multiplied in fp8 if the accelerator supports it; weights in int8 and
        int4 are unpacked and multiplied in 16 bits (GPTQ, AWQ).

        Parameters
        ----------
        weights
            ``fp8``, ``int8`` or ``int4``; empty: as published.
        kv
            ``fp8``; empty: as published.

        Raises
        ------
        InputError
            For any other data type.

        >>> from melange.catalog.bundled import find_model
        >>> llama = find_model("meta-llama/Llama-3.1-8B").quantized(weights="int4", kv="fp8")
        >>> round(llama.weight_bytes() / 1e9, 1), llama.kv_bytes_per_token() / 2**10
        (5.7, 64.0)
        """
        for what, dtype, known in (("weights", weights, QUANTIZED_DTYPES), ("KV cache", kv, KV_DTYPES)):
            if dtype and dtype not in known:
                raise InputError(f"model {self.name}: {what} can be quantized to {', '.join(known)}, got {dtype!r}")
        changed = self
        if weights and BYTES_BY_DTYPE[weights] < (self.weight_bits / 8 or BYTES_BY_DTYPE[self.weight_dtype]):
            unpacked = self.activation_dtype if self.activation_dtype in {"bf16", "fp16"} else "bf16"
            multiplied = "fp8" if weights == "fp8" else unpacked
            changed = replace(
                changed,
                weight_dtype=weights,
                weight_bits=0.0,
                attention_weight_dtype="",
                activation_dtype=multiplied,
                layer_kinds=tuple(kind.narrowed(weights, multiplied) for kind in self.layer_kinds),
            )
        if kv and BYTES_BY_DTYPE[kv] < BYTES_BY_DTYPE[self.kv_dtype]:
            changed = replace(changed, kv_dtype=kv)
        return changed

    # Weights and arithmetic

    @cached_property
    def moe_layers(self) -> int:
        """Layers whose feed-forward is a mixture of experts."""
        return sum(kind.count for kind in self.kinds if kind.experts)

    @remembered
    def output_parameters(self) -> int:
        """Weights of the output head, which turns the last hidden state into a token: ``vocabulary hidden``."""
        return self.vocabulary_size * self.hidden_size

    @remembered
    def router_parameters(self) -> int:
        """Weights of all routers: ``moe_layers hidden experts``."""
        return sum(kind.count * kind.router_parameters for kind in self.kinds)

    @remembered
    def body_parameters(self) -> int:
        """Linear weights that every token passes through, without routers and the output head.

        Attention (or its replacement) of all layers, dense feed-forward layers and shared experts.
        """
        return sum(kind.count * kind.body_parameters for kind in self.kinds)

    @remembered
    def routed_parameters(self) -> int:
        """Weights of all routed experts of all layers; 0 for a dense model."""
        return sum(kind.count * kind.routed_parameters for kind in self.kinds)

    @remembered
    def parameters(self) -> int:
        """All weights: linear layers, embeddings, norms, towers; the number in the model's name.

        >>> from melange.catalog.bundled import find_model
        >>> round(find_model("meta-llama/Llama-2-7b-hf").parameters() / 1e9, 3)
        6.738
        """
        embeddings = self.output_parameters() * (1 if self.tied_embeddings else 2)
        norms = sum(kind.count * kind.other_parameters for kind in self.kinds) + self.hidden_size
        positions = self.learned_positions * self.hidden_size
        linear = self.body_parameters() + self.routed_parameters() + self.router_parameters()
        return linear + embeddings + norms + positions + self.other_parameters

    def active_parameters(self, *, output_head: bool = True) -> int:
        """Weights that one token is multiplied with: N of ``2 N`` operations per token.

        The body, the routers, ``experts_per_token`` routed experts of each layer and the output head. The input
        embedding is a look-up and does not count; the output head counts even if it is tied to it.

        Parameters
        ----------
        output_head
            False for the tokens of a prompt: the output head runs only for the last one.

        >>> from melange.catalog.bundled import find_model
        >>> round(find_model("mistralai/Mixtral-8x7B-Instruct-v0.1").active_parameters() / 1e9, 1)
        12.7
        """
        visited = sum(
            kind.count * kind.routed_parameters * kind.experts_per_token // kind.experts
            for kind in self.kinds
            if kind.experts
        )
        head = self.output_parameters() if output_head else 0
        return self.body_parameters() + self.router_parameters() + visited + head

    def experts_touched(self, tokens: float) -> float:
        """Distinct routed experts of one layer that a batch visits, on average.

        ``experts (1 - (1 - experts_per_token / experts) ** tokens)``: every token draws its experts uniformly and
        independently of the others. Real routers are less uniform, and touch fewer.

        >>> from melange.catalog.bundled import find_model
        >>> round(find_model("Qwen/Qwen3-30B-A3B").experts_touched(16), 1)
        82.4
        """
        if not self.experts:
            return 0.0
        return self.experts * float(1 - (1 - self.experts_per_token / self.experts) ** tokens)

    @remembered
    def weight_bytes(self) -> float:
        """Memory of all weights, before any split over accelerators [bytes].

        Quantized checkpoints keep embeddings, output head, norms and routers in 16 bits, and so does this count. Block
        scales of fp8 are excluded (below 0.1 %); those of 4-bit formats are included.

        >>> from melange.catalog.bundled import find_model
        >>> round(find_model("meta-llama/Llama-3.1-8B").weight_bytes() / 2**30, 1)
        15.0
        """
        sixteen_bit = self.parameters() - self.body_parameters() - self.routed_parameters()
        return 2.0 * sixteen_bit + self.body_bytes() + self.routed_bytes()

    @remembered
    def body_bytes(self) -> float:
        """Memory of :meth:`body_parameters` [bytes]."""
        return sum(kind.count * weights.stored_bytes for kind in self.kinds for weights in kind.body)

    @remembered
    def routed_bytes(self) -> float:
        """Memory of :meth:`routed_parameters` [bytes]."""
        return sum(kind.count * weights.stored_bytes for kind in self.kinds for weights in kind.routed)

    @remembered
    def replicated_bytes(self) -> float:
        """The part of :meth:`weight_bytes` that each accelerator holds whole: latent query and key projections [bytes].

        >>> from melange.catalog.bundled import find_model
        >>> round(find_model("deepseek-ai/DeepSeek-V3").replicated_bytes() / 1e9, 2)
        0.92
        """
        width = self.q_lora_rank + self.kv_lora_rank + self.qk_rope_head_size
        if not self.kv_lora_rank:
            return 0.0
        held = 0.0
        for kind in self.kinds:
            if any(not cache.heads for cache in kind.caches):
                parameters = sum(weights.parameters for weights in kind.mixer)
                bytes_each = sum(weights.stored_bytes for weights in kind.mixer) / parameters
                held += kind.count * self.hidden_size * width * bytes_each
        return held

    @remembered
    def weight_bytes_on(self, tensor_parallel: int) -> float:
        """Weights on one of ``tensor_parallel`` accelerators [bytes]: ``(weights - replicated) / tp + replicated``."""
        replicated = self.replicated_bytes()
        return (self.weight_bytes() - replicated) / tensor_parallel + replicated

    def weight_bytes_read(self, tokens: float) -> float:
        """Weights that one step over a batch of ``tokens`` tokens reads, on all accelerators together [bytes].

        Body, routers and output head, and the part of the routed experts that the batch touches:
        ``body + 2 (routers + head) + routed experts_touched(tokens) / experts``.

        >>> from melange.catalog.bundled import find_model
        >>> mixtral = find_model("mistralai/Mixtral-8x7B-Instruct-v0.1")
        >>> [round(mixtral.weight_bytes_read(tokens) / 1e9) for tokens in (1, 4, 64)]
        [25, 65, 93]
        """
        always = self.body_bytes() + 2.0 * (self.router_parameters() + self.output_parameters())
        return always + (self.routed_bytes() * self.experts_touched(tokens) / self.experts if self.experts else 0.0)

    # KV cache and attention

    def kv_bytes_per_layer(self, tensor_parallel: int = 1) -> float:
        """KV cache of one token in one layer on one accelerator [bytes]; if layers differ, their common unit.

        ``2 ceil(kv_heads / tp) head_size bytes``: with more accelerators than KV heads, each still holds one head.
        Multi-head latent attention: ``(kv_lora_rank + qk_rope_head_size) bytes``, whole on every accelerator.
        """
        return self.kv_shape(tensor_parallel).unit_bytes

    @remembered
    def kv_shape(self, tensor_parallel: int = 1) -> KvShape:
        """The size of a request's KV cache on one accelerator, in whole units.

        A unit is the largest size of which all layers' caches are multiples: a token in one layer if layers are equal.
        If there are several windows, the longest counts. A state of constant size is split over accelerators like the
        heads; it includes what a compressed cache holds for tokens whose entry is not complete.
        """
        caches = [(kind.count, cache) for kind in self.kinds for cache in kind.caches]
        grain = reduce(lcm, (cache.tokens_per_entry for _, cache in caches), 1)
        sizes = [cache.values(tensor_parallel) * grain // cache.tokens_per_entry for _, cache in caches]
        unfinished = sum(count * cache.unfinished_width * (cache.tokens_per_entry - 1) for count, cache in caches)
        state_bytes = self.state_bytes() / tensor_parallel + unfinished * BYTES_BY_DTYPE[self.kv_dtype]
        unit = reduce(gcd, sizes, 0)
        unit_bytes = unit / grain * BYTES_BY_DTYPE[self.kv_dtype] if unit else max(state_bytes, 1.0)
        shares = [(count * size // unit, cache.window) for (count, cache), size in zip(caches, sizes, strict=True)]
        return KvShape(
            unit_bytes=unit_bytes,
            full_layers=sum(units for units, window in shares if not window),
            sliding_layers=sum(units for units, window in shares if window),
            window=max((window for _, window in shares), default=0),
            state_units=-int(-state_bytes // unit_bytes),
        )

    @remembered
    def state_bytes(self) -> float:
        """Memory of constant-size states per request, on all accelerators together [bytes]."""
        return sum(kind.count * kind.state_bytes for kind in self.kinds)

    @remembered
    def kv_bytes_per_token(self, tensor_parallel: int = 1) -> float:
        """KV cache of one token over all layers on one accelerator, if it lies within every window [bytes].

        >>> from melange.catalog.bundled import find_model
        >>> find_model("meta-llama/Llama-2-7b-hf").kv_bytes_per_token() / 2**10
        512.0
        >>> find_model("deepseek-ai/DeepSeek-V3").kv_bytes_per_token(tensor_parallel=8) / 2**10
        68.625
        """
        return sum(
            kind.count * cache.values(tensor_parallel) / cache.tokens_per_entry * BYTES_BY_DTYPE[self.kv_dtype]
            for kind in self.kinds
            for cache in kind.caches
        )

    def kv_bytes(self, context_tokens: float, tensor_parallel: int = 1) -> float:
        """KV cache and state of one request with ``context`` tokens, on one accelerator [bytes].

        ``(full_layers context + sliding_layers min(context, window)) kv_bytes_per_layer + state / tp``.

        >>> from melange.catalog.bundled import find_model
        >>> gemma = find_model("google/gemma-3-27b-it")
        >>> round(gemma.kv_bytes(32_768) / gemma.kv_bytes_per_token() / 32_768, 2)
        0.19
        """
        held = sum(
            kind.count * cache.held_values(context_tokens, tensor_parallel)
            for kind in self.kinds
            for cache in kind.caches
        )
        return held * BYTES_BY_DTYPE[self.kv_dtype] + self.state_bytes() / tensor_parallel

    @remembered
    def is_splittable(self, tensor_parallel: int, *, with_experts: bool = True) -> bool:
        """Whether engines can split each layer over ``tensor_parallel`` accelerators.

        The degree must divide heads and feed-forward width; KV heads must divide evenly or be copied evenly. The width
        of routed experts counts only ``with_experts``: experts may instead lie whole on accelerators.

        >>> from melange.catalog.bundled import find_model
        >>> [find_model("Qwen/Qwen2.5-7B-Instruct").is_splittable(degree) for degree in (1, 2, 4, 8)]
        [True, True, True, False]
        """
        widths = [self.intermediate_size, self.expert_intermediate_size if with_experts else 0]
        shared = {cache.heads for kind in self.kinds for cache in kind.caches if cache.heads}
        kv_fits = all(not heads % tensor_parallel or not tensor_parallel % heads for heads in shared)
        return kv_fits and all(width % tensor_parallel == 0 for width in (self.heads, *widths))
