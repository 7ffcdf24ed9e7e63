"""Occupancy of a replica: requests in flight at a given rate, and the share of a replica that one request occupies."""

from __future__ import annotations

import math
from functools import lru_cache, partial

import numpy as np

from melange.replica.capacity import Replicas, Sizes, batch_within, mean_step_s, prompt_times_s
from melange.replica.engine import Engine
from melange.replica.memory import held_in
from melange.slo import Slo
from melange.workload.workload import Array, Workload

# Lower bound of the search for the number of running requests at a rate.
_LEAST_RUNNING = 1e-3
# Halvings of log B up to the largest batch: the batch size is then known to a relative precision of 2e-11.
_BISECTIONS = 40


def parts_of(engine: Engine | None, rate: Array, slo: Slo | None, sizes: Sizes) -> Array:
    """Share of a replica that one request of each bucket occupies while it runs (I, O), 0-1.

    One over the requests in flight at the maximum rate, which by Little's law are ``rate (prompt + o step)``; without
    an engine, ``rate`` times the longest residence that the SLO allows. 1 if the replica cannot serve the bucket.
    """
    if engine is None:
        in_flight = rate * _longest_stay_s(slo, sizes)[0]
    else:
        cached = np.broadcast_to(np.asarray(sizes.cached, float), sizes.inputs.shape)
        in_flight = _in_flight(engine, *map(_flat, (rate, sizes.inputs, sizes.outputs, cached)))
        in_flight = in_flight.reshape(rate.shape)
    return np.where(rate > 0, 1.0 / np.maximum(in_flight, 1.0), 1.0)


def _flat(table: Array) -> tuple[float, ...]:
    return tuple(table.ravel().tolist())


@lru_cache(maxsize=256)  # a certificate simulates hundreds of plans with the same types
def _in_flight(
    engine: Engine,
    rate: tuple[float, ...],
    inputs: tuple[float, ...],
    outputs: tuple[float, ...],
    cached: tuple[float, ...],
) -> Array:
    """Requests in flight at each of several rates (M,)."""
    sizes = Sizes(inputs=np.array([[inputs]]), outputs=np.array([[outputs]]), cached=np.array([[cached]]))
    sizes = sizes.kept(engine.prefix_kept)
    return running_at(engine, sizes, np.array([[rate]])).ravel()


def _longest_stay_s(slo: Slo | None, sizes: Sizes) -> Array:
    """The longest residence of a request within the SLO (1, I, O) [s]; a second per token if no limit bounds it."""
    stay_s = None if slo is None else slo.longest_stay_s(sizes.outputs)
    return sizes.outputs if stay_s is None else stay_s


def sizes_of(workload: Workload) -> Sizes:
    """The sizes of a workload's buckets, with the prompt tokens that an unlimited prefix cache would hold (1, I, O)."""
    inputs, outputs = workload.input_tokens[None], workload.output_tokens[None]
    reuse = workload.prefix_reuse
    if reuse is None:
        return Sizes(inputs=inputs, outputs=outputs)
    cached = np.minimum(inputs * reuse.reusable_share[None, :, None], inputs - 1.0)
    return Sizes(inputs=inputs, outputs=outputs, cached=cached)


def replicas_like(engine: Engine) -> Replicas:
    """One engine as input of the closed form (1, 1, 1)."""
    return Replicas(
        cost=engine.cost,
        kv_tokens=np.full((1, 1, 1), engine.kv_tokens),
        max_sequences=np.full((1, 1, 1), float(engine.max_sequences)),
        max_batched_tokens=np.full((1, 1, 1), float(engine.max_batched_tokens)),
        block_tokens=engine.block_tokens,
        is_chunked=engine.is_chunked,
        max_context=engine.max_context,
        kv_parts=float(engine.kv_parts),
        is_fully_reserved=engine.is_fully_reserved,
    )


def largest_batch_of(engine: Engine, sizes: Sizes) -> Array:
    """Most running requests of an engine on average (1, I, O), as :func:`~melange.replica.capacity.largest_batch`."""
    layers = (engine.full_layers, engine.sliding_layers, engine.window)
    resident = partial(held_in, *layers, state_units=engine.state_units)
    return batch_within(replicas_like(engine), sizes, resident)


def running_at(engine: Engine, sizes: Sizes, rate: Array) -> Array:
    """Requests in flight at a rate (1, I, O), prefill included; bisection on log B in ``B = rate o step(B)``.

    At most as many run as the engine has seats and memory for, also at a rate that is more than it can serve. Where
    memory is estimated to hold no request but a rate was measured, seats alone limit them.
    """
    replicas, most = replicas_like(engine), largest_batch_of(engine, sizes)
    low = np.full_like(rate, math.log(_LEAST_RUNNING))
    high = np.log(np.where(most > 0, np.maximum(most, 1.0), engine.max_sequences))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        batch = np.exp(middle)
        is_enough = batch >= rate * sizes.outputs * mean_step_s(replicas, sizes, batch)
        low, high = np.where(is_enough, low, middle), np.where(is_enough, middle, high)
    batch = np.exp(high)
    own_s, _ = prompt_times_s(replicas, sizes, batch)
    return np.asarray(batch + rate * own_s)
