"""The verb that closes the loop: plan, simulate, and buy exactly the headroom that the SLO needs.

A plan rests on loads that add up and on limits on the mean. Simulation shows where that falls short, and where it
leaves room. A *factor* on the rate of each replica type and bucket (R, I, O) is what is adjusted: below 1 it is
headroom, above 1 the simulation has shown that a replica carries more than the sum of its loads says.

1. Up: while too many requests miss, factors of the types where they miss are lowered, and prompts that miss even alone
   on a type are taken from it.
2. Down: all factors are raised together until a plan fails, by bisection; then those of each type by itself.
3. Where the fleet is small, the steps from one instance to the next are large, and cheaper fleets are tried one by one,
   prompts moved between their types where that lets more requests meet the SLO.

All plans of a search meet the same requests, so that two of them differ in nothing else: one group of sets by which
factors are chosen, and another on which a plan must hold as well. Of many plans the one that looks best owes part of
that to luck, so what a certificate says was seen on a third group, by which nothing was chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from melange.errors import InputError
from melange.plan.certificate import Certificate
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.question import Question, question_of
from melange.plan.solve import solve
from melange.profile.profile import Profile
from melange.replica.policy import POLICIES
from melange.slo import Slo
from melange.validate.certify.diagnosis import refuse_beyond_reach
from melange.validate.certify.headroom import Search
from melange.validate.certify.judge import Judge, Trial
from melange.validate.certify.small_fleets import cheaper_fleet
from melange.validate.report import TARGET
from melange.validate.simulate import planned_workload, within_context
from melange.workload.arrivals import Arrivals, draw
from melange.workload.workload import Workload

# Requests of one simulation and simulations of a plan: together 10,000, which distinguish 99.5 % from 99.3 %, at some
# 20 ms a simulation. More, and a search of a hundred plans takes minutes; fewer, and chance decides which plans hold.
# Longer runs in place of more would see queues that grow for longer than 2,000 requests, and say less of how runs
# differ.
REQUESTS_PER_RUN, RUNS_PER_PLAN = 2_000, 5


def certify(
    question: Question | Workload,
    /,
    profile: Profile | None = None,
    options: Options | None = None,
    *,
    target: float | None = None,
    requests: int = REQUESTS_PER_RUN,
    seeds: int = RUNS_PER_PLAN,
    policy: str = POLICIES[0],
    burstiness: float = 1.0,
    observed: Arrivals | None = None,
    progress: Callable[[str], None] | None = None,
) -> Plan:
    """The cheapest plan found that a simulation certifies: enough requests meet the SLO, with confidence.

    Parameters
    ----------
    question, profile, options
        As of :func:`~melange.plan.solve.solve`; the profile must hold engines and an SLO.
    target
        Share of requests that must meet every limit of the SLO by themselves, 0-1; None: the SLO's ``attainment``, or
        0.995. The lower end of the 95 % interval must reach it.
    requests, seeds
        Requests of one simulation, and simulations of each plan: up to four times as many where these leave open
        whether it holds, and twelve times as many of the one that is certified.
    policy
        How requests are balanced.
    burstiness
        Of the arrivals, see :func:`~melange.workload.arrivals.draw`.
    observed
        Requests whose sizes are drawn from, in place of the workload's buckets.
    progress
        Called with a sentence for each plan.

    Returns
    -------
    Plan
        With a :class:`~melange.plan.certificate.Certificate`.

    Raises
    ------
    InfeasibleError
        No fleet of the allowed types can reach the target, or no headroom helps; ``reasons`` says what requests miss
        and why.
    InputError
        No SLO, no engines, a budget.
    """
    asked = question_of(question, profile, options)
    slo, wanted = _checked(asked, target)
    carried = planned_workload(solve(asked))
    context = max(engine.max_context for engine in asked.profile.engines if engine)

    def drawn(seed: int) -> Arrivals:
        return within_context(draw(carried, requests, seed=seed, burstiness=burstiness, observed=observed), context)

    say = progress or (lambda _: None)
    judge = Judge(question=asked, slo=slo, target=wanted, policy=policy, draw=drawn, seeds=seeds, say=say)
    refuse_beyond_reach(judge)
    search = Search(question=asked, judge=judge)
    # Factors of 1: the plan that was asked for, which the search begins from and the certificate is compared with.
    before = search.trial(np.ones(asked.profile.max_request_rate.shape))
    cheaper_fleet(search, search.down(search.up(before)))
    best = search.proven()
    return replace(
        best.plan,
        certificate=_certificate(best, before, judge, requests),
        status="certified",
        bound_per_h=None,
        gap=1.0,
        single_type=before.plan.single_type,
        cautions=before.plan.cautions,
    )


def _checked(question: Question, target: float | None) -> tuple[Slo, float]:
    """The SLO and the share of requests that must meet it; refuses questions that cannot be certified."""
    profile = question.profile
    if profile.slo is None:
        raise InputError("certify: the profile has no SLO to certify", hint="give the service an slo and profile again")
    if question.options.budget_per_h is not None:
        raise InputError("certify: a plan under a budget has no cost to certify", hint="leave out plan.budget_per_h")
    if not any(profile.engines):
        raise InputError(
            "certify: nothing is known of the steps of any replica type, so no plan can be simulated",
            hint="profile with a model (profile: {source: [measured.json, estimate]})",
        )
    wanted = target if target is not None else (profile.slo.attainment or TARGET)
    if not 0 < wanted < 1:
        raise InputError(f"certify: the target must be between 0 and 1, got {wanted:g}")
    return profile.slo, wanted


def _certificate(best: Trial, before: Trial, judge: Judge, requests: int) -> Certificate:
    plan = best.plan
    return Certificate(
        target=judge.target,
        attainment=best.attainment.value,
        low=best.attainment.low,
        requests=requests,
        seeds=len(best.runs),
        policy=judge.policy,
        cost_before_per_h=before.plan.cost_per_h,
        attainment_before=before.attainment.value,
        headroom={plan.replica_types[r].name: 1.0 - float(plan.load[r]) for r in np.flatnonzero(plan.instances)},
        plans=len(judge.known),
    )
