"""Prices that cannot be right are named, and those that can are left alone."""

from dataclasses import replace

import pytest

from melange.catalog.bundled import offers
from melange.catalog.offer import Offer
from melange.catalog.plausible import implausible, implausible_prices


def offer(accelerator: str = "B200", count: int = 1, cost_per_h: float = 5.0, market: str = "on-demand") -> Offer:
    """One of a provider that the bundled table does not know."""
    return Offer(
        provider="somebody",
        region="here",
        instance_type=f"{count}x",
        accelerator=accelerator,
        accelerators=count,
        cost_per_h=cost_per_h,
        market=market,
    )


@pytest.mark.parametrize("factor", [0.1, 0.05, 0.001])
def test_a_tenth_of_any_bundled_price_is_named(factor: float) -> None:
    """Every one of them, whatever its provider and market."""
    cheap = [replace(one, cost_per_h=one.cost_per_h * factor) for one in offers()]
    assert set(implausible(cheap, offers())) == set(cheap)


@pytest.mark.parametrize("factor", [0.5, 0.7, 1.0, 1.3])
def test_bundled_prices_and_discounts_are_left_alone(factor: float) -> None:
    """Half of a price is a price."""
    assert not implausible([replace(one, cost_per_h=one.cost_per_h * factor) for one in offers()], offers())


@pytest.mark.parametrize(("count", "growth"), [(8, 1.0), (8, 2.5), (4, 1.0), (2, 1.0), (2, 1.05)])
def test_many_accelerators_at_the_price_of_one_are_named(count: int, growth: float) -> None:
    """The larger instance is the one that is named, and the smaller one stands beside it."""
    one, many = offer(), offer(count=count, cost_per_h=5.0 * growth)
    assert list(implausible([one, many], ())) == [many]
    assert f"{count} accelerators for {5 * growth:g} USD/h, 1 for 5" in implausible([one, many], ())[many]


@pytest.mark.parametrize(("count", "growth"), [(8, 8.0), (8, 4.0), (4, 1.5), (2, 1.2), (1, 1.0)])
def test_discounts_on_larger_instances_are_left_alone(count: int, growth: float) -> None:
    """A small instance with a large host may cost twice as much for each accelerator."""
    assert not implausible([offer(), offer(count=count, cost_per_h=5.0 * growth)], ())


def test_markets_are_not_compared_by_count() -> None:
    """Eight on spot for the price of three on-demand is what spot is."""
    assert not implausible([offer(), offer(count=8, cost_per_h=8.0, market="spot")], ())


def test_the_caution_names_place_and_price() -> None:
    """The place, the offer, what it says and what is known."""
    (caution,) = implausible_prices([offer(cost_per_h=0.01)], offers(), "mine.csv")
    assert caution.kind == "implausible-price"
    assert (
        "mine.csv: 1 price is implausible: somebody/here/1x "
        "(0.01 USD/h for each B200, while the lowest known price is 4)" in str(caution)
    )
