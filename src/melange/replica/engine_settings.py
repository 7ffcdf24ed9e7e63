"""Memory rule and limits of an engine."""

from __future__ import annotations

from dataclasses import dataclass

from melange.catalog.accelerator import Accelerator
from melange.replica.speculation import Speculation
from melange.units import GIB

# Where vLLM 1 takes its larger defaults (vllm/engine/arg_utils.py: 70 GiB and more, but for the A100).
_LARGE_MEMORY_BYTES = 70 * GIB
_SMALL_ARCHITECTURES = ("Volta", "Turing", "Ampere")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Memory rule and limits of an engine: its defaults, unless someone sets them.

    Parameters
    ----------
    memory_utilization
        Share of an accelerator's memory that the engine may take, 0-1 (vLLM's ``gpu_memory_utilization``).
    is_share_of_free
        Whether that is a share of what weights and activations leave (TensorRT-LLM's
        ``kv_cache_free_gpu_mem_fraction``), which the KV cache then takes.
    reserve_bytes
        Memory that the driver's context takes [bytes].
    graph_bytes
        Memory of captured graphs [bytes].
    max_sequences
        Most running requests (``max_num_seqs``).
    max_batched_tokens
        Most tokens of one step (``max_num_batched_tokens``): what an activation reserve is made for, and the budget
        of prompt chunks.
    large_max_sequences, large_max_batched_tokens
        The same two on large accelerators (70 GiB and more, newer than Ampere), where the engine has other defaults
        there; 0: it has none.
    block_tokens
        Tokens of one KV block.
    is_chunked
        Whether prompts are read in chunks beside running requests; False where a prompt has a step of its own and
        running requests wait for it.
    is_fully_reserved
        Whether a request enters only when the KV cache has room for it at its full length, and is never evicted
        (TensorRT-LLM's default, ``GUARANTEED_NO_EVICT``); False where it enters with room for its prompt.
    max_context
        Longest prompt plus completion, where set shorter or longer than the model's [tokens]; None: as the model says.
    min_kv_tokens
        Tokens that a replica's KV cache must hold, or it is left out [tokens]; 0: as many as one request needs.
    kv_dtype
        What the KV cache is stored in, if not as the model is published (``fp8``); empty: as published.
    is_prefix_caching
        Whether prompts that share a prefix read it once; None: as the engine ships, where the traffic says what prompts
        share.
    speculation
        Draft tokens that a step verifies besides; None: none.
    """

    memory_utilization: float = 0.9
    is_share_of_free: bool = False
    reserve_bytes: float = 0.5 * GIB
    graph_bytes: float = 0.0
    max_sequences: int = 256
    max_batched_tokens: int = 2048
    large_max_sequences: int = 0
    large_max_batched_tokens: int = 0
    block_tokens: int = 16
    is_chunked: bool = True
    is_fully_reserved: bool = False
    max_context: int | None = None
    min_kv_tokens: int = 0
    kv_dtype: str = ""
    is_prefix_caching: bool | None = None
    speculation: Speculation | None = None

    def limits_on(self, accelerator: Accelerator) -> tuple[int, int]:
        """Most running requests and most tokens of one step on that accelerator."""
        is_large = (
            accelerator.memory_bytes >= _LARGE_MEMORY_BYTES and accelerator.architecture not in _SMALL_ARCHITECTURES
        )
        sequences = self.large_max_sequences if is_large else 0
        tokens = self.large_max_batched_tokens if is_large else 0
        return sequences or self.max_sequences, tokens or self.max_batched_tokens
