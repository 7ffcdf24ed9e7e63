"""How instances may be paid for over time, and what a schedule must respect besides the traffic."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from melange.errors import InputError

# From the order to the first request of an instance [s], as of a replica that is lost in a simulation: an instance that
# boots, an image that is pulled, weights that load. A judgment; measure your own.
_START_UP_S = 300.0
# From the last request that is sent to an instance to the end of its bill [s]: the requests that it still holds. A
# judgment: most completions end within it.
_DRAIN_S = 60.0
# Longest term that anybody sells [years].
_MOST_YEARS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """A commitment: instances that are paid for every hour of a term, used or not.

    Parameters
    ----------
    term_years
        How long it binds.
    discount
        What it takes off the on-demand price, 0-1; None: prices are those of offers of the market ``reserved`` with
        this term.
    upfront_fraction
        Share of the whole that is paid at the beginning, 0-1.
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
            object.__setattr__(self, name, float(getattr(self, name)))  # so that a file says it the same way twice

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
class Spot:
    """Instances that may be taken away, and how far a service leans on them.

    Parameters
    ----------
    discount
        What it takes off the on-demand price, 0-1; None: prices are those of offers of the market ``spot``.
    max_share
        At most this share of what an hour's traffic takes may be on spot, 0-1: the rest is carried whatever is lost.
    max_share_per_pool
        The same for one pool: one replica type in one zone.
    zones
        Zones that each type's spot instances are spread over; each is a pool of its own.
    unavailable_fraction
        Share of the time in which a pool has nothing, 0-1; on-demand instances stand in meanwhile.
    outage_s
        How long a pool that was lost is without, on average [s].
    """

    discount: float | None = None
    # On public availability traces half of the traffic on spot left 0.9 to 1.5 % unserved, and all of it 1.9 to 3.4 %.
    max_share: float = 0.5
    max_share_per_pool: float = 0.25
    zones: int = 1
    # On public availability traces zones were up for 17 to 90 % of the time; this is a zone that is worth renting in.
    unavailable_fraction: float = 0.1
    outage_s: float = 3600.0

    def __post_init__(self) -> None:
        if self.discount is not None and not 0 <= self.discount < 1:
            raise InputError(f"schedule.spot: discount must be in [0, 1), got {self.discount:g}", hint="60 % is 0.6")
        for name in ("max_share", "max_share_per_pool"):
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleOptions:
    """Settings of a schedule, besides those of a plan.

    Parameters
    ----------
    reserved
        The commitments that are on offer; one of them is chosen, or none.
    spot
        How far spot instances may be used; None: not at all.
    horizon_years
        How long the service is sure to run; None where nobody says. A commitment must not bind for longer.
    start_up_s
        From the order to the first request of an instance [s].
    drain_s
        From the last request that is sent to an instance to the end of its bill [s].
    min_up_s
        An instance that was started stays for at least this long [s].
    short_fraction
        Share of the requests that may come in excess of the fleet's capacity, 0-1.
    """

    reserved: tuple[Reserved, ...] = field(default=())
    spot: Spot | None = None
    horizon_years: float | None = None
    start_up_s: float = _START_UP_S
    drain_s: float = _DRAIN_S
    min_up_s: float = 0.0
    # One in a hundred is what an SLO of 99 % of the requests leaves. None at all costs 1.8 to 2.5 times as much as a
    # fleet that knows the future, on the services of bench/week.py.
    short_fraction: float = 0.01

    def __post_init__(self) -> None:
        if self.horizon_years is not None and not self.horizon_years > 0:
            raise InputError(f"schedule.horizon_years must be > 0, got {self.horizon_years:g}")
        for name in ("start_up_s", "drain_s", "min_up_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"schedule.{name.removesuffix('_s')} must be >= 0 s and finite, got {value:g}")
        if not 0 < self.short_fraction < 1:
            raise InputError(
                f"schedule.short_fraction must be in (0, 1), got {self.short_fraction:g}",
                hint="one request in a hundred is 0.01; none at all is a plan for the peak",
            )
        names = [one.name for one in self.reserved]
        if len(set(names)) < len(names):
            raise InputError("schedule.reserved: two commitments have the same term and upfront payment")
        for one in self.reserved:
            if self.horizon_years is not None and one.term_years > self.horizon_years:
                raise InputError(
                    f"schedule.reserved: {one.name} binds for longer than the service is sure to run "
                    f"(horizon_years: {self.horizon_years:g})",
                    hint="remove it, or say a longer horizon",
                )
