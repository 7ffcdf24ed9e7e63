"""Certify: plan, simulate, and rent exactly what the SLO needs.

A plan rests on loads that add up and on limits on the mean. Simulation shows where that is not enough, and where it
leaves slack. The search adjusts a *factor* on the rate of each replica type and bucket (R, I, O): below 1 it is
headroom; above 1, the simulation has shown that a replica carries more than the sum of its loads says.

1. A target that no fleet can reach is lowered, and sizes that the target allows to miss may be served late.
2. Single types: the smallest fleet of each type that may be the cheapest; it shows what the type's replicas carry.
3. Mixes: the closed-form plans, then plans that start from these factors. Up: while too many requests miss, factors of
   types where they miss are lowered, and prompts that miss even alone on a type are taken from it. Down: all factors
   are raised together until a plan fails, by bisection; then those of each type alone. Several passes among other types
   find other mixes.
4. If the fleet is small, the steps from one instance to the next are large: cheaper fleets are tried one by one, and
   prompts are moved between their types if more requests then meet the SLO.
5. Two pools of one type, which keep long prompts away from short ones, if that needs fewer instances.
6. Proofs, on requests that no choice used. The largest cheaper fleet of every type gets one too, unless it surely
   misses, so that no answer costs more than a single type that the same runs certify. The proven fleet is simulated
   once more for longer: if it holds less once it has settled, all runs become longer.
7. By how much steps may be slower than estimated (``margin``); with confidence, plans on slower steps (``cautious``).

All plans of a search meet the same requests, so that two plans differ in nothing else. The best of many plans owes part
of its result to luck: a certificate is for other requests, and if its proof fails the search goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from melange.errors import InfeasibleError
from melange.plan.baseline import single_types
from melange.plan.by_carbon import in_kg, least_carbon, rent_of
from melange.plan.certificate import Certificate
from melange.plan.options import CARBON, Options
from melange.plan.plan import Plan
from melange.plan.question import Question, question_of
from melange.plan.servable import scope_of
from melange.plan.solve import solve
from melange.profile.profile import Profile
from melange.replica.policy import POLICIES
from melange.slo import Slo
from melange.validate.certify.bound import least_cost
from melange.validate.certify.cautious import at_chance
from melange.validate.certify.checks import checked, word_on_headroom
from melange.validate.certify.diagnosis import REACH_REQUESTS, lowered, reach_of_all
from melange.validate.certify.effort import MOST_WORK_S, Effort
from melange.validate.certify.fewer_instances import with_fewer_instances
from melange.validate.certify.headroom import Search
from melange.validate.certify.in_force import counts_in_force, kept_pools, nearest_proven
from melange.validate.certify.judge import Judge
from melange.validate.certify.margin import with_margin
from melange.validate.certify.plan_trial import Trial
from melange.validate.certify.proofs import cheapest_proven, look_for_cheaper
from melange.validate.certify.requests import by_class_of, carried_of, is_replayed, of_sizes, replays_of, stretch_at
from melange.validate.certify.required import try_required
from melange.validate.certify.second_pools import in_pools, of_all_types
from melange.validate.certify.separate_fleets import by_class, only_class, separate_fleets
from melange.validate.certify.single_types import cheaper_single_type, cheapest_proven_alone, cheapest_single_type
from melange.validate.certify.starts import promising, start, try_closed_form
from melange.validate.certify.thinning import with_types, worth_types
from melange.validate.certify.tolerance import with_tolerance
from melange.validate.class_results import class_results
from melange.validate.replay import words_of
from melange.validate.run_lengths import rarity, settling_of, shortest
from melange.validate.simulate import within_context
from melange.workload.arrivals import Arrivals, draw
from melange.workload.workload import Array, Mask, Workload

# The figures below are from the twelve cases of bench/certify.py at 4 requests a second, unless stated otherwise. CPU
# times are known to a tenth.

# Passes of the search for a mix: the number of types that a size may go to, the speed of adding headroom, and whether
# all types start with the same factor, instead of what each carries alone. Each pass finds other mixes, and stops if it
# finds none cheaper. The result is partly luck: other passes than these changed single services of bench/services by up
# to 42 %, either way.
_PASSES = ((2, 1.0, False), (2, 1.0, True), (3, 0.7, False), (3, 0.5, True), (6, 0.7, False))
# If no plan reaches the target, the search begins again with a lower one, and this part of the effort so far counts as
# spent. With less, such services take up to twice as long as others. Chosen by judgment.
_IN_VAIN = 0.5
# No further pass begins after about this much CPU time [s]: programs for small fleets of many types take long, and
# fleets are tried one by one afterwards anyway. Chosen by judgment.
_MOST_S = 8.0


def certify(
    question: Question | Workload,
    /,
    profile: Profile | None = None,
    options: Options | None = None,
    *,
    target: float | None = None,
    requests: int | None = None,
    policy: str = POLICIES[0],
    burstiness: float | None = None,
    observed: Arrivals | None = None,
    incumbent: Plan | None = None,
    progress: Callable[[str], None] | None = None,
) -> Plan:
    """The cheapest plan found that a simulation certifies: enough requests meet the SLO, with confidence.

    Parameters
    ----------
    question, profile, options
        As in :func:`~melange.plan.solve.solve`; the profile must hold engines and an SLO. ``headroom`` is ignored:
        the simulation finds how much to keep free, and a caution says so if it is not the default.
    target
        Share of requests that must meet every limit of the SLO by themselves, 0-1; None: the SLO's own
        (:attr:`~melange.slo.Slo.target`). The lower end of the 95 % interval must reach it.
    requests
        Requests of the shortest simulation; None: as many as arrive in four times the longest stay of a request, at
        least 2,000. Undecided plans get up to four runs of at least 10,000, the certified plan six of at least 20,000.
        If a log is replayed, all of its requests decide, whatever this says.
    policy
        How requests are balanced.
    burstiness
        Burstiness of drawn arrivals, see :func:`~melange.workload.arrivals.draw`; None: a log's own, or else Poisson.
    observed
        Requests instead of the workload's buckets. A log is replayed as recorded, at its own pace, if no burstiness is
        given and its requests are enough to show the target; otherwise sizes are drawn from it.
    incumbent
        The current plan: of certified plans of equal cost, the one that changes the fewest instances is chosen.
    progress
        Called with a sentence for each plan.

    Returns
    -------
    Plan
        With a :class:`~melange.plan.certificate.Certificate`. Its target is lower than requested if no fleet can reach
        the requested one, or no fleet was found that does.

    Raises
    ------
    InfeasibleError
        Less than half of the target can be reached with the allowed types; or no plan was found that holds, even for a
        little less than the best share seen; ``reasons`` says what requests miss and why.
    InputError
        No SLO, no engines, a budget.
    """
    asked, say = question_of(question, profile, options), progress or (lambda _: None)
    search = partial(
        certified,
        target=target,
        requests=requests,
        policy=policy,
        burstiness=burstiness,
        observed=observed,
        incumbent=incumbent,
        rent=rent_of(asked),
    )

    def proven(one: Question) -> Plan:
        is_in_kg = one.profile is not asked.profile
        told = partial(search, say=(lambda words: say(in_kg(words))) if is_in_kg else say)
        return with_margin(*told(one)) if one.options.confidence is None else at_chance(one, told)

    return least_carbon(asked, proven) if asked.options.objective == CARBON else proven(asked)


def certified(
    asked: Question,
    *,
    target: float | None = None,
    requests: int | None = None,
    policy: str = POLICIES[0],
    burstiness: float | None = None,
    observed: Arrivals | None = None,
    incumbent: Plan | None = None,
    say: Callable[[str], None] = lambda _: None,
    rent: Callable[[Plan], float] = lambda plan: plan.cost_per_h,
) -> tuple[Plan, Judge]:
    """:func:`certify` on the step times of the question's profile, and the judge of its plans.

    ``rent`` is the cost of a plan in USD/h, if something else is minimized.
    """
    slo, wanted = checked(asked, target)
    # Sizes that no type serves are left out of the plan. Unless they are to be dropped, their requests arrive anyway:
    # they take capacity, and count as missed.
    given = asked.with_options(drop_unservable=True)
    context = max(engine.max_context for engine in given.profile.engines if engine)
    is_dropped = asked.options.drop_unservable
    log = observed if is_replayed(observed, burstiness, slo, wanted, say) else None
    times = 1.0 if burstiness is None else burstiness

    def drawn(workload: Workload, count: int, seed: int) -> Arrivals:
        sizes = of_sizes(observed, workload, given.workload)
        return within_context(draw(workload, count, seed=seed, burstiness=times, observed=sizes), context)

    whole, lone = with_tolerance(given, slo, wanted)
    carried = _carried(whole)
    # The SLO does not cover sizes that are to be dropped.
    counted = carried if is_dropped else given.workload
    # For each class as many requests as alone, and the same ones: so its target is lowered no further than alone.
    looked_at = by_class_of(carried_of(log, counted, context)) if log is not None else {}
    looked_at = looked_at or {k: drawn(own, REACH_REQUESTS, 0) for k, own in by_class(counted).items()}
    reach = reach_of_all(given, slo, looked_at, wanted, is_log=log is not None)
    spent_s = 0.0
    while True:
        if reach.target < wanted:
            whole, lone = with_tolerance(given, slo, reach.target)
            carried = _carried(whole)
        sent = carried if is_dropped else given.workload
        replayed = None if log is None else carried_of(log, sent, context)
        kept = worth_types(whole, counts_in_force(whole, incumbent))

        judged = partial(
            _judged,
            slo=slo,
            target=reach.target,
            policy=policy,
            drawn=drawn,
            requests=requests,
            say=say,
        )
        judge = judged(with_types(whole, kept), sent, replayed)
        judge.work_s = spent_s
        try:
            best, single = _found(judge, lone[kept], incumbent)
            of_class = partial(_found_of_class, judged, sent, replayed, lone[kept])
            best = separate_fleets(judge, best, of_class, say) or best
        except InfeasibleError as error:
            missed = f"no plan reaches {reach.target:.2%}"
            reach, spent_s = lowered(reach, wanted, judge, error), _IN_VAIN * judge.work_s
            say(f"{missed}; searching for the cheapest that reaches {reach.target:.2%}")
            continue
        break
    leaves_out = carried.total_rate < given.workload.total_rate
    plan = of_all_types(best.plan, whole if leaves_out else replace(whole, options=asked.options), kept)
    before = _closed_form(whole, plan)
    bound = least_cost(given, slo, reach.target)
    bound = None if bound is None else min(bound, plan.cost_per_h)
    certificate = _certificate(best, single, before, judge, rent)
    found = replace(
        plan,
        certificate=replace(
            certificate,
            target=reach.target + best.off,
            wanted=wanted + best.off,
            classes=class_results(best.by_class, slo, reach.target),
            reach=reach.share,
            beyond_reach=reach.why,
            arrivals=words_of(drawn(sent, 1, 0) if replayed is None else replayed),
            rate=sent.total_rate if replayed is None else replayed.rate,
            sends_unservable=not is_dropped,
        ),
        status="certified",
        bound_per_h=bound,
        gap=1.0 if bound is None else 1.0 - bound / plan.cost_per_h,
        single_type=single_types(whole, scope_of(whole)),
        cautions=(*best.plan.cautions, *word_on_headroom(asked.options)),
    )
    return found, judge


def _judged(
    question: Question,
    sent: Workload,
    log: Arrivals | None,
    *,
    slo: Slo,
    target: float,
    policy: str,
    drawn: Callable[[Workload, int, int], Arrivals],
    requests: int | None,
    say: Callable[[str], None],
) -> Judge:
    """The judge of plans, for the requests that are sent, drawn or from a log."""
    return Judge(
        question=question,
        slo=slo,
        target=target,
        policy=policy,
        draw=partial(drawn, sent) if log is None else partial(stretch_at, log),
        requests=requests or shortest(sent, slo),
        rarity=rarity(sent),
        settling=settling_of(sent, slo),
        say=say,
        replays=None if log is None else replays_of(len(log)),
    )


def _found_of_class(
    judged: Callable[..., Judge], sent: Workload, log: Arrivals | None, lone: Mask, question: Question, place: int
) -> Trial:
    """The cheapest proven fleet for one class of the requests that are sent."""
    own = None if log is None else log.chosen(np.flatnonzero(log.class_of == place))
    return _found(judged(question, only_class(sent, place) or sent, own), lone, None)[0]


def _found(judge: Judge, lone: Mask, incumbent: Plan | None) -> tuple[Trial, Trial | None]:
    """The cheapest plan found that is proven, and the cheapest fleet of one type that is, if any.

    Parameters
    ----------
    judge
        The judge, which simulates plans.
    lone
        Sizes that a type serves only in a fleet of its own (R, I, O).
    incumbent
        The current plan, or None.

    Raises
    ------
    InfeasibleError
        No plan was found that holds.
    """
    search = Search(question=judge.question, judge=judge, among=~lone)
    factor = start(judge.question, cheapest_single_type(search))
    _try_mixes(replace(search, begins=min(1.0, float(factor.max()))), factor, lone)
    best = cheapest_proven(search, factor)
    while not judge.has_settled(best):
        judge.lengthen()
        best = cheapest_proven(search, factor)
    judge.checks_each = True
    best = nearest_proven(search, best, incumbent)
    single = cheapest_proven_alone(search, best)
    alone = [one for one in (best, *judge.known.values()) if np.count_nonzero(one.plan.instances) == 1]
    pooled = in_pools(judge, best, alone)
    if pooled is None and single is best:  # no step is left that may need the effort
        single = best = cheaper_single_type(search, best, MOST_WORK_S)
    best = pooled or best
    return kept_pools(search, best, incumbent) or best, single


def _try_mixes(search: Search, factor: Array, lone: Mask) -> None:
    """Find cheap plans of several types that hold.

    Raises
    ------
    InfeasibleError
        No plan was found that holds, of any number of types.
    """
    judge = search.judge
    try:
        try_closed_form(search)
        try_required(search, factor)
        effort = Effort(judge=judge, first=judge.work_s, most_s=_MOST_S)
        for each_size, pace, is_equal in _PASSES:
            if effort.is_spent():
                break
            begin = np.full_like(factor, np.median(factor[:, 0, 0])) if is_equal else factor
            search = replace(search, among=promising(judge.question, begin, each_size)[:, None, None] & ~lone)
            best = search.up(search.trial(begin), pace)
            if np.count_nonzero(best.plan.instances) > 1:
                best = with_fewer_instances(search, search.down(best))
        look_for_cheaper(search, factor)
    except InfeasibleError:
        if search.best is None:
            raise


def _closed_form(question: Question, best: Plan) -> Plan:
    """The cheapest closed-form plan; the best plan if too few instances are available for the closed-form plan."""
    for tried in (question, question.with_options(headroom=0.0)):
        try:
            return solve(tried)
        except InfeasibleError:
            continue
    return best


def _carried(question: Question) -> Workload:
    """The planned traffic: the buckets that some allowed type serves."""
    workload = question.workload
    served = scope_of(question).served.reshape(workload.request_rate.shape)
    return replace(workload, request_rate=workload.request_rate * served)


def _certificate(
    best: Trial, single: Trial | None, before: Plan, judge: Judge, rent: Callable[[Plan], float]
) -> Certificate:
    plan = best.plan
    names = [one.name for one in plan.replica_types]
    return Certificate(
        target=judge.target + best.off,
        attainment=best.attainment.value + best.off,
        low=best.attainment.low + best.off,
        requests=best.requests // len(best.samples),
        seeds=len(best.samples),
        policy=judge.policy,
        cost_before_per_h=rent(before),
        attainment_before=judge.shown(before),
        headroom={names[r]: 1.0 - float(plan.load[r]) for r in np.flatnonzero(plan.instances)},
        plans=len(judge.known),
        single_type=None if single is None else names[int(single.plan.instances.argmax())],
        single_type_per_h=None if single is None else rent(single.plan),
    )
