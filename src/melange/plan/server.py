"""Start options of the servers, so that they match the plan's assumptions."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from melange.files import Json
from melange.profile.profile import DECODE_POOL, PREFILL_POOL, ReplicaType
from melange.replica.parallelism import Layout, layout_of
from melange.replica.speculation import Speculation

if TYPE_CHECKING:
    from melange.plan.plan import Plan
    from melange.replica.engine import Engine
    from melange.slo import Slo
    from melange.workload.workload import Buckets

# Share of the KV cache that a request of the longest context may take. vLLM does not start if its cache is smaller than
# one such request, and the free memory that it finds differs from the plan's assumption. A smaller share would refuse
# requests that fit.
_LARGEST_REQUEST = 0.9

# Each limit by the name of vLLM's flag, and in words for engines with other flags.
_LIMITS = {
    "max_sequences": ("max_num_seqs {}", "at most {} running requests"),
    "max_batched_tokens": ("max_num_batched_tokens {}", "at most {} tokens per step"),
    "max_context": ("max_model_len {}", "context {}"),
    "block_tokens": ("block_size {}", "KV blocks of {} tokens"),
    "memory_utilization": ("gpu_memory_utilization {}", "memory share {}"),
    "is_chunked": ("enable_chunked_prefill {}", "chunked prefill {}"),
    "is_prefix_caching": ("enable_prefix_caching {}", "prefix caching {}"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Start options of one replica of a type. Unknown ones are None.

    Parameters
    ----------
    replica_type
        Its name in the plan.
    replicas
        Number of its replicas in the plan.
    model, variant
        Name of the served model, and its quantized variant; empty: as published.
    engine, era
        Engine, by its name in the replica type, and the era with these limits (``vllm-1``); empty: not known.
    tensor_parallel, expert_parallel, pipeline_parallel
        As in :class:`~melange.replica.parallelism.Layout`.
    max_sequences, max_batched_tokens
        Most running requests, and most tokens of one step; per data-parallel rank if there are several, and per
        micro-batch of a pipeline stage.
    block_tokens
        Tokens of one KV block.
    max_context
        Longest prompt plus completion [tokens]: the model's, but no more than nine tenths of the KV cache that the plan
        counts on, or the longest request that it sends there.
    kv_cache_dtype
        Data type of the KV cache by vLLM's name, if the service gives one (``fp8_e5m2``); empty: the variant's.
    memory_utilization
        Share of an accelerator's memory that the engine takes, as the engine counts it, 0-1.
    is_chunked
        Whether prompts are read in chunks beside running requests.
    is_prefix_caching
        Whether prompts that share a prefix read it once.
    speculation
        Draft tokens that each step also verifies; None: none.
    pool
        What it does of a request: ``prefill`` or ``decode``; else all of it.
    is_by_priority
        Whether it takes waiting requests in the order of their priority, as plans with classes count on.
    source
        Where the planned rates come from: ``estimated``, ``anchored`` or ``measured``; empty: not known. The limits of
        a measured one are assumed where the server did not say them.

    Examples
    --------
    >>> print(Server(replica_type="g6", replicas=2, model="Llama", engine="vllm", max_sequences=256, is_chunked=True))
    A replica of g6: Llama, vllm, tensor parallel 1, max_num_seqs 256, enable_chunked_prefill true
    """

    replica_type: str
    replicas: int
    model: str
    variant: str = ""
    engine: str = ""
    era: str = ""
    tensor_parallel: int = 1
    max_sequences: int | None = None
    max_batched_tokens: int | None = None
    block_tokens: int | None = None
    max_context: int | None = None
    memory_utilization: float | None = None
    kv_cache_dtype: str = ""
    is_chunked: bool | None = None
    is_prefix_caching: bool | None = None
    speculation: Speculation | None = None
    source: str = ""
    expert_parallel: int = 1
    pipeline_parallel: int = 1
    pool: str = ""
    is_by_priority: bool = False

    @property
    def layout(self) -> Layout:
        """How it is spread over accelerators."""
        return layout_of(self.tensor_parallel, self.expert_parallel, self.pipeline_parallel)

    def __str__(self) -> str:
        model = f"{self.model or 'an unnamed model'}{f' ({self.variant})' if self.variant else ''}"
        parts = [model, self.engine or "an unnamed engine", f"tensor parallel {self.tensor_parallel}"]
        parts += [f"expert parallel {self.expert_parallel}"] if self.expert_parallel > 1 else []
        parts += [f"pipeline parallel {self.pipeline_parallel}"] if self.pipeline_parallel > 1 else []
        return f"A replica of {self.replica_type}: {', '.join([*parts, *self.settings()])}"

    def settings(self) -> list[str]:
        """The settings that are known, by vLLM's own names where it is vLLM."""
        if self.source == "measured":
            return ["configured as measured"]
        form = 0 if self.engine.startswith("vllm") else 1
        known = ((forms[form], getattr(self, name)) for name, forms in _LIMITS.items())
        limits = [text.format(str(value).lower()) for text, value in known if value is not None]
        limits += [str(self.speculation)] if self.speculation else []
        limits += ["scheduling_policy priority"] if self.is_by_priority else []
        return limits or ["limits unknown"]

    def to_json(self) -> Json:
        """As a JSON object."""
        content = asdict(self)
        if not self.kv_cache_dtype:
            del content["kv_cache_dtype"]
        return content


def servers_of(plan: Plan) -> tuple[Server, ...]:
    """What the replicas of each type in use must be started with, in the order of ``plan.replica_types``."""
    replicas = plan.replicas
    return tuple(
        server_of(one, engine, replicas[one.name], plan.model, plan.slo, _longest_request(plan, r))
        for r, (one, engine) in enumerate(zip(plan.replica_types, plan.engines, strict=True))
        if replicas[one.name] > 0
    )


def server_of(
    one: ReplicaType, engine: Engine | None, replicas: int, model: str, slo: Slo | None, longest_request: int
) -> Server:
    """What the replicas of a type must be started with.

    Parameters
    ----------
    one, engine
        The type, and the engine of a replica; None: unknown.
    replicas
        Number of replicas.
    model, slo
        The model's name, and the objective, whose classes may have priorities.
    longest_request
        Longest prompt plus completion that the type must serve [tokens].
    """
    return Server(
        replica_type=one.name,
        replicas=replicas,
        model=model,
        variant=one.variant,
        engine=one.engine,
        tensor_parallel=one.tensor_parallel,
        expert_parallel=one.expert_parallel,
        pipeline_parallel=one.pipeline_parallel,
        pool=one.pool if one.pool in (PREFILL_POOL, DECODE_POOL) else "",
        is_by_priority=slo is not None and any(slo.levels),
        **({} if engine is None else _limits_of(engine, longest_request, one.layout)),
    )


def _limits_of(engine: Engine, longest_request: int, layout: Layout) -> Json:
    limits = {name: getattr(engine, name) for name in ("era", "source", "speculation", "kv_cache_dtype", *_LIMITS)}
    limits["max_sequences"] = engine.max_sequences // layout.data_parallel
    limits["max_batched_tokens"] = engine.max_batched_tokens // layout.ranks
    fits = max(_LARGEST_REQUEST * _held_context(engine), longest_request)
    return limits | {"max_context": math.floor(min(engine.max_context, fits))}


def _longest_request(plan: Plan, r: int) -> int:
    return longest_request_of(plan.workload.buckets, plan.share[r] * plan.workload.request_rate > 0)


def longest_request_of(buckets: Buckets, is_sent: npt.NDArray[np.bool_]) -> int:
    """Longest prompt plus completion of the sizes (I, O) that are sent to a type [tokens]; 0 if sizes are numbered."""
    if buckets.is_ordinal:
        return 0
    inputs = len(buckets.input_edges)
    sizes = [buckets.input_edges[i % inputs] + buckets.output_edges[o] for i, o in zip(*is_sent.nonzero(), strict=True)]
    return math.ceil(max(sizes, default=0))


def _held_context(engine: Engine) -> float:
    """The longest request that the KV cache holds by itself [tokens], as :func:`~melange.replica.memory.held_in`."""
    layers, room = engine.full_layers + engine.sliding_layers, engine.kv_tokens / engine.kv_parts
    room -= engine.block_tokens * layers
    short = max(room / layers, 0.0)
    if not engine.sliding_layers or short <= engine.window:
        return short
    if not engine.full_layers:
        return math.inf
    return (room - engine.sliding_layers * engine.window) / engine.full_layers
