"""Rules that adjust the prices of offers: private discounts, and what-if questions such as "H100 spot at -30 %"."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from melange.catalog.accelerator import Accelerator
from melange.catalog.names import find_accelerator
from melange.catalog.offer import Offer
from melange.errors import InputError, some_of, unknown

_PERCENT = re.compile(r"([+-])\s*(\d+(?:\.\d+)?|\.\d+)\s*%")
_FIELDS = ("accelerator", "provider", "region", "instance_type", "market")


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRule:
    """One line of ``offers.prices``.

    Parameters
    ----------
    who
        The offers that the rule selects, as written: names of an accelerator, provider, region, instance type, market,
        or a whole offer (``aws/us-east-1/p5.48xlarge``); several names separated by spaces must all match
        (``H100-80GB spot``).
    factor
        Factor for their prices; None if the rule sets the price itself.
    price_per_h
        The price of the instance [USD/h]; None if the rule has a factor.
    """

    who: str
    factor: float | None = None
    price_per_h: float | None = None

    @property
    def change(self) -> str:
        """The change in words.

        >>> price_rule("H100-80GB", "-30%").change, price_rule("p5.48xlarge", 40).change
        ('-30%', '40 USD/h')
        """
        return f"{self.price_per_h:g} USD/h" if self.factor is None else f"{100 * (self.factor - 1):+.6g}%"

    def price(self, offer: Offer) -> float:
        """The price of an offer after this rule [USD/h]."""
        if self.factor is not None:
            return offer.cost_per_h * self.factor
        assert self.price_per_h is not None
        return self.price_per_h


def price_rule(who: str, change: str | float) -> PriceRule:
    """A rule from a service file or a flag.

    Parameters
    ----------
    who
        The offers that the rule selects.
    change
        ``-30%`` or ``+10%``; or a number, the price of the instance [USD/h].

    Raises
    ------
    InputError
        The change is neither of these, or the price is not positive.

    Examples
    --------
    >>> price_rule("H100-80GB spot", "-30%").factor
    0.7
    """
    place = f"offers.prices: the rule for {who}"
    if not who.strip():
        raise InputError("offers.prices: a rule needs a name", hint="for example H100-80GB: -30%")
    if isinstance(change, str) and (match := _PERCENT.fullmatch(change.strip())):
        factor = 1 + float(match[1] + match[2]) / 100
        if not 0 < factor <= 100:
            raise InputError(f"{place}: must leave a price above 0 and at most 100 times as high, got {change}")
        return PriceRule(who=who, factor=round(factor, 12))
    try:
        price = float(change)
    except ValueError:
        raise InputError(
            f"{place}: must be a change such as -30% or a price of the instance [USD/h], got {change!r}"
        ) from None
    if not 0 < price < float("inf"):
        raise InputError(f"{place}: a price must be > 0 and finite, got {price:g}")
    return PriceRule(who=who, price_per_h=price)


def adjusted(
    offers: Sequence[Offer], rules: Sequence[PriceRule], accelerators: Mapping[str, Accelerator]
) -> tuple[tuple[Offer, ...], Mapping[str, int]]:
    """Offers with their prices adjusted by the rules, in the rules' order.

    Parameters
    ----------
    offers
        The offers that may be rented.
    rules
        Each rule applies to the result of the previous rules.
    accelerators
        The accelerators, for their aliases.

    Returns
    -------
    tuple
        The offers, each with the rules that changed it in its source; and the number of offers that each rule changed.

    Raises
    ------
    InputError
        No offer has one of the names, or all names together; or a rule sets a price for an accelerator, which comes in
        instances of several sizes.
    """
    found, counts = list(offers), {}
    for rule in rules:
        fits = selector(rule.who, offers, accelerators, "offers.prices")
        places = [place for place, offer in enumerate(offers) if fits(offer)]
        sizes = {offers[place].accelerators for place in places}
        if rule.factor is None and len(sizes) > 1:
            counted = some_of(map(str, sorted(sizes)))
            raise InputError(
                f"offers.prices: {rule.who}: a price is per instance, but these differ in accelerators ({counted})",
                hint=f"give a change in percent, or name an instance type: {some_of(_instances(offers, places))}",
            )
        for place in places:
            offer = found[place]
            source = f"{offer.source or 'price list'}; {rule.change} by offers.prices"
            found[place] = replace(offer, cost_per_h=rule.price(offer), source=source)
        counts[rule.who] = len(places)
    return tuple(found), counts


def selector(
    who: str, offers: Sequence[Offer], accelerators: Mapping[str, Accelerator], place: str
) -> Callable[[Offer], bool]:
    """A function that says whether an offer has all names in ``who``; ``place`` is for errors.

    Raises
    ------
    InputError
        No offer has one of the names, or all names together.
    """
    whole = _meant(who.strip(), offers, accelerators)
    words = [whole] if whole else [_fields_of(word, offers, accelerators, place) for word in who.split()]

    def fits(offer: Offer) -> bool:
        return all(any(_value(offer, field) == name for field, name in meant) for meant in words)

    if not any(fits(offer) for offer in offers):
        raise InputError(f"{place}: {who}: no offer matches all of these names")
    return fits


def _value(offer: Offer, field: str) -> str:
    if field == "name":
        return "/".join(part for part in (offer.provider, offer.region, offer.instance_type) if part).casefold()
    return str(getattr(offer, field)).casefold()


def _meant(name: str, offers: Sequence[Offer], accelerators: Mapping[str, Accelerator]) -> tuple[tuple[str, str], ...]:
    """The fields of offers in which a name occurs, each with the name as spelled there."""
    ours = (find_accelerator(name, accelerators) or name).casefold()
    fields = (("accelerator", ours), *((field, name.casefold()) for field in (*_FIELDS[1:], "name")))
    return tuple(one for one in fields if any(_value(offer, one[0]) == one[1] for offer in offers))


def _fields_of(
    word: str, offers: Sequence[Offer], accelerators: Mapping[str, Accelerator], place: str
) -> tuple[tuple[str, str], ...]:
    if meant := _meant(word, offers, accelerators):
        return meant
    known = {getattr(offer, field) for offer in offers for field in _FIELDS} - {""}
    raise unknown("name among the offers", word, sorted(known), place=place)


def _instances(offers: Sequence[Offer], places: Sequence[int]) -> list[str]:
    return sorted({offers[place].instance_type for place in places if offers[place].instance_type})
