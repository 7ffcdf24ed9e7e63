"""Judges a plan on requests that no planner has seen: Poisson arrivals, all traffic of the service, every limit."""

from __future__ import annotations

import math
from dataclasses import dataclass

from melange.plan.plan import Plan
from melange.replica.policy import POLICIES
from melange.slo import Slo
from melange.validate.attainment import Interval, attainment, met
from melange.validate.simulate import simulate, within_context
from melange.workload.arrivals import draw
from melange.workload.workload import Mask, Workload

# Certificates draw from seeds up to some hundreds, and bench/certify.py from a million on.
FRESH_SEED = 7_000_000
LEAST_REQUESTS, LONG, MOST_REQUESTS = 20_000, 200_000, 1_000_000
# The interval is to be this part of the misses that the target allows, at most.
PART_OF_MISSES = 0.25
# Runs more where one leaves open which side of the target a plan is on.
MORE = 5
# A run lasts this many times as long as a request may stay, and its first tenth is not counted: the fleet is full then.
STAYS = 20.0
SLOWDOWNS = (1.1, 1.25, 1.5)


@dataclass(frozen=True)
class Verdict:
    """Share of requests that met every limit, with its 95 % interval, and the same share where steps are slower."""

    attainment: float
    low: float
    high: float
    requests: int
    stress: dict[str, float]


def verdict(plan: Plan, workload: Workload, slo: Slo, target: float) -> Verdict:
    """What fresh requests say of a plan of a service."""
    held, count = measured(plan, workload, slo, target, FRESH_SEED)
    first = requests_of(workload, slo)
    stress = {f"{one:g}": run(plan, workload, slo, first, FRESH_SEED, one).value for one in SLOWDOWNS}
    return Verdict(attainment=held.value, low=held.low, high=held.high, requests=count, stress=stress)


def measured(plan: Plan, workload: Workload, slo: Slo, target: float, seed: int) -> tuple[Interval, int]:
    """Attainment, by as many requests as make its interval narrow enough, and how many those were.

    Where the target lies inside the interval all the same, by five more runs of as many; a plan that surely misses it
    is not told more exactly.
    """
    count = requests_of(workload, slo)
    held = run(plan, workload, slo, count, seed)
    is_wide = held.high - held.low > 2 * PART_OF_MISSES * (1 - target)
    if held.high >= target and (is_wide or held.low < target) and count < LONG:
        count = LONG  # one long run: two would have two spreads only to judge by
        held = run(plan, workload, slo, count, seed + 1)
    if held.low < target <= held.high:
        runs = [samples(plan, workload, slo, count, seed + number) for number in range(2, 2 + MORE)]
        held, count = attainment(runs), MORE * count
    return held, count


def run(plan: Plan, workload: Workload, slo: Slo, count: int, seed: int, slowdown: float = 1.0) -> Interval:
    """Attainment over one simulation, under the plan's own policy."""
    return attainment([samples(plan, workload, slo, count, seed, slowdown)])


def samples(plan: Plan, workload: Workload, slo: Slo, count: int, seed: int, slowdown: float = 1.0) -> Mask:
    """Whether each counted request of a simulation met the SLO."""
    arrivals = draw(workload, count, seed=seed)
    longest = max(engine.max_context for engine in plan.engines if engine)
    policy = plan.certificate.policy if plan.certificate else POLICIES[0]
    played = simulate(plan, within_context(arrivals, longest), policy=policy, seed=seed, slowdown=slowdown)
    return met(played.outcome, slo)[played.counted]


def requests_of(workload: Workload, slo: Slo) -> int:
    """Requests of a first run: long enough for the fleet to fill."""
    weight = workload.request_rate / workload.total_rate
    outputs = float((weight * workload.output_tokens).sum())
    stays = {"latency": 1.0, "ntpot": outputs, "tpot": outputs}
    stay_s = min(slo.limits[metric] * times for metric, times in stays.items() if metric in slo.limits)
    return min(max(LEAST_REQUESTS, math.ceil(STAYS * stay_s * workload.total_rate)), MOST_REQUESTS)
