"""The cheapest plan with a single replica type, for every type: the baselines of a mix."""

from __future__ import annotations

import numpy as np

from melange.plan.plan import Baseline
from melange.plan.problem import ROUNDING, Limit, Positions, Problem, build
from melange.plan.question import Question
from melange.plan.servable import Scope
from melange.profile.profile import Profile
from melange.units import percent
from melange.workload.workload import Array


def single_types(question: Question, scope: Scope) -> dict[str, Baseline]:
    """Cost, or why there is none, by replica type name; each type obeys the same settings as the mix.

    A single type needs no optimization: n = ceil((sum_b l_b / (1 - h) + k) / p), or more where a minimum asks for
    it. How a bucket is sliced makes no difference.
    """
    profile, allowed = question.profile, scope.allowed
    every = build(question, np.ones(len(allowed), bool), scope.served)
    able = np.isfinite(every.load)
    count, needed = _instances(every)
    rates = question.workload.request_rate.ravel()[every.cells]
    limits = _limits_by_type(every)
    baselines = {}
    for r, item in enumerate(profile.replica_types):
        reason, others = "", [need.name for need in every.requirements if not need.member[r]]
        if not allowed[r]:
            reason = "excluded or not available"
        elif not able[r].all():
            reason = _cannot_serve(profile, r, every.cells[~able[r]])
        elif others:
            reason = f"the service requires {', '.join(others)}"
        else:
            reason = _cannot_have(every, limits[r], r, int(count[r]), float(needed[r]))
        cost = float(count[r] * every.cost[r])
        fraction = float(rates[able[r]].sum() / rates.sum())
        is_partial = allowed[r] and not others and 0 < fraction < 1
        is_partial = is_partial and not _cannot_have(every, limits[r], r, int(count[r]), float(needed[r]))
        baselines[item.name] = Baseline(
            cost_per_h=None if reason else cost,
            instances=0 if reason else int(count[r]),
            reason=reason,
            served_fraction=fraction,
            rest_cost_per_h=cost if is_partial else None,
        )
    return baselines


def _instances(problem: Problem) -> tuple[Positions, Array]:
    """Instances that each type needs to serve everything alone, and the load that it then carries (R,)."""
    load = np.where(np.isfinite(problem.load), problem.load, 0.0).sum(axis=1)
    lost = np.maximum(problem.spare, problem.spare_total)
    exact = (load / (1.0 - problem.headroom) + lost) / problem.replicas
    # Even the smallest traffic needs one replica besides those that may be lost.
    count = np.maximum(np.ceil(exact - ROUNDING * np.maximum(exact, 1.0)), np.floor(lost / problem.replicas) + 1)
    count = np.maximum.reduce([count, problem.least, np.ceil(problem.min_total / problem.replicas), np.ones(len(load))])
    return count.astype(np.int64), load


def _limits_by_type(problem: Problem) -> list[list[tuple[Limit, float]]]:
    """The limits that each type draws from, and how much of each limit one instance takes (R)."""
    found: list[list[tuple[Limit, float]]] = [[] for _ in problem.cost]
    for limit in problem.limits:
        for r, weight in zip(limit.members.tolist(), limit.weight.tolist(), strict=True):
            found[r].append((limit, weight))
    return found


def _cannot_have(problem: Problem, limits: list[tuple[Limit, float]], r: int, count: int, load: float) -> str:
    """Why that many instances of a type are not available; empty if they are."""
    for limit, weight in limits:
        taken = weight * count
        if taken > limit.most:
            return f"needs {taken:g} {limit.name}, only {limit.most:g} available"
    if problem.budget_per_h is not None and count * problem.cost[r] > problem.budget_per_h:
        most = np.floor(problem.budget_per_h / problem.cost[r] + ROUNDING)
        carried = problem.replicas[r] * most - max(problem.spare[r], problem.spare_total)
        part = max(0.0, carried) * (1.0 - problem.headroom) / load
        return f"serves {percent(part)} of the traffic within the budget"
    return ""


def _cannot_serve(profile: Profile, r: int, cells: Positions) -> str:
    """The bucket that a type cannot serve, and why."""
    i, o = np.unravel_index(cells[0], profile.buckets.shape)
    why = profile.reasons[profile.reason[r, i, o]]
    size = profile.buckets.label(int(i), int(o))
    sizes = size if len(cells) == 1 else f"{len(cells)} sizes, for example {size}"
    return f"cannot serve {sizes}" + (f": {why}" if why else "")
