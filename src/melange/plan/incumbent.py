"""The current plan: among fleets of equal cost, the one that changes the fewest instances.

    minimize  sum_r d_r      d_r >= n_r - n'_r,  d_r >= n'_r - n_r,  sum_r c_r n_r <= C

over the fleets that serve everything (docs/formulation.md, "stable answer"). n' are the current instances, C is the
cost that was found.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from melange.errors import InfeasibleError, SolverError
from melange.plan.fleet import Fleet
from melange.plan.milp.formulation import formulate
from melange.plan.milp.milp import Block, Milp, extended
from melange.plan.milp.program import fleet_of, run_program, start_point, unsafe_losses
from melange.plan.options import Options
from melange.plan.problem import ROUNDING, Positions, Problem
from melange.plan.search_clock import now_s

# The search for fewer changes may take at most this share of the time left, and this long [s]. The cost is settled by
# then, and a plan with one unnecessary change is better than a late plan.
_SHARE_OF_TIME, _MOST_SECONDS = 0.5, 5.0


def nearest(problem: Problem, fleet: Fleet, in_force: Positions, options: Options, deadline: float) -> Fleet:
    """The fleet that costs no more than ``fleet`` and changes the fewest of the instances ``in_force`` (R,).

    Returns ``fleet`` itself if no fleet changes fewer, or if the time is too short to find out.
    """
    changes = int(np.abs(fleet.instances - in_force).sum())
    if not changes:
        return fleet
    left = deadline - now_s()
    until = now_s() + min(left * _SHARE_OF_TIME, _MOST_SECONDS)
    try:
        found = _nearest(problem, fleet, in_force, replace(options, gap=0.0), until)
    except (InfeasibleError, SolverError):
        return fleet
    if found is None or np.abs(found.instances - in_force).sum() >= changes:
        return fleet
    return found if problem.cost @ found.instances <= float(problem.cost @ fleet.instances) * (1 + ROUNDING) else fleet


def _nearest(problem: Problem, fleet: Fleet, in_force: Positions, options: Options, until: float) -> Fleet | None:
    """The fleet of the program; losses that it must survive are added once they turn out to matter."""
    scenarios: tuple[int, ...] = ()
    while True:
        milp = formulate(problem, scenarios=scenarios)
        program = _fewest_changes(milp, problem, in_force, float(problem.cost @ fleet.instances))
        start = start_point(problem, milp, fleet.instances)
        if start is not None:
            start = np.append(start, np.abs(fleet.instances - in_force))
        outcome = run_program(program, options, until, start)
        if outcome.x is None:
            return None
        point = outcome.x[: len(milp.program.cost)]
        found = fleet_of(problem, milp, point, bound=fleet.bound, status=fleet.status)
        missing = [] if found is None else unsafe_losses(problem, found)
        if not missing:
            return found
        scenarios = (*scenarios, *missing)


def _fewest_changes(milp: Milp, problem: Problem, in_force: Positions, cost_per_h: float) -> Milp:
    """The program with a column d_r for each type; it minimizes nothing else."""
    types, columns = len(problem.cost), len(milp.program.cost)
    number, change = np.arange(types), columns + np.arange(types)
    ones = np.ones(types)
    return extended(
        milp,
        cost=np.concatenate([np.zeros(columns), ones]),
        upper=np.full(types, np.inf),
        added=Block(
            name="change",
            lower=np.full(2 * types + 1, -np.inf),
            upper=np.concatenate([in_force, -in_force, [cost_per_h * (1 + ROUNDING)]]).astype(float),
            row=np.concatenate([number, number, types + number, types + number, np.full(types, 2 * types)]),
            column=np.concatenate([number, change, number, change, number]),
            value=np.concatenate([ones, -ones, -ones, -ones, problem.cost]),
        ),
    )
