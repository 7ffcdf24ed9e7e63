"""How instances may be paid for over time, and what a schedule must respect besides the traffic."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

import numpy as np

from melange.catalog.offer import Offer
from melange.errors import InputError
from melange.units import S_PER_H, S_PER_WEEK
from melange.workload.workload import Array

# Time from the order of an instance to its first request [s]: boot, pull the image, load the weights. A simulation uses
# the same time for a lost replica. Chosen by judgment; measure your own.
_START_UP_S = 300.0
# Time from the last request sent to an instance to the end of its bill [s], in which it finishes its requests. Chosen
# by judgment: most completions end within this time.
_DRAIN_S = 60.0
# Upper limit for the start-up time, the drain time and the least time up [s]: a week, the longest cycle.
_LONGEST_S = S_PER_WEEK
# Longest term on the market [years].
_MOST_YEARS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """A commitment: instances that are paid for every hour of a term, used or not.

    Parameters
    ----------
    term_years
        How long it binds.
    discount
        Reduction of the on-demand price, 0-1; None: prices come from offers of the market ``reserved`` with this term.
    upfront_fraction
        Share of the total that is paid at the beginning, 0-1.
    """

    term_years: float
    discount: float | None = None
    upfront_fraction: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.term_years) and 0 < self.term_years <= _MOST_YEARS):
            raise InputError(
                f"schedule.reserved: term_years must be > 0 and <= {_MOST_YEARS:g}, got {self.term_years:g}"
            )
        if self.discount is not None and not 0 <= self.discount < 1:
            raise InputError(
                f"schedule.reserved: discount must be in [0, 1), got {self.discount:g}", hint="45 % is 0.45"
            )
        if not 0 <= self.upfront_fraction <= 1:
            raise InputError(f"schedule.reserved: upfront_fraction must be 0 to 1, got {self.upfront_fraction:g}")
        for name in ("term_years", "upfront_fraction"):
            object.__setattr__(self, name, float(getattr(self, name)))  # so that a file reads and writes the same

    @property
    def name(self) -> str:
        """Term and upfront payment in words.

        >>> Reserved(term_years=3, discount=0.55, upfront_fraction=1).name
        '3 years, all upfront'
        """
        years = f"{self.term_years:g} year{'' if self.term_years == 1 else 's'}"
        if self.upfront_fraction in (0.0, 1.0):
            return f"{years}, {'all' if self.upfront_fraction else 'nothing'} upfront"
        return f"{years}, {self.upfront_fraction:.0%} upfront"


@dataclass(frozen=True, slots=True, kw_only=True)
class SavingsPlan:
    """A commitment to spend: a fixed USD/h of on-demand use at a discount, paid in every hour of a term, used or not.

    Parameters
    ----------
    term_years
        How long it binds.
    discount
        Reduction of the on-demand price, 0-1.
    provider, region, family
        Instances that it covers: those of a provider, a region, a family of instance types (``g6e``); None: all.
    upfront_fraction
        Share of the total that is paid at the beginning, 0-1.
    """

    term_years: float
    discount: float
    provider: str | None = None
    region: str | None = None
    family: str | None = None
    upfront_fraction: float = 0.0

    def __post_init__(self) -> None:
        where = "schedule.savings_plans"
        if not (math.isfinite(self.term_years) and 0 < self.term_years <= _MOST_YEARS):
            raise InputError(f"{where}: term_years must be > 0 and <= {_MOST_YEARS:g}, got {self.term_years:g}")
        if not 0 < self.discount < 1:
            raise InputError(f"{where}: discount must be in (0, 1), got {self.discount:g}", hint="30 % is 0.3")
        if not 0 <= self.upfront_fraction <= 1:
            raise InputError(f"{where}: upfront_fraction must be 0 to 1, got {self.upfront_fraction:g}")
        for name in ("term_years", "discount", "upfront_fraction"):
            object.__setattr__(self, name, float(getattr(self, name)))

    @property
    def name(self) -> str:
        """Scope and term in words.

        >>> SavingsPlan(term_years=1, discount=0.3, provider="aws", family="g6e").name
        'savings plan for aws g6e, 1 year'
        """
        whose = " ".join(part for part in (self.provider, self.region, self.family) if part) or "all"
        upfront = f", {self.upfront_fraction:.0%} upfront" if self.upfront_fraction else ""
        return f"savings plan for {whose}, {self.term_years:g} year{'' if self.term_years == 1 else 's'}{upfront}"

    def covers(self, offer: Offer) -> bool:
        """Whether the discount applies to instances of an offer."""
        if self.provider not in (None, offer.provider) or self.region not in (None, offer.region):
            return False
        return (
            self.family is None
            or re.match(rf"{re.escape(self.family)}(?![A-Za-z0-9])", offer.instance_type) is not None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """Instances that the provider may take back, and how far a service relies on them.

    Parameters
    ----------
    discount
        Reduction of the on-demand price, 0-1; None: prices come from offers of the market ``spot``.
    max_share
        Largest share of an hour's work that may be on spot, 0-1: the rest is carried even if all of spot is lost.
    max_share_per_pool, max_share_per_zone
        The same for one pool, which is one replica type in one zone, and for all types in one zone.
    zones
        Zones that each type's spot instances are spread over; each is a pool of its own.
    unavailable_fraction
        Share of the time in which a pool has no instances, 0-1; on-demand instances replace them meanwhile.
    outage_s
        Average time for which a lost pool has no instances [s].
    spare_pools
        N+k of pools: the fleet of every hour still carries its traffic when any k pools of one type are lost, before
        on-demand instances replace them.
    """

    discount: float | None = None
    # On public availability traces, half of the traffic on spot left 0.9 to 1.5 % unserved; all of it, 1.9 to 3.4 %.
    max_share: float = 0.5
    max_share_per_pool: float = 0.25
    max_share_per_zone: float = 1.0
    zones: int = 1
    # On public availability traces, zones were up for 17 to 90 % of the time; this value suits a zone worth renting in.
    unavailable_fraction: float = 0.1
    outage_s: float = 3600.0
    spare_pools: int = 0

    def __post_init__(self) -> None:
        if self.discount is not None and not 0 <= self.discount < 1:
            raise InputError(f"schedule.spot: discount must be in [0, 1), got {self.discount:g}", hint="60 % is 0.6")
        for name in ("max_share", "max_share_per_pool", "max_share_per_zone"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"schedule.spot: {name} must be 0 to 1, got {getattr(self, name):g}")
        if not 1 <= self.zones <= 100:
            raise InputError(f"schedule.spot: zones must be 1 to 100, got {self.zones}")
        if not 0 <= self.unavailable_fraction < 1:
            raise InputError(
                f"schedule.spot: unavailable_fraction must be in [0, 1), got {self.unavailable_fraction:g}"
            )
        if not (math.isfinite(self.outage_s) and self.outage_s > 0):
            raise InputError(f"schedule.spot: outage must be > 0 s, got {self.outage_s:g}")
        if not 0 <= self.spare_pools <= self.zones:
            raise InputError(
                f"schedule.spot: spare_pools must be 0 to {self.zones}, the number of zones, got {self.spare_pools}",
                hint="a type has one pool in each zone; zones is their number",
            )

    @property
    def most_of_one_type(self) -> float:
        """Largest share of an hour's traffic on one type's spot instances, over all zones, 0-1."""
        return min(self.max_share, self.max_share_per_pool * self.zones, self.max_share_per_zone * self.zones)

    def lost_with_pools(self, instances: Array) -> Array:
        """Spot instances of a type, spread evenly over zones, that are lost with its ``spare_pools`` largest pools."""
        each, more = np.divmod(instances, self.zones)
        return np.asarray(self.spare_pools * each + np.minimum(self.spare_pools, more))

    def most_that_may_go(self, spare: Array) -> Array:
        """Most spot instances of a type such that no more than ``spare`` of them are lost with its pools."""
        k = self.spare_pools
        if k == 0:
            return np.full(np.shape(spare), np.inf)
        if k == self.zones:
            return np.asarray(spare, float)
        return np.asarray(np.floor(spare / k) * self.zones + spare % k)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferral:
    """A class of requests that may wait: the schedule chooses the hours in which they are sent to the fleet.

    Parameters
    ----------
    name
        Name of the class.
    deadline_s
        Time from the arrival of a request until it must be done [s].
    """

    name: str
    deadline_s: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.deadline_s) and self.deadline_s >= S_PER_H):
            raise InputError(
                f"classes.{self.name}.deadline must be an hour or more, got {self.deadline_s:g} s",
                hint="a schedule chooses among hours; for less than an hour remove deadline: slo says how fast",
            )
        object.__setattr__(self, "deadline_s", float(self.deadline_s))

    @property
    def lag_hours(self) -> int:
        """Hours after the hour of arrival in which a request may still be sent: it is done by the end of the last one.

        >>> Deferral(name="batch", deadline_s=24 * 3600.0).lag_hours
        23
        """
        return int(self.deadline_s // S_PER_H) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleOptions:
    """Settings of a schedule, besides those of a plan.

    Parameters
    ----------
    reserved
        The commitments that are on offer; one of them is chosen, or none.
    savings_plans
        Commitments to spend that are also on offer; one of them is chosen, or none.
    spot
        How far spot instances may be used; None: not at all.
    horizon_years
        How long the service is sure to run; None if unknown. A commitment must not bind for longer.
    start_up_s
        Time from the order of an instance to its first request [s].
    drain_s
        Time from the last request sent to an instance to the end of its bill [s].
    min_up_s
        Shortest time that a started instance keeps running [s].
    short_fraction
        Allowed share of requests beyond the fleet's capacity, and of late requests among those that may wait, 0-1.
    deferrals
        The classes of requests that may wait; empty: all are served as they arrive.
    """

    reserved: tuple[Reserved, ...] = field(default=())
    savings_plans: tuple[SavingsPlan, ...] = field(default=())
    spot: Spot | None = None
    horizon_years: float | None = None
    start_up_s: float = _START_UP_S
    drain_s: float = _DRAIN_S
    min_up_s: float = 0.0
    # An SLO of 99 % of the requests allows one miss in a hundred. If no request may be short, the cost is 1.8 to 2.5
    # times that of a clairvoyant fleet, on the services of bench/week.py.
    short_fraction: float = 0.01
    deferrals: tuple[Deferral, ...] = ()

    def __post_init__(self) -> None:
        if self.horizon_years is not None and not self.horizon_years > 0:
            raise InputError(f"schedule.horizon_years must be > 0, got {self.horizon_years:g}")
        for name in ("start_up_s", "drain_s", "min_up_s"):
            value = getattr(self, name)
            if not 0 <= value <= _LONGEST_S:
                raise InputError(f"schedule.{name.removesuffix('_s')} must be >= 0 s and <= a week, got {value:g}")
        if not 0 < self.short_fraction < 1:
            raise InputError(
                f"schedule.short_fraction must be in (0, 1), got {self.short_fraction:g}",
                hint="1 % of requests is 0.01; for 0 %, plan for the peak",
            )
        names = [one.name for one in self.reserved]
        if len(set(names)) < len(names):
            raise InputError("schedule.reserved: two commitments have the same term and upfront payment")
        for name in (plans := [one.name for one in self.savings_plans]):
            if plans.count(name) > 1:
                raise InputError(f"schedule.savings_plans: {name} is listed twice")
        terms: list[Reserved | SavingsPlan] = [*self.reserved, *self.savings_plans]
        for one in terms:
            if self.horizon_years is not None and one.term_years > self.horizon_years:
                key = "reserved" if isinstance(one, Reserved) else "savings_plans"
                raise InputError(
                    f"schedule.{key}: {one.name} lasts longer than the service is sure to run (horizon_years: "
                    f"{self.horizon_years:g})",
                    hint="remove it, or set a longer horizon",
                )
