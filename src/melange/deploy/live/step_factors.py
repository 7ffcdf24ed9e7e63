"""Learn step times relative to the plan from live traffic, route by them, and report missing or surplus replicas.

Every stream gives its replica's time per token at the number of requests in flight there. The logarithms are counted by
type and by requests in flight (in powers of the square root of two). The expected value at that load is the plan's step
time of the engine at the observed sizes; the mean difference of the logarithms gives the factor
(:func:`~melange.profile.observed.observed_factor`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from melange.deploy.addresses import known_types
from melange.deploy.live.counters import Counters
from melange.files import Json
from melange.plan.fleet import least_peak_shares
from melange.plan.load_points import in_flight_on
from melange.plan.problem import build
from melange.plan.servable import scope_of
from melange.profile.observed import LEAST_REQUESTS, StepFactor, observed_factor
from melange.replica.capacity import Sizes, mean_step_s, prompt_times_s, rate_within
from melange.replica.occupancy import largest_batch_of, replicas_like

if TYPE_CHECKING:
    from melange.plan.plan import Plan
    from melange.replica.engine import Engine
    from melange.workload.workload import Array

# Columns of the counter of steps: number of requests, and sums of the logarithm of requests in flight, of the logarithm
# of the time per token [s], and of its square.
COUNT, LOG_IN_FLIGHT, LOG_S, LOG_S_SQUARED = range(4)
# Shares are changed if the types' loads relative to the planned loads differ by more than this.
_UNEVEN = 0.05
# The fleet counts as short if the traffic needs more than this share of additional replicas.
_SHORT = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Replicas of a type that the live traffic needs at observed step times.

    Parameters
    ----------
    replica_type
        Name of the replica type.
    replicas
        Number of listed replicas.
    needed
        Number that the traffic needs, at the planned load per replica.
    """

    replica_type: str
    replicas: int
    needed: float


def live_factors(plan: Plan, counters: Counters) -> tuple[StepFactor, ...]:
    """The factor of each counted type of the plan with known step times, over the window."""
    steps, sizes = counters.window("steps"), counters.window("step_sizes")
    found = []
    for t, r in enumerate(known_types(plan)):
        engine = plan.question.profile.engines[r] if plan.question.profile.engines else None
        if engine is not None:
            found.append(_factor(plan, r, engine, steps[t], sizes[t]))
    return tuple(found)


def _factor(plan: Plan, r: int, engine: Engine, steps: Array, sizes: Array) -> StepFactor:
    counts = steps[:, COUNT]
    total = float(counts.sum())
    used = counts > 0
    log_in_flight, log_s, log_squared = (
        np.divide(steps[:, column], counts, out=np.zeros_like(counts), where=used)
        for column in (LOG_IN_FLIGHT, LOG_S, LOG_S_SQUARED)
    )
    ratio = np.zeros_like(counts)
    if total >= LEAST_REQUESTS:
        size = Sizes(inputs=_cell(sizes[1] / sizes[0]), outputs=_cell(max(sizes[2] / sizes[0], 2.0)))
        expected = {b: expected_step_s(engine, size, math.exp(log_in_flight[b])) for b in np.flatnonzero(used)}
        for b, step_s in expected.items():
            ratio[b] = log_s[b] - math.log(step_s)
    weight = counts / max(total, 1.0)
    mean = float((weight * ratio).sum())
    within = float((weight * np.maximum(log_squared - log_s**2, 0.0)).sum())
    return observed_factor(
        plan.replica_types[r].name,
        (engine.fast, engine.slow),
        requests=total,
        log_ratio=mean,
        log_variance=within + float((weight * (ratio - mean) ** 2).sum()),
        in_flight=math.exp(float((weight * log_in_flight).sum())),
        planned_in_flight=in_flight_on(plan, r) if plan.instances[r] else 1.0,
    )


def expected_step_s(engine: Engine, sizes: Sizes, in_flight: float) -> float:
    """Planned time per token with a number of requests of a size in flight, including their prompts [s]."""
    replicas = replicas_like(engine)
    most = float(largest_batch_of(engine, sizes)[0, 0, 0])
    outputs = float(sizes.outputs[0, 0, 0])
    batch = min(in_flight, max(most, 1.0))
    for _ in range(4):
        step_s = float(mean_step_s(replicas, sizes, _cell(batch))[0, 0, 0])
        own_s = float(prompt_times_s(replicas, sizes, _cell(batch))[0][0, 0, 0])
        batch = max(min(in_flight / (1 + own_s / (outputs * step_s)), max(most, 1.0)), 1.0)
    return step_s


def _cell(value: float) -> Array:
    return np.full((1, 1, 1), float(value))


def routed_plan(plan: Plan, factors: Mapping[str, float], counts: Mapping[str, int]) -> Plan:
    """The plan for routing: with rates at observed step times, and shares that fit these rates and the replicas.

    Parameters
    ----------
    plan
        The current plan.
    factors
        Observed over planned step time by replica type name.
    counts
        Number of replicas by replica type name.
    """
    profile = plan.question.profile
    names = [one.name for one in plan.replica_types]
    rates, engines = plan.question.at_confidence().profile.max_request_rate.copy(), list(profile.engines)
    for r, name in enumerate(names):
        engine, factor = engines[r] if engines else None, factors.get(name, 1.0)
        if engine is not None and factor != 1.0 and plan.slo is not None:
            rates[r] *= _speed(plan, engine, factor)
            engines[r] = engine.scaled(factor)
    question = replace(
        plan.question.with_options(confidence=None),
        profile=replace(profile, max_request_rate=rates, low=rates, high=rates, engines=tuple(engines)),
    )
    return replace(plan, question=question, share=_shares(plan, question.profile.max_request_rate, counts))


def _speed(plan: Plan, engine: Engine, factor: float) -> Array:
    """Rate with slower steps over the rate with the engine's own steps (I, O)."""
    assert plan.slo is not None
    sizes = Sizes(inputs=plan.workload.input_tokens[None], outputs=plan.workload.output_tokens[None])
    limits = plan.slo.limits
    before, after = (
        rate_within(replicas_like(one), sizes, limits, largest_batch_of(one, sizes))[0]
        for one in (engine, engine.scaled(factor))
    )
    # If no rate is left within the limits, requests are still routed there, at the rate of its steps.
    return np.asarray(np.where((before > 0) & (after > 0), after / np.maximum(before, 1e-12), 1.0 / factor))


def _shares(plan: Plan, rates: Array, counts: Mapping[str, int]) -> Array:
    """The plan's shares; if its types would be unevenly loaded at these rates, the shares with the lowest peak load."""
    count = np.array([float(counts.get(one.name, 0)) for one in plan.replica_types])
    planned = np.array([float(plan.replicas[one.name]) for one in plan.replica_types])
    traffic = plan.share * plan.workload.request_rate
    before, after = (
        np.divide(traffic, one, out=np.zeros_like(one), where=one > 0).sum(axis=(1, 2))
        for one in (plan.max_request_rate, rates)
    )
    used = (count > 0) & (before > 0)
    # Traffic that each type serves in the plan, in replicas, for the current number of replicas.
    carried = np.divide(before * count, planned, out=np.zeros_like(before), where=planned > 0)
    strain = after[used] / carried[used]
    if len(strain) < 2 or strain.max() - strain.min() <= _UNEVEN * strain.max():
        return plan.share
    question = replace(plan.question, profile=replace(plan.question.profile, max_request_rate=rates))
    scope = scope_of(question.with_options(confidence=None))
    problem = build(question.with_options(confidence=None), scope.allowed, scope.served, availability=False)
    found = least_peak_shares(problem, carried[problem.types])
    if found is None:
        return plan.share
    share = np.zeros_like(plan.share).reshape(len(count), -1)
    share[np.ix_(problem.types, np.flatnonzero(scope.served))] = found[0]
    whole = plan.share.sum(axis=0)
    return np.asarray(share.reshape(plan.share.shape) * whole)


def standings(plan: Plan, routed: Plan, load: Array, counts: Mapping[str, int]) -> tuple[Standing, ...]:
    """Replicas of each counted type that the live traffic needs; ``load`` is in replicas at the plan's rates (T,)."""
    found = []
    for t, r in enumerate(known_types(plan)):
        before, after = plan.max_request_rate[r], routed.max_request_rate[r]
        traffic = plan.workload.request_rate * plan.share[r]
        work = [float(np.divide(traffic, one, out=np.zeros_like(one), where=one > 0).sum()) for one in (before, after)]
        slower = work[1] / work[0] if work[0] > 0 else 1.0
        kept = float(plan.load[r]) or 1.0
        name = plan.replica_types[r].name
        found.append(Standing(replica_type=name, replicas=counts.get(name, 0), needed=float(load[t]) * slower / kept))
    return tuple(found)


def verdict(found: tuple[Standing, ...], cost_by_name: Mapping[str, float]) -> tuple[str, str]:
    """``short``, ``surplus`` or ``enough``, by the cost of replicas over all types, and a sentence."""
    have = sum(one.replicas * cost_by_name[one.replica_type] for one in found)
    needed = sum(one.needed * cost_by_name[one.replica_type] for one in found)
    told = ", ".join(f"{one.needed:.1f} of {one.replicas} x {one.replica_type}" for one in found)
    if needed > have * (1 + _SHORT):
        return "short", f"the traffic needs {needed / max(have, 1e-9) - 1:.0%} more than is rented: {told}"
    spare = [one for one in found if one.replicas and have - needed >= cost_by_name[one.replica_type]]
    if spare:
        most = max(spare, key=lambda one: (one.replicas - one.needed) * cost_by_name[one.replica_type])
        return "surplus", f"at least one replica of {most.replica_type} could be released: {told}"
    return "enough", f"the traffic needs {told}"


def factors_document(factors: tuple[StepFactor, ...], found: tuple[Standing, ...], said: tuple[str, str]) -> Json:
    """The document for ``melange plan --observed``, with missing or surplus replicas."""
    return {
        "factors": [one.to_json() for one in factors],
        "state": said[0],
        "message": said[1],
        "needed": {one.replica_type: one.needed for one in found},
        "replicas": {one.replica_type: one.replicas for one in found},
    }
