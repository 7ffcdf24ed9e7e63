"""The hours of a cycle under one commitment, or none: what is reserved, and the fleet of each hour."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from melange.errors import InfeasibleError
from melange.plan.problem import Positions
from melange.plan.schedule.alternatives import fleet_for_peak
from melange.plan.schedule.contention import in_contention
from melange.plan.schedule.contracts import Reserved, SavingsPlan, Spot
from melange.plan.schedule.hours import HourFleets
from melange.plan.schedule.machines import Machines
from melange.plan.schedule.peak import FITS, peak_load
from melange.plan.schedule.relaxed import bound_per_h, relax
from melange.plan.schedule.reserve import Reservation, finished, search_reserved
from melange.plan.schedule.signals import first_signals
from melange.plan.schedule.typical import merged_sizes, typical_hours
from melange.plan.schedule.whole_hours import optimal_hours
from melange.workload.workload import Array

# Number of typical hours for the bound (see typical.py).
_BOUND_HOURS = 48
# Up to this number of hours, each hour gets its optimal fleet over all machines. 24 hours take 1 to 2 s of CPU, and the
# 168 hours of a week ten times as much. It made a day of ServeGen's mm-image 3 % cheaper, and one of deepseek-r1 1.7 %.
_FEW_HOURS, _OPTIMUM_S = 24, 20.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Committed:
    """The hours under one commitment, or none.

    Parameters
    ----------
    commitment, plan
        The commitment and the savings plan; None if there is none.
    everything
        All machines.
    rates
        Arrivals per second by hour and size (H, B) [1/s].
    reservation
        What is reserved, and the fleets of the hours.
    static, static_per_h
        The fleet for the peak (R,), and what it costs [USD/h].
    bound
        Lower bound: no schedule costs less [USD/h].
    price
        Prices of load by hour, for all machines (H, R) [USD/h]: the bound follows from them.
    """

    commitment: Reserved | None
    plan: SavingsPlan | None
    everything: Machines
    rates: Array
    reservation: Reservation
    static: Array
    static_per_h: float
    bound: float
    price: Array

    @property
    def machines(self) -> Machines:
        """The machines of the search, with the allowance of a savings plan."""
        return self.reservation.machines


def committed_hours(
    everything: Machines,
    commitment: Reserved | None,
    plan: SavingsPlan | None,
    rates: Array,
    labels: Sequence[str],
    spot: Spot | None,
) -> Committed:
    """Search what to reserve under one commitment, and what to commit to a savings plan.

    Parameters
    ----------
    rates
        Arrivals per second of the hours (H, B) [1/s]; ``labels`` are the names of the hours.

    Raises
    ------
    InfeasibleError
        The limits are below what some hour needs.
    """
    typical = typical_hours(everything, rates, count=_BOUND_HOURS)
    relaxation = relax(everything, typical, merged_sizes(everything, rates), spot, plan)
    bound = bound_per_h(everything, rates, relaxation.price[typical.of_hour], spot, plan)
    places = in_contention(everything, rates, relaxation)
    machines = everything.only(places)
    part = replace(relaxation, reserved=relaxation.reserved[places], used_share=relaxation.used_share[places])
    signals = first_signals(machines)
    static, static_per_h = fleet_for_peak(machines, signals, rates)
    few = typical_hours(machines, rates)
    also = [static] if np.isfinite(static_per_h) else []
    reservation = search_reserved(machines, signals, rates, few, part, spot, also, plan)
    if not np.isfinite(reservation.cost_per_h):
        hours = np.flatnonzero(~np.isfinite(reservation.hours.fleets.cost_per_h))
        raise InfeasibleError(
            f"no fleet within the limits carries {len(hours)} of the {len(rates)} hours",
            reasons=[
                f"{labels[hour]} needs more than the limits allow"
                + (", with replicas to spare" if machines.has_spares else "")
                for hour in hours[:8].tolist()
            ],
            hint="allow more instances (offers.max), or more types (offers.gpus)"
            + (", or fewer spare replicas (plan.spare_replicas)" if machines.has_spares else ""),
        )
    reservation, static = at_optimum(everything, rates, reservation, static, spot, plan)
    return Committed(
        commitment=commitment,
        plan=plan,
        everything=everything,
        rates=rates,
        reservation=_no_more_expensive(reservation, static, static_per_h),
        static=static,
        static_per_h=static_per_h,
        bound=min(bound, reservation.cost_per_h),
        price=relaxation.price[typical.of_hour],
    )


def at_optimum(
    everything: Machines,
    rates: Array,
    reservation: Reservation,
    static: Array,
    spot: Spot | None,
    plan: SavingsPlan | None,
) -> tuple[Reservation, Array]:
    """The reservation with each hour of a day at its optimum, if that is cheaper; and the fleet for the peak (R,).

    Nothing changes for longer cycles, or with settings that programs of one hour do not support.
    """
    machines = reservation.machines
    is_plain = plan is None and not machines.has_spares
    is_plain = is_plain and (spot is None or (spot.spare_pools == 0 and spot.max_share_per_zone >= spot.max_share))
    if not is_plain or len(rates) > _FEW_HOURS:
        return reservation, static
    places = np.searchsorted(everything.position, machines.position)
    better = _at_their_optimum(everything, rates, places, reservation, spot)
    if better is None:
        return reservation, static
    used, optimal = better
    moved = np.zeros(len(used))
    moved[np.searchsorted(used, places)] = static
    return optimal, moved


def _at_their_optimum(
    everything: Machines, rates: Array, places: Positions, reservation: Reservation, spot: Spot | None
) -> tuple[Positions, Reservation] | None:
    """The hours of a day, each with its cheapest fleet of any types, and the machines used; None if not cheaper."""
    reserved = np.zeros(len(everything))
    reserved[places] = reservation.reserved
    found = optimal_hours(everything, rates, reserved, spot, deadline=time.monotonic() + _OPTIMUM_S)
    known = np.where(np.isfinite(found.cost_per_h), found.cost_per_h, np.inf)
    is_better = known < reservation.hours.fleets.cost_per_h - 1e-9
    if not is_better.any():
        return None
    used = np.union1d(places, np.flatnonzero(found.extra[is_better].any(axis=0)))
    machines = everything.only(used)
    planned = finished(machines, first_signals(machines), rates, reserved[used], spot)
    fleets, share = planned.hours.fleets, planned.hours.share.copy()
    is_better = (known < fleets.cost_per_h - 1e-9) & machines.is_allowed(reserved[used] + found.extra[:, used])
    for hour in np.flatnonzero(is_better).tolist():
        peak, _, share[hour] = peak_load(machines, rates[hour], reserved[used] + found.extra[hour, used], enough=1.0)
        is_better[hour] = peak <= FITS
    wins = is_better[:, None]
    taken = HourFleets(
        extra=np.where(wins, found.extra[:, used], fleets.extra),
        spot=np.where(wins, found.spot[:, used], fleets.spot),
        cost_per_h=np.where(is_better, known, fleets.cost_per_h),
    )
    kept = np.where(wins[:, :, None], share, planned.hours.share)
    cost = planned.cost_per_h + float((taken.cost_per_h - fleets.cost_per_h).mean())
    if not cost < reservation.cost_per_h:
        return None
    return used, replace(planned, hours=replace(planned.hours, fleets=taken, share=kept), cost_per_h=cost)


def _no_more_expensive(reservation: Reservation, static: Array, static_per_h: float) -> Reservation:
    """The reservation, with the fleet for the peak in hours where it costs less than the fleet that was found."""
    fleets = reservation.hours.fleets
    is_committed = reservation.reserved.any() or reservation.machines.committed_per_h > 0
    if is_committed or not np.isfinite(static_per_h):
        return reservation
    worse = fleets.cost_per_h > static_per_h + 1e-9
    if not worse.any():
        return reservation
    extra, spot, cost = fleets.extra.copy(), fleets.spot.copy(), fleets.cost_per_h.copy()
    extra[worse], spot[worse], cost[worse] = static, 0.0, static_per_h
    hours = replace(reservation.hours, fleets=HourFleets(extra=extra, spot=spot, cost_per_h=cost))
    return replace(reservation, hours=hours, cost_per_h=float(cost.mean()))
