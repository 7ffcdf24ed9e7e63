"""Check every limit of a schedule again, in plain arithmetic."""

from __future__ import annotations

import numpy as np

from melange.errors import SolverError
from melange.plan.schedule.contracts import Spot
from melange.plan.schedule.machines import Machines
from melange.plan.schedule.peak import peak_of
from melange.plan.schedule.reserve import Reservation
from melange.workload.workload import Array

# Load above a capacity of 1 that still counts as fitting; the same as for plans.
_TOLERANCE = 1e-6


def check_hours(rates: Array, reservation: Reservation, spot: Spot | None) -> None:
    """Check that every hour carries its traffic (H, B) within every limit, and that costs add up.

    Raises
    ------
    SolverError
        Some limit does not hold: a bug, and better here than in production.
    """
    faults = broken(rates, reservation, spot)
    if faults:
        raise SolverError(f"the schedule breaks its limits: {'; '.join(faults[:5])}", hint="this is a bug")


def broken(rates: Array, reservation: Reservation, spot: Spot | None) -> list[str]:
    """The limits that a schedule breaks, in words."""
    machines = reservation.machines
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
    if spot is None and on_spot.any():
        faults.append("spot instances where none may be")
    if spot is not None:
        work, each = machines.work(rates) * (1 + _TOLERANCE) + _TOLERANCE, machines.on_demand_per_h
        in_zone = np.ceil(on_spot / spot.zones)  # in the zone with the most instances
        if (on_spot @ each > spot.max_share * work).any():
            faults.append("more on spot than its share")
        if (in_zone * each > spot.max_share_per_pool * work[:, None]).any():
            faults.append("more of one type on spot in a zone than its share")
        if (in_zone @ each > spot.max_share_per_zone * work).any():
            faults.append("more on spot in a zone than its share")
    if not machines.is_allowed(reserved + extra).all():
        faults.append("more instances than there are")
    spot_price = np.where(on_spot.any(axis=0), machines.spot_per_h, 0.0)
    paid = (extra - on_spot) * machines.on_demand_per_h
    covered = paid @ machines.is_covered.astype(float)
    cost = paid.sum(axis=1) - np.minimum(covered, machines.allowance_per_h) + on_spot @ spot_price
    if (np.abs(cost - fleets.cost_per_h) > _TOLERANCE * np.maximum(1.0, cost)).any():
        faults.append("costs that do not add up")
    faults += _overloaded(machines, rates, reservation)
    faults += _not_spared(machines, rates, reservation, spot)
    return faults


def _overloaded(machines: Machines, rates: Array, reservation: Reservation) -> list[str]:
    """Hours whose shares leave requests unserved or overload a type, unless other shares of the same fleet fit."""
    faults = []
    fleets, share = reservation.hours.fleets, reservation.hours.share
    rate = machines.max_request_rate
    for hour, traffic in enumerate(rates):
        present = traffic > 0
        part = share[hour]
        fleet = reservation.reserved + fleets.extra[hour]
        carried = np.maximum(machines.capacity * fleet - machines.spare * (fleet > 0), 0.0)
        fits = bool((np.abs(part[:, present].sum(axis=0) - 1) <= _TOLERANCE).all() and not (part[rate <= 0] > 0).any())
        with np.errstate(divide="ignore", invalid="ignore"):
            busy = np.where(part > 0, traffic * part / rate, 0.0).sum(axis=1)
        fits = fits and bool((busy <= carried * (1 + _TOLERANCE) + 1e-12).all())
        if not fits and peak_of(machines, traffic, carried, enough=1.0)[0] > 1 + _TOLERANCE:
            faults.append(f"hour {hour} is overloaded")
    return faults


def _not_spared(machines: Machines, rates: Array, reservation: Reservation, spot: Spot | None) -> list[str]:
    """Hours that cannot carry their traffic after the loss of a type's replicas or of its spot pools."""
    fleets, faults = reservation.hours.fleets, []
    pools = 0 if spot is None else spot.spare_pools
    for hour, traffic in enumerate(rates):
        fleet = reservation.reserved + fleets.extra[hour]
        for r in np.flatnonzero(fleet > 0).tolist():
            taken = machines.capacity * fleet
            left = np.array([max(0.0, taken[r] - machines.spare_total), taken[r]])
            if spot is not None and pools:
                zones = np.array([fleets.spot[hour, r] // spot.zones] * spot.zones)
                zones[: int(fleets.spot[hour, r] % spot.zones)] += 1
                left[1] -= machines.capacity[r] * np.sort(zones)[-pools:].sum()
            for carried, what in zip(left.tolist(), ("replicas", "pools"), strict=True):
                if carried < taken[r]:
                    kept = np.where(np.arange(len(machines)) == r, carried, taken)
                    if peak_of(machines, traffic, kept, enough=1.0)[0] > 1 + _TOLERANCE:
                        faults.append(f"hour {hour} is overloaded once {what} of {machines.names[r]} are gone")
    return faults
