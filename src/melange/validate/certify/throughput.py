"""Whether a fleet keeps up with its traffic: what its replicas complete while more arrives than they can take.

With loose limits a fleet may fall behind for hours before a request is late, and a run that is long enough to see that
takes minutes. Throughput shows it at once: under twice the traffic every replica is full, and completes as much as it
can. A fleet that needs more than that for its own traffic falls behind, or does not recover from a backlog.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.plan.routing import types_of
from melange.replica.capacity import Sizes, rate_within
from melange.replica.occupancy import largest_batch_of, replicas_like, sizes_of
from melange.replica.policy import FOLLOWING_SHARES
from melange.validate.certify.spare import without_spare
from melange.validate.observe import type_of_requests
from melange.validate.simulate import Run, simulate
from melange.workload.arrivals import Arrivals
from melange.workload.workload import Array, Mask

# Types whose summed loads at full throughput are below this keep up without a simulation: sums promise up to 46 % that
# is not there (docs/proof.md).
_SURELY_KEEPS_UP = 0.5
# Factor on the traffic with which replicas are full.
_OVERLOAD = 2.0
# Most replicas that are simulated, of all types: what one replica completes does not depend on their number.
_REPLICAS = 12
# Requests per replica, in full batches: half of them fill it, and half of the others are completed; then the least and
# the most requests in total. Throughput is then known to 1 % (A100, arena, 60 ms of CPU; half as many: 2.5 %).
_BATCHES, _LEAST_REQUESTS, _MOST_REQUESTS = 24.0, 40_000, 200_000
# Least prompts from a size on: fewer do not show how fast they are completed (to 2 %). Chosen by judgment.
_LEAST_LONG = 2_000
# A limit that no request comes near [s].
ANY_S = 1e9
# Number of the requests: no other requests are drawn with it.
_NUMBER = 500


def most_used(plan: Plan, full: Array, arrivals: Callable[[int, int], Arrivals], policy: str) -> Array:
    """As :func:`used_throughput` (R,); with spare replicas, for what is left of the plan without them."""
    found = [used_throughput(plan, full, arrivals, policy, counts) for counts in without_spare(plan)]
    return np.asarray(np.max(found, axis=0))


def used_throughput(
    plan: Plan,
    full: Array,
    arrivals: Callable[[int, int], Arrivals],
    policy: str,
    counts: Mapping[str, int] | None = None,
) -> Array:
    """The part of the throughput of each type's replicas that the traffic needs (R,); 1: all of it.

    Parameters
    ----------
    plan
        The fleet, and the routing of requests.
    full
        Rates at full throughput (R, I, O) [1/s], see :func:`at_full_throughput`.
    arrivals
        Makes the requests of a run from its number, at the rate of the traffic.
    policy
        How requests are balanced.
    counts
        Replicas by replica type name; None: the plan's.

    Returns
    -------
    Array
        By simulation for types that may lack throughput; by the sum of their loads for the other types.
    """
    replicas = plan.replicas if counts is None else counts
    rate = plan.share * plan.workload.request_rate
    work = np.divide(rate, full, out=np.zeros_like(rate), where=full > 0).sum(axis=(1, 2))
    held = np.array([float(replicas.get(one.name, 0)) for one in plan.replica_types])
    used: Array = np.divide(work, held, out=np.zeros_like(work), where=held > 0)
    short = np.flatnonzero(used >= _SURELY_KEEPS_UP)
    if not len(short):
        return used
    part = min(1.0, _REPLICAS / held.sum())
    fewer = {plan.replica_types[r].name: math.ceil(held[r] * part) for r in np.flatnonzero(held)}
    kept = np.array([float(fewer.get(one.name, 0)) for one in plan.replica_types])
    came = rate.sum(axis=(1, 2)) / rate.sum()
    needed = max(_BATCHES * _batch_of(plan, int(r), rate[r]) * kept[r] / came[r] for r in short)
    drawn = arrivals(int(np.clip(needed, _LEAST_REQUESTS, _MOST_REQUESTS)), _NUMBER)
    scale = _OVERLOAD * float((kept[short] / held[short]).max())
    run = simulate(plan, drawn.at_rate(drawn.rate * scale), policy=policy, counts=fewer, in_order=True)
    until = float(run.outcome.arrival_s[-1])
    is_counted = (run.outcome.finish_s >= until / 2) & (run.outcome.finish_s <= until)
    place_of = type_of_requests(run)
    planned, spilled = used.copy(), used.copy()
    for t, r in enumerate(types_of(plan, fewer)):
        if r not in short:
            continue
        completed = np.count_nonzero(is_counted & (place_of == t)) / (until / 2) * held[r] / kept[r]
        for table, share in ((planned, came[r]), (spilled, np.count_nonzero(place_of == t) / len(drawn))):
            table[r] = share * drawn.rate / completed if completed > 0 else math.inf
    # A full type sends to others what it cannot take. So a fleet keeps up if it does with the plan's shares, with the
    # shares of full types, or by its total throughput. The plan's shares mean nothing to policies that do not follow
    # them.
    together = np.where(held > 0, _used_together(run, drawn.rate, held, kept, is_counted, until), 0.0)
    tables = [spilled, together, *([planned] if policy in FOLLOWING_SHARES else [])]
    return min(tables, key=lambda table: float(table.max()))


def _used_together(run: Run, rate: float, held: Array, kept: Array, is_counted: Mask, until: float) -> float:
    """The part of a whole fleet's throughput that its traffic needs, for the prompts with the largest part.

    It checks all prompts, and the prompts from each size on, which some types may not take: a fleet that completes
    enough requests does not keep up if most of them are short and the long ones wait.

    Parameters
    ----------
    run
        A run of a part of the fleet, under more traffic than it completes.
    rate
        Rate of the fleet's traffic [1/s].
    held, kept
        Replicas of each type in the fleet, and in the run (R,).
    is_counted
        The requests that were completed in the last half of the run (N,).
    until
        Arrival of the last request [s].
    """
    times = (held / np.maximum(kept, 1.0))[list(run.types)]
    times = np.append(times, 0.0)[type_of_requests(run)]  # index -1 is the last entry
    prompts = run.outcome.input_tokens
    most = 0.0
    for edge in (0, *run.plan.workload.buckets.input_edges[:-1]):
        longer = prompts > edge
        came = np.count_nonzero(longer)
        if came < _LEAST_LONG:
            break
        completed = float(times[is_counted & longer].sum()) / (until / 2)
        most = max(most, rate * came / len(prompts) / completed if completed > 0 else math.inf)
    return most


def _batch_of(plan: Plan, place: int, rate: Array) -> float:
    """Requests in a full batch of a replica of a type that serves some rates (I, O)."""
    engine, total = plan.engines[place], rate.sum()
    assert engine is not None
    means = [
        np.full((1, 1, 1), (rate * sizes).sum() / total)
        for sizes in (plan.workload.input_tokens, plan.workload.output_tokens)
    ]
    return float(largest_batch_of(engine, Sizes(inputs=means[0], outputs=means[1])).max())


def at_full_throughput(question: Question) -> Question:
    """The question with the rates of types without limits on request times: what they keep up with."""
    profile = question.profile
    rates = np.maximum(profile.max_request_rate, rates_under(question, {"latency": ANY_S}))
    profile = replace(
        profile, max_request_rate=rates, low=np.minimum(profile.low, rates), high=np.maximum(profile.high, rates)
    )
    return replace(question, profile=profile)


def rates_under(question: Question, limits: Mapping[str, float | Array]) -> Array:
    """Rates of each type by closed form under some limits (R, I, O) [1/s]; 0 if its steps are unknown.

    Parameters
    ----------
    question
        The question to plan for.
    limits
        Limits by metric [s]; limits that differ by size as (1, I, O).
    """
    profile, workload = question.profile, question.workload
    sizes = sizes_of(workload)
    rate_of = {
        engine: rate_within(replicas_like(engine), kept, limits, largest_batch_of(engine, kept))[0]
        for engine in dict.fromkeys(profile.engines)
        if engine is not None
        for kept in (sizes.kept(engine.prefix_kept),)
    }
    rates = np.zeros(profile.max_request_rate.shape)
    for r, engine in enumerate(profile.engines):
        if engine is not None:
            rates[r] = rate_of[engine]
    return rates
