"""All services in one mixed-integer program, if it is small: it closes the gap that the prices leave.

The program has each service's own program (formulation.py), and a row for each pool: sum_kr draw_kjr n_kr <= most_j.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from melange.plan.fleet import TOLERANCE, least_peak_shares
from melange.plan.joint.member import Column, Member
from melange.plan.milp.formulation import formulate
from melange.plan.milp.highs import LinearRows, minimise
from melange.plan.milp.milp import Milp
from melange.plan.milp.program import start_point
from melange.workload.workload import Array

# Most variables for which the program is solved. Six services of 20 types and 60 sizes have 7,200, for which the
# program keeps a gap of 7 to 11 % (measured on a prototype), while prices leave less than 1 %.
_MOST_VARIABLES = 2_000


def is_small(members: Sequence[Member]) -> bool:
    """Whether the program of all services is worth solving."""
    if any(one.problem.spare_total for one in members):
        return False  # rows for losses are added only after an answer breaks them
    return sum(one.problem.load.size + len(one.problem.cost) for one in members) <= _MOST_VARIABLES


def solve_together(
    members: Sequence[Member], most: Array, known: Sequence[Column] | None, *, gap: float, deadline: float
) -> tuple[tuple[Column, ...] | None, float]:
    """Fleets of all services, and a lower bound on their cost.

    Parameters
    ----------
    members
        The services (K).
    most
        Units in each pool (J,).
    known
        Fleets that fit, as a starting point; None if none are known.
    gap
        Relative gap at which the answer is good enough, 0-1.
    deadline
        When to stop.
    """
    milps = [formulate(one.problem) for one in members]
    program = _side_by_side(milps, members, most)
    start = None if known is None else _start(milps, members, known)
    left = deadline - time.monotonic()
    found = minimise(program, gap=gap, time_limit_s=left, start=start, heuristics=start is None)
    if found.x is None:
        return None, found.bound
    columns, first = [], 0
    for milp, member in zip(milps, members, strict=True):
        count = np.round(found.x[first : first + len(member.problem.cost)]).astype(np.int64)
        first += milp.columns.count
        shares = least_peak_shares(member.problem, member.problem.carried(count))
        if shares is None or shares[1] > 1 + TOLERANCE:
            return None, found.bound  # the solver's tolerance let an overload through
        columns.append(member.column(count))
    return tuple(columns), found.bound


def _start(milps: Sequence[Milp], members: Sequence[Member], known: Sequence[Column]) -> Array | None:
    parts = [
        start_point(one.problem, milp, column.instances)
        for milp, one, column in zip(milps, members, known, strict=True)
    ]
    whole = [part for part in parts if part is not None]
    return np.concatenate(whole) if len(whole) == len(parts) else None


def _side_by_side(milps: Sequence[Milp], members: Sequence[Member], most: Array) -> LinearRows:
    rows, columns, values = [], [], []
    row, column = 0, 0
    for milp, member in zip(milps, members, strict=True):
        own = milp.program
        rows.append(own.row.astype(np.int64) + row)
        columns.append(np.repeat(np.arange(len(own.cost)), np.diff(own.start)) + column)
        values.append(own.value)
        pool, type_of = np.nonzero(member.draw)
        rows.append(-1 - pool)  # counted from the end: the number of rows before is not known yet
        columns.append(column + type_of)
        values.append(member.draw[pool, type_of])
        row, column = row + len(own.row_lower), column + len(own.cost)
    every_row = np.concatenate(rows)
    every_row = np.where(every_row < 0, row - 1 - every_row, every_row)
    every_column, every_value = np.concatenate(columns), np.concatenate(values)
    order = np.argsort(every_column, kind="stable")
    programs = [milp.program for milp in milps]
    kinds = [np.zeros(len(p.cost), bool) if p.is_integer is None else p.is_integer for p in programs]
    return LinearRows(
        cost=np.concatenate([p.cost for p in programs]),
        lower=np.concatenate([p.lower for p in programs]),
        upper=np.concatenate([p.upper for p in programs]),
        row_lower=np.concatenate([*(p.row_lower for p in programs), np.full(len(most), -np.inf)]),
        row_upper=np.concatenate([*(p.row_upper for p in programs), most]),
        start=np.append(0, np.cumsum(np.bincount(every_column, minlength=column))).astype(np.int32),
        row=every_row[order].astype(np.int32),
        value=every_value[order],
        is_integer=np.concatenate(kinds),
    )
