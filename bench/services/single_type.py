"""Fleets of one type: the cheapest by closed form, the cheapest certified by simulation, and H100 only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from draw import SAMPLE, times_alone_s
from fleets import most_of, on_mean, single
from fresh import measured, requests_of, run
from melange.errors import InfeasibleError
from melange.plan.baseline import single_types
from melange.plan.plan import Plan
from melange.plan.problem import loads
from melange.plan.question import Question
from melange.plan.servable import scope_of
from melange.service.session import Session
from melange.slo import Slo
from melange.validate.simulate import within_context
from melange.workload.arrivals import draw

# The sum of loads was at most this factor above the replicas needed in simulations (docs/proof.md): no fleet with fewer
# replicas than that sum divided by this factor is tried.
MOST_TOO_CAUTIOUS = 1.26
# If this multiple of the closed form's replicas does not hold, larger fleets are not tried.
MOST_TIMES = 32
# A first run with requests divided by this ends the test of a fleet that clearly misses the target.
FIRST_PART = 5
SEED = 0


def closed_form(session: Session, wanted: Callable[[str], bool] = lambda _: True) -> Plan:
    """The cheapest fleet of one type with a wanted accelerator, under limits on the mean."""
    question = on_mean(session)
    types = question.profile.replica_types
    if not any(wanted(one.offer.accelerator) for one in types):
        raise InfeasibleError("no such type is offered")
    found = single_types(question, scope_of(question))
    able = [
        (item.cost_per_h, place, item.instances)
        for place, (one, item) in enumerate(zip(types, found.values(), strict=True))
        if item.cost_per_h is not None and wanted(one.offer.accelerator)
    ]
    if not able:
        raise InfeasibleError("no type serves every size within limits on the mean")
    _, place, count = min(able)
    return single(question, place, count)


def rented_by_everybody(session: Session) -> Plan:
    """The cheapest fleet with only H100, in any form."""
    return closed_form(session, lambda accelerator: accelerator.startswith("H100"))


@dataclass(frozen=True, order=True)
class Candidate:
    """A type with a lower bound of its cost [USD/h], its least number of instances, and that by the sum of loads."""

    least_per_h: float
    place: int
    least: int
    count: int


def certified(session: Session) -> Plan:
    """The cheapest fleet of one type certified by simulation, from the smallest fleet of each type."""
    question, slo, target = on_mean(session), session.slo, session.slo.attainment or 0.99
    best: Plan | None = None
    for candidate in sorted(_candidates(question, slo, target)):
        if best is not None and candidate.least_per_h >= best.cost_per_h:
            break
        found = _smallest(question, candidate, slo, target, best)
        best = found or best
    if best is None:
        raise InfeasibleError("no fleet of one type was found that holds")
    return best


def _candidates(question: Question, slo: Slo, target: float) -> Iterator[Candidate]:
    """The types on which enough requests can meet the limits alone, with the cheapest of equal types.

    A type without the memory for some requests is left out: its engine answers them with an error, and no planner here
    rents a fleet that rejects requests which another type serves.
    """
    types, engines = question.profile.replica_types, question.profile.engines
    load = loads(question.workload, question.profile)
    need = np.where(np.isfinite(load), load, 0.0).sum(axis=1)
    requests = draw(question.workload, SAMPLE, seed=SEED)
    cheapest: dict[object, int] = {}
    for place in sorted(range(len(types)), key=lambda r: types[r].cost_per_h):
        cheapest.setdefault((engines[place], types[place].replicas_per_instance), place)
    alone_by_place = {
        place: times_alone_s(engine, within_context(requests, engine.max_context))
        for place in cheapest.values()
        if (engine := engines[place]) is not None
    }
    fits = {place: np.isfinite(alone["latency"]) for place, alone in alone_by_place.items()}
    is_fitting = np.logical_or.reduce(list(fits.values()), axis=0)
    for place, alone in alone_by_place.items():
        met = np.logical_and.reduce([alone[metric] <= limit for metric, limit in slo.limits.items()])
        if met.mean() < target or (is_fitting & ~fits[place]).any():
            continue
        replicas, price = types[place].replicas_per_instance, types[place].cost_per_h
        count = max(1, math.ceil(need[place] / replicas))
        least = max(1, math.ceil(need[place] / MOST_TOO_CAUTIOUS / replicas))
        yield Candidate(least_per_h=least * price, place=place, least=least, count=count)


def _smallest(question: Question, one: Candidate, slo: Slo, target: float, best: Plan | None) -> Plan | None:
    """The smallest fleet of a type that holds and is cheaper than the best one so far; None if there is none."""
    price = question.profile.replica_types[one.place].cost_per_h
    most = one.count * MOST_TIMES if best is None else math.ceil(best.cost_per_h / price - 1e-9) - 1
    most = min(most, most_of(question, one.place))
    missing, held = one.least - 1, None
    count = (
        min(one.count, most) if best is None else most
    )  # if the largest cheaper fleet misses, so do all smaller ones
    while held is None and count > missing:
        plan = single(question, one.place, count)
        if _holds(plan, question, slo, target):
            held = plan
        else:
            missing, count = count, min(2 * count, most)
    while held is not None and count > missing + 1:
        middle = (missing + count) // 2
        plan = single(question, one.place, middle)
        if _holds(plan, question, slo, target):
            held, count = plan, middle
        else:
            missing = middle
    return held


def _holds(plan: Plan, question: Question, slo: Slo, target: float) -> bool:
    """Whether a fleet holds with confidence, on separate requests."""
    first = run(plan, question.workload, slo, requests_of(question.workload, slo) // FIRST_PART, SEED)
    return first.high >= target and measured(plan, question.workload, slo, target, SEED)[0].low >= target
