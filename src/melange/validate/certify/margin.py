"""How much slower than estimated steps may be before a certified plan no longer holds, and the chance that it holds.

The margin is for all steps together, found by bisection. The chance is the share of drawn step times with which the
plan holds in simulation, a factor for each type (:mod:`melange.replica.step_errors`) that the balancer does not know. A
fleet on slower steps holds no more requests: a draw that is slower on every type than one that failed fails, and a draw
that is faster than one that held holds. So only few of the draws are simulated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from melange.plan.plan import Plan
from melange.plan.routing import replica_engines, types_of
from melange.replica.step_errors import step_factors
from melange.validate.attainment import share_met
from melange.validate.certify.judge import Judge
from melange.validate.certify.plan_trial import MOST_USED
from melange.validate.certify.spare import without_spare
from melange.validate.certify.throughput import at_full_throughput, most_used
from melange.validate.simulate import simulate
from melange.workload.arrivals import Arrivals
from melange.workload.workload import Array

# Number of draws: a share of them is known to 2 points (bench/margin.py). A quarter, which
# is less exact, if a simulation has more than this many requests: in a fleet of 800 instances the draws took a third of
# the search.
DRAWS, _LONG_RUN = 128, 50_000
# Precision of the margin, and the largest factor on steps that is tried.
_PRECISION, _MOST = 0.005, 8.0
# Requests of a simulation, one run: with half as many the margins of bench/margin.py changed by 0.6 points.
_REQUESTS = 10_000
# The most: a search may need longer runs. How much better the plan looks in a shorter one is offset.
_MOST_REQUESTS = 200_000


@dataclass(slots=True, kw_only=True, eq=False)
class Trials:
    """Whether a plan holds on other step times, tried once for each.

    Parameters
    ----------
    plan
        A plan with a certificate.
    arrivals
        The requests of each simulation.
    policy
        The policy that balances them.
    used
        Part of the throughput of its types that the traffic needs on the steps of the plan (R,).
    offset
        Added to the share that met the SLO: how much larger the share was in the proof, on the same steps. So a plan
        holds on the steps that it was certified on, however lucky these requests are.
    held, failed
        Factors on the steps of the used types (T,) with which it held, and with which it failed.
    """

    plan: Plan
    arrivals: Sequence[Arrivals]
    policy: str
    used: Array
    offset: float = 0.0
    held: list[Array] = field(default_factory=list)
    failed: list[Array] = field(default_factory=list)

    def holds(self, factor: Array) -> bool:
        """Whether the plan holds with factors on the step times of the used types (T,)."""
        if any((factor <= known).all() for known in self.held):
            return True
        if any((factor >= known).all() for known in self.failed):
            return False
        is_held = self._simulated(factor)
        (self.held if is_held else self.failed).append(factor)
        return is_held

    def _simulated(self, factor: Array) -> bool:
        assert self.plan.certificate is not None
        if (self.used[types_of(self.plan)] * factor > MOST_USED).any():
            return False
        return self.met(factor) + self.offset >= self.plan.certificate.target

    def met(self, factor: Array) -> float:
        """Share of the requests that meet the SLO with factors on step times (T,), with spare replicas lost."""
        plan = self.plan
        assert plan.slo is not None
        slowdown = np.ones(len(plan.replica_types))
        slowdown[types_of(plan)] = factor
        shares = []
        for counts in without_spare(plan):
            runs = [simulate(plan, one, policy=self.policy, slowdown=slowdown, counts=counts) for one in self.arrivals]
            shares.append(float(np.mean([share_met(run.outcome, plan.slo, run.counted) for run in runs])))
        return min(shares)


def with_margin(plan: Plan, judge: Judge) -> Plan:
    """A certified plan, with the margin and its chance to hold added to its certificate."""
    assert plan.certificate is not None
    trials = trials_of(plan, judge)
    margin = margin_of(trials)
    is_long = sum(map(len, trials.arrivals)) > _LONG_RUN
    certificate = replace(plan.certificate, margin=margin, chance=chance_of(trials, DRAWS // 4 if is_long else DRAWS))
    return replace(plan, certificate=certificate)


def trials_of(plan: Plan, judge: Judge) -> Trials:
    """Trials of a plan on requests that a search used for its choices."""
    if judge.replays is None:
        arrivals = [judge.arrivals(max(_REQUESTS, min(judge.requests, _MOST_REQUESTS)), 1)]
    else:
        arrivals = [judge.arrivals(requests, start) for start, requests in judge.replays.choosing]
    full = at_full_throughput(plan.question).profile.max_request_rate
    used = most_used(plan, full, judge.arrivals, judge.policy)
    trials = Trials(plan=plan, arrivals=arrivals, policy=judge.policy, used=used)
    proven = plan.certificate
    assert proven is not None
    names = [plan.replica_types[r].name for r in types_of(plan)]
    trials.offset = proven.attainment - trials.met(np.array([proven.slowed_by.get(name, 1.0) for name in names]))
    return trials


def margin_of(trials: Trials) -> float:
    """Fraction by which all steps may take longer while the plan holds; negative if they must be shorter."""
    ones = np.ones(len(types_of(trials.plan)))
    step = 1.25 if trials.holds(ones) else 0.8
    near, far = 1.0, step
    while trials.holds(ones * far) == (step > 1) and 1 / _MOST < far < _MOST:
        near, far = far, far * step
    low, high = min(near, far), max(near, far)
    while high / low > 1 + _PRECISION:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if trials.holds(ones * middle) else (low, middle)
    return low - 1.0


def chance_of(trials: Trials, draws: int = DRAWS, *, first: int = 0) -> float:
    """Share of drawn step times with which the plan holds, 0-1."""
    types = types_of(trials.plan)
    engines = replica_engines(trials.plan, types)
    accelerators = [trials.plan.replica_types[r].offer.accelerator for r in types]
    factors = step_factors(engines, accelerators, draws, first=first)
    # Draws near the middle say most about the others.
    order = np.argsort(np.abs(np.log(factors).sum(axis=1)), kind="stable")
    return float(np.mean([trials.holds(factors[place]) for place in order]))
