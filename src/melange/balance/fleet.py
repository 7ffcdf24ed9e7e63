"""From a plan to what a balancer knows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from melange.balance.policy import Fleet
from melange.errors import InputError
from melange.profile.capacity import Replicas, Sizes, mean_step_s, prompt_times_s
from melange.workload.workload import Array

if TYPE_CHECKING:
    from melange.plan.plan import Plan
    from melange.profile.engine import Engine
    from melange.slo import Slo

# How many completions the plan's own traffic counts for, until real ones are seen.
PRIOR_COMPLETIONS = 200.0
# Requests that no replica is assumed to exceed in the search for how many run at a rate.
MOST_RUNNING = 1e5
BISECTIONS = 40


def fleet_of(plan: Plan, counts: Mapping[str, int] | None = None, kind: Literal["lists", "arrays"] = "lists") -> Fleet:
    """The fleet of a plan, nothing sent yet.

    Parameters
    ----------
    plan
        With the rates that it was made for.
    counts
        Replicas by replica type name; None: those of the plan.
    kind
        ``lists`` for the live balancer, ``arrays`` for the simulator.

    Raises
    ------
    InputError
        A plan without replicas, or whose file holds no rates; a type that the plan does not have.
    """
    replicas = dict(plan.replicas if counts is None else counts)
    names = [one.name for one in plan.replica_types]
    if foreign := sorted(set(replicas) - set(names)):
        raise InputError(f"replica types {', '.join(foreign)} are not in the plan", hint=f"it has {', '.join(names)}")
    used = [r for r, name in enumerate(names) if replicas.get(name, 0) > 0]
    if not used:
        raise InputError("plan: no replicas to send requests to")
    if not plan.max_request_rate[used].any():
        raise InputError("plan: it does not say what its replicas carry", hint="make it again: melange plan --out")
    engines = [plan.engines[r] for r in used]
    share, rate = plan.share[used], plan.max_request_rate[used]
    part = np.stack([parts_of(engine, one, plan) for engine, one in zip(engines, rate, strict=True)])
    traffic = plan.workload.request_rate / plan.workload.total_rate * PRIOR_COMPLETIONS
    tables = {
        "type_of": np.repeat(np.arange(len(used)), [replicas[names[r]] for r in used]),
        "input_edges": np.asarray(plan.workload.buckets.input_edges, float),
        "output_edges": np.asarray(plan.workload.buckets.output_edges, float),
        "share": share.ravel(),
        "part": part.ravel(),
        "rate": rate.ravel(),
        "completions": traffic.ravel(),
        "seen": traffic.sum(axis=1),
        "output_sum": (traffic * plan.workload.output_tokens).sum(axis=1),
    }
    count = len(tables["type_of"])
    tables |= {
        "is_up": np.ones(count, np.int64),
        "outstanding": np.zeros(count, np.int64),
        "fill": np.zeros(count),
        "credit": np.zeros(len(traffic) * len(used)),
        # So that the first in turn is the first of each type.
        "turn": np.full(len(used) + 1, count - 1, np.int64),
    }
    if kind == "arrays":
        return Fleet(**{name: np.array(values) for name, values in tables.items()})
    return Fleet(**{name: values.tolist() for name, values in tables.items()})


def types_of(plan: Plan, counts: Mapping[str, int] | None = None) -> list[int]:
    """Place in ``plan.replica_types`` of each of the fleet's types (T)."""
    replicas = plan.replicas if counts is None else counts
    return [r for r, one in enumerate(plan.replica_types) if replicas.get(one.name, 0) > 0]


def parts_of(engine: Engine | None, rate: Array, plan: Plan) -> Array:
    """Part of a replica that one request of each bucket occupies while it runs (I, O), 0-1.

    One over the requests in flight at the maximum rate, which by Little's law are ``rate (prompt + o step)``; without
    an engine, ``rate`` times the longest residence that the SLO allows. 1 where the replica cannot serve the bucket.
    """
    if engine is None:
        sizes = Sizes(inputs=plan.workload.input_tokens[None], outputs=plan.workload.output_tokens[None])
        in_flight = rate * longest_stay_s(plan.slo, sizes)[0]
    else:
        in_flight = _in_flight(engine, *map(_flat, (rate, plan.workload.input_tokens, plan.workload.output_tokens)))
        in_flight = in_flight.reshape(rate.shape)
    return np.where(rate > 0, 1.0 / np.maximum(in_flight, 1.0), 1.0)


def _flat(table: Array) -> tuple[float, ...]:
    return tuple(table.ravel().tolist())


@lru_cache(maxsize=256)  # a certificate simulates hundreds of plans of the same types
def _in_flight(engine: Engine, rate: tuple[float, ...], inputs: tuple[float, ...], outputs: tuple[float, ...]) -> Array:
    """Requests in flight at each of some rates (M,)."""
    sizes = Sizes(inputs=np.array([[inputs]]), outputs=np.array([[outputs]]))
    return running_at(replicas_like(engine), sizes, np.array([[rate]])).ravel()


def longest_stay_s(slo: Slo | None, sizes: Sizes) -> Array:
    """The longest that a request may stay within the SLO (1, I, O) [s]; a second a token where nothing is said."""
    if slo is None:
        return sizes.outputs
    limits = slo.limits
    stays = [sizes.outputs * limits[name] for name in ("tpot", "ntpot") if name in limits]
    stays += [np.full_like(sizes.outputs, limits["latency"])] if "latency" in limits else []
    return np.minimum.reduce(stays) if stays else sizes.outputs * limits["ttft"]


def replicas_like(engine: Engine) -> Replicas:
    """One engine as the closed form has it (1, 1, 1)."""
    return Replicas(
        cost=engine.cost,
        kv_tokens=np.full((1, 1, 1), engine.kv_tokens),
        max_sequences=np.full((1, 1, 1), float(engine.max_sequences)),
        max_batched_tokens=np.full((1, 1, 1), float(engine.max_batched_tokens)),
        block_tokens=engine.block_tokens,
        is_chunked=engine.is_chunked,
        max_context=engine.max_context,
        is_fully_reserved=engine.is_fully_reserved,
    )


def running_at(replicas: Replicas, sizes: Sizes, rate: Array) -> Array:
    """Requests in flight at a rate (1, I, O), their prompts included; bisection of log B in ``B = rate o step(B)``."""
    low, high = np.full_like(rate, math.log(1e-3)), np.full_like(rate, math.log(MOST_RUNNING))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        batch = np.exp(middle)
        is_enough = batch >= rate * sizes.outputs * mean_step_s(replicas, sizes, batch)
        low, high = np.where(is_enough, low, middle), np.where(is_enough, middle, high)
    batch = np.exp(high)
    own_s, _ = prompt_times_s(replicas, sizes, batch)
    return np.asarray(batch + rate * own_s)


def replica_engines(plan: Plan, used: Sequence[int]) -> list[Engine]:
    """The engines of the plan's used types.

    Raises
    ------
    InputError
        A type whose steps are not known.
    """
    engines = []
    for r in used:
        engine = plan.engines[r]
        if engine is None:
            raise InputError(
                f"{plan.replica_types[r].name}: nothing is known of its steps, so it cannot be simulated",
                hint="profile with a model (profile: {source: [measured.json, estimate]}) and plan again",
            )
        engines.append(engine)
    return engines
