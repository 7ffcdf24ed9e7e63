"""Every limit of a schedule once more, in plain arithmetic."""

from __future__ import annotations

import numpy as np

from melange.errors import SolverError
from melange.plan.schedule.contracts import Spot
from melange.plan.schedule.hours import spot_room
from melange.plan.schedule.machines import Machines
from melange.plan.schedule.reserve import Reservation
from melange.plan.schedule.signals import peak_load
from melange.workload.workload import Array

# Load over a capacity of 1 that still counts as fitting, as of plans.
_TOLERANCE = 1e-6


def check_hours(machines: Machines, rates: Array, reservation: Reservation, spot: Spot | None) -> None:
    """Check that every hour carries its traffic (H, B) within every limit, and that costs add up.

    Raises
    ------
    SolverError
        Some limit does not hold: a bug, and better here than in production.
    """
    faults = broken(machines, rates, reservation, spot)
    if faults:
        raise SolverError(f"the schedule breaks its limits: {'; '.join(faults[:5])}", hint="this is a bug")


def broken(machines: Machines, rates: Array, reservation: Reservation, spot: Spot | None) -> list[str]:
    """What a schedule breaks, in words."""
    fleets, reserved = reservation.hours.fleets, reservation.reserved
    extra, on_spot = fleets.extra, fleets.spot
    faults = []
    counts = (reserved, extra, on_spot)
    if any((one < 0).any() or (one != np.round(one)).any() for one in counts) or (on_spot > extra).any():
        faults.append("instances that are no counts")
    if not np.isfinite(np.where(reserved > 0, machines.reserved_per_h, 0.0)).all():
        faults.append("reserved instances of a type that is not offered so")
    if not np.isfinite(np.where(on_spot > 0, machines.spot_per_h, 0.0)).all():
        faults.append("spot instances of a type that is not offered so")
    room, room_each = spot_room(machines, machines.work(rates), spot)
    paid = on_spot * machines.on_demand_per_h
    if (paid.sum(axis=1) > room * (1 + _TOLERANCE) + _TOLERANCE).any():
        faults.append("more on spot than its share")
    if (paid > room_each[:, None] * (1 + _TOLERANCE) + _TOLERANCE).any():
        faults.append("more of one type on spot than its share")
    if not machines.is_allowed(reserved + extra).all():
        faults.append("more instances than there are")
    spot_price = np.where(on_spot.any(axis=0), machines.spot_per_h, 0.0)
    cost = (extra - on_spot) @ machines.on_demand_per_h + on_spot @ spot_price
    if (np.abs(cost - fleets.cost_per_h) > _TOLERANCE * np.maximum(1.0, cost)).any():
        faults.append("costs that do not add up")
    faults += _overloaded(machines, rates, reservation)
    return faults


def _overloaded(machines: Machines, rates: Array, reservation: Reservation) -> list[str]:
    """Hours whose shares leave requests or overload a type; where shares are those of another fleet, new ones count."""
    faults = []
    fleets, share = reservation.hours.fleets, reservation.hours.share
    rate = machines.max_request_rate
    for hour, traffic in enumerate(rates):
        present = traffic > 0
        part = share[hour]
        carried = machines.capacity * (reservation.reserved + fleets.extra[hour])
        fits = bool((np.abs(part[:, present].sum(axis=0) - 1) <= _TOLERANCE).all() and not (part[rate <= 0] > 0).any())
        with np.errstate(divide="ignore", invalid="ignore"):
            busy = np.where(part > 0, traffic * part / rate, 0.0).sum(axis=1)
        fits = fits and bool((busy <= carried * (1 + _TOLERANCE) + 1e-12).all())
        if not fits and peak_load(machines, traffic, reservation.reserved + fleets.extra[hour])[0] > 1 + _TOLERANCE:
            faults.append(f"hour {hour} is overloaded")
    return faults
