"""A fleet: instances of each type and their shares of the traffic; found, cleaned up and checked."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from melange.errors import SolverError
from melange.plan.milp.highs import LinearRows, minimise
from melange.plan.problem import ROUNDING, Positions, Problem
from melange.workload.workload import Array, Mask

# Load over a capacity of 1 that still counts as fitting: HiGHS itself lets a mixed-integer program violate its rows by
# this much. With less, answers that it calls feasible would be refused; with more, a replica could be planned above its
# capacity.
TOLERANCE = 1e-6
# The same for shares from a linear program, or rounded here: HiGHS's tolerance for those.
TIGHT = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fleet:
    """An answer to a planning problem.

    Parameters
    ----------
    instances
        Instances of each type (R,).
    share
        Fraction of each bucket that goes to each type (R, B).
    after_loss
        Shares once a type has lost its replicas (R, B), by the position of that type; empty unless asked for.
    bound
        No fleet costs less [USD/h]; under a budget: the upper bound on the served share, negated.
    status
        ``optimal`` or ``time limit``.
    """

    instances: Positions
    share: Array
    after_loss: dict[int, Array]
    bound: float
    status: str


def least_peak_shares(problem: Problem, carried: Array, served: float = 1.0) -> tuple[Array, float] | None:
    """Shares (R, B) of the lowest peak load when the types take ``carried`` (R,), and that peak.

    minimize t: sum_r f_rb = served, sum_b l_rb f_rb <= t C_r. A vertex of this program splits at most as many
    buckets as there are types. None if a bucket has no type. A peak above 1 means that the traffic does not fit.
    """
    used = np.flatnonzero(carried > 0)
    able = np.isfinite(problem.load[used])
    if not len(used) or not able.any(axis=0).all():
        return None
    program = _peak_program(problem.load[used], carried[used], served)
    outcome = minimise(program)
    if outcome.x is None:
        raise SolverError("HiGHS found no shares for a fleet that can serve every bucket")
    share = np.zeros(problem.load.shape)
    part = np.zeros(able.shape)
    part[able] = np.clip(outcome.x[:-1], 0.0, None)
    part /= part.sum(axis=0)
    share[used] = part * served
    return share, float(outcome.x[-1])


def tidied(problem: Problem, share: Array, carried: Array) -> Array | None:
    """Shares (R, B) without the residues of the solver's tolerance; None if they then break a constraint."""
    kept = np.where((carried > 0)[:, None] & (share > ROUNDING), share, 0.0)
    whole = kept.sum(axis=0)
    # 1 up to the tolerance, unless a bucket's only type was dropped.
    if not (whole > 0.5).all():
        return None
    kept /= whole
    return kept if (busy(problem, kept) <= carried * (1 + TIGHT)).all() else None


def _peak_program(load: Array, carried: Array, served: float) -> LinearRows:
    """The program of :func:`least_peak_shares` over the used types: shares by type then bucket, then t."""
    buckets, types = load.shape[1], len(load)
    type_of, bucket_of = np.nonzero(np.isfinite(load))
    pairs = len(type_of)
    scaled = load[type_of, bucket_of] / carried[type_of]
    row = np.concatenate([np.column_stack([bucket_of, buckets + type_of]).ravel(), buckets + np.arange(types)])
    value = np.concatenate([np.column_stack([np.ones(pairs), scaled]).ravel(), -np.ones(types)])
    start = np.append(np.arange(0, 2 * pairs + 1, 2), len(row))
    return LinearRows(
        cost=np.append(np.zeros(pairs), 1.0),
        lower=np.zeros(pairs + 1),
        upper=np.full(pairs + 1, np.inf),
        row_lower=np.concatenate([np.full(buckets, served), np.full(types, -np.inf)]),
        row_upper=np.concatenate([np.full(buckets, served), np.zeros(types)]),
        start=start.astype(np.int32),
        row=row.astype(np.int32),
        value=value,
    )


def busy(problem: Problem, share: Array) -> Array:
    """Replicas that the shares keep busy on each type (R,)."""
    kept: Array = np.where(share > 0, problem.load * np.where(share > 0, share, 1.0), 0.0).sum(axis=1)
    return kept


def widened(problem: Problem, fleet: Fleet, inside: Mask) -> Fleet:
    """The fleet of a problem with some of the types (R,), as a fleet of the whole problem."""
    where = np.flatnonzero(inside)

    def whole(share: Array) -> Array:
        found = np.zeros(problem.load.shape)
        found[inside] = share
        return found

    instances = np.zeros(len(problem.cost), np.int64)
    instances[inside] = fleet.instances
    after_loss = {int(where[lost]): whole(share) for lost, share in fleet.after_loss.items()}
    return replace(fleet, instances=instances, share=whole(fleet.share), after_loss=after_loss)


def check(problem: Problem, fleet: Fleet, served: float = 1.0) -> None:
    """Check every constraint again, in plain arithmetic.

    Raises
    ------
    SolverError
        A constraint is violated: a bug.
    """
    count = fleet.instances
    carried = problem.carried(count)
    _check_shares(problem, fleet.share, carried, served, "plan")
    if problem.spare_total:
        for lost in np.flatnonzero(count):
            rest = problem.carried_after_loss(count, int(lost))
            _check_shares(problem, fleet.after_loss[int(lost)], rest, served, f"plan without {problem.names[lost]}")
    faults = broken_limits(problem, count)
    if faults:
        raise SolverError(f"the solver's plan violates its constraints: {'; '.join(faults)}", hint="this is a bug")


def broken_limits(problem: Problem, count: Positions) -> list[str]:
    """Constraints besides capacity that a fleet (R,) violates, in words."""
    faults = []
    if (count < 0).any() or (count > problem.most).any():
        faults.append("instances out of bounds")
    if (count[count > 0] < problem.least[count > 0]).any():
        faults.append("fewer replicas of a used type than required")
    if (problem.replicas[count > 0] * count[count > 0] < problem.spare[count > 0]).any():
        faults.append("fewer replicas of a used type than may be lost")
    faults += [item.name for item in problem.limits if item.taken(count) > item.most * (1 + TOLERANCE)]
    faults += [f"{item.name} is not used" for item in problem.requirements if not count[item.member].any()]
    if problem.replicas @ count < problem.min_total:
        faults.append("fewer replicas than required")
    if problem.max_types is not None and np.count_nonzero(count) > problem.max_types:
        faults.append("more types than allowed")
    if problem.budget_per_h is not None and problem.cost @ count > problem.budget_per_h * (1 + TOLERANCE):
        faults.append("more expensive than the budget")
    return faults


def _check_shares(problem: Problem, share: Array, carried: Array, served: float, what: str) -> None:
    if (share < 0).any() or (share[~np.isfinite(problem.load)] > 0).any():
        raise SolverError(f"the solver's {what} sends requests where they cannot be served", hint="this is a bug")
    if np.abs(share.sum(axis=0) - served).max(initial=0.0) > TOLERANCE:
        raise SolverError(f"the solver's {what} leaves requests unserved", hint="this is a bug")
    over = busy(problem, share) - carried * (1 + TOLERANCE)
    if (over > 0).any():
        worst = int(np.argmax(over))
        raise SolverError(
            f"the solver's {what} overloads {problem.names[worst]} by {over[worst]:g} replicas", hint="this is a bug"
        )
