"""Choose the fleet of each hour so that work that may wait finds room before its deadline.

Steps j of hour h cost c_hj and take r_hj in addition to the hour's own traffic. Of class k, a_kh arrives, s_kh is sent
and q_kh waits (see waiting.py):

    min  sum c_hj z_hj;    sum_j z_hj = 1;    sum_k s_kh <= sum_j r_hj z_hj
    q_kh = q_k(h-1) + a_kh - s_kh;    0 <= q_kh <= most that may wait

A change of the fleet pays for instances that start and drain. This adds kappa sum u_h to the cost, with
u_h >= cost_h - cost_(h-1) and u_h >= 0, where kappa is the time that a change is paid for [h]. z is integer. With
fractional z this is a transportation problem of work into hours with convex costs, and few hours have a fractional z.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from melange.plan.milp.highs import LinearRows, minimise
from melange.plan.schedule.hour_steps import HourSteps, hull_of
from melange.plan.schedule.waiting import Waiters
from melange.workload.demand import Indices
from melange.workload.workload import Array, Mask

# Up to this number of steps the integer program is solved to optimality. With more steps the fractional solution is
# rounded and then improved by changing two hours at a time: on weeks of 3 to 300 requests/s that mostly ended within
# 0.1 % of the fractional program, in 0.05 s of CPU; branching to 0.05 % took 5 s.
_FEW_STEPS, _TIME_S = 60, 60.0
# Changes of two hours that are tried in each round, and number of rounds.
_PAIRS, _TURNS = 400, 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placement:
    """When work that may wait is sent.

    Parameters
    ----------
    waiting
        Work of each class that waits after each hour (K) (H,) [USD/h].
    cost_per_h
        Average cost of the hours' steps, without the cost of changes [USD/h].
    """

    waiting: tuple[Array, ...]
    cost_per_h: float


def place(steps: HourSteps, waiting: Waiters, change_h: float = 0.0) -> Placement | None:
    """The cheapest steps with which all work meets its deadline; None if there are none.

    Each rise of an hour's cost above that of the hour before is paid for ``change_h`` [h].
    """
    chosen = _rounded(steps, waiting, change_h)
    if len(steps.hour) <= _FEW_STEPS:
        point = None if chosen is None else _point(steps, waiting, chosen)
        program = _program(steps, waiting, change_h, is_whole=True)
        found = minimise(program, time_limit_s=_TIME_S, start=point)
        whole = None if found.x is None else found.x[: len(steps.hour)] > 0.5
        # Within the solver's tolerance some work may be late.
        if whole is not None and waiting.is_in_time(_room(steps, whole, len(waiting))):
            chosen = whole
    if chosen is None:
        return None
    left = waiting.left_by(_room(steps, chosen, len(waiting)))
    assert left is not None
    return Placement(waiting=left, cost_per_h=float(steps.cost_per_h[chosen].sum()) / len(waiting))


def least_cost(steps: HourSteps, waiting: Waiters, change_h: float = 0.0) -> float:
    """Lowest average cost of the hours with fractional steps [USD/h]; infinite if some work would be late.

    The cost of changes is included.
    """
    found = minimise(_program(hull_of(steps), waiting, change_h, is_whole=False))
    return np.inf if found.x is None else found.bound / len(waiting)


def changes(cost_per_h: Array) -> float:
    """Average rise of the hours' costs (H,) from each hour to the next; falls count as 0 [USD/h]."""
    return float(np.maximum(cost_per_h - np.roll(cost_per_h, 1), 0.0).mean())


def _rounded(steps: HourSteps, waiting: Waiters, change_h: float) -> Mask | None:
    """Steps of the fractional program rounded up, and then lowered one by one while all work is still in time."""
    hull = hull_of(steps)
    found = minimise(_program(hull, waiting, change_h, is_whole=False))
    if found.x is None:
        return None
    hours, count = len(waiting), len(steps.hour)
    first = np.searchsorted(steps.hour, np.arange(hours))
    end = np.searchsorted(steps.hour, np.arange(hours), side="right")
    kinds = len(waiting.classes)
    sent = found.x[len(hull.hour) : len(hull.hour) + kinds * hours].reshape(kinds, hours).sum(axis=0)
    at = np.array(
        [
            first[h] + min(int(np.searchsorted(steps.room[first[h] : end[h]], sent[h] - 1e-9)), end[h] - first[h] - 1)
            for h in range(hours)
        ]
    )
    if not waiting.is_in_time(steps.room[at]):
        return None
    _lower(steps, waiting, at, first, change_h)
    for _ in range(_TURNS):
        if not _swapped(steps, waiting, at, first, end, change_h):
            break
        _lower(steps, waiting, at, first, change_h)
    chosen = np.zeros(count, bool)
    chosen[at] = True
    return chosen


def _lower(steps: HourSteps, waiting: Waiters, at: Indices, first: Indices, change_h: float) -> None:
    """Take hours a step down while all work is still in time, the largest savings first; ``at`` is changed (H,)."""
    saves = steps.cost_per_h[at] - steps.cost_per_h[np.maximum(at - 1, first)]
    for h in np.argsort(-saves, kind="stable").tolist():
        while at[h] > first[h]:
            if not _gain(steps, at, {h: -1}, change_h) > 0 or not _moved(steps, waiting, at, {h: -1}):
                break


def _swapped(steps: HourSteps, waiting: Waiters, at: Indices, first: Indices, end: Indices, change_h: float) -> bool:
    """Take one hour a step up and another down if that costs less and all work is in time; whether any was changed."""
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
        steps_of = {up: 1, down: -1}
        if up in used or down in used or not _gain(steps, at, steps_of, change_h) > 1e-9:
            continue
        if _moved(steps, waiting, at, steps_of):
            is_better = True
            used |= {up, down}
    return is_better


def _moved(steps: HourSteps, waiting: Waiters, at: Indices, by: dict[int, int]) -> bool:
    """Move some hours by some steps if all work is still in time; ``at`` is changed (H,)."""
    for h, count in by.items():
        at[h] += count
    if waiting.is_in_time(steps.room[at]):
        return True
    for h, count in by.items():
        at[h] -= count
    return False


def _gain(steps: HourSteps, at: Indices, by: dict[int, int], change_h: float) -> float:
    """Savings if some hours move by some steps, including the cost of changes [USD/h]."""
    before, moved = steps.cost_per_h[at], at.copy()
    for h, count in by.items():
        moved[h] += count
    after = steps.cost_per_h[moved]
    saved = float(before.sum() - after.sum())
    return saved + change_h * len(at) * (changes(before) - changes(after)) if change_h else saved


def _room(steps: HourSteps, chosen: Mask, hours: int) -> Array:
    room = np.zeros(hours)
    room[steps.hour[chosen]] = steps.room[chosen]
    return room


def _point(steps: HourSteps, waiting: Waiters, chosen: Mask) -> Array | None:
    """The program's variables for some steps."""
    left = waiting.left_by(_room(steps, chosen, len(waiting)))
    if left is None:
        return None
    sent = [one.work - np.diff(after, prepend=after[-1:]) for one, after in zip(waiting.classes, left, strict=True)]
    cost = np.zeros(len(waiting))
    cost[steps.hour[chosen]] = steps.cost_per_h[chosen]
    return np.concatenate([chosen.astype(float), *sent, *left, np.maximum(cost - np.roll(cost, 1), 0.0)])


def _program(steps: HourSteps, waiting: Waiters, change_h: float, *, is_whole: bool) -> LinearRows:
    """Columns: steps, sent and waiting work of each class, rises. Rows: one step an hour, its room, balances, rises."""
    hours, count, kinds = len(waiting), len(steps.hour), len(waiting.classes)
    each, own = np.arange(hours), np.arange(count)
    after = (each + 1) % hours
    parts = [(steps.hour, own, np.ones(count)), (hours + steps.hour, own, -steps.room)]
    for k in range(kinds):
        balance, sent, waits = (2 + k) * hours, count + k * hours, count + (kinds + k) * hours
        parts += [(hours + each, sent + each, np.ones(hours)), (balance + each, sent + each, np.ones(hours))]
        if hours > 1:  # with one hour, waiting work is the same before and after, and nothing rises
            parts += [
                (balance + each, waits + each, np.ones(hours)),
                (balance + after, waits + each, -np.ones(hours)),
            ]
    if hours > 1 and change_h > 0:
        rise = (2 + kinds) * hours
        parts += [
            (rise + steps.hour, own, steps.cost_per_h),
            (rise + after[steps.hour], own, -steps.cost_per_h),
            (rise + each, count + 2 * kinds * hours + each, -np.ones(hours)),
        ]
    row, column, value = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.lexsort((row, column))
    columns = count + (2 * kinds + 1) * hours
    arriving = [one.work for one in waiting.classes]
    without_end, below = np.full(hours, np.inf), np.full(hours, -np.inf)
    most = [one.most_waiting for one in waiting.classes]
    return LinearRows(
        cost=np.concatenate([steps.cost_per_h, np.zeros(2 * kinds * hours), np.full(hours, change_h)]),
        lower=np.zeros(columns),
        upper=np.concatenate([np.ones(count), *[without_end] * kinds, *most, without_end]),
        row_lower=np.concatenate([np.ones(hours), below, *arriving, below]),
        row_upper=np.concatenate([np.ones(hours), np.zeros(hours), *arriving, np.zeros(hours)]),
        start=np.searchsorted(column[order], np.arange(columns + 1)).astype(np.int32),
        row=row[order].astype(np.int32),
        value=value[order],
        is_integer=np.arange(columns) < count if is_whole else None,
    )
