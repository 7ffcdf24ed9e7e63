"""Hours with whole instances, solved by the planner: a tighter bound than with fractions, and each hour's optimum.

An instance that is rented in an hour is reserved, on spot or on-demand. So an hour is a planning problem over three
copies of the machines, with limits on spot.

**Bound.** Reserved instances are the same in all hours. Let each hour pay mu_hr for each reserved instance that it
uses, and use as many as it wants, with sum_h mu_hr <= H c^res_r. For any such mu >= 0, no schedule costs less than the
mean of the hours' lowest costs (Lagrangian relaxation of "the same in all hours").
"""

from __future__ import annotations

import time

import numpy as np

from melange.errors import MelangeError
from melange.plan.cheapest import cheapest
from melange.plan.exact.dominated import needed_types
from melange.plan.options import Options
from melange.plan.problem import Limit, Problem, most_within
from melange.plan.schedule.contracts import Spot
from melange.plan.schedule.hours import HourFleets
from melange.plan.schedule.machines import Machines
from melange.plan.schedule.spot_room import SpotRoom
from melange.workload.workload import Array

# Gap and time limit of one hour [s]: an hour that takes longer keeps the bound that it has.
_GAP, _TIME_S = 2e-3, 5.0
# Cost of a reserved instance in an hour that has it anyway, as a share of its price: fleets are compared by cost, and a
# cost of zero does not allow that.
_FREE = 1e-6


def whole_bound_per_h(
    machines: Machines, rates: Array, price: Array, spot: Spot | None, *, deadline: float
) -> tuple[float, int]:
    """Lower bound on the cost of any schedule of whole instances, on average over all hours [USD/h].

    Parameters
    ----------
    machines
        All machines (R): a bound over some of them does not hold for the others.
    rates
        Arrivals per second by hour and size (H, B) [1/s].
    price
        Prices of load by hour (H, R) [USD/h], from the relaxation.
    spot
        How far spot instances may be used.
    deadline
        When to stop.

    Returns
    -------
    tuple
        The bound, and the number of hours that count with whole instances; the others count with fractions.
    """
    paid = hourly_price(machines, price)
    room = SpotRoom.of(machines, machines.work(rates), spot)
    most_on_spot, whole = room.most(machines.on_demand_per_h), room.all_zones
    total, solved = 0.0, 0
    for hour in range(len(rates)):
        problem = hour_problem(machines, rates[hour], paid[hour], None, whole[hour], most_on_spot[hour])
        if problem is None:
            continue
        bound = -np.inf
        if time.monotonic() < deadline:
            try:
                found = cheapest(
                    problem.only(needed_types(problem)),
                    Options(gap=_GAP),
                    say=lambda _: None,
                    deadline=time.monotonic() + _TIME_S,
                )
                bound, solved = found.bound, solved + 1
            except MelangeError:
                bound = -np.inf
        # A price of zero is planned as a little more than zero; the bound subtracts the difference.
        total -= _FREE * float(problem.cost.max()) * float(problem.most.max())
        in_parts = (problem.cost / problem.capacity)[:, None] * problem.load
        total += max(bound, float(in_parts.min(axis=0).sum()))
    return total / len(rates), solved


def hourly_price(machines: Machines, price: Array) -> Array:
    """Price of a reserved instance in each hour (H, R) [USD/h]: at most on-demand, in total at most what it costs."""
    value = np.minimum(price * machines.capacity, machines.on_demand_per_h)
    most = machines.reserved_per_h * len(price)
    total = value.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        lowered = value * np.where(total > most, most / total, 1.0)
    return np.asarray(np.where(np.isfinite(machines.reserved_per_h), lowered, machines.on_demand_per_h))


def best_hours(machines: Machines, rates: Array, reserved: Array, spot: Spot | None, *, deadline: float) -> Array:
    """Lowest cost of each hour in addition to reserved instances, of any types (H,) [USD/h]; nan if time ran out."""
    return optimal_hours(machines, rates, reserved, spot, deadline=deadline).cost_per_h


def optimal_hours(
    machines: Machines, rates: Array, reserved: Array, spot: Spot | None, *, deadline: float
) -> HourFleets:
    """The cheapest fleet of each hour in addition to reserved instances, of any types; a cost of nan if not found."""
    room = SpotRoom.of(machines, machines.work(rates), spot)
    most_on_spot, whole = room.most(machines.on_demand_per_h), room.all_zones
    cost = np.full(len(rates), np.nan)
    extra, on_spot = np.zeros((len(rates), len(machines))), np.zeros((len(rates), len(machines)))
    for hour in range(len(rates)):
        if time.monotonic() > deadline:
            break
        problem = hour_problem(
            machines, rates[hour], _FREE * machines.on_demand_per_h, reserved, whole[hour], most_on_spot[hour]
        )
        if problem is None:
            cost[hour] = 0.0
            continue
        kept = needed_types(problem)
        try:
            until = time.monotonic() + _TIME_S
            found = cheapest(problem.only(kept), Options(gap=_GAP), say=lambda _: None, deadline=until)
        except MelangeError:
            continue
        copy, place = np.divmod(problem.types[kept], len(machines))
        paid = copy > 0
        cost[hour] = float(problem.cost[kept][paid] @ found.instances[paid])
        np.add.at(extra[hour], place[paid], found.instances[paid])
        np.add.at(on_spot[hour], place[copy == 1], found.instances[copy == 1])
    return HourFleets(extra=extra, spot=on_spot, cost_per_h=cost)


def longer_search(
    machines: Machines, rates: Array, weight: Array, start: Array, spot: Spot | None, *, deadline: float
) -> tuple[Array, float]:
    """Cheaper reserved counts, found from ``start`` (R,) with each hour at its optimum: one more, one fewer, or a swap.

    Parameters
    ----------
    machines
        The machines to reserve and rent (R).
    rates, weight
        Rates of the hours (H, B) [1/s], and the number of hours that each represents (H,).
    start
        Counts to begin from (R,).
    spot
        How far spot instances may be used.
    deadline
        When to stop.

    Returns
    -------
    tuple
        The counts, and their cost with all hours [USD/h].
    """

    def cost(counts: Array) -> float:
        hours = best_hours(machines, rates, counts, spot, deadline=deadline)
        fixed = float(counts @ np.where(counts > 0, machines.reserved_per_h, 0.0))
        return fixed + float(weight @ hours / weight.sum())

    best, least, tried = start, cost(start), {tuple(start.tolist())}
    unit = np.eye(len(machines))
    is_better = True
    while is_better and time.monotonic() < deadline:
        is_better = False
        used = np.flatnonzero(best)
        moves = [*(-unit[r] for r in used), *unit, *(b - unit[a] for a in used for b in unit)]
        for move in moves:
            counts = best + move
            key = tuple(counts.tolist())
            if (counts < 0).any() or key in tried or not bool(machines.is_allowed(counts)):
                continue
            tried.add(key)
            found = cost(counts)
            if found < least - 1e-9:  # false for nan, if time ran out
                best, least, is_better = counts, found, True
                break
    return best, least


def hour_problem(
    machines: Machines, rates: Array, reserved_per_h: Array, reserved: Array | None, room: float, most_on_spot: Array
) -> Problem | None:
    """One hour as a planning problem over three copies of the machines; None if it has no traffic.

    Parameters
    ----------
    machines
        The machines that may be rented (R).
    rates
        Rate of each size (B,) [1/s].
    reserved_per_h
        What the hour pays for a reserved instance (R,) [USD/h].
    reserved
        Number of reserved instances (R,); None: as many as the hour wants.
    room, most_on_spot
        Limit on spot in total, at on-demand prices [USD/h], and number of each machine that may be on spot (R,).
    """
    cells = np.flatnonzero(rates > 0)
    if not len(cells):
        return None
    count = len(machines)
    with np.errstate(divide="ignore"):
        load = np.where(
            machines.max_request_rate[:, cells] > 0, rates[cells] / machines.max_request_rate[:, cells], np.inf
        )
    spot_per_h = np.where(np.isfinite(machines.spot_per_h), machines.spot_per_h, machines.on_demand_per_h)
    alone = np.ceil(np.where(np.isfinite(load), load, 0.0).sum(axis=1) / machines.capacity * (1 + 1e-9))
    alone = np.maximum(alone, 1.0)
    on_spot = np.where(np.isfinite(machines.spot_per_h), np.minimum(most_on_spot, alone), 0.0)
    held = (
        np.where(np.isfinite(machines.reserved_per_h), alone, 0.0) if reserved is None else np.minimum(reserved, alone)
    )
    copies = np.arange(3 * count)
    limits = [
        Limit(name="spot", members=copies[count : 2 * count], weight=machines.on_demand_per_h, most=max(room, 1e-12))
    ]
    # A limited supply cannot replace an unlimited one, even if it is cheaper: these limits keep the copies separate.
    limits += [
        Limit(name="pool", members=copies[[count + r]], weight=np.ones(1), most=on_spot[r]) for r in range(count)
    ]
    if reserved is not None:
        limits += [Limit(name="held", members=copies[[r]], weight=np.ones(1), most=held[r]) for r in range(count)]
    limits += [
        Limit(
            name=one.name,
            members=np.concatenate([one.members + k * count for k in range(3)]),
            weight=np.tile(one.weight, 3),
            most=one.most,
        )
        for one in machines.limits
    ]
    most = most_within(np.concatenate([held, on_spot, alone]), limits).astype(np.int64)
    whole = Problem(
        names=tuple(f"{name}{mark}" for mark in (" reserved", " spot", "") for name in machines.names),
        types=copies,
        cells=cells,
        load=np.tile(load, (3, 1)),
        cost=np.concatenate(
            [np.maximum(reserved_per_h, _FREE * machines.on_demand_per_h), spot_per_h, machines.on_demand_per_h]
        ),
        replicas=np.tile(machines.capacity, 3),
        headroom=0.0,
        least=np.ones(3 * count, np.int64),
        most=most,
        spare=np.zeros(3 * count),
        limits=tuple(limits),
    )
    return whole.only(most > 0)
