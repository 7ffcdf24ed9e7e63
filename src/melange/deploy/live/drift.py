"""Drift detection: whether another plan would now be better for the live traffic."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from melange.errors import InfeasibleError, InputError, MelangeError
from melange.plan.plan import Plan
from melange.plan.solve import solve
from melange.units import count_of, percent, significant
from melange.workload.sizes import THIN_WORKLOAD
from melange.workload.workload import Workload

if TYPE_CHECKING:
    from melange.profile.profile import Profile

UNKNOWN, STEADY, CHEAPER, SHORT, FAILED = "unknown", "steady", "cheaper", "short", "failed"
STATES = (UNKNOWN, STEADY, CHEAPER, SHORT, FAILED)
# Longest search for a new plan [s]: by then it has found its best plan, which is all that is needed. A longer search
# would prove a gap that nobody reads, and take a core from requests.
_LONGEST_S = 60.0
# Fewer requests of a cell than _STRAY are strays. A cell of which the plan expects at least _JUDGED while observed
# is gone if only strays were seen: the chance of that is 0.05 % (Poisson). Chosen by judgment.
_STRAY, _JUDGED = 2, 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """The cost of a plan for the live workload.

    Parameters
    ----------
    state
        ``unknown`` (too few requests), ``steady``, ``cheaper`` (a new plan costs less by more than the threshold),
        ``short`` (the live workload needs more than is rented), ``failed`` (no plan was found).
    cost_per_h, new_cost_per_h
        Cost of the current plan and of the new one [USD/h]; nan if there is none. The new plan is found by closed form;
        if the current plan is certified, the cost of the new one is scaled by the factor that certification added.
    message
        A sentence for the log.
    """

    state: str
    cost_per_h: float
    new_cost_per_h: float
    message: str


def find_drift(plan: Plan, live: Workload, threshold: float, profile: Profile | None = None) -> Drift:
    """Plan again for the live workload, with the options of the current plan, and compare the costs.

    Parameters
    ----------
    plan
        The current plan.
    live
        The live workload.
    threshold
        A new plan counts as cheaper if it saves more than this share of the current cost, 0-1.
    profile
        All types that may be rented; None: those of the plan's profile.
    """
    if not (isinstance(plan, Plan) and isinstance(live, Workload)):
        raise TypeError(f"plan must be a Plan and live a Workload, got {type(plan).__name__}, {type(live).__name__}")
    if not 0 <= threshold <= 1:
        raise InputError(f"threshold must be 0 to 1, got {threshold:g}")
    nan = float("nan")
    if (live.requests or 0) < THIN_WORKLOAD:
        are = "is" if live.requests == 1 else "are"
        few = f"{count_of(live.requests or 0, 'request')} {are} too few to plan on ({THIN_WORKLOAD:,} are needed)"
        return Drift(state=UNKNOWN, cost_per_h=plan.cost_per_h, new_cost_per_h=nan, message=few)
    try:
        question = replace(plan.question, workload=_seen(live, plan.workload), profile=profile or plan.question.profile)
        limit_s = min(question.options.time_limit_s, _LONGEST_S)
        found = solve(question.with_options(drop_unservable=True, time_limit_s=limit_s), incumbent=plan)
    except InfeasibleError as error:
        short = f"no plan with the known types serves the live workload: {error}"
        return Drift(state=SHORT, cost_per_h=plan.cost_per_h, new_cost_per_h=nan, message=short)
    except MelangeError as error:
        return Drift(state=FAILED, cost_per_h=plan.cost_per_h, new_cost_per_h=nan, message=f"no new plan: {error}")
    return _compared(plan, found, live, threshold)


def _compared(plan: Plan, found: Plan, live: Workload, threshold: float) -> Drift:
    old, new = plan.cost_per_h, found.cost_per_h
    if plan.certificate is not None:  # otherwise a closed-form plan would always seem cheaper than a certified one
        new *= 1 + plan.certificate.price(old)
    mix = ", ".join(f"{count} x {name}" for name, count in found.replicas.items() if count)
    traffic = f"{significant(live.total_rate)} requests/s arrive ({significant(plan.workload.total_rate)} planned)"
    state, what = STEADY, "within the threshold"
    if found.served_fraction < plan.served_fraction - threshold:
        state, what = SHORT, f"and serve {percent(found.served_fraction)} of the requests: the SLO is at risk"
    elif new < old * (1 - threshold):
        state, what = CHEAPER, f"{1 - new / old:.1%} cheaper"
    elif new > old * (1 + threshold):
        state, what = SHORT, f"{new / old - 1:.1%} more than is rented: the SLO is at risk"
    about, kind = ("about ", " by closed form") if plan.certificate else ("", "")
    message = f"{traffic}; a new plan would cost {about}{new:.2f} USD/h instead of {old:.2f}, {what}: {mix}{kind}"
    return Drift(state=state, cost_per_h=old, new_cost_per_h=new, message=message)


def _seen(live: Workload, planned: Workload) -> Workload:
    """The live workload, with the planned share of each cell of which too few requests would be seen to judge it.

    A stray request in a cell that is not planned for is left out: one large prompt in an hour is no reason to rent for
    it. Neither is its absence a reason to rent less, as long as few of them are expected in the time observed.
    """
    share = live.request_rate / live.total_rate
    requests = live.requests or 1
    expected = np.zeros_like(share)
    if planned.buckets == live.buckets:
        expected = planned.request_rate / planned.total_rate
    rare = np.where(expected * requests < _JUDGED, expected, 0.0)
    kept = np.where(share * requests >= _STRAY, share, rare)
    return replace(live, request_rate=kept * (live.total_rate / kept.sum())) if kept.sum() > 0 else live
