"""The hours of a cycle under one commitment if some work may wait: never more expensive than without waiting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from melange.errors import InfeasibleError
from melange.plan.schedule.committed_hours import Committed, at_optimum, committed_hours
from melange.plan.schedule.contracts import Reserved, SavingsPlan, Spot
from melange.plan.schedule.deferred_bound import deferred_bound_per_h
from melange.plan.schedule.deferred_hours import Placed, Shared, deciding, placed_beside, search_placed
from melange.plan.schedule.level import level_placement
from melange.plan.schedule.machines import Machines
from melange.plan.schedule.reserve import finished, least_beside
from melange.plan.schedule.traffic import CycleTraffic
from melange.plan.schedule.waiting import Waiting
from melange.workload.workload import Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sharing:
    """The hours under one commitment, or none, with a placement of the work that may wait.

    Parameters
    ----------
    hours
        The hours with all traffic.
    sent
        Rates at which each class that may wait is sent (K) (H, B) [1/s].
    as_it_arrives
        The hours if nothing waits; None if no fleet carries them, or if nothing may wait.
    without_per_h
        What the hours cost without the classes that may wait [USD/h].
    """

    hours: Committed
    sent: tuple[Array, ...] = ()
    as_it_arrives: Committed | None = None
    without_per_h: float = 0.0


def sharing_hours(
    everything: Machines,
    commitment: Reserved | None,
    plan: SavingsPlan | None,
    traffic: CycleTraffic,
    spot: Spot | None,
) -> Sharing:
    """Search what to reserve under one commitment, and when to send what may wait.

    Raises
    ------
    InfeasibleError
        The limits are below what some hour needs, whenever the work that may wait is sent.
    """
    labels = traffic.cycle.labels

    def search(rates: Array) -> Committed:
        return committed_hours(everything, commitment, plan, rates, labels, spot)

    cells = everything.cells
    if not traffic.deferred:
        return Sharing(hours=search(traffic.cycle.request_rate[:, cells]))
    own = traffic.own[:, cells]
    classes = tuple(Waiting.of(everything, rates[:, cells], one.lag_hours) for one, rates in traffic.deferred)
    as_it_arrives = _or_none(search, traffic.cycle.request_rate[:, cells])
    most = np.inf if as_it_arrives is None else as_it_arrives.reservation.cost_per_h
    shared = Shared(own=own, classes=classes, spot=spot, plan=plan, change_h=traffic.change_h, most_per_h=most)
    without = search(own)
    level = _leveled(everything, shared)
    leveled = _or_none(search, shared.rates(level))
    starts = [
        (found, Placed(waiting=left, rates=found.rates, reservation=found.reservation))
        for found, left in ((as_it_arrives, _nothing_waits(classes)), (leveled, level))
        if found is not None
    ]
    if not starts:
        search(shared.rates(level))  # raises an error that names the hours without a fleet
    base, best = starts[0]
    for other, start in starts[1:]:
        base, best = (other, start) if shared.is_better(start, best) else (base, best)
    for other, start in starts:
        reservation = start.reservation
        signals = deciding(reservation, start.rates)
        found = placed_beside(shared, reservation.machines, signals, reservation.reserved, start.waiting)
        if shared.is_better(found, best):
            base, best = other, found or best
    best = search_placed(shared, best)
    if as_it_arrives is not None:
        at_once = _beside(as_it_arrives, base, best, spot, plan)
        if at_once.reservation.cost_per_h < best.cost_per_h - 1e-9:
            placed = Placed(waiting=_nothing_waits(classes), rates=at_once.rates, reservation=at_once.reservation)
            shared = replace(shared, most_per_h=placed.cost_per_h)
            base, best = at_once, search_placed(shared, placed)
    # Instances reserved for all work may also suit less work, so each comparison uses the better of both reservations.
    as_it_arrives = as_it_arrives and _beside(as_it_arrives, base, best, spot, plan)
    without = _beside(without, base, best, spot, plan)
    reservation, static = at_optimum(everything, best.rates, best.reservation, base.static, spot, plan)
    hours = replace(base, rates=best.rates, reservation=reservation, static=static)
    prices = [one.price for one in (as_it_arrives, leveled, without) if one is not None]
    bound = max(deferred_bound_per_h(everything, own, classes, price, spot, plan) for price in prices)
    return Sharing(
        hours=replace(hours, bound=min(bound, hours.reservation.cost_per_h)),
        sent=tuple(one.sent(left) for one, left in zip(classes, best.waiting, strict=True)),
        as_it_arrives=as_it_arrives,
        without_per_h=without.reservation.cost_per_h,
    )


def _beside(
    committed: Committed, base: Committed, best: Placed, spot: Spot | None, plan: SavingsPlan | None
) -> Committed:
    """The same hours with the instances that are reserved for other hours, if that costs less."""
    known = best.reservation
    signals, cost = known.hours.signals, committed.reservation.cost_per_h
    if plan is None and not least_beside(known.machines, signals, committed.rates, known.reserved, spot) < cost - 1e-9:
        return committed
    found = finished(known.machines, signals, committed.rates, known.reserved, spot, plan)
    if not found.cost_per_h < cost - 1e-9:
        return committed
    return replace(base, rates=committed.rates, reservation=found, bound=committed.bound, price=committed.price)


def _or_none(search: Callable[[Array], Committed], rates: Array) -> Committed | None:
    try:
        return search(rates)
    except InfeasibleError:
        return None


def _nothing_waits(classes: Sequence[Waiting]) -> tuple[Array, ...]:
    return tuple(np.zeros(len(one.rates)) for one in classes)


def _leveled(everything: Machines, shared: Shared) -> tuple[Array, ...]:
    """A first guess, class by class."""
    work = everything.work(shared.own)
    found = []
    for one in shared.classes:
        left = level_placement(everything, work, one)
        work = work + everything.work(one.sent(left))
        found.append(left)
    return tuple(found)
