"""The largest share of the traffic that a budget can serve."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from melange.errors import InfeasibleError, SolverError
from melange.plan.cheapest import cheapest
from melange.plan.exact.projection import floor_per_h
from melange.plan.fleet import Fleet, least_peak_shares
from melange.plan.milp.formulation import formulate
from melange.plan.milp.program import OutOfTimeError, Say, fleet_of, out_of_time, run_program, unsafe_losses
from melange.plan.options import Options
from melange.plan.problem import ROUNDING, Problem
from melange.plan.search_clock import now_s
from melange.workload.workload import Array

# The program for the largest share may take this part of the time. If it finds nothing by then, these parts of the
# largest share that the budget could serve are tried. Chosen by judgment.
_SEARCH_SHARE, _PARTS = 0.6, (0.95, 0.8, 0.5, 0.2)


def most_traffic(problem: Problem, options: Options, *, say: Say, deadline: float) -> tuple[Fleet, float]:
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
    # Shares relative to the most that the budget can reach: the solver's tolerance must not hide a small budget.
    unit = 1.0 if problem.slices else reach
    scaled = problem.with_changes(load=problem.load * unit)
    now = now_s()
    try:
        fleet, part = _largest_part(scaled, options, say, now + _SEARCH_SHARE * (deadline - now))
    except OutOfTimeError:
        found = _simple_part(scaled, options, say, deadline)
        if found is None:
            raise
        fleet, part = found
    fleet = _scaled(fleet, unit)
    bound, part = fleet.bound * unit, part * unit
    if problem.slices is None:
        # The same traffic, at a lower cost if possible.
        same = everything.with_changes(load=problem.load * part * (1 - ROUNDING))
        cheaper = _within_budget(same, problem.budget_per_h, options, say, deadline)
        if cheaper is not None and problem.cost @ cheaper.instances < problem.cost @ fleet.instances:
            fleet = _scaled(cheaper, part)
    return replace(fleet, bound=bound), part


def _simple_part(problem: Problem, options: Options, say: Say, deadline: float) -> tuple[Fleet, float] | None:
    """The cheapest fleet for the largest of a few parts of the traffic that the budget allows; None if none was found.

    None with slices: whole slices would have to be parts of the traffic as well.
    """
    if problem.slices or problem.budget_per_h is None:
        return None
    everything = problem.with_changes(budget_per_h=None)
    for part in _PARTS:
        now = now_s()
        if now >= deadline:
            break
        lighter = everything.with_changes(load=problem.load * part)
        try:
            fleet = _within_budget(lighter, problem.budget_per_h, options, say, now + (deadline - now) / 2)
        except OutOfTimeError:
            continue
        if fleet is not None:
            return replace(_scaled(fleet, part), bound=-1.0, status="time limit"), part
    return None


def _scaled(fleet: Fleet, unit: float) -> Fleet:
    """The fleet with every share multiplied."""
    after_loss = {lost: share * unit for lost, share in fleet.after_loss.items()}
    return replace(fleet, share=fleet.share * unit, after_loss=after_loss)


def _within_budget(
    everything: Problem, budget_per_h: float, options: Options, say: Say, deadline: float
) -> Fleet | None:
    """The cheapest fleet that carries everything, if it is within the budget."""
    try:
        fleet = cheapest(everything, options, say=say, deadline=deadline)
    except InfeasibleError:
        return None
    return fleet if everything.cost @ fleet.instances <= budget_per_h * (1 + ROUNDING) else None


def _largest_part(problem: Problem, options: Options, say: Say, deadline: float) -> tuple[Fleet, float]:
    """The fleet that serves the largest share of the traffic, and that share."""
    scenarios: tuple[int, ...] = ()
    bound = -np.inf
    while True:
        milp = formulate(problem, scenarios=scenarios)
        outcome = run_program(milp, options, deadline)
        assert outcome.x is not None
        whole = problem.slices or 1
        bound = max(bound, outcome.bound / whole)
        part = max(0.0, outcome.x[milp.columns.served] / whole)
        if problem.slices is None:
            part = _part_carried(problem, np.round(outcome.x[: len(problem.cost)]), milp.columns.scenarios)
        if part <= 0 and outcome.status != "optimal":
            raise out_of_time(options)
        if part <= 0:
            raise InfeasibleError("the budget serves nothing")
        fleet = fleet_of(problem, milp, outcome.x, bound=bound, status=outcome.status, served=part)
        if fleet is None:
            raise SolverError("the solver's plan violates its constraints", hint="this is a bug")
        missing = unsafe_losses(problem, fleet, part)
        if not missing:
            return fleet, part
        scenarios = (*scenarios, *missing)
        say(f"the fleet must also survive the loss of {', '.join(problem.names[r] for r in missing)}")


def _part_carried(problem: Problem, count: Array, scenarios: tuple[int, ...]) -> float:
    """Share of every bucket that these instances carry, also after each loss."""
    fleets = [problem.carried(count), *(problem.carried_after_loss(count, lost) for lost in scenarios)]
    found = [least_peak_shares(problem, carried) for carried in fleets]
    return min(1.0, *(0.0 if item is None else 1.0 / item[1] for item in found))
