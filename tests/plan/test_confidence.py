"""Rates that can be counted on, plans on them, and what not knowing costs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_cases import asked, offer, profile, random_case, workload

from melange.errors import InfeasibleError, InputError
from melange.plan import suggest
from melange.plan.confidence import DECILE, at_confidence, at_quantile
from melange.plan.explain import explain
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.solve import solve
from melange.plan.suggest import Suggestion, suggest_measurements
from melange.plan.uncertainty import with_uncertainty
from melange.profile.profile import ESTIMATED, MEASURED, Profile

EXACT = Options(headroom=0.0, gap=0.0)


def uncertain(rates: Profile, low: object, high: object) -> Profile:
    """The profile as an estimate with these ends of its intervals, as factors."""
    mid = rates.max_request_rate
    estimated = np.full(mid.shape, ESTIMATED)
    return replace(rates, low=mid * np.array(low, float), high=mid * np.array(high, float), provenance=estimated)


def one_cell(low: float = 2.0, mid: float = 4.0, high: float = 6.0) -> Profile:
    """One type, one size."""
    rates = profile([offer("A", 1.0)], [[[mid]]])
    return replace(rates, low=np.array([[[low]]]), high=np.array([[[high]]]))


@pytest.mark.parametrize(
    ("confidence", "rate"), [(None, 4.0), (0.5, 4.0), (0.9, 2.0), (0.1, 6.0), (0.75, 4 * 0.5 ** (0.6745 / 1.2816))]
)
def test_rates_by_hand(confidence: float | None, rate: float) -> None:
    """The middle at 0.5, the ends at 0.9 and 0.1, log-normal between: half as much at 1.2816 standard deviations."""
    assert at_confidence(one_cell(), confidence).max_request_rate[0, 0, 0] == pytest.approx(rate, rel=1e-4)


def test_a_low_end_of_nothing_is_approached_in_a_line() -> None:
    """From the middle down to 0 at 0.9, and 0 from there on, with a reason."""
    rates = one_cell(low=0.0)
    half = at_quantile(rates, np.array([DECILE / 2]))
    assert half[0, 0, 0] == pytest.approx(2.0)
    counted = at_confidence(rates, 0.95)
    assert counted.max_request_rate[0, 0, 0] == 0.0
    assert counted.reasons[counted.reason[0, 0, 0]] == "too uncertain at 95% confidence; measure it"


def test_what_may_serve_only_at_its_best() -> None:
    """A rate of 0 with a high end above it: served at 0.1, not at 0.5."""
    rates = one_cell(low=0.0, mid=0.0, high=3.0)
    assert at_confidence(rates, 0.1).max_request_rate[0, 0, 0] == pytest.approx(3.0)
    assert at_confidence(rates, 0.5).max_request_rate[0, 0, 0] == 0.0


def test_measured_cells_stay() -> None:
    """Where low and high equal the rate there is nothing to doubt."""
    rates = profile([offer("A", 1.0)], [[[4.0]]])
    assert at_confidence(rates, 0.99).max_request_rate[0, 0, 0] == 4.0


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1.0])
def test_confidences_out_of_range(confidence: float) -> None:
    """Nothing is certain; a plan that hopes for the better is no plan."""
    with pytest.raises(InputError, match="confidence"):
        at_confidence(one_cell(), confidence)
    with pytest.raises(InputError, match=r"plan\.confidence must be in \[0\.5, 1\)"):
        Options(confidence=0.4)


def test_a_cautious_plan_rents_more() -> None:
    """7.9 requests/s on replicas of 4 (2 to 6) each: two as estimated, four at confidence 0.9."""
    load = workload([[7.9]])
    assert solve(load, one_cell(), EXACT).cost_per_h == 2.0
    plan = solve(load, one_cell(), replace(EXACT, confidence=0.9))
    assert (plan.cost_per_h, plan.options.confidence) == (4.0, 0.9)
    assert explain(plan).next_request_per_h == pytest.approx(0.5)


def test_sizes_that_cannot_be_counted_on_fall_under_the_usual_rules() -> None:
    """Infeasible with the reason, or left out where that is allowed."""
    load, rates = workload([[1.0, 1.0]]), profile([offer("A", 1.0)], [[[4.0, 4.0]]])
    rates = uncertain(rates, [[[0.5, 0.0]]], [[[1.5, 1.5]]])
    cautious = replace(EXACT, confidence=0.9)
    with pytest.raises(InfeasibleError) as caught:
        solve(load, rates, cautious)
    assert "too uncertain at 90% confidence" in caught.value.reasons[0]
    assert solve(load, rates, replace(cautious, drop_unservable=True)).served_fraction == pytest.approx(0.5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), factor=st.floats(0.3, 1.0))
def test_more_confidence_is_never_cheaper(seed: int, factor: float) -> None:
    """The more a plan must hold, the more it costs, on random problems."""
    load, rates = random_case(seed)
    rates = uncertain(rates, factor, 1 / factor)
    costs = [solve(load, rates, replace(EXACT, confidence=c)).cost_per_h for c in (0.5, 0.7, 0.9, 0.97)]
    assert costs == sorted(costs)


def two_types() -> Profile:
    """A is used as estimated and doubtful; B is more expensive and known; C is hopeless at its best."""
    rates = profile([offer("A", 1.0), offer("B", 3.0), offer("C", 50.0)], [[[4.0]], [[4.0]], [[4.0]]])
    return uncertain(rates, [[[0.5]], [[1.0]], [[0.5]]], [[[1.5]], [[1.0]], [[1.5]]])


def test_the_cost_of_not_knowing() -> None:
    """40 requests/s on 4 (2 to 6) each: 10 as estimated, 20 at the low end, 7 at the high end; A is worth measuring."""
    load = workload([[40.0]])
    plan = solve(load, two_types(), replace(EXACT, confidence=0.9))
    told = with_uncertainty(plan)
    assert told.cost_at == {"low": 20.0, "mid": 10.0, "high": 7.0}
    assert told.next_measurement.startswith("A (A) with requests of 1 tokens in and 1 out")
    again = Plan.from_json(told.to_json())
    assert (again.cost_at, again.next_measurement, again.options.confidence) == (
        told.cost_at,
        told.next_measurement,
        0.9,
    )
    assert plan.to_json()["cost_at"] is None


def test_the_cost_of_not_knowing_where_there_may_be_no_plan() -> None:
    """At the low end nothing serves: no cost there, and a warning with the reason."""
    load, rates = workload([[4.0]]), one_cell(low=0.0)
    told = with_uncertainty(solve(load, rates, EXACT))
    assert (told.cost_at["low"], told.cost_at["mid"]) == (None, 1.0)
    assert "too uncertain" in next(str(one) for one in told.cautions if one.kind == "uncertain")


def test_only_what_can_enter_the_plan_is_worth_measuring() -> None:
    """A, which is used; neither B, which is known, nor C, which costs too much even at its best."""
    found = suggest_measurements(asked(workload([[40.0]]), two_types(), EXACT), count=5)
    assert [one.accelerator for one in found] == ["A"]
    (one,) = found
    # Known exactly, A would cost 17, 10 or 7 where it is 2.4, 4 or 6 requests/s; what is left of the doubt costs some.
    assert 4.0 < one.saves_per_h < 20.0 - (0.3 * 20.0 + 0.4 * 10.0 + 0.3 * 7.0)
    assert one.gpu_minutes == pytest.approx(5 + 101 / 4.0 / 60)
    assert one.cost == pytest.approx(one.gpu_minutes / 60 * 1.0)
    assert one.concurrency is None


def test_a_doubtful_type_outside_of_the_plan_is_named_if_it_could_enter() -> None:
    """D may be far better than thought: it is not in the plan, and measuring it is worth something."""
    rates = profile([offer("A", 1.0), offer("D", 1.0)], [[[4.0]], [[3.0]]])
    rates = uncertain(rates, [[[1.0]], [[0.3]]], [[[1.0]], [[3.0]]])
    found = suggest_measurements(asked(workload([[40.0]]), rates, EXACT), count=1)
    assert [one.accelerator for one in found] == ["D"]


def test_the_variant_that_serves_the_sizes_is_named() -> None:
    """The model as published serves none of them on this hardware: its variant in int4 is measured."""
    rates = profile([offer("A", 1.0), offer("B", 1.0)], [[[0.0]], [[4.0]]])
    published, other = rates.replica_types
    types = (published, replace(other, offer=published.offer, variant="int4"))
    rates = uncertain(replace(rates, replica_types=types), [[[1.0]], [[0.5]]], [[[1.0]], [[1.5]]])
    (found,) = suggest_measurements(asked(workload([[40.0]]), rates, EXACT), count=2)
    assert (found.replica_type, found.request_rate) == (other.name, 4.0)


def test_a_kind_that_is_set_aside_could_not_enter(monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without the bound that sets kinds aside before they are solved for: the same suggestions."""
    solved = []
    with_kind = suggest._Case.with_kind
    monkeypatch.setattr(suggest._Case, "with_kind", lambda *given: solved.append(1) or with_kind(*given))
    counts = []
    for is_bounded in (True, False):
        solved.clear()
        if not is_bounded:
            nothing = lambda case: dict.fromkeys(case.types_by_kind, 0.0)  # noqa: E731
            monkeypatch.setattr(suggest._Case, "_least_costs", nothing)
        found = []
        for seed in range(40):
            load, rates = random_case(seed, types=6)
            spread = np.random.default_rng(seed).uniform(0.2, 1.0, (6, 1, 1))
            options = Options(gap=0.0, spare_replicas=seed % 2, max_types=2 if seed % 3 == 0 else None)
            question = asked(load, uncertain(rates, spread, 1.0 / spread), options)
            found.append(suggest_measurements(question, count=3))
        counts.append((found, len(solved)))
    assert counts[0][0] == counts[1][0]
    assert any(counts[0][0])
    assert counts[0][1] < counts[1][1]


def test_nothing_to_measure_where_all_is_known() -> None:
    """No suggestion at all."""
    rates = profile([offer("A", 1.0)], [[[4.0]]])
    assert suggest_measurements(asked(workload([[40.0]]), rates, EXACT)) == ()


def test_what_was_searched_for_is_not_measured_again() -> None:
    """Its interval is what a search leaves: counted on by a plan, and nothing that a load point narrows."""
    rates = uncertain(profile([offer("A", 1.0)], [[[4.0], [2.0]]]), 0.5, 2.0)
    load, both = workload([[40.0], [30.0]]), np.full(rates.provenance.shape, MEASURED)
    assert at_confidence(replace(rates, provenance=both), 0.9).max_request_rate[0, :, 0].tolist() == [2.0, 1.0]
    assert suggest_measurements(asked(load, replace(rates, provenance=both), EXACT), count=2) == ()
    one = both.copy()
    one[0, 1, 0] = ESTIMATED
    (found,) = suggest_measurements(asked(load, replace(rates, provenance=one), EXACT), count=2)
    assert found.input_tokens == 2


def test_a_second_point_is_of_another_size_and_starts_no_server_anew() -> None:
    """Two sizes of one type: both points are named, the second without the 5 minutes of a start."""
    load, rates = workload([[40.0], [30.0]]), profile([offer("A", 1.0)], [[[4.0], [2.0]]])
    rates = uncertain(rates, 0.5, 2.0)
    in_flight = np.full((1, 2, 1), 10.0)
    first, second = suggest_measurements(asked(load, rates, EXACT), count=2, in_flight=in_flight)
    assert {first.input_tokens, second.input_tokens} == {1, 2}
    assert first.saves_per_h > second.saves_per_h > 0
    assert (first.concurrency, second.concurrency) == (10, 10)
    rate = {1: 4.0, 2: 2.0}
    assert first.gpu_minutes == pytest.approx(5 + 110 / rate[first.input_tokens] / 60)
    assert second.gpu_minutes == pytest.approx(110 / rate[second.input_tokens] / 60)
    assert "10 in flight" in str(first)
    assert Suggestion(**first.to_json()) == first


def test_no_plan_even_on_estimates() -> None:
    """Then there is nothing to save, and the error is the usual one."""
    rates = profile([offer("A", 1.0)], [[[0.0]]])
    with pytest.raises(InfeasibleError):
        suggest_measurements(asked(workload([[1.0]]), rates, EXACT))


def test_what_is_left_out_at_the_low_end_is_said() -> None:
    """With sizes that may be dropped the low end is cheaper for the wrong reason; a budget is set aside."""
    load, rates = workload([[1.0, 9.0]]), profile([offer("A", 1.0)], [[[4.0, 4.0]]])
    rates = uncertain(rates, [[[0.5, 0.0]]], [[[1.5, 1.5]]])
    options = replace(EXACT, drop_unservable=True, budget_per_h=2.0)
    told = with_uncertainty(solve(load, rates, options))
    assert told.cost_at == {"low": 1.0, "mid": 3.0, "high": 2.0}
    assert "90.00% of requests are left out" in next(str(one) for one in told.cautions if one.kind == "uncertain")
