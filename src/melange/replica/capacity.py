"""The closed form: the highest rate of a request size on one replica within limits on the mean.

Arrays have the axes (replica R, input bucket I, output bucket O). With B running requests of i prompt and o output
tokens, every step carries ``P = B i / o`` prompt tokens; then ``step(B, B (i + o / 2), P)`` is the mean time per output
token with interference and ``B / (o step)`` the request rate (Little's law). B is a mean over time and need not be an
integer; below 1 it is the share of time in which the replica is busy with one request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from melange.catalog.model import Model
from melange.replica.memory import KvLayers, token_layers
from melange.replica.step import StepCost, computed_tokens, is_absent, mean_time_s, standing_s, step_time_s
from melange.workload.workload import Array

# If a replica exceeds its limits when it is busy one thousandth of the time, it cannot meet them at all.
IDLE_BATCH = 1e-3
# Halvings of log B: they determine the batch size to 2e-4; one more halves this and takes a sixteenth longer. They were
# 20 until the closed form was timed (bench/estimate.py).
BISECTIONS = 16
INTERVAL_BISECTIONS = 11  # the ends of an interval are accurate to a percent at best
# Fractions of the largest feasible batch that are also tried where throughput may not increase with the batch: under a
# correction by measured points, and if ranks wait for each other. In all other cases it increases: of 36,000 cells of
# random models, accelerators, eras and limits, none had its peak below the largest batch.
_PEAK_FRACTIONS = (0.9, 0.75, 0.5, 0.25)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sizes:
    """Mean request sizes.

    Parameters
    ----------
    inputs, outputs
        Prompt and output tokens (1, I, O).
    cached
        Prompt tokens in a prefix cache (1, I, O) or (R, I, O), fewer than the prompt: they take memory but no prefill;
        a plain 0: none.
    """

    inputs: Array
    outputs: Array
    cached: Array | float = 0.0

    def kept(self, share: float) -> Sizes:
        """The same sizes if a prefix cache still holds this share of the cached tokens, 0-1."""
        return replace(self, cached=self.cached * share)

    @property
    def unread(self) -> Array:
        """Prompt tokens that need prefill (1, I, O) or (R, I, O)."""
        return self.inputs - self.cached

    @property
    def position(self) -> Array:
        """Mean number of tokens that each of these attends to (1, I, O) or (R, I, O)."""
        return (self.inputs + self.cached) / 2

    @property
    def residency(self) -> Array:
        """Mean number of tokens that a running request holds, ``i + o / 2`` (1, I, O)."""
        return self.inputs + self.outputs / 2

    @property
    def longest(self) -> Array:
        """Tokens that a request holds at its end, ``i + o`` (1, I, O)."""
        return self.inputs + self.outputs


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replicas:
    """The inputs of the closed form for R replicas of one model.

    Parameters
    ----------
    cost
        Stacked step costs, fields of shape (R, 1, 1).
    kv_tokens
        Capacity of the KV cache of one accelerator, in tokens of one layer (R, 1, 1), for all ranks together if a batch
        is spread over several; 0 if the weights do not fit.
    max_sequences
        Most running requests (R, 1, 1).
    max_batched_tokens
        Most tokens of one step (R, 1, 1).
    block_tokens
        Tokens of one KV block.
    is_chunked
        Whether prompts are processed in chunks together with running requests.
    is_fully_reserved
        Whether a request reserves memory for its full length from the start.
    max_context
        Longest prompt plus completion [tokens].
    kv_layers
        KV cache size of a request on each replica; None: the same on all, determined by the model alone.
    kv_parts
        Number of separate caches; each request must fit into one of them (R, 1, 1).
    """

    cost: StepCost
    kv_tokens: Array
    max_sequences: Array
    max_batched_tokens: Array
    block_tokens: int
    is_chunked: bool
    max_context: int
    is_fully_reserved: bool = False
    kv_layers: KvLayers | None = None
    kv_parts: Array | float = 1.0


def max_request_rate(
    replicas: Replicas,
    model: Model,
    sizes: Sizes,
    limits: Mapping[str, float | Array],
    *,
    bisections: int = BISECTIONS,
) -> Array:
    """Highest request rate of each size on each replica (R, I, O) [1/s]; 0 if it cannot serve the size at all.

    The largest ``B / (o step)`` over all batch sizes within memory, engine limits and the limits on the mean. Every
    metric grows with B, so the feasible batch sizes are an interval; bisection finds its end, to 2e-4 of its value.

    Parameters
    ----------
    replicas, model, sizes
        See the respective classes.
    limits
        By metric: ``ttft``, ``tpot``, ``ntpot``, ``latency`` [s].
    bisections
        Fewer are enough for the ends of an interval.
    """
    return rate_within(replicas, sizes, limits, largest_batch(replicas, model, sizes), bisections=bisections)


def rate_within(
    replicas: Replicas,
    sizes: Sizes,
    limits: Mapping[str, float | Array],
    largest: Array,
    *,
    bisections: int = BISECTIONS,
) -> Array:
    """:func:`max_request_rate` if the largest batch is known (R, I, O); limits may differ by size (1, I, O) [s]."""
    slots = np.maximum(largest, IDLE_BATCH)
    idle = np.full_like(slots, IDLE_BATCH)
    is_served = (largest > 0) & (largest_limit_share(replicas, sizes, limits, idle, slots) <= 1)
    batch = _end_of_feasible(replicas, sizes, limits, slots, bisections)
    rate = batch / (sizes.outputs * mean_step_s(replicas, sizes, batch))
    is_rising = is_absent(replicas.cost.batch_power) and is_absent(replicas.cost.ranks)
    for fraction in () if is_rising else _PEAK_FRACTIONS:
        smaller = batch * fraction
        rate = np.maximum(rate, smaller / (sizes.outputs * mean_step_s(replicas, sizes, smaller)))
    return np.where(is_served, rate, 0.0)


def largest_batch(replicas: Replicas, model: Model, sizes: Sizes) -> Array:
    """Most running requests that memory and engine limits allow on average (R, I, O); 0 if not even one fits.

    ``min(max_num_seqs, KV / (i + o / 2), budget / (1 + i / o))``. Each request uses KV cache at mean residency with
    half a block of waste, or at full length ``i + o`` if the engine reserves that. The last term applies only if
    prompts are processed in chunks, whose tokens share a step's budget. A single request must fit at its full length,
    which must be within the context limit.
    """
    return batch_within(replicas, sizes, held_by(replicas, model))


def held_by(replicas: Replicas, model: Model) -> Callable[[Array, float], Array]:
    """The KV cache of a request on each replica, as a function of its tokens and the waste in its last block."""
    return partial(token_layers, model) if replicas.kv_layers is None else replicas.kv_layers.held


def batch_within(replicas: Replicas, sizes: Sizes, resident: Callable[[Array, float], Array]) -> Array:
    """:func:`largest_batch`, given the KV cache of a request as a function of its tokens and its last block's waste."""
    waste = replicas.block_tokens
    held = sizes.longest if replicas.is_fully_reserved else sizes.residency
    batch = np.minimum(replicas.max_sequences, replicas.kv_tokens / resident(held, waste / 2))
    if replicas.is_chunked:
        cost = replicas.cost
        made = (1 + cost.accepted_tokens) * sizes.unread / sizes.outputs
        batch = np.minimum(batch, replicas.max_batched_tokens / (1 + cost.draft_tokens + made))
    holds = resident(sizes.longest, waste - 1) <= replicas.kv_tokens / replicas.kv_parts
    return np.where(holds & (sizes.longest <= replicas.max_context), batch, 0.0)


def holds_one(replicas: Replicas, model: Model, sizes: Sizes) -> npt.NDArray[np.bool_]:
    """Whether the KV cache holds one request at its full length (R, I, O)."""
    return np.asarray(
        held_by(replicas, model)(sizes.longest, replicas.block_tokens - 1) <= replicas.kv_tokens / replicas.kv_parts
    )


def mean_step_s(replicas: Replicas, sizes: Sizes, batch: Array) -> Array:
    """Mean time between two tokens of a running request, including the prompts of others (R, I, O) [s].

    Chunked: one of ``o / B`` steps also processes a prompt (as much as its budget allows; longer prompts take more
    steps), or every step does if there are enough prompts; only these steps can overlap prompt arithmetic with reading
    the weights. Not chunked: one of every ``o / B`` steps processes a prompt (or several waiting prompts, as many as
    fit in a step) while running requests pause. If a front end sends tokens one by one, the result is at least the time
    that the tokens of one step take there.
    """
    step_s = _engine_step_s(replicas, sizes, batch)
    if is_absent(replicas.cost.stream_s):
        return step_s
    return np.asarray(np.maximum(step_s, replicas.cost.stream_s * np.maximum(batch, 1.0)))


def _engine_step_s(replicas: Replicas, sizes: Sizes, batch: Array) -> Array:
    cost, running = replicas.cost, np.maximum(batch, 1.0)
    admitted = batch / sizes.outputs
    context = running * sizes.residency
    position = sizes.position
    if replicas.is_chunked:
        room = np.maximum(replicas.max_batched_tokens - computed_tokens(cost, running), 1.0)
        prompt = admitted * sizes.unread
        chunk = np.maximum(prompt, np.minimum(sizes.unread, room))
        mixed = prompt / chunk
        step_s = mean_time_s(
            cost,
            batch=running,
            context_tokens=context,
            share=mixed,
            prefill_tokens=chunk,
            position=position,
            admitted=admitted / mixed,
            longest=None if is_absent(cost.ranks) else np.minimum(chunk, sizes.unread),
        )
        return np.asarray(step_s, float)
    together = np.clip(admitted, 1.0, np.maximum(1.0, replicas.max_batched_tokens / sizes.unread))
    decode_s = step_time_s(cost, batch=running, context_tokens=context)
    prompt_s = _prompt_step_s(replicas, sizes, together)
    return np.asarray(decode_s + admitted / together * prompt_s, float)


def _prompt_step_s(replicas: Replicas, sizes: Sizes, prompts: Array | float) -> Array:
    """Time of a step that only processes this number of whole prompts (R, I, O) [s]."""
    step_s = step_time_s(
        replicas.cost,
        batch=0.0,
        context_tokens=0.0,
        prefill_tokens=prompts * sizes.unread,
        position=sizes.position,
        admitted=prompts,
        longest=sizes.unread,
    )
    return np.asarray(step_s, float)


def prompt_times_s(replicas: Replicas, sizes: Sizes, batch: Array) -> tuple[Array, Array]:
    """Time from a prompt's first step to its first token, and the time for which it delays other prompts (R, I, O) [s].

    Chunked: ``ceil(i / (budget - B))`` steps together with B running requests; it delays others by ``i / (budget - B)``
    of a full step. Not chunked: one step for both.
    """
    if not replicas.is_chunked:
        alone_s = _prompt_step_s(replicas, sizes, 1.0)
        return alone_s, alone_s
    context = batch * sizes.residency
    budget = np.maximum(replicas.max_batched_tokens - computed_tokens(replicas.cost, batch), 1.0)
    chunks = np.ceil(sizes.unread / budget)
    position, standing = sizes.position, standing_s(replicas.cost, batch, context)
    one_s = step_time_s(
        replicas.cost,
        batch=batch,
        context_tokens=context,
        standing=standing,
        prefill_tokens=sizes.unread / chunks,
        position=position,
        admitted=1.0 / chunks,
    )
    steps = sizes.unread / budget
    full_s = step_time_s(
        replicas.cost,
        batch=batch,
        context_tokens=context,
        standing=standing,
        prefill_tokens=budget,
        position=position,
        admitted=1.0 / steps,
        longest=None if is_absent(replicas.cost.ranks) else np.minimum(sizes.unread, budget),
    )
    return np.asarray(chunks * one_s, float), np.asarray(steps * full_s, float)


def ttft_s(replicas: Replicas, sizes: Sizes, batch: Array, slots: Array, step_s: Array) -> Array:
    """Mean time to the first token under Poisson arrivals, given the mean step (R, I, O) [s].

    The remaining time of the current step, the wait for a slot, the wait for other prompts, and the request's own
    prompt::

        min(B, 1) step / 2  +  residency / 2 (B/c)^(sqrt(2 (c + 1)) - 1) / (c (1 - B/c))  +  D r / (2 (1 - r))  +  own

    Wait for a slot: c slots with equal service times; mean wait by Sakasegawa's approximation (1977), halved for
    constant service times (Allen-Cunneen). Wait for other prompts: M/D/1 with utilization ``r = rate D``, where D is
    the time for which one prompt delays others.
    """
    own_s, blocking_s = prompt_times_s(replicas, sizes, batch)
    rate = batch / (sizes.outputs * step_s)
    reading = np.minimum(rate * blocking_s, 1 - 1e-9)
    prompts_s = blocking_s * reading / (2 * (1 - reading))
    occupied = np.minimum(batch / slots, 1 - 1e-9)
    servers = np.maximum(slots, 1.0)
    exponent = np.sqrt(2 * (servers + 1)) - 1
    delay = np.exp(exponent * np.log(occupied)) / (servers * (1 - occupied))  # several times faster than a power
    residency_s = own_s + sizes.outputs * step_s
    return np.asarray(np.minimum(batch, 1.0) * step_s / 2 + delay / 2 * residency_s + prompts_s + own_s, float)


def metrics_s(
    replicas: Replicas, sizes: Sizes, metrics: tuple[str, ...], batch: Array, slots: Array
) -> dict[str, Array]:
    """Mean of each metric at a given batch size (R, I, O) [s].

    ``tpot = step`` (0 for a single token), ``latency = ttft + (o - 1) step``, ``ntpot = latency / o``.
    """
    step_s = mean_step_s(replicas, sizes, batch)
    values = {"tpot": np.where(sizes.outputs > 1, step_s, 0.0)}
    if set(metrics) - {"tpot"}:
        values["ttft"] = ttft_s(replicas, sizes, batch, slots, step_s)
        values["latency"] = values["ttft"] + (sizes.outputs - 1) * step_s
        values["ntpot"] = values["latency"] / sizes.outputs
    return {metric: values[metric] for metric in metrics}


def largest_limit_share(
    replicas: Replicas, sizes: Sizes, limits: Mapping[str, float | Array], batch: Array, slots: Array
) -> Array:
    """The largest metric over its limit (R, I, O): the batch is feasible where it is at most 1."""
    values = metrics_s(replicas, sizes, tuple(limits), batch, slots)
    with np.errstate(over="ignore"):  # A limit next to zero: infinitely far above it.
        shares = [values[metric] / limit for metric, limit in limits.items()]
    return np.asarray(np.maximum.reduce(shares), float)


def _end_of_feasible(
    replicas: Replicas, sizes: Sizes, limits: Mapping[str, float | Array], slots: Array, bisections: int
) -> Array:
    """The largest batch up to ``slots`` that holds the limits, by bisection of its logarithm (R, I, O).

    The end that meets the limits is returned, so that the remaining error of the search is on the safe side.
    """
    low, high = np.full_like(slots, np.log(IDLE_BATCH)), np.log(slots)
    is_within = largest_limit_share(replicas, sizes, limits, slots, slots) <= 1
    if is_within.all():
        return slots
    low = np.where(is_within, high, low)
    for _ in range(bisections):
        middle = (low + high) / 2
        is_within = largest_limit_share(replicas, sizes, limits, np.exp(middle), slots) <= 1
        low, high = np.where(is_within, middle, low), np.where(is_within, high, middle)
    return np.exp(low)
