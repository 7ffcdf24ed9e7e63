"""Shortage and regret of fleets planned from estimates, from a few measurements, and from live factors.

Every case of bench/regret.py is planned by closed form with the default headroom from held-out estimates. The fleet
then serves the traffic with measured capacities, which also determine the routing. A fleet is *short* if it cannot
carry the traffic; *traffic short* is the share that it cannot carry, from its load above 1. *Regret* is the cost of the
fleet, including the instances that it lacks for the same headroom, over that of the best plan with measured capacities,
minus 1.

*Measurements* are one figure for each used type, at the sizes that it serves, which corrects all capacities of the
type. *Live factors* are the same for all types of the first fleet at once. Both have errors of a few percent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from melange.errors import InfeasibleError
from melange.plan.confidence import quantile_of
from melange.plan.fleet import least_peak_shares
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.problem import build
from melange.plan.servable import scope_of
from melange.plan.solve import solve
from melange.replica.spread import spread
from pages import percent, table
from regret import INSTANCES_PER_CASE, REPLICAS, Case, question_of

Array = npt.NDArray[np.float64]

# Standard deviation of the logarithm of a capacity: of an estimate (from the source, and from the residuals of eras),
# and of one corrected by a figure of its type (remaining differences by size), as in docs/anchors.md.
SOURCE, OWN = spread().common, 0.12
ESTIMATED, CORRECTED = math.hypot(SOURCE, OWN), 0.07
# Standard deviation of the error of a load test, and of an hour of live traffic.
TEST_NOISE, LIVE_NOISE = 0.02, 0.03
MEASUREMENTS, CONFIDENCE = 3, 0.8
# Peak load above which a fleet counts as short: the gap to which plans are solved.
FULL = 1.001


@dataclass(slots=True, kw_only=True)
class Known:
    """Estimated capacities (R, B) [1/s], and the standard deviation of their logarithm by type (R,).

    ``seen``: logarithm of measured over estimated step time of the measured types.
    """

    rate: Array
    deviation: Array
    seen: Mapping[int, float] = field(default_factory=dict)

    def at(self, confidence: float) -> Array:
        """Capacities at a confidence."""
        return self.rate * np.exp(-quantile_of(confidence) * self.deviation)[:, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A fleet with measured capacities: its regret, including the instances that it lacks, and its peak load."""

    regret: float
    peak: float
    measurements: int = 0


def first(case: Case) -> Known:
    """Capacities from estimates alone."""
    rate = np.where(case.measured > 0, case.estimated, 0.0)
    return Known(rate=rate, deviation=np.full(len(rate), ESTIMATED))


def planned(case: Case, rate: Array, capacity: Array) -> Plan | None:
    """The cheapest plan with the default headroom."""
    try:
        return solve(question_of(case, rate, capacity, Options()))
    except InfeasibleError:
        return None


def corrected(case: Case, known: Known, plan: Plan, r: int, noise: float, random: np.random.Generator) -> Known:
    """Capacities after a measurement of one type at the sizes that it serves; others change by the common error."""
    work = plan.share[r, :, 0] * plan.workload.request_rate[:, 0]
    estimate = first(case)
    able = (case.measured[r] > 0) & (estimate.rate[r] > 0) & (work > 0)
    told, true = (float((work[able] / one[r][able]).sum()) for one in (estimate.rate, case.measured))
    seen = {**known.seen, r: math.log(true / told) + noise * random.standard_normal()}
    own = OWN**2 + noise**2
    precision = 1 / SOURCE**2 + len(seen) / own
    common = sum(seen.values()) / own / precision
    rate, deviation = estimate.rate.copy(), estimate.deviation.copy()
    for other in range(len(rate)):
        # Longer step times mean lower capacities.
        rate[other] *= math.exp(-seen.get(other, common))
        deviation[other] = math.hypot(CORRECTED, noise) if other in seen else math.sqrt(OWN**2 + 1 / precision)
    return Known(rate=rate, deviation=deviation, seen=seen)


def alone(case: Case, rate: Array, confidence: float) -> tuple[Plan | None, int]:
    """The plan from estimates alone."""
    return planned(case, rate, first(case).at(confidence)), 0


def measured(case: Case, rate: Array, confidence: float, random: np.random.Generator) -> tuple[Plan | None, int]:
    """The plan after a few measurements, each of the most expensive part of the fleet that was not measured yet."""
    known, done = first(case), set[int]()
    for _ in range(MEASUREMENTS):
        plan = planned(case, rate, known.at(confidence))
        if plan is None:
            return None, len(done)
        cost = plan.instances * case.cost_per_h
        left = [r for r in np.argsort(-cost).tolist() if cost[r] > 0 and r not in done]
        if not left:
            break
        known = corrected(case, known, plan, left[0], TEST_NOISE, random)
        done.add(left[0])
    return planned(case, rate, known.at(confidence)), len(done)


def live(case: Case, rate: Array, confidence: float, random: np.random.Generator) -> tuple[Plan | None, int]:
    """The plan after an hour, with the live factors of all types of the first fleet."""
    known = first(case)
    plan = planned(case, rate, known.at(0.5))
    if plan is None:
        return None, 0
    used = np.flatnonzero(plan.instances).tolist()
    for r in used:
        known = corrected(case, known, plan, r, LIVE_NOISE, random)
    return planned(case, rate, known.at(confidence)), len(used)


def on_measured(case: Case, rate: Array, best_per_h: float, plan: Plan) -> Fleet | None:
    """The result of a fleet with measured capacities."""
    asked = question_of(case, rate, case.measured, Options(headroom=0.0))
    scope = scope_of(asked)
    problem = build(asked, scope.allowed, scope.served)
    found = least_peak_shares(problem, plan.instances.astype(float)[problem.types])
    peak = math.inf if found is None else found[1]
    cost = float(plan.instances @ case.cost_per_h)
    if peak > FULL * (1 - Options().headroom):
        names = [one.name for one in plan.replica_types]
        rented = {names[r]: int(plan.instances[r]) for r in np.flatnonzero(plan.instances)}
        try:
            cost = solve(replace(asked, options=Options(require=tuple(rented), min_replicas=rented))).cost_per_h
        except InfeasibleError:
            return None
    return Fleet(regret=cost / best_per_h - 1, peak=peak)


def fleets(cases: Sequence[Case], seed: int = 7) -> Mapping[str, list[Fleet]]:
    """Fleets by available information."""
    random, noise = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    half, most = 0.5, CONFIDENCE
    ways: dict[str, Callable[[Case, Array], tuple[Plan | None, int]]] = {
        "estimates alone": lambda case, rate: alone(case, rate, half),
        f"estimates, confidence {most:g}": lambda case, rate: alone(case, rate, most),
        "after three measurements": lambda case, rate: measured(case, rate, half, noise),
        f"after three measurements, confidence {most:g}": lambda case, rate: measured(case, rate, most, noise),
        "after one hour of live factors": lambda case, rate: live(case, rate, half, noise),
        f"after one hour of live factors, confidence {most:g}": lambda case, rate: live(case, rate, most, noise),
    }
    found: dict[str, list[Fleet]] = {name: [] for name in ways}
    for case in cases:
        for _ in range(INSTANCES_PER_CASE):
            shares = random.dirichlet(np.ones(case.measured.shape[1]))
            replicas = math.exp(random.uniform(*np.log(REPLICAS)))
            rate = shares * replicas / float((shares / case.measured.max(axis=0)).sum())
            best = planned(case, rate, case.measured)
            if best is None:
                continue
            for name, way in ways.items():
                plan, count = way(case, rate)
                fleet = None if plan is None else on_measured(case, rate, best.cost_per_h, plan)
                if fleet is not None:
                    found[name].append(replace(fleet, measurements=count))
    return found


def shortage_table(cases_by_title: Mapping[str, Sequence[Case]], seed: int = 7) -> str:
    """A table of regret and shortage by held-out property and available information."""
    rows = []
    for title, listed in cases_by_title.items():
        for name, found in fleets(listed, seed).items():
            regret = np.array([one.regret for one in found])
            short = np.array([one.peak > FULL for one in found])
            missed = np.array([max(1.0 - 1.0 / one.peak, 0.0) for one in found])
            rows.append(
                [
                    title,
                    name,
                    f"{len(found)}",
                    percent(np.median(regret)),
                    percent(np.quantile(regret, 0.9)),
                    percent(short.mean()),
                    percent(missed.mean()),
                    f"{np.mean([one.measurements for one in found]):.1f}",
                ]
            )
    heads = ["", "known", "fleets", "regret, median", "90 % below", "short fleets", "traffic short", "figures"]
    return table(heads, rows, numbers=6)
