"""Offers: what can be rented, its price, and the age of the price."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from melange.errors import Caution, InputError
from melange.files import Json
from melange.records import one_line, record, shown, text

MARKETS = ("on-demand", "spot", "reserved")
INTERCONNECTS = ("", "nvlink", "pcie")
# Most characters of a name; providers' names have up to 60.
_MOST_NAME = 500
# Most USD/h of an instance, and most accelerators: a thousand times the largest instance for rent. A larger number
# means that a file is damaged, and sums over instances would lose digits.
_MOST_COST_PER_H = 1e6
_MOST_ACCELERATORS = 100_000
# Most available instances: more than any cloud has, so that 999999999 is accepted as "no limit".
_MOST_INSTANCES = 1_000_000_000
# Longest term that is sold.
_MOST_YEARS = 5
# Prices older than this get a caution. If shorter, cautions are too frequent to be read; if longer, plans use outdated
# prices. Chosen by judgment.
STALE_AFTER_DAYS = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Something that can be rented: a whole instance, its accelerators and its price.

    Parameters
    ----------
    provider, region, instance_type
        The provider, its region, and its name for the instance.
    accelerator
        Name of the accelerator.
    accelerators
        Number of accelerators in the instance.
    cost_per_h
        Price of the whole instance [USD/h].
    market
        ``on-demand``, ``spot`` or ``reserved``.
    interconnect
        The link between the instance's accelerators: ``nvlink`` (or the vendor's equivalent) or ``pcie``; empty: the
        link in the accelerator's own datasheet.
    max_instances
        Number of available instances; None if unknown.
    source
        Where the price was seen.
    seen
        Date of the price; None if the file has none.
    term_years
        Term of a reserved price; None if the file has none.
    upfront_fraction
        Share of a reserved price that is paid upfront, 0-1; None if the file has none.
    carbon_cost_per_h
        The part of ``cost_per_h`` that prices the instance's emissions, if the plan counts them [USD/h].

    Raises
    ------
    InputError
        A price or count that is not positive, an unknown market.
    """

    provider: str
    region: str
    instance_type: str
    accelerator: str
    accelerators: int
    cost_per_h: float
    market: str = "on-demand"
    interconnect: str = ""
    max_instances: int | None = None
    source: str = ""
    seen: date | None = None
    term_years: float | None = None
    upfront_fraction: float | None = None
    carbon_cost_per_h: float = 0.0

    def __post_init__(self) -> None:
        for field in ("provider", "region", "instance_type", "accelerator"):
            one_line(getattr(self, field), f"offer: {field}", most=_MOST_NAME)
        text(self.source, "offer: source", most=_MOST_NAME)
        if not (math.isfinite(self.cost_per_h) and self.cost_per_h > 0):
            raise InputError(f"offer {self.name}: cost_per_h must be > 0 and finite, got {self.cost_per_h:g}")
        if self.cost_per_h > _MOST_COST_PER_H:
            raise InputError(f"offer {self.name}: cost_per_h must be <= {_MOST_COST_PER_H:g}, got {self.cost_per_h:g}")
        if not 1 <= self.accelerators <= _MOST_ACCELERATORS:
            raise InputError(
                f"offer {self.name}: accelerators must be 1 to {_MOST_ACCELERATORS:,}, got {self.accelerators}"
            )
        if self.market not in MARKETS:
            raise InputError(f"offer {self.name}: market must be one of {', '.join(MARKETS)}, got {self.market!r}")
        self._check_term()
        if self.max_instances is not None and not 0 <= self.max_instances <= _MOST_INSTANCES:
            raise InputError(
                f"offer {self.name}: max_instances must be 0 to {_MOST_INSTANCES:,}, got {shown(self.max_instances)}"
            )

    def _check_term(self) -> None:
        if self.market != "reserved" and (self.term_years is not None or self.upfront_fraction is not None):
            raise InputError(f"offer {self.name}: term_years and upfront_fraction apply only to reserved offers")
        if self.term_years is not None and not 0 < self.term_years <= _MOST_YEARS:
            raise InputError(f"offer {self.name}: term_years must be > 0 and <= {_MOST_YEARS}, got {self.term_years:g}")
        if self.upfront_fraction is not None and not 0 <= self.upfront_fraction <= 1:
            raise InputError(f"offer {self.name}: upfront_fraction must be 0 to 1, got {self.upfront_fraction:g}")

    @property
    def name(self) -> str:
        """Provider, region, instance type and market, as far as they are known; for a commitment also its terms."""
        parts = [part for part in (self.provider, self.region, self.instance_type) if part]
        terms = "" if self.term_years is None else f" {self.term_years:g}y"
        terms += "" if self.upfront_fraction is None else f" {self.upfront_fraction:.0%} upfront"
        return "/".join(parts) + ("" if self.market == "on-demand" else f" ({self.market}{terms})")

    def is_reserved_for(self, term_years: float, upfront_fraction: float) -> bool:
        """Whether a reserved price has this term and upfront payment; unstated terms match any."""
        is_term = self.term_years in (None, term_years)
        return self.market == "reserved" and is_term and self.upfront_fraction in (None, upfront_fraction)

    def age_days(self, today: date) -> int | None:
        """Days since the price was seen [d]; None if unknown."""
        return None if self.seen is None else (today - self.seen).days

    def to_json(self) -> Json:
        """As a JSON object."""
        return {
            "provider": self.provider,
            "region": self.region,
            "instance_type": self.instance_type,
            "accelerator": self.accelerator,
            "accelerators": self.accelerators,
            "cost_per_h": self.cost_per_h,
            "market": self.market,
            "interconnect": self.interconnect,
            "max_instances": self.max_instances,
            "source": self.source,
            "seen": self.seen.isoformat() if self.seen else None,
            # Only for commitments and priced emissions: files of other offers stay unchanged.
            **({} if self.term_years is None else {"term_years": self.term_years}),
            **({} if self.upfront_fraction is None else {"upfront_fraction": self.upfront_fraction}),
            **({} if not self.carbon_cost_per_h else {"carbon_cost_per_h": self.carbon_cost_per_h}),
        }

    @classmethod
    def from_json(cls, content: Json) -> Offer:
        """From the JSON object that :meth:`to_json` makes."""
        return record(cls, content)


def stale_prices(offers: Iterable[Offer], today: date) -> tuple[Caution, ...]:
    """Cautions about the age of these prices: one for old prices, one for prices without a date.

    Parameters
    ----------
    offers
        The offers that an answer uses.
    today
        The date from which the age is counted; a parameter, so that the same input gives the same answer.

    >>> offer = Offer(provider="aws", region="us-east-1", instance_type="g6.xlarge", accelerator="L4",
    ...               accelerators=1, cost_per_h=0.8048, seen=date(2026, 7, 20))
    >>> stale_prices([offer], date(2026, 8, 1))
    ()
    >>> print(*stale_prices([offer], date(2026, 12, 1)))
    stale-price: the price of aws/us-east-1/g6.xlarge is older than 90 days (seen 2026-07-20); \
    melange catalog update fetches current ones
    """
    listed = list(offers)
    dated = [(offer.seen, offer.name) for offer in listed if offer.seen is not None]
    old = [(seen, name) for seen, name in dated if (today - seen).days > STALE_AFTER_DAYS]
    cautions = []
    if old:
        seen, name = min(old)
        count = f"{len(old)} of {len(listed)} prices {'is' if len(old) == 1 else 'are'}"
        what, when = (f"the price of {name} is", "") if len(listed) == 1 else (count, f"oldest: {name}, ")
        told = f"{what} older than {STALE_AFTER_DAYS} days ({when}seen {seen})"
        cautions.append(Caution("stale-price", f"{told}; melange catalog update fetches current ones"))
    undated = [offer.name for offer in listed if offer.seen is None]
    if undated:
        cautions.append(
            Caution(
                "undated-price",
                f"{len(undated)} of {len(listed)} prices {'has' if len(undated) == 1 else 'have'} no date "
                f"(first: {undated[0]}); add a column seen (YYYY-MM-DD) with the date of each price",
            )
        )
    return tuple(cautions)
