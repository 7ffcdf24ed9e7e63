"""Rules for prices: which offers they mean, what they make of them, and which ones are refused."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from melange.catalog.bundled import accelerators
from melange.catalog.offer import Offer
from melange.catalog.price_rules import adjusted, price_rule
from melange.errors import InputError


def offer(instance: str, accelerator: str, count: int = 1, market: str = "on-demand", provider: str = "aws") -> Offer:
    """An offer at 10 USD/h an accelerator."""
    return Offer(
        provider=provider,
        region="us-east-1",
        instance_type=instance,
        accelerator=accelerator,
        accelerators=count,
        cost_per_h=10.0 * count,
        market=market,
    )


OFFERS = (
    offer("p5.48xlarge", "H100-80GB", 8),
    offer("p5.4xlarge", "H100-80GB"),
    offer("p5.4xlarge", "H100-80GB", market="spot"),
    offer("g6.xlarge", "L4"),
    offer("1x H100", "H100-80GB", provider="lambda"),
)


def prices(rules: dict[str, str | float], offers: Sequence[Offer] = OFFERS) -> list[float]:
    """What the offers cost by the rules [USD/h]."""
    made = [price_rule(who, change) for who, change in rules.items()]
    return [round(one.cost_per_h, 9) for one in adjusted(offers, made, accelerators())[0]]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"H100": "-30%"}, [56, 7, 7, 10, 7]),
        ({"h100-80gb spot": "-50%"}, [80, 10, 5, 10, 10]),
        ({"aws": "+10%", "L4": "-50%"}, [88, 11, 11, 5.5, 10]),
        ({"aws/us-east-1/p5.4xlarge on-demand": 4}, [80, 4, 10, 10, 10]),
        ({"p5.4xlarge": 6.5}, [80, 6.5, 6.5, 10, 10]),
        ({"1x H100": 3}, [80, 10, 10, 10, 3]),
    ],
)
def test_a_rule_changes_the_offers_that_have_all_of_its_names(
    rules: dict[str, str | float], expected: list[float]
) -> None:
    """By accelerator under any of its names, market, provider, instance type or whole offer; in the rules' order."""
    assert prices(rules) == expected


def test_drawn_rules_multiply() -> None:
    """Whatever their order, percentages of the same offers come to the same price; others keep theirs."""
    rng = random.Random(11)
    for _ in range(50):
        changes = {name: rng.randint(-90, 90) for name in ("H100", "spot", "p5.4xlarge", "aws")}
        rules = [(name, f"{change:+d}%") for name, change in changes.items()]
        rng.shuffle(rules)
        factor = {name: 1 + change / 100 for name, change in changes.items()}
        expected = 10 * factor["H100"] * factor["spot"] * factor["p5.4xlarge"] * factor["aws"]
        found = prices(dict(rules))
        assert found[2] == pytest.approx(expected)
        assert found[3] == pytest.approx(10 * factor["aws"])
        assert found[4] == pytest.approx(10 * factor["H100"])


def test_a_changed_price_says_so_in_its_source() -> None:
    """Where every price came from."""
    found, counts = adjusted(OFFERS, [price_rule("L4", "-5%")], accelerators())
    assert [one.source for one in found[2:4]] == ["", "price list; -5% by offers.prices"]
    assert counts == {"L4": 1}


@pytest.mark.parametrize(
    ("who", "change", "said"),
    [
        ("H10O", "-30%", "unknown name among the offers 'H10O'; did you mean 'H100-80GB'"),
        ("L4 spot", "-30%", "L4 spot: no offer matches all of these names"),
        ("H100", 3, "a price is per instance, but these differ in accelerators .1, 8."),
        ("H100", "-100%", "must leave a price above 0"),
        ("H100", "cheap", "must be a change such as -30%"),
        ("H100", -3, "a price must be > 0"),
        ("H100", float("nan"), "a price must be > 0"),
        (" ", "-3%", "a rule needs a name"),
    ],
)
def test_a_rule_that_means_nothing_is_refused(who: str, change: str | float, said: str) -> None:
    """With what is wrong, and near names where the name is."""
    with pytest.raises(InputError, match=said):
        prices({who: change})
