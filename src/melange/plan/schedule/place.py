"""Which fleet each hour gets so that work that may wait finds room before its deadline.

With steps j of hour h that cost c_hj and take r_hj besides the hour's own traffic, and what waits (see waiting.py):

    min  sum c_hj z_hj;    sum_j z_hj = 1;    s_h <= sum_j r_hj z_hj
    q_h = q_(h-1) + a_h - s_h;    0 <= q_h <= most that may wait

z is whole. With z in parts it is a transport of work into hours with convex costs, of whose hours few are in parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from melange.plan.milp.highs import LinearRows, minimise
from melange.plan.schedule.hour_steps import HourSteps, hull_of
from melange.plan.schedule.waiting import Waiting
from melange.workload.demand import Indices
from melange.workload.workload import Array, Mask

# Up to this number of steps the program is solved to the end in whole steps: those of a day or of a small service take
# a second. More are rounded, and then changed two at a time: on weeks of 3 to 300 requests/s it ended within 0.1 % of
# the program in parts, and branching to that took 5 s.
_FEW_STEPS, _TIME_S = 400, 60.0
# Changes of two hours that are tried in each turn, and turns.
_PAIRS, _TURNS = 400, 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placement:
    """When work that may wait is sent.

    Parameters
    ----------
    waiting
        What waits after each hour (H,) [USD/h].
    cost_per_h
        Of the hours' steps, on average [USD/h].
    """

    waiting: Array
    cost_per_h: float


def place(steps: HourSteps, waiting: Waiting) -> Placement | None:
    """The cheapest steps that leave nothing beyond its deadline; None where none do."""
    chosen = _rounded(steps, waiting)
    if len(steps.hour) <= _FEW_STEPS:
        point = None if chosen is None else _point(steps, waiting, chosen)
        found = minimise(_program(steps, waiting, is_whole=True), time_limit_s=_TIME_S, start=point)
        whole = None if found.x is None else found.x[: len(steps.hour)] > 0.5
        # Within the solver's own tolerance some work may come late.
        if whole is not None and waiting.left_by(_room(steps, whole, len(waiting.rates))) is not None:
            chosen = whole
    if chosen is None:
        return None
    left = waiting.left_by(_room(steps, chosen, len(waiting.rates)))
    assert left is not None
    return Placement(waiting=left, cost_per_h=float(steps.cost_per_h[chosen].sum()) / len(waiting.rates))


def least_cost(steps: HourSteps, waiting: Waiting) -> float:
    """What the hours cost at least with the steps in parts, on average [USD/h]; infinite where work comes too late."""
    found = minimise(_program(hull_of(steps), waiting, is_whole=False))
    return np.inf if found.x is None else found.bound / len(waiting.rates)


def _rounded(steps: HourSteps, waiting: Waiting) -> Mask | None:
    """Steps of the program in parts rounded up, and then down one by one where all is still in time."""
    hull = hull_of(steps)
    found = minimise(_program(hull, waiting, is_whole=False))
    if found.x is None:
        return None
    hours, count = len(waiting.rates), len(steps.hour)
    first = np.searchsorted(steps.hour, np.arange(hours))
    end = np.searchsorted(steps.hour, np.arange(hours), side="right")
    sent = found.x[len(hull.hour) : len(hull.hour) + hours]
    at = np.array(
        [
            first[h] + min(int(np.searchsorted(steps.room[first[h] : end[h]], sent[h] - 1e-9)), end[h] - first[h] - 1)
            for h in range(hours)
        ]
    )
    if waiting.left_by(steps.room[at]) is None:
        return None
    _lower(steps, waiting, at, first)
    for _ in range(_TURNS):
        if not _swapped(steps, waiting, at, first, end):
            break
        _lower(steps, waiting, at, first)
    chosen = np.zeros(count, bool)
    chosen[at] = True
    return chosen


def _lower(steps: HourSteps, waiting: Waiting, at: Indices, first: Indices) -> None:
    """Take hours a step down where all is still in time, those first that save most; ``at`` is changed (H,)."""
    saves = steps.cost_per_h[at] - steps.cost_per_h[np.maximum(at - 1, first)]
    for h in np.argsort(-saves, kind="stable").tolist():
        while at[h] > first[h]:
            at[h] -= 1
            if waiting.left_by(steps.room[at]) is None:
                at[h] += 1
                break


def _swapped(steps: HourSteps, waiting: Waiting, at: Indices, first: Indices, end: Indices) -> bool:
    """Take one hour a step up and another down where that costs less and all is still in time; whether any was."""
    cost = steps.cost_per_h
    more = np.where(at + 1 < end, cost[np.minimum(at + 1, end - 1)] - cost[at], np.inf)
    less = np.where(at > first, cost[at] - cost[np.maximum(at - 1, first)], -np.inf)
    gain = less[None, :] - more[:, None]
    np.fill_diagonal(gain, -np.inf)
    order = np.argsort(-gain, axis=None, kind="stable")[:_PAIRS]
    is_better, used = False, set()
    for place in order.tolist():
        up, down = divmod(place, len(at))
        if gain[up, down] <= 1e-9:
            break
        if up in used or down in used:
            continue
        at[up] += 1
        at[down] -= 1
        if waiting.left_by(steps.room[at]) is None:
            at[up] -= 1
            at[down] += 1
        else:
            is_better = True
            used |= {up, down}
    return is_better


def _room(steps: HourSteps, chosen: Mask, hours: int) -> Array:
    room = np.zeros(hours)
    room[steps.hour[chosen]] = steps.room[chosen]
    return room


def _point(steps: HourSteps, waiting: Waiting, chosen: Mask) -> Array | None:
    """The program's variables for some steps."""
    left = waiting.left_by(_room(steps, chosen, len(waiting.rates)))
    if left is None:
        return None
    return np.concatenate([chosen.astype(float), waiting.work - np.diff(left, prepend=left[-1:]), left])


def _program(steps: HourSteps, waiting: Waiting, *, is_whole: bool) -> LinearRows:
    """Columns: steps, what is sent, what waits. Rows: one step, its room, the balance."""
    hours, count = len(waiting.rates), len(steps.hour)
    each = np.arange(hours)
    row = np.concatenate([steps.hour, hours + steps.hour, hours + each, 2 * hours + each, 2 * hours + each])
    row = np.concatenate([row, 2 * hours + (each + 1) % hours])
    column = np.concatenate([np.tile(np.arange(count), 2), np.tile(count + each, 2), np.tile(count + hours + each, 2)])
    value = np.concatenate([np.ones(count), -steps.room, np.ones(3 * hours), -np.ones(hours)])
    if hours == 1:  # what waits is the same before and after
        row, column, value = row[:-2], column[:-2], value[:-2]
    order = np.lexsort((row, column))
    return LinearRows(
        cost=np.concatenate([steps.cost_per_h, np.zeros(2 * hours)]),
        lower=np.zeros(count + 2 * hours),
        upper=np.concatenate([np.ones(count), np.full(hours, np.inf), waiting.most_waiting]),
        row_lower=np.concatenate([np.ones(hours), np.full(hours, -np.inf), waiting.work]),
        row_upper=np.concatenate([np.ones(hours), np.zeros(hours), waiting.work]),
        start=np.searchsorted(column[order], np.arange(count + 2 * hours + 1)).astype(np.int32),
        row=row[order].astype(np.int32),
        value=value[order],
        is_integer=np.arange(count + 2 * hours) < count if is_whole else None,
    )
