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

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from melange.errors import InputError
from melange.plan.certificate import Certificate
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.question import Question, question_of
from melange.plan.servable import scope_of
from melange.plan.solve import solve
from melange.profile.profile import Profile
from melange.replica.policy import POLICIES
from melange.slo import Slo
from melange.validate.certify.diagnosis import refuse_beyond_reach
from melange.validate.certify.headroom import Search
from melange.validate.certify.judge import MOST_REQUESTS, Judge, Trial
from melange.validate.certify.single_types import MOST_CARRIED, cheapest_single_type
from melange.validate.certify.small_fleets import cheaper_fleet
from melange.validate.certify.thinning import widened, with_types, worth_types
from melange.validate.certify.tolerance import with_tolerance
from melange.validate.report import TARGET
from melange.validate.simulate import within_context
from melange.workload.arrivals import Arrivals, draw
from melange.workload.workload import Array, Workload

# Requests of the shortest run: 2,000 tell 99 % from 98.4 %, and take some 6 ms.
LEAST_REQUESTS = 2_000
# The shortest run lasts so many times as long as a request may stay, so that a fleet fills and a queue that grows shows.
_STAYS = 4.0
# A token takes so long where no limit says how long a request may stay [s].
_TOKEN_S = 0.05
# Factors are not begun with below this: a type that does so badly alone may do better with fewer sizes.
_LEAST_START = 0.5


def certify(
    question: Question | Workload,
    /,
    profile: Profile | None = None,
    options: Options | None = None,
    *,
    target: float | None = None,
    requests: int | None = None,
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
    requests
        Of the shortest simulation; None: as many as arrive while some requests come and go, 2,000 at least. Plans that
        it leaves open are simulated with up to twenty times as many, the one that is certified with 120,000 at least.
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
    given = question_of(question, profile, options)
    slo, wanted = _checked(given, target)
    whole = with_tolerance(given, slo, wanted)
    kept = worth_types(whole)
    asked = with_types(whole, kept)
    carried = _carried(asked)
    context = max(engine.max_context for engine in asked.profile.engines if engine)

    def drawn(count: int, seed: int) -> Arrivals:
        return within_context(draw(carried, count, seed=seed, burstiness=burstiness, observed=observed), context)

    say = progress or (lambda _: None)
    shortest = requests or _shortest(carried, slo)
    judge = Judge(question=asked, slo=slo, target=wanted, policy=policy, draw=drawn, requests=shortest, say=say)
    refuse_beyond_reach(judge)
    search = Search(question=asked, judge=judge)
    single, carried_load = cheapest_single_type(search)
    start = search.trial(_start(asked, carried_load))
    best = search.up(start)
    if np.count_nonzero(best.plan.instances) > 1:
        best = search.down(best)
    cheaper_fleet(search, best, start.factor)
    proof = search.proven()
    closed = solve(whole)
    return replace(
        widened(proof.plan, whole, kept),
        certificate=_certificate(proof, start, single, judge),
        status="certified",
        bound_per_h=None,
        gap=1.0,
        single_type=closed.single_type,
        cautions=closed.cautions,
    )


def _carried(question: Question) -> Workload:
    """The traffic that is planned for: that of buckets which some allowed type serves."""
    served = scope_of(question).served.reshape(question.workload.request_rate.shape)
    return replace(question.workload, request_rate=question.workload.request_rate * served)


def _shortest(workload: Workload, slo: Slo) -> int:
    """Requests that arrive while requests that take as long as the SLO allows come and go some times."""
    weight = workload.request_rate / workload.total_rate
    outputs = float((weight * workload.output_tokens).sum())
    stays = {"latency": 1.0, "ntpot": outputs, "tpot": outputs}
    allowed = [slo.limits[metric] * times for metric, times in stays.items() if metric in slo.limits]
    stay_s = min(allowed, default=outputs * _TOKEN_S)
    return int(np.clip(math.ceil(_STAYS * stay_s * workload.total_rate), LEAST_REQUESTS, MOST_REQUESTS))


def _start(question: Question, carried: Array) -> Array:
    """Factors to begin the search for mixes with (R, I, O): what single types carry, the best of them for the others."""
    known = carried[np.isfinite(carried)]
    guess = float(np.clip(known.max(initial=0.0), _LEAST_START, MOST_CARRIED)) if len(known) else 1.0
    start = np.clip(np.where(np.isfinite(carried), carried, guess), _LEAST_START, MOST_CARRIED)
    return np.ones(question.profile.max_request_rate.shape) * start[:, None, None]


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


def _certificate(best: Trial, before: Trial, single: Trial | None, judge: Judge) -> Certificate:
    plan = best.plan
    names = [one.name for one in plan.replica_types]
    return Certificate(
        target=judge.target,
        attainment=best.attainment.value,
        low=best.attainment.low,
        requests=sum(map(len, best.samples)) // len(best.samples),
        seeds=len(best.samples),
        policy=judge.policy,
        cost_before_per_h=before.plan.cost_per_h,
        attainment_before=before.attainment.value,
        headroom={names[r]: 1.0 - float(plan.load[r]) for r in np.flatnonzero(plan.instances)},
        plans=len(judge.known),
        single_type=None if single is None else names[int(single.plan.instances.argmax())],
        single_type_per_h=None if single is None else single.plan.cost_per_h,
    )
