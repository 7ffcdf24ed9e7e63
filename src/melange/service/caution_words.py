"""Cautions on a plan: what its certificate does not cover, and what it depends on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from melange.errors import Caution, MelangeError, SolverError, some_of
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.units import duration
from melange.validate.run_lengths import is_long_enough
from melange.workload.arrivals import Arrivals

# Coefficient of variation of the gaps above which a Poisson simulation gets a caution: production hours of one service
# have 1.0 to 1.1 (Azure conversation). Chosen by judgment.
_BURSTY = 1.25
# Longest search for the cost of redundancy, all of its plans together, in work of the solver [s]: plans of one instance
# are small problems, which take a fraction of it.
_MOST_SEARCH_S = 2.0
_NOT_SEARCHED = (
    "plan.spare_replicas gives a second instance (what it costs was not searched for: plan.time_limit_s is used up)"
)


def with_words(plan: Plan, given: Options) -> Plan:
    """A plan, with cautions on its budget, prices, redundancy, names in the settings (``given``), model's folder."""
    plan = with_word_on_redundancy(with_word_on_prices(with_word_on_budget(plan)))
    return with_word_on_model(with_word_on_names(plan, given))


def with_word_on_budget(plan: Plan) -> Plan:
    """A plan, with a caution if a budget keeps it from a search that may find one for all requests within it."""
    slo = plan.slo
    is_searched = slo is not None and slo.is_on_requests and slo.target < 1
    if plan.options.budget_per_h is None or not is_searched or plan.served_fraction >= 1:
        return plan
    words = (
        "under plan.budget_per_h, plans are by closed form, in which no request size may miss; without it, a certified "
        "plan for all requests may be found that costs no more than the budget"
    )
    return replace(plan, cautions=(*plan.cautions, Caution("budget", words)))


def with_word_on_bursts(plan: Plan) -> Plan:
    """A plan certified for Poisson arrivals, with a caution if its traffic was observed to be burstier."""
    seen = plan.workload.burstiness
    if seen is None or seen <= _BURSTY:
        return plan
    what = (
        f"the traffic is bursty (coefficient of variation of the gaps: {seen:.2g}), but Poisson arrivals (1) were "
        "simulated"
    )
    caution = Caution("burstiness", f"{what}; use --burstiness {seen:.2g}, or replay a log with workload.trace")
    return replace(plan, cautions=(*plan.cautions, caution))


def with_word_on_arrivals(plan: Plan, log: Arrivals | None) -> Plan:
    """A certified plan, with a caution if its traffic is burstier than the arrivals that were simulated.

    A log is replayed, unless no fleet fills while it lasts.
    """
    if log is None:
        return with_word_on_bursts(plan)
    if is_long_enough(log, plan.slo):
        return plan
    words = (
        f"the log lasts {duration(log.lasts_s)} at this rate, and no fleet fills in that time: requests of its sizes "
        "were drawn with Poisson arrivals; a longer log would show its bursts"
    )
    return with_word_on_bursts(replace(plan, cautions=(*plan.cautions, Caution("short-log", words))))


def with_word_on_redundancy(plan: Plan) -> Plan:
    """A plan, with a caution if one instance or spot instances alone serve everything.

    The caution states the cost of redundancy: the difference of two plans by closed form, with and without spare
    replicas. Plans of several instances need no such search.
    """
    used = plan.instances > 0
    markets = {one.offer.market for one, is_used in zip(plan.replica_types, used, strict=True) if is_used}
    if int(plan.instances.sum()) == 1:
        loss = (
            "one failure stops the service"
            if markets != {"spot"}
            else "one failure or spot interruption stops the service"
        )
        message = f"{loss}; {_price_of_redundancy(plan)}"
    elif markets == {"spot"}:
        has_others = any(one.offer.market != "spot" for one in plan.replica_types)
        others = "" if has_others else "--set offers.market=[on-demand,spot] also offers others, and "
        message = (
            "every instance is spot, and the provider may reclaim all at once; "
            f"{others}plan.require keeps a type in the plan that is not spot"
        )
    else:
        return plan
    return replace(plan, cautions=(*plan.cautions, Caution("no-redundancy", message)))


def with_word_on_prices(plan: Plan) -> Plan:
    """A plan, with a caution if prices of instances in use are old."""
    from melange.catalog.offer import stale_prices

    paid = [one.offer for one, count in zip(plan.replica_types, plan.instances, strict=True) if count]
    return replace(plan, cautions=(*plan.cautions, *stale_prices(paid, datetime.now(UTC).date())))


def with_word_on_model(plan: Plan) -> Plan:
    """A plan, with a caution if its load points name a model of a local folder, whose tokenizer tools do not find."""
    from melange.catalog.bundled import is_local
    from melange.plan.load_points import load_points

    if not is_local(plan.model) or not load_points(plan):
        return plan
    words = (
        f"{plan.model} was read from a local folder: the commands of load_points also need its tokenizer, --tokenizer "
        "FOLDER (guidellm: --processor FOLDER)"
    )
    return replace(plan, cautions=(*plan.cautions, Caution("local-model", words)))


def with_word_on_names(plan: Plan, given: Options) -> Plan:
    """A plan, with a caution if a name in the settings binds only one of the replica types on an instance in use.

    The type that serves the model as published on one accelerator has the name of its offer, so that ``plan.exclude``
    with this name may be meant for the instance.

    Parameters
    ----------
    plan
        The plan.
    given
        The settings as the user wrote them.
    """
    from melange.plan.bindings import OFFER, REPLICA_TYPE, members

    words = []
    for key in ("exclude", "min_replicas", "spare_replicas"):
        names = getattr(given, key)
        for name in () if isinstance(names, int) else names:
            bound = members(name, plan.replica_types, (REPLICA_TYPE,))
            others = members(name, plan.replica_types, (OFFER,)) & ~bound & (plan.instances > 0)
            if bound.any() and others.any():
                unbound = some_of([plan.replica_types[r].name for r in np.flatnonzero(others).tolist()])
                words.append(f"plan.{key}: {name} is one replica type; it does not include {unbound}")
    if not words:
        return plan
    message = f"{'; '.join(words)}; name each type that you mean"
    return replace(plan, cautions=(*plan.cautions, Caution("one-type", message)))


def _price_of_redundancy(plan: Plan) -> str:
    """The setting that gives a second instance, and its additional cost per hour.

    The searches share what the plan's own search has left of its time limit.
    """
    from melange.plan.search_clock import STUCK_TIMES, by_work, now_s

    left_s = plan.options.time_limit_s - plan.solve_s
    if left_s <= 0 or plan.status == "time limit":
        return _NOT_SEARCHED
    most_s = min(left_s, _MOST_SEARCH_S)

    def search(spare: int | None) -> Plan:
        from melange.plan.solve import solve

        if now_s() >= most_s:
            raise SolverError("the time is used up")
        question = plan.question.with_options(budget_per_h=None, time_limit_s=most_s - now_s())
        return solve(question if spare is None else question.with_options(spare_replicas=spare))

    spare = 1
    try:
        with by_work(min(STUCK_TIMES, left_s / most_s)):
            base = search(None) if plan.certificate is not None or plan.options.budget_per_h else plan
            while (found := search(spare)).instances.sum() == 1:
                # One instance holds several replicas, which all fail with it.
                alone = int(np.flatnonzero(found.instances)[0])
                spare = max(spare + 1, found.replica_types[alone].replicas_per_instance)
    except SolverError:
        return _NOT_SEARCHED
    except MelangeError:
        return f"no plan with --set plan.spare_replicas={spare} is possible within its limits"
    more = found.cost_per_h - base.cost_per_h
    return f"--set plan.spare_replicas={spare} costs {more:+,.2f} USD/h (closed form)"
