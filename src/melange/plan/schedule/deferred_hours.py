"""Hours that share work which may wait: what to reserve, and how much of the work each hour takes.

The search alternates between reserved instances and hours. For given reserved instances, the steps of all hours
(hour_steps.py) form a small program (place.py). Its fleets are then checked against their traffic, as in any schedule.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from melange.plan.schedule.contracts import SavingsPlan, Spot
from melange.plan.schedule.hour_steps import HourSteps, hour_steps
from melange.plan.schedule.machines import Machines
from melange.plan.schedule.place import changes, least_cost, place
from melange.plan.schedule.reserve import ALL_TRIED, Reservation, finished, most_useful
from melange.plan.schedule.signals import Signals
from melange.plan.schedule.waiting import Waiters, Waiting
from melange.workload.workload import Array, Mask

# An hour takes at most this multiple of the mean work that may wait, or the work that arrives in the hour itself if
# that is more. If the low-traffic hours are too few, the rest is spread over other hours.
_MOST_OF_MEAN = 4.0
# Up to this number of hours no such limit is needed.
_FEW_HOURS = 12
# Rounds in which short fleets add signals for what their hours lack, and in which several classes are placed in turn.
# With many hours there are fewer rounds, because each one takes half a second.
_TURNS, _TURNS_OF_MANY = 4, 2
# Up to this number of hours several classes are also placed jointly, which takes twice the time. On services of six
# hours, placing them one after the other cost up to 9 % above the least cost, and trying both ways up to 4 %
# (bench/deferred_classes.py). On two weeks of ServeGen, joint placement made the rule 4 % cheaper in one and 2 % more
# expensive in the other, so weeks do without it.
HOURS_AT_ONCE = 24
# Most reserved counts that are tried around the known ones.
_MOST_TRIED = 6
# A signal decides nothing if its demand stays below this share of what the fleet gives in every hour (see reserve.py).
_CLOSE = 0.7


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placed:
    """Hours with a placement of the work that may wait.

    Parameters
    ----------
    waiting
        Work that waits after each hour, by class (H,) [USD/h].
    rates
        Rates of the hours, including the waiting requests that are sent in them (H, B) [1/s].
    reservation
        What is reserved, and the fleets.
    """

    waiting: tuple[Array, ...]
    rates: Array
    reservation: Reservation

    @property
    def cost_per_h(self) -> float:
        """Average cost over the hours [USD/h]."""
        return self.reservation.cost_per_h


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shared:
    """Hours that share work which may wait.

    Parameters
    ----------
    own
        Rates of the requests that may not wait, by hour (H, B) [1/s].
    classes
        The classes that may wait (K), the shortest wait first.
    spot, plan
        How instances may be paid for.
    change_h
        Time for which a new instance is paid without being of use: start-up, drain, an interval of the scaler [h].
    most_per_h
        Most that the hours may cost, even if fewer changes would save more [USD/h].
    """

    own: Array
    classes: tuple[Waiting, ...]
    spot: Spot | None
    plan: SavingsPlan | None = None
    change_h: float = 0.0
    most_per_h: float = np.inf

    def is_better(self, one: Placed | None, other: Placed) -> bool:
        """Whether some hours cost less than others, including the cost of changes from hour to hour."""
        if one is None or one.cost_per_h > self.most_per_h + 1e-9:
            return False
        return other.cost_per_h > self.most_per_h + 1e-9 or self.worth(one) < self.worth(other) - 1e-9

    def worth(self, placed: Placed) -> float:
        """Cost of the hours, including the cost of changes from hour to hour [USD/h]."""
        return placed.cost_per_h + self.change_h * changes(placed.reservation.hours.fleets.cost_per_h)

    def rates(self, waiting: Sequence[Array], without: Collection[int] = ()) -> Array:
        """Rates of the hours with the classes sent in them, except the classes in ``without`` (H, B) [1/s]."""
        found = self.own.copy()
        for k, (one, left) in enumerate(zip(self.classes, waiting, strict=True)):
            if k not in without:
                found += one.sent(left)
        return found


def search_placed(shared: Shared, start: Placed) -> Placed:
    """The cheapest hours found from a starting point; never more expensive than the start."""
    machines, signals = start.reservation.machines, deciding(start.reservation, start.rates)
    can_reserve = np.isfinite(machines.reserved_per_h)
    best = _better(shared, start, placed_beside(shared, machines, signals, start.reservation.reserved, start.waiting))
    if not can_reserve.any():
        return best
    most = most_useful(machines, shared.own + sum((one.rates for one in shared.classes), np.zeros(1))) * can_reserve
    if np.prod(most + 1) * len(shared.own) <= ALL_TRIED:
        for one in itertools.product(*(range(int(n) + 1) for n in most)):
            counts = np.array(one, float)
            if bool(machines.is_allowed(counts)):
                best = _better(shared, best, placed_beside(shared, machines, signals, counts, best.waiting))
        return best
    return _around(shared, best, most)


def _around(shared: Shared, best: Placed, most: Array) -> Placed:
    """The best of the reserved counts around the known ones: one more or one fewer, a twentieth in large fleets."""
    tried = {tuple(best.reservation.reserved.tolist())}
    is_better = True
    while is_better and len(tried) < _MOST_TRIED:
        is_better = False
        center, machines = best.reservation.reserved, best.reservation.machines
        for r, sign in itertools.product(np.flatnonzero(center).tolist(), (1.0, -1.0)):
            counts = center.copy()
            counts[r] = np.clip(counts[r] + sign * max(1.0, np.round(0.05 * counts[r])), 0.0, most[r])
            key = tuple(counts.tolist())
            if key in tried or len(tried) >= _MOST_TRIED or not bool(machines.is_allowed(counts)):
                continue
            tried.add(key)
            signals = deciding(best.reservation, best.rates)
            found = placed_beside(shared, machines, signals, counts, best.waiting, shared.worth(best))
            if found is not None and shared.is_better(found, best):
                best, is_better = found, True
                break
    return best


def placed_beside(
    shared: Shared,
    machines: Machines,
    signals: Signals,
    reserved: Array,
    waiting: tuple[Array, ...],
    below_per_h: float = np.inf,
) -> Placed | None:
    """The best placement for given reserved instances (R,), starting from another placement; None if none is found.

    Several classes are placed one after the other. In a day they are also placed jointly, and then one after the other
    again. A single class is not placed if even fractional fleets make the hours cost ``below_per_h`` or more, changes
    included [USD/h].
    """
    one_by_one, everyone = [(k,) for k in range(len(shared.classes))], tuple(range(len(shared.classes)))
    best = _turns(shared, machines, signals, reserved, waiting, one_by_one, below_per_h)
    if len(everyone) == 1 or len(shared.own) > HOURS_AT_ONCE:
        return best
    together = _turns(shared, machines, signals, reserved, waiting, [everyone])
    if together is not None:
        again = _turns(shared, machines, signals, reserved, together.waiting, one_by_one)
        for found in filter(None, (together, again)):
            best = found if best is None else _better(shared, best, found)
    return best


def _turns(
    shared: Shared,
    machines: Machines,
    signals: Signals,
    reserved: Array,
    waiting: tuple[Array, ...],
    groups: Sequence[tuple[int, ...]],
    below_per_h: float = np.inf,
) -> Placed | None:
    """The best of some rounds; each round places the groups of classes one after the other.

    The classes of a group are placed jointly, as if the mix of sizes that they send in each hour did not change.
    """
    best: Placed | None = None
    for _ in range(_TURNS if len(shared.own) <= _FEW_HOURS else _TURNS_OF_MANY):
        fixed, expected, moved = machines.fixed_per_h(reserved), np.inf, list(waiting)
        for group in groups:
            waiters = Waiters([shared.classes[k] for k in group])
            steps = _steps(shared, machines, signals, reserved, moved, group)
            if len(shared.classes) == 1 and fixed + least_cost(steps, waiters, shared.change_h) >= below_per_h:
                return best
            found = place(steps, waiters, shared.change_h)
            if found is None:
                return best
            expected = fixed + found.cost_per_h
            for k, left in zip(group, found.waiting, strict=True):
                moved[k] = left
        waiting = tuple(moved)
        rates = shared.rates(waiting)
        reservation = finished(machines, signals, rates, reserved, shared.spot, shared.plan)
        placed = Placed(waiting=waiting, rates=rates, reservation=reservation)
        is_new = len(reservation.hours.signals) > len(signals)
        signals, machines = deciding(reservation, rates), reservation.machines
        if best is None or shared.is_better(placed, best):
            best = placed
        elif not is_new:
            break
        if len(shared.classes) == 1 and (placed.cost_per_h <= expected + 1e-9 or not is_new):
            break
    return best


def _steps(
    shared: Shared,
    machines: Machines,
    signals: Signals,
    reserved: Array,
    waiting: Sequence[Array],
    group: tuple[int, ...],
) -> HourSteps:
    """The steps of the hours for a group of classes; the other classes are sent as they are now."""
    waiters, left = Waiters([shared.classes[k] for k in group]), [waiting[k] for k in group]
    own = waiters.work
    most = own + np.roll(waiters.most_waiting, 1)
    if len(own) > _FEW_HOURS:
        most = np.minimum(most, np.maximum(own, _MOST_OF_MEAN * own.mean()))
    after = np.asarray(np.sum(left, axis=0))
    sent = np.maximum(own - np.diff(after, prepend=after[-1:]), 0.0)
    rates = shared.rates(waiting, without=group)
    return hour_steps(machines, signals, rates, waiters.mix(left), reserved, shared.spot, most, sent)


def deciding(reservation: Reservation, rates: Array) -> Signals:
    """The signals whose demand comes close to what the fleet gives in some hour, with all traffic (H, B)."""
    machines, signals = reservation.machines, reservation.hours.signals
    if len(rates) <= _FEW_HOURS:
        return signals
    fleets = reservation.reserved + reservation.hours.fleets.extra
    demand, given = signals.demand(rates), fleets @ signals.per_instance(machines).T
    close: Mask = np.asarray((demand >= _CLOSE * given).any(axis=0), bool)
    close[0] = True
    return signals.chosen(np.flatnonzero(close))


def _better(shared: Shared, best: Placed, other: Placed | None) -> Placed:
    return other if other is not None and shared.is_better(other, best) else best
