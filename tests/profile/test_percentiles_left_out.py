"""Which types are not worth a simulation: those that a cheaper one, of which there is no end, always replaces."""

from dataclasses import replace

import numpy as np

import melange
from melange.profile.percentiles import TOO_COSTLY, RateSearch, with_simulated_rates
from melange.profile.profile import Profile
from melange.slo import Slo
from melange.workload.workload import Buckets, Workload

SLO = Slo(tpot_s=0.1, statistic="p95")


def profile_at(prices: dict[str, float], most: int | None = None) -> tuple[Profile, Workload]:
    """Llama 3.1 8B on one accelerator of each name at those prices, for requests of one size."""
    catalog = melange.load_catalog()
    offers = [
        replace(
            next(one for one in catalog.offers if one.accelerator == name and one.accelerators == 1),
            cost_per_h=price,
            max_instances=most,
        )
        for name, price in prices.items()
    ]
    workload = Workload.at_upper_edges(Buckets(input_edges=(500,), output_edges=(100,)), [[1.0]])
    model = melange.find_model("meta-llama/Llama-3.1-8B")
    return melange.estimate(model, offers, Slo(tpot_s=0.1), workload, tensor_parallel=1), workload


def is_left_out(profile: Profile, workload: Workload, **options: bool) -> list[bool]:
    """Whether each type was left out as too expensive."""
    found = with_simulated_rates(profile, workload, SLO, search=RateSearch(**options))
    reasons = np.array(found.reasons)[found.reason[:, 0, 0]]
    return [
        bool(rate == 0 and why == TOO_COSTLY)
        for rate, why in zip(found.max_request_rate[:, 0, 0], reasons, strict=True)
    ]


def test_a_type_that_costs_more_in_every_way_is_left_out() -> None:
    """An L4 at ten times the price of an L40S, which carries several times as much."""
    assert is_left_out(*profile_at({"L40S": 1.0, "L4": 10.0})) == [False, True]


def test_a_cheap_instance_stays_however_little_it_carries() -> None:
    """For a service of a request now and then, the cheapest instance wins, whatever a full one would cost a request."""
    assert is_left_out(*profile_at({"L40S": 10.0, "L4": 9.0})) == [False, False]


def test_nothing_is_left_out_where_types_are_scarce() -> None:
    """An end to the other type, by its offer or by the service, may leave no choice."""
    assert is_left_out(*profile_at({"L40S": 1.0, "L4": 10.0}, most=2)) == [False, False]
    assert is_left_out(*profile_at({"L40S": 1.0, "L4": 10.0}), is_scarce=True) == [False, False]
