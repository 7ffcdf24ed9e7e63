"""The cheapest fleet by the mixed-integer program, and the checks that its answer needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from melange.errors import InfeasibleError, SolverError
from melange.plan.exact.projection import floor_per_h
from melange.plan.fleet import TOLERANCE, Fleet, broken_limits, busy, least_peak_shares
from melange.plan.milp.formulation import formulate, largest_losses
from melange.plan.milp.highs import Solved, minimise
from melange.plan.milp.milp import Milp
from melange.plan.milp.slices import quickly_sliced, whole_buckets
from melange.plan.options import Options
from melange.plan.problem import Positions, Problem
from melange.plan.search_clock import now_s
from melange.workload.workload import Array

# Receives progress messages of a search.
Say = Callable[[str], None]


# Each round adds losses that the last fleet does not survive, each type's at most once, or a little slack. Fleets use a
# handful of types, so a hundred rounds mean that the program and its check contradict each other.
_MOST_ROUNDS = 100


class OutOfTimeError(SolverError):
    """The time ran out before any plan was found."""


def out_of_time(options: Options) -> OutOfTimeError:
    """The error of a search that found nothing in time."""
    return OutOfTimeError(
        f"no plan was found within {options.time_limit_s:g} s", hint="allow more time with plan.time_limit_s"
    )


def by_program(problem: Problem, options: Options, *, say: Say, deadline: float, known: Fleet | None = None) -> Fleet:
    """The cheapest fleet by the mixed-integer program; ``known`` is a good fleet to start from."""
    scenarios: tuple[int, ...] = ()
    strict, bound, presolve = problem, floor_per_h(problem), False
    for _ in range(_MOST_ROUNDS):
        milp = formulate(strict, scenarios=scenarios)
        start = None if known is None else start_point(strict, milp, known.instances, known.share)
        # With slices the first fleet may be far from optimal, and the solver's own heuristics find better ones.
        heuristics = start is None or problem.slices is not None
        try:
            outcome = run_program(milp, options, deadline, start, heuristics=heuristics, presolve=presolve)
        except InfeasibleError:
            if known is None or not presolve:
                raise
            return replace(known, bound=bound)
        smaller = contradiction(problem, outcome)
        if smaller is not None and presolve:
            return replace(smaller, bound=bound)
        if smaller is not None:
            known, presolve = smaller, True
            continue
        bound = max(bound, outcome.bound)
        assert outcome.x is not None
        fleet = fleet_of(problem, milp, outcome.x, bound=bound, status=outcome.status)
        if fleet is None:
            # The solver's tolerance let an overload through: ask for twice the slack that it takes.
            strict = strict.with_changes(load=strict.load * (1 + 2 * TOLERANCE))
            continue
        missing = unsafe_losses(problem, fleet)
        if not missing:
            return fleet
        scenarios = (*scenarios, *missing)
        say(f"the fleet must also survive the loss of {', '.join(problem.names[r] for r in missing)}")
    raise SolverError("the solver's plans keep violating their constraints", hint="this is a bug")


def contradiction(problem: Problem, outcome: Solved) -> Fleet | None:
    """A fleet with one instance less that carries the traffic at less than the solver's bound; None if there is none.

    It shows that the solver is wrong. Fleets that must survive the loss of any type are not examined.
    """
    if outcome.x is None or problem.spare_total:
        return None
    count = np.round(outcome.x[: len(problem.cost)]).astype(np.int64)
    for r in np.flatnonzero(count):
        smaller = count.copy()
        smaller[r] -= 1
        if problem.cost @ smaller >= outcome.bound * (1 - TOLERANCE) or broken_limits(problem, smaller):
            continue
        share = fitting_shares(problem, smaller)
        if share is not None:
            return Fleet(instances=smaller, share=share, after_loss={}, bound=0.0, status="time limit")
    return None


def start_point(
    problem: Problem,
    milp: Milp,
    count: Positions,
    share: Array | None = None,
    after_loss: Mapping[int, Array] | None = None,
) -> Array | None:
    """The point of the program that corresponds to a fleet; None if the fleet does not carry the traffic.

    ``share`` (R, B) are shares that fit, and ``after_loss`` those after losses, if they are known.
    """
    columns, kept = milp.columns, after_loss or {}
    if columns.served >= 0 or any(lost not in kept and count[lost] for lost in columns.scenarios):
        return None
    share = fitting_shares(problem, count) if share is None else share
    if share is None:
        return None
    x = np.zeros(columns.count)
    x[: len(count)] = count
    if columns.used >= 0:
        x[columns.used : columns.used + len(count)] = count > 0
    whole, pairs = problem.slices or 1, len(columns.type_of)
    for block, part in enumerate([share, *(kept.get(lost, share) for lost in columns.scenarios)]):
        at = columns.share + block * pairs
        x[at : at + pairs] = part[columns.type_of, columns.bucket_of] * whole
    for place, lost in enumerate(columns.scenarios):
        x[columns.survivor + place] = problem.replicas[lost] * count[lost] > problem.spare_total
    if milp.losses is not None:
        x[columns.largest_loss :] = largest_losses(problem, milp.losses, count)
    return x


def fitting_shares(problem: Problem, count: Positions) -> Array | None:
    """Shares (R, B) with which a fleet carries everything, in whole slices if asked for; None if none were found."""
    carried = problem.carried(count)
    found = least_peak_shares(problem, carried)
    if found is None or found[1] > 1 + TOLERANCE:
        return None
    if problem.slices is None:
        return found[0]
    quick = quickly_sliced(problem, found[0], carried)
    return whole_buckets(problem, carried) if quick is None else quick


def run_program(
    milp: Milp,
    options: Options,
    deadline: float,
    start: Array | None = None,
    *,
    heuristics: bool | None = None,
    presolve: bool = False,
) -> Solved:
    """Solve a program until the deadline; by default, heuristics are used only if there is no start."""
    left = deadline - now_s()
    outcome = minimise(
        milp.program,
        time_limit_s=left,
        gap=options.gap,
        seed=options.seed,
        start=start,
        heuristics=start is None if heuristics is None else heuristics,
        presolve=presolve,
    )
    if outcome.status == "infeasible":
        raise InfeasibleError("no allowed fleet can serve the workload")
    if outcome.x is None:
        raise out_of_time(options)
    return outcome


def fleet_of(problem: Problem, milp: Milp, x: Array, *, bound: float, status: str, served: float = 1.0) -> Fleet | None:
    """The fleet of a point of the program, its shares tidied; None if rounding broke a constraint."""
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
    """Shares (R, B) of one block: those of the lowest peak load, or the whole slices that the solver chose.

    After a loss (the blocks past the first), shares need not be whole slices.
    """
    if problem.slices is None or block > 0:
        found = least_peak_shares(problem, carried, served)
        return None if found is None or found[1] > 1 + TOLERANCE else found[0]
    columns, pairs = milp.columns, len(milp.columns.type_of)
    first = columns.share + block * pairs
    share = np.zeros(problem.load.shape)
    share[columns.type_of, columns.bucket_of] = np.round(x[first : first + pairs]) / problem.slices
    return None if (busy(problem, share) > carried * (1 + TOLERANCE)).any() else share


def unsafe_losses(problem: Problem, fleet: Fleet, served: float = 1.0) -> list[int]:
    """Used types whose loss the fleet does not survive, and has not been asked to survive yet."""
    if problem.spare_total == 0:
        return []
    unsafe = []
    for lost in np.flatnonzero(fleet.instances).tolist():
        if lost in fleet.after_loss:
            continue
        carried = problem.carried_after_loss(fleet.instances, lost)
        found = least_peak_shares(problem, carried, served)
        if found is None or found[1] > 1 + TOLERANCE:
            unsafe.append(lost)
        else:
            fleet.after_loss[lost] = found[0]
    return unsafe
