"""Plans from fleets, for several planners."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from melange.plan.plan import Plan
from melange.plan.problem import limits_of
from melange.plan.question import Question
from melange.replica.alone import idle_times_s
from melange.service.session import Session
from melange.validate.certify.headroom import as_asked

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def on_mean(session: Session) -> Question:
    """The service under limits on the mean, as in the Mélange paper; sizes that no type can serve are left out."""
    settings = (*session.settings, "slo.statistic=mean", "plan.drop_unservable=true")
    return Session(session.source, settings=settings).question()


def fleet(question: Question, instances: Counts, share: Array) -> Plan:
    """The plan with these instances (R,) and shares (R, I, O)."""
    plan = Plan(
        question=question,
        instances=instances,
        share=_everywhere(question, instances, share),
        load=np.zeros(len(instances)),
        cost_per_h=float(instances @ np.array([one.cost_per_h for one in question.profile.replica_types])),
        bound_per_h=None,
        gap=1.0,
        single_type={},
        status="given",
    )
    return as_asked(plan, question)


def single(question: Question, place: int, count: int) -> Plan:
    """The plan with a number of instances of one type, which gets all requests."""
    shape = question.profile.max_request_rate.shape
    instances, share = np.zeros(shape[0], np.int64), np.zeros(shape)
    instances[place] = count
    share[place] = question.workload.request_rate > 0
    return fleet(question, instances, share)


def carrying_all(plan: Plan) -> Plan:
    """The plan with shares also for the requests that it leaves out."""
    return replace(plan, share=_everywhere(plan.question, plan.instances, plan.share))


def _everywhere(question: Question, instances: Counts, share: Array) -> Array:
    """Shares (R, I, O) for all requests: sizes without a type go to the used type that is fastest for a single request.

    The requests that a plan leaves out still arrive, and count: a balancer must send them somewhere.
    """
    rate = question.workload.request_rate
    left = (rate > 0) & (share.sum(axis=0) < 0.5)
    if not left.any():
        return share
    whole = share.copy()
    inputs, outputs = question.workload.input_tokens[left], question.workload.output_tokens[left]
    used = np.flatnonzero(instances)
    engines = [question.profile.engines[r] for r in used]
    latency = [idle_times_s(engine, inputs, outputs, np.zeros_like(inputs))[1] for engine in engines if engine]
    best = used[np.argmin(latency, axis=0)]
    for cell, r in zip(np.argwhere(left), best, strict=True):
        whole[:, cell[0], cell[1]] = 0.0
        whole[r, cell[0], cell[1]] = 1.0
    return whole


def most_of(question: Question, place: int) -> int:
    """Maximum number of instances of one type."""
    limits = limits_of(question.profile.replica_types, question.options)
    drawn = [
        float((limit.most / limit.weight[limit.members == place])[0]) for limit in limits if place in limit.members
    ]
    return int(min(drawn, default=10**9))


def broken_limit(question: Question, instances: Counts) -> str:
    """The limit on instances or types that a fleet exceeds, as text; empty if it keeps to all limits."""
    options = question.options
    for limit in limits_of(question.profile.replica_types, options):
        if (taken := float(limit.taken(instances))) > limit.most:
            return f"takes {taken:g} {limit.name}, only {limit.most:g} available"
    used = int(np.count_nonzero(instances))
    if options.max_types is not None and used > options.max_types:
        return f"takes {used} types, at most {options.max_types} are wanted"
    return ""
