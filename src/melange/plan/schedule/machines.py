"""What can be rented over time, in numbers: capacities by size, and what an instance costs in each market.

A machine is a replica type regardless of the market that its instances are paid on: the same hardware runs reserved,
on-demand and on spot. Arrays have the axes (machine R, bucket B), with the buckets of the grid in one row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from melange.errors import Caution, InfeasibleError, InputError, some_of
from melange.plan.bindings import Chosen, check_names
from melange.plan.options import Options
from melange.plan.problem import Limit, Positions, limits_of, spare_of
from melange.plan.question import by_replica_type
from melange.plan.schedule.contracts import Reserved, SavingsPlan, Spot
from melange.profile.profile import Profile, ReplicaType
from melange.units import count_of
from melange.workload.workload import Array, Mask

ON_DEMAND, SPOT, RESERVED = "on-demand", "spot", "reserved"
# Those that a service has as offers.max.
_OF_OFFERS = {"max_instances", "max_accelerators"}
# Settings of a plan that a schedule supports; it refuses all others.
_FOLLOWED = {
    "headroom",
    "max_instances",
    "max_accelerators",
    "exclude",
    "drop_unservable",
    "time_limit_s",
    "gap",
    "seed",
    "spare_replicas",
    "spare_total_replicas",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Machines:
    """What can be rented.

    Parameters
    ----------
    types
        The replica types, as rented on-demand (R).
    position
        Index of each type in the profile (R,).
    cells
        The sizes that have traffic and are served, in the flattened grid (B,).
    max_request_rate
        Highest rate of each size on one replica (R, B) [1/s]; 0 if the replica cannot serve the size.
    capacity
        Load that an instance takes (R,): (1 - headroom) x replicas.
    on_demand_per_h, spot_per_h, reserved_per_h
        Price of an instance in each market (R,) [USD/h]; infinite if it is not offered. Spot includes the cost of its
        replacements.
    spot_price_per_h
        What a spot instance itself costs (R,) [USD/h].
    limits
        How many instances can be rented, over all markets.
    spare
        Load of the replicas of a used type that may be lost while it carries its own share (R,).
    spare_total
        Load of the replicas of any one type that may be lost while the fleet carries the traffic.
    is_covered
        Whether a savings plan covers a machine's on-demand cost (R,).
    allowance_per_h, committed_per_h
        On-demand use that a savings plan pays for in each hour, at on-demand prices, and its cost, used or not [USD/h].
    """

    types: tuple[ReplicaType, ...]
    position: Positions
    cells: Positions
    max_request_rate: Array
    capacity: Array
    on_demand_per_h: Array
    spot_per_h: Array
    spot_price_per_h: Array
    reserved_per_h: Array
    spare: Array
    is_covered: Mask
    limits: tuple[Limit, ...] = ()
    spare_total: float = 0.0
    allowance_per_h: float = 0.0
    committed_per_h: float = 0.0

    def __len__(self) -> int:
        return len(self.types)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the replica types (R)."""
        return tuple(one.name for one in self.types)

    @property
    def price(self) -> Array:
        """On-demand price of a unit of load (R,) [USD/h], by which loads of different machines are compared."""
        return np.asarray(self.on_demand_per_h / self.capacity)

    def weights(self, price: Array) -> Array:
        """Cost of one request per second of each size at prices of load (..., R): min_r y_r / rate_rb (..., B)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            each = np.where(self.max_request_rate > 0, price[..., None] / self.max_request_rate, np.inf)
        return np.asarray(each.min(axis=-2))

    def work(self, rates: Array) -> Array:
        """Lowest on-demand cost of traffic (H, B), with fractional instances (H,) [USD/h]."""
        return np.asarray(rates @ self.weights(self.price))

    @property
    def has_spares(self) -> bool:
        """Whether fleets must carry their traffic after a loss of replicas."""
        return bool(self.spare.any()) or self.spare_total > 0

    def carried(self, instances: Array) -> Array:
        """Load that fleets (..., R) take once each used type's own spare replicas are set aside (..., R)."""
        return np.asarray(np.maximum(self.capacity * instances - self.spare * (instances > 0), 0.0))

    def after_loss(self, instances: Array, lost: int) -> Array:
        """Load that fleets (..., R) take after one type has lost ``spare_total`` (..., R)."""
        kept = self.capacity * instances
        kept[..., lost] = np.maximum(kept[..., lost] - self.spare_total, 0.0)
        return np.asarray(kept)

    def scenarios(self, instances: Array) -> list[Array]:
        """Load that a fleet (R,) takes in each case in which it must carry the traffic (R,); the first has no loss."""
        found = [self.carried(instances)]
        if self.spare_total > 0:
            found += [self.after_loss(instances, r) for r in np.flatnonzero(instances > 0).tolist()]
        return found

    def fixed_per_h(self, reserved: Array) -> float:
        """What is paid in every hour, used or not: reserved instances (R,) and the savings plan [USD/h]."""
        return float(reserved @ np.where(reserved > 0, self.reserved_per_h, 0.0)) + self.committed_per_h

    def bill_per_h(self, on_demand: Array, spot: Array) -> Array:
        """What instances (..., R) of both markets cost beyond what is paid anyway (...) [USD/h]."""
        cost = on_demand * self.on_demand_per_h
        covered = (cost * self.is_covered).sum(axis=-1)
        return np.asarray(
            np.maximum(covered - self.allowance_per_h, 0.0)
            + (cost * ~self.is_covered).sum(axis=-1)
            + (spot * np.where(np.isfinite(self.spot_per_h), self.spot_per_h, 0.0)).sum(axis=-1)
        )

    def only(self, kept: Mask | Positions) -> Machines:
        """Some of the machines (R,)."""
        where = np.flatnonzero(kept) if np.asarray(kept).dtype == bool else np.asarray(kept)
        place = np.full(len(self), -1)
        place[where] = np.arange(len(where))
        limits = tuple(
            Limit(name=one.name, members=place[one.members[part]], weight=one.weight[part], most=one.most)
            for one in self.limits
            if (part := place[one.members] >= 0).any()
        )
        arrays: tuple[str, ...] = ("position", "max_request_rate", "capacity")
        arrays += ("on_demand_per_h", "spot_per_h", "spot_price_per_h", "reserved_per_h", "spare", "is_covered")
        picked = {name: getattr(self, name)[where] for name in arrays}
        return replace(self, types=tuple(self.types[r] for r in where), limits=limits, **picked)

    def most_beside(self, held: Array) -> Array:
        """Most instances of each type (R,) that the limits allow beside others (R,); infinite without a limit."""
        most = np.full(len(self), np.inf)
        for limit in self.limits:
            left = np.floor((limit.most - limit.taken(held)) / limit.weight + 1e-9)
            most[limit.members] = np.minimum(most[limit.members], np.maximum(left, 0.0))
        return most

    def is_allowed(self, instances: Array) -> Mask:
        """Which fleets (..., R), over all markets, are within the limits (...)."""
        fits = np.ones(instances.shape[:-1], bool)
        for limit in self.limits:
            fits &= limit.taken(instances) <= limit.most
        return fits


def refuse_others(options: Options) -> None:
    """Refuse settings of a plan that a schedule does not support, instead of ignoring them.

    Raises
    ------
    InputError
        Names the first such setting.
    """
    default = Options()
    for name in Options.__slots__:
        if name not in _FOLLOWED and getattr(options, name) != getattr(default, name):
            raise InputError(
                f"plan.{name} applies to a plan, but not to a schedule",
                hint=f"remove it: a schedule supports {', '.join(sorted(_FOLLOWED - _OF_OFFERS))} and offers.max",
            )


def machines_of(
    profile: Profile,
    traffic: Array,
    options: Options,
    reserved: Reserved | None,
    spot: Spot | None,
    savings_plan: SavingsPlan | None = None,
) -> tuple[Machines, tuple[Caution, ...]]:
    """The machines of a profile under one commitment, and cautions.

    Parameters
    ----------
    profile
        Replica types of all markets.
    traffic
        Rate of each size over all hours (I x O,) [1/s]: sizes without traffic are left out.
    options
        Options of the plan: headroom, limits, exclusions.
    reserved, spot, savings_plan
        What may be used besides on-demand.

    Raises
    ------
    InfeasibleError
        No machine serves some sizes, and these may not be dropped.
    InputError
        No machine is offered on-demand, which replaces all others; or a market in use has no prices.
    """
    refuse_others(options)
    check_names(
        options.spare_replicas if isinstance(options.spare_replicas, Mapping) else (),
        profile.replica_types,
        ("replica type", "accelerator"),
        "plan.spare_replicas",
    )
    options = by_replica_type(profile, options)
    items = profile.replica_types
    standing = np.array([one.offer.market == ON_DEMAND for one in items])
    excluded = Chosen(items).members(options.exclude)
    kept = np.flatnonzero(standing & ~excluded)
    if not len(kept):
        raise InputError(
            "schedule: no replica type is offered on-demand, which scaling and the replacement of spot need",
            hint="offers: {market: [on-demand]}; commitments and spot are set under schedule:",
        )
    rate = profile.max_request_rate.reshape(len(items), -1)
    wanted = traffic > 0
    served = wanted & (rate[kept] > 0).any(axis=0)
    cautions: tuple[Caution, ...] = ()
    if (wanted & ~served).any():
        part = traffic[wanted & ~served].sum() / traffic.sum()
        sizes = [
            profile.buckets.label(*divmod(int(b), profile.buckets.shape[1])) for b in np.flatnonzero(wanted & ~served)
        ]
        if not options.drop_unservable or not served.any():
            reasons = tuple(
                f"{profile.buckets.label(*divmod(int(b), profile.buckets.shape[1]))}: "
                f"{profile.why(int(kept[0]), *divmod(int(b), profile.buckets.shape[1])) or 'no type serves it'}"
                for b in np.flatnonzero(wanted & ~served)[:8]
            )
            raise InfeasibleError(
                f"no replica type can serve {count_of(len(sizes), 'request size')} ({part:.2%} of requests)",
                reasons=reasons,
                hint="plan for the rest with plan: {drop_unservable: true}, relax the SLO or offer larger accelerators",
            )
        cautions = (Caution("left-out", f"{part:.2%} of requests are left out, no type serves them: {some_of(sizes)}"),)
    cells = np.flatnonzero(served)
    cost = np.array([items[r].cost_per_h for r in kept])
    own = _prices(items, kept, SPOT, None)
    spot_price = (
        np.full(len(kept), np.inf) if spot is None else own if spot.discount is None else cost * (1 - spot.discount)
    )
    committed = np.full(len(kept), np.inf)
    if reserved is not None:
        own = _prices(items, kept, RESERVED, reserved)
        committed = own if reserved.discount is None else cost * (1 - reserved.discount)
    _check_offered(spot_price, spot is not None, "spot")
    _check_offered(committed, reserved is not None, "reserved")
    covered = np.array([savings_plan is not None and savings_plan.covers(items[r].offer) for r in kept])
    if savings_plan is not None and not covered.any():
        raise InputError(
            f"schedule.savings_plans: {savings_plan.name} covers no machine that is offered on-demand",
            hint=f"on-demand offers: {some_of(sorted({items[r].offer.name for r in kept}))}",
        )
    away = 0.0 if spot is None else spot.unavailable_fraction
    found = Machines(
        types=tuple(items[r] for r in kept),
        position=kept,
        cells=cells,
        max_request_rate=rate[np.ix_(kept, cells)],
        capacity=(1 - options.headroom) * np.array([items[r].replicas_per_instance for r in kept], float),
        on_demand_per_h=cost,
        spot_price_per_h=spot_price,
        spot_per_h=(1 - away) * spot_price + away * cost if spot is not None else spot_price,
        reserved_per_h=committed,
        limits=limits_of(tuple(items[r] for r in kept), options),
        spare=(1 - options.headroom) * np.array([spare_of(items[r], options) for r in kept], float),
        spare_total=(1 - options.headroom) * options.spare_total_replicas,
        is_covered=covered,
    )
    return needed(found.only(np.flatnonzero((found.max_request_rate > 0).any(axis=1)))), cautions


def _prices(items: tuple[ReplicaType, ...], kept: Positions, market: str, reserved: Reserved | None) -> Array:
    """Prices of a market's own offers for the machines that are kept (R,), infinite if there is no offer."""

    def key(one: ReplicaType) -> tuple[object, ...]:
        offer = one.offer
        shape = (offer.provider, offer.region, offer.instance_type, offer.accelerator, offer.accelerators)
        return (*shape, one.layout, one.variant, one.engine)

    price: dict[tuple[object, ...], float] = {}
    for one in items:
        if one.offer.market != market:
            continue
        if reserved is not None and not one.offer.is_reserved_for(reserved.term_years, reserved.upfront_fraction):
            continue
        price[key(one)] = min(one.cost_per_h, price.get(key(one), np.inf))
    return np.array([price.get(key(items[r]), np.inf) for r in kept])


def _check_offered(price: Array, is_asked: bool, market: str) -> None:
    if is_asked and not np.isfinite(price).any():
        raise InputError(
            f"schedule.{market}: no {market} offer has the same machine as an on-demand offer",
            hint=f"give its discount: schedule: {{{market}: {{discount: 0.6}}}}"
            if market == "spot"
            else "give its discount: schedule: {reserved: [{term_years: 1, discount: 0.4}]}",
        )


def needed(machines: Machines) -> Machines:
    """The machines without those that another one replaces: as fast for every size, no more expensive in any market.

    A machine with a limit replaces no other. If replicas may be lost, no machine is replaced, because a faster machine
    loses more with each replica. A machine that a savings plan covers is replaced only by another covered machine.
    """
    if machines.has_spares:
        return machines
    limited = np.zeros(len(machines), bool)
    for limit in machines.limits:
        limited[limit.members] = True
    prices = np.stack([machines.on_demand_per_h, machines.spot_per_h, machines.reserved_per_h])
    speed = machines.max_request_rate * machines.capacity[:, None]
    order = np.lexsort((np.arange(len(machines)), -speed.sum(axis=1), machines.on_demand_per_h))
    kept: list[int] = []
    for r in order.tolist():
        rivals = [k for k in kept if not limited[k]]
        dominated = bool(
            rivals
            and (
                (speed[rivals] >= speed[r]).all(axis=1)
                & (prices[:, rivals] <= prices[:, [r]]).all(axis=0)
                & (machines.is_covered[rivals] >= machines.is_covered[r])
            ).any()
        )
        if not dominated:
            kept.append(r)
    return machines.only(np.array(sorted(kept)))
