"""The search for the cheapest fleet, and for the largest share of traffic that a budget carries."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from melange.errors import InfeasibleError, SolverError
from melange.plan.fleet import TOLERANCE, Fleet, busy, least_peak_shares
from melange.plan.formulation import Milp, formulate
from melange.plan.highs import Outcome, minimise
from melange.plan.options import Options
from melange.plan.problem import ROUNDING, Problem
from melange.workload.workload import Array

Progress = Callable[[str], None]


def cheapest(problem: Problem, options: Options, *, say: Progress, deadline: float) -> Fleet:
    """The cheapest fleet that carries everything.

    Raises
    ------
    InfeasibleError
        There is none.
    """
    scenarios: tuple[int, ...] = ()
    strict, bound = problem, -np.inf
    for _ in range(100):
        milp = formulate(strict, scenarios=scenarios)
        outcome = _run(milp, options, deadline)
        bound = max(bound, outcome.bound)
        assert outcome.x is not None
        fleet = _fleet(problem, milp, outcome.x, bound=bound, status=outcome.status)
        if fleet is None:
            # A load that the solver's tolerance let through; ask for a little more room than that.
            strict = strict.with_changes(load=strict.load * (1 + 2 * TOLERANCE))
            continue
        missing = _unsafe_losses(problem, fleet)
        if not missing:
            return fleet
        scenarios = (*scenarios, *missing)
        say(f"the fleet must also stand the loss of {', '.join(problem.names[r] for r in missing)}")
    raise SolverError("the solver's plans keep breaking their constraints", hint="this is a bug")


def _run(milp: Milp, options: Options, deadline: float) -> Outcome:
    left = deadline - time.monotonic()
    outcome = minimise(milp.program, time_limit_s=left, gap=options.gap, seed=options.seed)
    if outcome.status == "infeasible":
        raise InfeasibleError("no allowed set of replicas carries the workload")
    if outcome.x is None:
        raise SolverError(
            f"no plan was found within {options.time_limit_s:g} s", hint="give it more time: plan.time_limit_s"
        )
    return outcome


def _fleet(problem: Problem, milp: Milp, x: Array, *, bound: float, status: str, served: float = 1.0) -> Fleet | None:
    """The fleet that a point of the program stands for, its shares tidied; None where rounding broke it."""
    count = np.round(x[: len(problem.cost)]).astype(np.int64)
    share = _shares(problem, milp, x, 0, problem.carried(count), served)
    after_loss = {
        lost: _shares(problem, milp, x, at + 1, problem.carried_after_loss(count, lost), served)
        for at, lost in enumerate(milp.columns.scenarios)
    }
    if share is None or any(item is None for item in after_loss.values()):
        return None
    kept = {lost: item for lost, item in after_loss.items() if item is not None}
    return Fleet(instances=count, share=share, after_loss=kept, bound=bound, status=status)


def _shares(problem: Problem, milp: Milp, x: Array, block: int, carried: Array, served: float) -> Array | None:
    """Shares (R, B) of one block: of the lowest peak load, or the whole slices that the solver chose."""
    if problem.slices is None:
        found = least_peak_shares(problem, carried, served)
        return None if found is None or found[1] > 1 + TOLERANCE else found[0]
    columns, pairs = milp.columns, len(milp.columns.type_of)
    first = columns.share + block * pairs
    share = np.zeros(problem.load.shape)
    share[columns.type_of, columns.bucket_of] = np.round(x[first : first + pairs]) / problem.slices
    return None if (busy(problem, share) > carried * (1 + TOLERANCE)).any() else share


def _unsafe_losses(problem: Problem, fleet: Fleet, served: float = 1.0) -> list[int]:
    """Used types whose loss the fleet has not been asked to stand yet, and does not."""
    if problem.spare_total == 0:
        return []
    unsafe = []
    for lost in np.flatnonzero(fleet.instances).tolist():
        if lost in fleet.after_loss:
            continue
        carried = problem.carried_after_loss(fleet.instances, lost)
        found = least_peak_shares(problem, carried, served)
        if found is None or found[1] > 1 + TOLERANCE or problem.slices is not None:
            unsafe.append(lost)
        else:
            fleet.after_loss[lost] = found[0]
    return unsafe


def most_traffic(problem: Problem, options: Options, *, say: Progress, deadline: float) -> tuple[Fleet, float]:
    """The fleet within the budget that serves the largest share of every bucket, and that share.

    Raises
    ------
    InfeasibleError
        The minimums and requirements cost more than the budget.
    """
    assert problem.budget_per_h is not None
    everything = problem.with_changes(budget_per_h=None)
    reach = min(1.0, problem.budget_per_h / floor_per_h(problem))
    if reach >= 1.0:
        fleet = _within_budget(everything, problem.budget_per_h, options, say, deadline)
        if fleet is not None:
            return fleet, 1.0
    # Shares of what the budget can reach at best, so that a small budget is not lost in the solver's tolerance.
    unit = 1.0 if problem.slices else reach
    scaled = problem.with_changes(load=problem.load * unit)
    fleet, part = _largest_part(scaled, options, say, deadline)
    fleet = _scaled(fleet, unit)
    bound, part = fleet.bound * unit, part * unit
    if problem.slices is None:
        # The same traffic, for less where that is possible.
        same = everything.with_changes(load=problem.load * part * (1 - ROUNDING))
        cheaper = _within_budget(same, problem.budget_per_h, options, say, deadline)
        if cheaper is not None and problem.cost @ cheaper.instances < problem.cost @ fleet.instances:
            fleet = _scaled(cheaper, part)
    return replace(fleet, bound=bound), part


def _scaled(fleet: Fleet, unit: float) -> Fleet:
    """The fleet with every share multiplied."""
    after_loss = {lost: share * unit for lost, share in fleet.after_loss.items()}
    return replace(fleet, share=fleet.share * unit, after_loss=after_loss)


def floor_per_h(problem: Problem) -> float:
    """No fleet costs less: every bucket on the type that serves it cheapest, in parts of instances [USD/h].

    sum_b min_r c_r l_rb / ((1 - h) p_r)
    """
    return float((problem.load * (problem.cost / problem.capacity)[:, None]).min(axis=0).sum())


def _within_budget(
    everything: Problem, budget_per_h: float, options: Options, say: Progress, deadline: float
) -> Fleet | None:
    """The cheapest fleet that carries everything, where that is within the budget."""
    try:
        fleet = cheapest(everything, options, say=say, deadline=deadline)
    except InfeasibleError:
        return None
    return fleet if everything.cost @ fleet.instances <= budget_per_h * (1 + ROUNDING) else None


def _largest_part(problem: Problem, options: Options, say: Progress, deadline: float) -> tuple[Fleet, float]:
    """The fleet that serves the largest share of the traffic at all, and that share."""
    scenarios: tuple[int, ...] = ()
    bound = -np.inf
    while True:
        milp = formulate(problem, scenarios=scenarios)
        outcome = _run(milp, options, deadline)
        assert outcome.x is not None
        whole = problem.slices or 1
        bound = max(bound, outcome.bound / whole)
        part = max(0.0, outcome.x[milp.columns.served] / whole)
        if problem.slices is None:
            part = _part_carried(problem, np.round(outcome.x[: len(problem.cost)]), milp.columns.scenarios)
        if part <= 0:
            raise InfeasibleError("the budget carries nothing")
        fleet = _fleet(problem, milp, outcome.x, bound=bound, status=outcome.status, served=part)
        if fleet is None:
            raise SolverError("the solver's plan breaks its constraints", hint="this is a bug")
        missing = _unsafe_losses(problem, fleet, part)
        if not missing:
            return fleet, part
        scenarios = (*scenarios, *missing)
        say(f"the fleet must also stand the loss of {', '.join(problem.names[r] for r in missing)}")


def _part_carried(problem: Problem, count: Array, scenarios: tuple[int, ...]) -> float:
    """Share of every bucket that so many instances carry, also after each loss."""
    fleets = [problem.carried(count), *(problem.carried_after_loss(count, lost) for lost in scenarios)]
    found = [least_peak_shares(problem, carried) for carried in fleets]
    return min(1.0, *(0.0 if item is None else 1.0 / item[1] for item in found))
