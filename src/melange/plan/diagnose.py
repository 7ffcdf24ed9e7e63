"""Why no fleet serves the workload although every bucket has a type that serves it: which limit prevents it.

One kind of limit is lifted at a time. If a fleet then exists, that limit prevented it; the least amount by which the
limit must be relaxed says by how much.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from melange.errors import InfeasibleError
from melange.plan.fleet import TOLERANCE
from melange.plan.milp.formulation import formulate
from melange.plan.milp.highs import LinearRows, minimise
from melange.plan.milp.milp import Block, extended
from melange.plan.problem import Limit, Problem
from melange.units import count_of

# Time limit of one question to the solver [s]; there are six at most. An error should not take longer than the plan
# would have. What is found by then is reported; if nothing is found, that limit is not named. On 48 random instances of
# 60 buckets x 8 and 40 types (bench/instances.py) all of them together took 30 ms at most.
_TIME_LIMIT_S = 5.0


def why_infeasible(problem: Problem, unlimited: Problem) -> InfeasibleError:
    """The error for a problem that has no fleet; ``unlimited`` is the same problem without availability limits."""
    for requirement in problem.requirements:
        if not requirement.member.any():
            words = "is required, but none is allowed, available and able to serve any of the requests"
            return _error(problem, [f"{requirement.name} {words}"])
    tests: tuple[Callable[[Problem, Problem], str], ...] = (
        _availability,
        _max_types,
        _requirements,
        _spare,
        _min_total,
        _budget,
    )
    reasons = [reason for test in tests if (reason := test(problem, unlimited))]
    if not reasons:
        present = [limit.name for limit in problem.limits] + [item.name for item in problem.requirements]
        reasons = [f"several settings together prevent it: {', '.join(present) or 'no single cause found'}"]
    return _error(problem, reasons)


def _error(problem: Problem, reasons: list[str]) -> InfeasibleError:
    if problem.budget_per_h is None:
        message, hint = "no allowed fleet can serve the workload", "relax that limit, or lower the rate"
    else:  # any part of the traffic would do, so a lower rate does not help
        message = f"no allowed fleet is within the budget of {problem.budget_per_h:g} USD/h"
        hint = "relax that limit"
    if len(reasons) > 1:
        hint = "relaxing any one of these makes a plan possible"
    return InfeasibleError(message, reasons=reasons, hint=hint)


def _availability(problem: Problem, unlimited: Problem) -> str:
    """The smallest shortfall of availability."""
    if not problem.limits:
        return ""
    excess = _least_excess(unlimited, problem.limits)
    if excess is None:
        return ""
    short = [
        f"{limit.name}: at least {np.ceil(limit.most + more - TOLERANCE):g} needed, {limit.most:g} available"
        for limit, more in zip(problem.limits, excess, strict=True)
        if more > TOLERANCE
    ]
    return "; ".join(short)


def _max_types(problem: Problem, unlimited: Problem) -> str:
    if problem.max_types is None:
        return ""
    free = problem.with_changes(max_types=len(problem.cost), budget_per_h=None)
    milp = formulate(free)
    types = len(problem.cost)
    cost = np.zeros(len(milp.program.cost))
    cost[milp.columns.used : milp.columns.used + types] = 1.0
    x = _solved(replace(milp.program, cost=cost))
    if x is None:
        return ""
    return f"max_types: at least {round(cost @ x)} different types are needed, {problem.max_types} allowed"


def _requirements(problem: Problem, unlimited: Problem) -> str:
    if not problem.requirements or not _possible(problem.with_changes(requirements=())):
        return ""
    return (
        f"require: {', '.join(item.name for item in problem.requirements)} cannot all be used within the other limits"
    )


def _spare(problem: Problem, unlimited: Problem) -> str:
    if not (problem.spare.any() or problem.spare_total):
        return ""
    bare = problem.with_changes(spare=np.zeros(len(problem.cost)), spare_total=0)
    return "spare replicas: the other limits leave no room for them" if _possible(bare) else ""


def _min_total(problem: Problem, unlimited: Problem) -> str:
    least = bool((problem.least > 1).any())
    bare = problem.with_changes(min_total=0, least=np.ones(len(problem.cost), np.int64))
    if not (problem.min_total or least) or not _possible(bare):
        return ""
    asked = (
        f"{count_of(problem.min_total, 'replica')} in total"
        if problem.min_total
        else "the minimum replicas of a used type"
    )
    return f"minimum replicas: the other limits leave no room for {asked}"


def _budget(problem: Problem, unlimited: Problem) -> str:
    """Under a budget no traffic has to be served, so only required instances can cost too much."""
    if problem.budget_per_h is None:
        return ""
    # Above any cost: the program keeps its variable for the served share, and the budget does not bind.
    milp = formulate(problem.with_changes(budget_per_h=1e12))
    cost = np.zeros(len(milp.program.cost))
    cost[: len(problem.cost)] = problem.cost
    x = _solved(replace(milp.program, cost=cost))
    if x is None:
        return ""
    if cost @ x <= problem.budget_per_h:
        # The size whose cheapest type costs most.
        least = np.where(np.isfinite(problem.load), problem.cost[:, None], np.inf).min(axis=0).max()
        few = f"budget: {problem.budget_per_h:g} USD/h is too little to serve a part of every request size"
        return f"{few}; at least {enough(least)} USD/h is needed" if least > problem.budget_per_h else few
    return f"budget: required instances cost {enough(cost @ x)} USD/h, {problem.budget_per_h:g} allowed"


def enough(usd: float) -> str:
    """An amount of money rounded up to cents, as it has to be allowed.

    >>> enough(3.36312), enough(3.36)
    ('3.37', '3.36')
    """
    return f"{np.ceil(100 * usd - TOLERANCE) / 100:.2f}"


def _possible(problem: Problem) -> bool:
    return _solved(formulate(problem).program) is not None


def _solved(program: LinearRows) -> np.ndarray | None:
    return minimise(program, time_limit_s=_TIME_LIMIT_S).x


def _least_excess(unlimited: Problem, limits: tuple[Limit, ...]) -> np.ndarray | None:
    """The least additions to the limits (J,) with which a fleet exists; None if these limits are not the reason.

    minimize sum_j e_j / A_j: sum_r g_rj n_r - e_j <= A_j
    """
    milp = formulate(unlimited)
    columns, size = len(milp.program.cost), len(limits)
    at = np.repeat(np.arange(size), [len(limit.members) for limit in limits])
    types, weight = (
        np.concatenate(parts) for parts in zip(*((one.members, one.weight) for one in limits), strict=True)
    )
    program = extended(
        milp,
        cost=np.append(np.zeros(columns), [1.0 / max(limit.most, 1.0) for limit in limits]),
        upper=np.full(size, np.inf),
        added=Block(
            name="limit",
            lower=np.full(size, -np.inf),
            upper=np.array([limit.most for limit in limits], float),
            row=np.concatenate([at, np.arange(size)]),
            column=np.concatenate([types, columns + np.arange(size)]),
            value=np.concatenate([weight, -np.ones(size)]),
        ),
    ).program
    x = _solved(program)
    return None if x is None else x[columns:]
