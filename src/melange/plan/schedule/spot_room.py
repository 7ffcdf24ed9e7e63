"""How many of an hour's instances may be on spot, and which ones are."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from melange.plan.schedule.contracts import Spot
from melange.plan.schedule.machines import Machines
from melange.workload.demand import Indices
from melange.workload.workload import Array

_EPS = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpotRoom:
    """Limits on spot in each hour, at on-demand prices.

    Parameters
    ----------
    whole, pool, zone
        Limit in total, for one type in one zone, and for all types in one zone (H, ...) [USD/h].
    spot
        The settings behind the limits; None: no spot.
    """

    whole: Array
    pool: Array
    zone: Array
    spot: Spot | None

    @classmethod
    def of(cls, machines: Machines, work: Array, spot: Spot | None) -> SpotRoom:
        """For hours whose traffic has a lowest on-demand cost of ``work`` (H,) [USD/h]."""
        if spot is None or not np.isfinite(machines.spot_per_h).any():
            none = np.zeros(len(work))
            return cls(whole=none, pool=none, zone=none, spot=None)
        return cls(
            whole=spot.max_share * work,
            pool=spot.max_share_per_pool * work,
            zone=spot.max_share_per_zone * work,
            spot=spot,
        )

    @property
    def zones(self) -> int:
        """Zones that spot is spread over."""
        return 1 if self.spot is None else self.spot.zones

    @property
    def all_zones(self) -> Array:
        """Limit over all zones, with fractional instances (H,) [USD/h]."""
        return np.asarray(np.minimum(self.whole, self.zone * self.zones))

    def at(self, hours: Indices) -> SpotRoom:
        """The limits of some hours, for fleets (N, M) of each."""
        picked = {name: getattr(self, name)[hours, None] for name in ("whole", "pool", "zone")}
        return replace(self, **picked)

    def most(self, cost: Array) -> Array:
        """Most whole instances that one type may have on spot at prices ``cost`` (R,) (H, R)."""
        in_zone = np.floor(np.minimum(self.pool, self.zone)[:, None] / cost + _EPS)
        return np.asarray(np.minimum(np.floor(self.whole[:, None] / cost + _EPS), self.zones * in_zone))


def split_spot(machines: Machines, extra: Array, room: SpotRoom, spare: Array | None = None) -> Array:
    """How many of some instances (..., R) are on spot: as many as the limits allow, the largest savings first.

    ``spare`` is the number of instances of each type that the fleet could do without (..., R), if pools may be lost.
    Instances that a savings plan pays for stay on demand.
    """
    on_spot = np.zeros_like(extra)
    if room.spot is None:
        return on_spot
    cost, saved = machines.on_demand_per_h, machines.on_demand_per_h - machines.spot_per_h
    left = np.array(np.broadcast_to(room.whole, extra.shape[:-1]), float)
    zone = np.array(np.broadcast_to(room.zone, extra.shape[:-1]), float)
    bill = (extra * cost * machines.is_covered).sum(axis=-1) - machines.allowance_per_h
    for r in np.argsort(-saved / cost, kind="stable"):
        if not (np.isfinite(saved[r]) and saved[r] > 0 and extra[..., r].any()):
            continue
        in_zone = np.floor(np.minimum(room.pool, zone) / cost[r] + _EPS)
        most = np.minimum(np.floor(left / cost[r] + _EPS), room.zones * in_zone)
        if spare is not None:
            most = np.minimum(most, room.spot.most_that_may_go(spare[..., r]))
        if machines.is_covered[r] and machines.allowance_per_h > 0:
            paid = np.floor(np.maximum(bill, 0.0) / cost[r] + _EPS)
            most = np.minimum(most, paid + (bill - paid * cost[r] > machines.spot_per_h[r]))
        on_spot[..., r] = np.minimum(extra[..., r], most)
        left -= cost[r] * on_spot[..., r]
        zone -= cost[r] * np.ceil(on_spot[..., r] / room.zones)
        if machines.is_covered[r]:
            bill -= cost[r] * on_spot[..., r]
    return on_spot
