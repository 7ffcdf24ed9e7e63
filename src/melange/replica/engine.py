"""The engine of one replica, with all that a simulation needs to know."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from melange.catalog.layers import KvShape
from melange.errors import InputError, unknown
from melange.files import Json
from melange.records import items, mapping, number, record, whole
from melange.replica.capacity import Replicas
from melange.replica.engine_settings import KV_CACHE_DTYPES
from melange.replica.era import Era, Residuals
from melange.replica.speculation import Speculation
from melange.replica.step import StepCost, scaled

# Largest integers of an engine, larger than in any real engine. The simulator counts tokens in 32 bits, and allocates
# memory for each running request and for each token of a block.
_MOST = {
    "max_sequences": 65_536,
    "max_batched_tokens": 2**31 - 1,
    "block_tokens": 65_536,
    "max_context": 2**31 - 1,
    "kv_parts": 65_536,
}
# Coefficients of a step that may be infinite, stored as null in JSON.
_ENDLESS = ("window", "most_batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Step time and KV cache capacity of one replica's engine, with the engine's limits.

    It is stored in profiles and plans, so that a plan is simulated with exactly the step times that it was made with.

    Parameters
    ----------
    cost
        Coefficients of the step (:func:`~melange.replica.step.step_time_s`).
    kv_tokens
        Capacity of the KV cache of one accelerator, in tokens of one layer; for all ranks together if there are
        several.
    kv_parts
        Number of separate caches; each request must fit into one of them.
    full_layers, sliding_layers
        Number of layers that attend to all tokens, and of layers with a sliding window.
    window
        That window [tokens]; 0 if no layer has one.
    state_units
        KV cache per request whatever its length, for layers that keep a state, in tokens of one layer.
    max_sequences, max_batched_tokens
        Most running requests, and most tokens of one step.
    block_tokens
        Tokens of one KV block.
    is_chunked
        Whether prompts are processed in chunks together with running requests; if not, a prompt has its own step.
    is_fully_reserved
        Whether a request is admitted only if its full length fits in memory; it is then never preempted.
    max_context
        Longest prompt plus completion [tokens].
    fast, slow
        Ratio of measured to predicted step time at its 10 % and its 90 % quantile.
    source
        Where the step times come from: ``estimated``, ``anchored``, ``measured``.
    era
        Name of the engine era whose limits it has (``vllm-1``); empty if unknown. Simulations do not use it.
    memory_utilization
        Share of an accelerator's memory that the engine uses, by the engine's own definition, 0-1; None: unknown. It is
        for starting a server; the resulting cache size is ``kv_tokens``.
    kv_cache_dtype
        Data type of the KV cache by vLLM's name, as the service gives it (``fp8_e5m2``); empty: not given. It is for
        starting a server.
    is_prefix_caching
        Whether a common prefix of prompts is processed once.
    prefix_kept
        Share of a prompt's reusable tokens that the prefix cache still holds, 0-1.
    speculation
        Draft tokens that a step also verifies; None: none. ``cost`` includes their cost and benefit.
    """

    cost: StepCost
    kv_tokens: float
    full_layers: int
    sliding_layers: int = 0
    window: int = 0
    state_units: int = 0
    max_sequences: int = 256
    max_batched_tokens: int = 2048
    block_tokens: int = 16
    is_chunked: bool = True
    max_context: int = 131072
    is_fully_reserved: bool = False
    fast: float = 1.0
    slow: float = 1.0
    source: str = "estimated"
    era: str = ""
    memory_utilization: float | None = None
    is_prefix_caching: bool = False
    prefix_kept: float = 1.0
    speculation: Speculation | None = None
    kv_parts: int = 1
    kv_cache_dtype: str = ""

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            if not 1 <= getattr(self, name) <= most:
                raise InputError(f"engine.{name} must be 1 to {most:,}, got {getattr(self, name)}")
        if self.full_layers + self.sliding_layers + self.state_units < 1 or self.kv_tokens < 0:
            raise InputError("engine: at least one layer and kv_tokens >= 0 are needed")
        if self.kv_cache_dtype not in ("", *KV_CACHE_DTYPES):
            raise unknown("data type", self.kv_cache_dtype, KV_CACHE_DTYPES, place="engine.kv_cache_dtype")
        if not 0 <= self.prefix_kept <= 1:
            raise InputError(f"engine.prefix_kept must be 0 to 1, got {self.prefix_kept:g}")

    def scaled(self, factor: float) -> Engine:
        """The same engine with all step times multiplied by ``factor``."""
        return replace(self, cost=scaled(self.cost, factor))

    def to_json(self) -> Json:
        """As a JSON object; an infinite limit is null."""
        content = {field.name: getattr(self, field.name) for field in fields(Engine)}
        if not self.state_units:
            del content["state_units"]
        if not self.kv_cache_dtype:
            del content["kv_cache_dtype"]
        if self.kv_parts == 1:
            del content["kv_parts"]
        if self.speculation is not None:
            content["speculation"] = asdict(self.speculation)
        content["cost"] = {
            field.name: _finite(getattr(self.cost, field.name))
            for field in fields(StepCost)
            if getattr(self.cost, field.name) != 0.0
        }
        return content

    @classmethod
    def from_json(cls, content: Json) -> Engine:
        """From the JSON object that :meth:`to_json` makes."""
        return _engine_from(content, "engine")


def _engine_from(content: Any, place: str) -> Engine:
    stored = mapping(mapping(content, place).get("cost"), f"{place}.cost")
    names = {field.name for field in fields(StepCost)}
    for name in stored:
        if name not in names:
            raise unknown("key", name, names, place=f"{place}.cost")
    cost = {
        name: math.inf
        if name in _ENDLESS and name in stored and stored[name] is None
        else number(stored.get(name, 0.0), f"{place}.cost.{name}")
        for name in names
    }
    return record(Engine, content, place, cost=StepCost(**cost))


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def engines_of(
    replicas: Replicas,
    layers: Sequence[KvShape],
    residuals: Sequence[Residuals],
    era: Era,
    source: str,
    prefix_kept: Sequence[float] | None = None,
) -> list[Engine | None]:
    """One engine for each of R replicas; None if the model does not fit.

    Parameters
    ----------
    replicas
        The replicas as defined for the closed form.
    layers
        KV cache size of a request, for each replica (R).
    residuals
        Ratio of measured to predicted step times, for each replica (R).
    era
        The era of the engine.
    source
        Where the step times come from.
    prefix_kept
        Share of the reusable prompt tokens that each replica's prefix cache still holds (R), 0-1; None: no prefix
        caching.
    """
    names = [field.name for field in fields(StepCost)]
    count = len(layers)
    columns = {name: np.broadcast_to(getattr(replicas.cost, name), (count, 1, 1)).ravel().tolist() for name in names}
    kv_tokens = np.broadcast_to(replicas.kv_tokens, (count, 1, 1)).ravel().tolist()
    sequences = np.broadcast_to(replicas.max_sequences, (count, 1, 1)).ravel().tolist()
    tokens = np.broadcast_to(replicas.max_batched_tokens, (count, 1, 1)).ravel().tolist()
    parts = np.broadcast_to(replicas.kv_parts, (count, 1, 1)).ravel().tolist()
    return [
        Engine(
            cost=StepCost(**{name: columns[name][r] for name in names}),
            kv_tokens=kv_tokens[r],
            full_layers=layers[r].full_layers,
            sliding_layers=layers[r].sliding_layers,
            window=layers[r].window,
            state_units=layers[r].state_units,
            max_sequences=int(sequences[r]),
            max_batched_tokens=int(tokens[r]),
            block_tokens=replicas.block_tokens,
            is_chunked=replicas.is_chunked,
            max_context=int(replicas.max_context),
            is_fully_reserved=replicas.is_fully_reserved,
            fast=residuals[r].low,
            slow=residuals[r].high,
            source=source,
            era=era.name,
            memory_utilization=era.settings.memory_utilization,
            is_prefix_caching=prefix_kept is not None,
            prefix_kept=0.0 if prefix_kept is None else prefix_kept[r],
            speculation=era.settings.speculation if columns["draft_tokens"][r] else None,
            kv_parts=int(parts[r]),
            kv_cache_dtype=era.settings.kv_cache_dtype,
        )
        if kv_tokens[r] > 0
        else None
        for r in range(count)
    ]


def engines_to_json(engines: Sequence[Engine | None]) -> Json:
    """Distinct engines, each stored once, and the index of each replica type's engine (-1: none)."""
    distinct = list(dict.fromkeys(one for one in engines if one is not None))
    place = {one: number for number, one in enumerate(distinct)}
    return {
        "engines": [one.to_json() for one in distinct],
        "engine": [-1 if one is None else place[one] for one in engines],
    }


def engines_from_json(content: Json) -> tuple[Engine | None, ...]:
    """From the result of :func:`engines_to_json`; empty if a file has no engines."""
    distinct = [_engine_from(one, place) for place, one in items(content.get("engines", ()), "engines")]
    places = [whole(one, place) for place, one in items(content.get("engine", ()), "engine")]
    if bad := [place for place in places if not -1 <= place < len(distinct)]:
        raise InputError(f"engine: {bad[0]} is the place of none of the {len(distinct)} engines (-1: unknown)")
    return tuple(None if place < 0 else distinct[place] for place in places)
