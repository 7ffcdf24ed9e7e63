"""Test a plan on requests that no planner has used: Poisson arrivals, all traffic of the service, every limit."""

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
# Maximum half-width of the interval, as a share of the misses that the target allows.
PART_OF_MISSES = 0.25
# Number of additional runs if the interval of one run contains the target.
MORE = 5
# A run lasts this multiple of the longest allowed stay of a request; its first tenth, in which the fleet fills, is not
# counted.
STAYS = 20.0
SLOWDOWNS = (1.1, 1.25, 1.5)


@dataclass(frozen=True)
class Verdict:
    """Share of requests that meet every limit, with its 95 % interval, and the same share with slower steps."""

    attainment: float
    low: float
    high: float
    requests: int
    stress: dict[str, float]


def verdict(plan: Plan, workload: Workload, slo: Slo, target: float) -> Verdict:
    """The result of a plan on fresh requests."""
    held, count = measured(plan, workload, slo, target, FRESH_SEED)
    first = requests_of(workload, slo)
    stress = {f"{one:g}": run(plan, workload, slo, first, FRESH_SEED, one).value for one in SLOWDOWNS}
    return Verdict(attainment=held.value, low=held.low, high=held.high, requests=count, stress=stress)


def measured(plan: Plan, workload: Workload, slo: Slo, target: float, seed: int) -> tuple[Interval, int]:
    """Attainment from enough requests for a narrow interval, and their number.

    If the interval still contains the target, five more runs of the same length are made; a plan that clearly misses
    the target is not measured more precisely.
    """
    count = requests_of(workload, slo)
    held = run(plan, workload, slo, count, seed)
    is_wide = held.high - held.low > 2 * PART_OF_MISSES * (1 - target)
    if held.high >= target and (is_wide or held.low < target) and count < LONG:
        count = LONG  # one long run, since two runs would give only two values for the interval
        held = run(plan, workload, slo, count, seed + 1)
    if held.low < target <= held.high:
        runs = [samples(plan, workload, slo, count, seed + number) for number in range(2, 2 + MORE)]
        held, count = attainment(runs), MORE * count
    return held, count


def run(plan: Plan, workload: Workload, slo: Slo, count: int, seed: int, slowdown: float = 1.0) -> Interval:
    """Attainment in one simulation with the plan's own policy."""
    return attainment([samples(plan, workload, slo, count, seed, slowdown)])


def samples(plan: Plan, workload: Workload, slo: Slo, count: int, seed: int, slowdown: float = 1.0) -> Mask:
    """Whether each counted request of a simulation meets the SLO."""
    arrivals = draw(workload, count, seed=seed)
    longest = max(engine.max_context for engine in plan.engines if engine)
    policy = plan.certificate.policy if plan.certificate else POLICIES[0]
    played = simulate(plan, within_context(arrivals, longest), policy=policy, seed=seed, slowdown=slowdown)
    return met(played.outcome, slo)[played.counted]


def requests_of(workload: Workload, slo: Slo) -> int:
    """Number of requests of the first run, which is long enough for the fleet to fill."""
    weight = workload.request_rate / workload.total_rate
    outputs = float((weight * workload.output_tokens).sum())
    stays = {"latency": 1.0, "ntpot": outputs, "tpot": outputs}
    stay_s = min(slo.limits[metric] * times for metric, times in stays.items() if metric in slo.limits)
    return min(max(LEAST_REQUESTS, math.ceil(STAYS * stay_s * workload.total_rate)), MOST_REQUESTS)
