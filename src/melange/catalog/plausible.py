"""Implausible prices: far below known prices, or no higher for eight accelerators than for one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from melange.catalog.offer import Offer
from melange.catalog.parts import provider_named
from melange.errors import Caution, some_of
from melange.units import significant

# A price that is below the lowest known price of its accelerator by more than this factor gets a caution. Prices of one
# accelerator differ by a factor of 3 to 7 between providers, and the lowest known price is at the end of that range: 4
# catches a tenth of any bundled price, and accepts half of any. Chosen by judgment.
_BELOW = 4.0
# Spot prices vary more: the first factor is for the same instance type; if no spot price is known, the second compares
# with on-demand, as clouds let spot prices fall to about a tenth of it.
_SPOT_FALL, _SPOT_DISCOUNT = 8.0, 10.0
# Larger instances may be cheaper per accelerator, by half if the small instance has a large host. A factor
# of three is a mistake.
_GROWTH = 3.0
# Twice the accelerators at the price of one is also a mistake, whatever the host.
_SAME_PRICE = 1.1


def implausible(offers: Sequence[Offer], known: Iterable[Offer]) -> dict[Offer, str]:
    """Reasons for implausible prices, by offer.

    Parameters
    ----------
    offers
        The offers of one price list; larger instances are compared with the smaller ones of the same provider, region,
        accelerator and market.
    known
        Offers whose prices have been checked.
    """
    lowest = _lowest(known)
    found = {}
    for offer in offers:
        if (reason := _too_low(offer, lowest)) is not None:
            found[offer] = reason
    for offer, smaller in _with_smaller(offers):
        if offer not in found:
            found[offer] = (
                f"{offer.accelerators} accelerators for {offer.cost_per_h:g} USD/h, "
                f"{smaller.accelerators} for {smaller.cost_per_h:g}"
            )
    return found


def implausible_prices(offers: Sequence[Offer], known: Iterable[Offer], place: str) -> tuple[Caution, ...]:
    """One caution that names implausible prices; none if there are none.

    >>> from melange.catalog.bundled import offers
    >>> from dataclasses import replace
    >>> cheap = replace(offers()[0], cost_per_h=0.1)
    >>> [caution.kind for caution in implausible_prices([cheap], offers(), "offers.csv")]
    ['implausible-price']
    >>> implausible_prices(offers(), offers(), "the bundled table")
    ()
    """
    found = implausible(offers, known)
    if not found:
        return ()
    named = some_of(f"{offer.name} ({reason})" for offer, reason in found.items())
    plural = "price is" if len(found) == 1 else "prices are"
    return (
        Caution(
            "implausible-price",
            f"{place}: {len(found)} {plural} implausible: {named}; check them before you rely on them",
        ),
    )


def _lowest(known: Iterable[Offer]) -> dict[tuple[str, ...], float]:
    """The lowest known price of one accelerator [USD/h]: by instance type, by provider, and over all providers."""
    lowest: dict[tuple[str, ...], float] = {}
    for offer in known:
        price = offer.cost_per_h / offer.accelerators
        for key in _keys(offer, offer.market):
            lowest[key] = min(price, lowest.get(key, price))
    return lowest


def _keys(offer: Offer, market: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The keys under which a price is compared, the closest first."""
    provider = provider_named(offer.provider)
    shape = (provider, offer.region, offer.instance_type, market)
    return (shape, (provider, offer.accelerator, market), (offer.accelerator, market))


def _too_low(offer: Offer, lowest: dict[tuple[str, ...], float]) -> str | None:
    """The reference that a price is far below; None if it is not, or if no reference is known."""
    price = offer.cost_per_h / offer.accelerators
    for known, factor in _references(offer, lowest):
        if price < known / factor:
            each = f"{significant(price)} USD/h for each {offer.accelerator}"
            return f"{each}, while the lowest known price is {significant(known)}"
    return None


def _references(offer: Offer, lowest: dict[tuple[str, ...], float]) -> list[tuple[float, float]]:
    """Known prices of one accelerator [USD/h], each with the factor by which this price may be below it."""
    on_demand = [lowest[key] for key in _keys(offer, "on-demand") if key in lowest]
    if offer.market != "spot":
        return [(known, _BELOW) for known in on_demand]
    shape, _, accelerator = _keys(offer, "spot")
    found = [(lowest[shape], _SPOT_FALL)] if shape in lowest else []
    if accelerator in lowest:
        return [*found, (min([lowest[accelerator], *on_demand[-1:]]), _BELOW)]
    return [*found, *((known, _SPOT_DISCOUNT) for known in on_demand[-1:])]


def _with_smaller(offers: Sequence[Offer]) -> list[tuple[Offer, Offer]]:
    """Offers whose price does not grow with the number of accelerators, each with the smaller offer that shows it."""
    alike: dict[tuple[str, str, str, str], dict[int, Offer]] = {}
    for offer in offers:
        by_count = alike.setdefault((offer.provider, offer.region, offer.accelerator, offer.market), {})
        cheapest = by_count.get(offer.accelerators)
        if cheapest is None or offer.cost_per_h < cheapest.cost_per_h:
            by_count[offer.accelerators] = offer
    pairs = []
    for by_count in alike.values():
        counts = sorted(by_count)
        for index, count in enumerate(counts):
            smaller = [by_count[one] for one in counts[:index] if 2 * one <= count]
            shown = next((one for one in smaller if _is_no_growth(one, by_count[count])), None)
            if shown is not None:
                pairs.append((by_count[count], shown))
    return pairs


def _is_no_growth(small: Offer, large: Offer) -> bool:
    """Whether the price of a larger instance does not grow with its accelerators."""
    growth = large.cost_per_h / small.cost_per_h
    return growth < max(_SAME_PRICE, large.accelerators / small.accelerators / _GROWTH)
