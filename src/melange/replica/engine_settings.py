"""Memory rule and limits of an engine."""

from __future__ import annotations

from dataclasses import dataclass

from melange.catalog.accelerator import Accelerator
from melange.replica.speculation import Speculation
from melange.units import GIB

# The data type of a KV cache by each of vLLM's names for it.
KV_CACHE_DTYPES = {"fp8": "fp8", "fp8_e4m3": "fp8", "fp8_e5m2": "fp8"}
# Memory from which vLLM 1 uses its larger defaults (vllm/engine/arg_utils.py: 70 GiB and more, except for the A100).
_LARGE_MEMORY_BYTES = 70 * GIB
_SMALL_ARCHITECTURES = ("Volta", "Turing", "Ampere")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Memory rule and limits of an engine: its defaults, unless they are set.

    Parameters
    ----------
    memory_utilization
        Share of an accelerator's memory that the engine may take, 0-1 (vLLM's ``gpu_memory_utilization``).
    is_share_of_free
        Whether this is a share of the memory left by weights and activations (TensorRT-LLM's
        ``kv_cache_free_gpu_mem_fraction``), which the KV cache then uses.
    reserve_bytes
        Memory of the driver's context [bytes].
    graph_bytes
        Memory of captured graphs [bytes].
    max_sequences
        Most running requests (``max_num_seqs``).
    max_batched_tokens
        Most tokens of one step (``max_num_batched_tokens``): it determines the reserve for activations, and the budget
        of prompt chunks.
    large_max_sequences, large_max_batched_tokens
        The same two on large accelerators (70 GiB and more, newer than Ampere), if the engine has other defaults there;
        0: it has none.
    block_tokens
        Tokens of one KV block.
    is_chunked
        Whether prompts are processed in chunks together with running requests; False if a prompt has its own step, for
        which running requests wait.
    is_fully_reserved
        Whether a request is admitted only if its full length fits in the KV cache, and is then never preempted
        (TensorRT-LLM's default, ``GUARANTEED_NO_EVICT``); False if it is admitted as soon as its prompt fits.
    max_context
        Longest prompt plus completion, if set shorter or longer than the model's [tokens]; None: the model's.
    min_kv_tokens
        Least capacity of a replica's KV cache; smaller replicas are left out [tokens]; 0: enough for one request.
    kv_dtype
        Data type of the KV cache, if it differs from the published one (``fp8``); empty: as published.
    kv_cache_dtype
        That data type by the engine's own name, as given (``fp8_e5m2``); empty: not given. Only servers use it.
    is_prefix_caching
        Whether a common prefix of prompts is processed once; None: the engine's default, if the traffic's prefix reuse
        is known.
    speculation
        Draft tokens that a step also verifies; None: none.
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
    kv_cache_dtype: str = ""
    is_prefix_caching: bool | None = None
    speculation: Speculation | None = None

    def limits_on(self, accelerator: Accelerator) -> tuple[int, int]:
        """Most running requests and most tokens of one step on this accelerator.

        With chunked prompts each running request takes a token of each step: if only one of the two limits is set, the
        other may not contradict it (vLLM does not start with more requests than tokens).
        """
        is_large = (
            accelerator.memory_bytes >= _LARGE_MEMORY_BYTES and accelerator.architecture not in _SMALL_ARCHITECTURES
        )
        sequences = self.large_max_sequences if is_large else 0
        tokens = self.large_max_batched_tokens if is_large else 0
        sequences, tokens = sequences or self.max_sequences, tokens or self.max_batched_tokens
        return min(sequences, tokens) if self.is_chunked else sequences, tokens
