from datetime import date, timedelta

import pytest

from melange.catalog.catalog import Offer, stale_prices
from melange.errors import InputError

TODAY = date(2026, 8, 22)


def offer(days: int | None, name: str = "g6.xlarge") -> Offer:
    """An offer whose price was seen this many days ago."""
    return Offer(
        provider="aws",
        region="us-east-1",
        instance_type=name,
        accelerator="L4",
        accelerators=1,
        cost_per_h=0.8,
        seen=None if days is None else TODAY - timedelta(days=days),
    )


def test_a_price_of_ninety_days_is_not_stale_yet() -> None:
    """The limit belongs to the good side."""
    assert stale_prices([offer(90), offer(0)], TODAY) == ()


def test_old_prices_make_one_caution_that_names_the_oldest() -> None:
    """However many are old, one sentence says so."""
    (caution,) = stale_prices([offer(10), offer(100, "a"), offer(200, "b")], TODAY)
    assert caution.kind == "stale-price"
    assert "2 of 3 prices are older than 90 days (oldest: aws/us-east-1/b, seen 2026-02-03)" in caution.message


def test_prices_without_a_date_are_a_caution_of_their_own() -> None:
    """Neither old nor fresh: not known."""
    assert [caution.kind for caution in stale_prices([offer(None), offer(100)], TODAY)] == [
        "stale-price",
        "undated-price",
    ]


@pytest.mark.parametrize("price", [0.0, -1.0, float("nan"), float("inf")])
def test_offers_cost_something(price: float) -> None:
    """A free machine is a slip in a price list."""
    with pytest.raises(InputError, match="cost_per_h must be > 0 and finite"):
        Offer(provider="", region="", instance_type="x", accelerator="L4", accelerators=1, cost_per_h=price)


def test_offers_survive_json() -> None:
    """What is written is what is read."""
    assert Offer.from_json(offer(3).to_json()) == offer(3)
