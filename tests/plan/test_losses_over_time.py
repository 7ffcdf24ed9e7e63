"""Schedules that do without lost replicas and pools, and commitments to spend: equal to enumeration, and checked."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from over_time_cases import carries, machines, three_types, two_types, weekly_demand

from melange.errors import InfeasibleError, InputError
from melange.plan.options import Options
from melange.plan.schedule.check import broken
from melange.plan.schedule.contracts import Reserved, SavingsPlan, ScheduleOptions, Spot
from melange.plan.schedule.hours import HourFleets, checked_hours
from melange.plan.schedule.machines import Machines, machines_of
from melange.plan.schedule.plan_over_time import plan_over_time
from melange.plan.schedule.relaxed import bound_per_h, relax
from melange.plan.schedule.reserve import Reservation, finished, search_reserved
from melange.plan.schedule.schedule import Schedule
from melange.plan.schedule.signals import first_signals
from melange.plan.schedule.typical import merged_sizes, typical_hours

SPARES = ({"spare_replicas": 1}, {"spare_total_replicas": 1}, {"spare_replicas": 1, "spare_total_replicas": 2})


def survives(found: Machines, rates: np.ndarray, fleet: np.ndarray) -> bool:
    """Whether a fleet carries rates in every case: its own spares set aside, and replicas of each type gone."""
    cases = [np.maximum(fleet - found.spare / found.capacity * (fleet > 0), 0.0)]
    if found.spare_total:
        for r in np.flatnonzero(fleet > 0):
            left = fleet.copy()
            left[r] = max(0.0, left[r] - found.spare_total / found.capacity[r])
            cases.append(left)
    return all(carries(found, rates, one) for one in cases)


def least_cost(found: Machines, rates: np.ndarray, plan: SavingsPlan | None = None, most: int = 8) -> float:
    """The least cost over every count and every commitment that some fleet would use up [USD/h]."""
    fleets = [np.array(one, float) for one in itertools.product(range(most + 1), repeat=len(found))]
    enough = [[survives(found, hour, fleet) for fleet in fleets] for hour in rates]
    best = np.inf
    for held in fleets:
        if (held > 0)[~np.isfinite(found.reserved_per_h)].any():
            continue
        bills = []
        for hour in range(len(rates)):
            beside = np.array(
                [one - held for one, fits in zip(fleets, enough[hour], strict=True) if fits and (one >= held).all()]
            )
            bills.append(beside.reshape(-1, len(found)) * found.on_demand_per_h)
        if not all(map(len, bills)):
            continue
        covered = [one @ found.is_covered.astype(float) for one in bills]
        others = [one.sum(axis=1) - part for one, part in zip(bills, covered, strict=True)]
        fixed = float(held @ np.where(held > 0, found.reserved_per_h, 0.0))
        for allowance in [0.0] if plan is None else np.unique(np.concatenate([[0.0], *covered])):
            hours = [
                float((np.maximum(part - allowance, 0.0) + rest).min())
                for part, rest in zip(covered, others, strict=True)
            ]
            spent = 0.0 if plan is None else (1 - plan.discount) * float(allowance)
            best = min(best, fixed + spent + float(np.mean(hours)))
    return best


def answered(
    found: Machines, rates: np.ndarray, spot: Spot | None = None, plan: SavingsPlan | None = None
) -> Reservation:
    """The search's own answer, held to its bound and to the plain check."""
    typical = typical_hours(found, rates)
    relaxation = relax(found, typical, merged_sizes(found, rates), spot, plan)
    answer = search_reserved(found, first_signals(found), rates, typical, relaxation, spot, plan=plan)
    assert broken(rates, answer, spot) == []
    bound = bound_per_h(found, rates, relaxation.price[typical.of_hour], spot, plan)
    assert bound <= answer.cost_per_h * (1 + 1e-9)
    return answer


@pytest.mark.parametrize("seed", range(9))
def test_spare_replicas_are_planned_as_enumeration_does(seed: int) -> None:
    """Of each type, in total, and both; reserved and on demand."""
    profile, rates = two_types(seed)
    found = machines(profile, rates, Reserved(term_years=1, discount=0.3 + 0.02 * seed), **SPARES[seed % 3])
    assert answered(found, rates).cost_per_h == pytest.approx(least_cost(found, rates), rel=1e-9)


@pytest.mark.parametrize("seed", range(9))
def test_savings_plans_are_committed_to_as_enumeration_does(seed: int) -> None:
    """Beside reserved instances in every second case, for one type or for both."""
    profile, rates = two_types(seed)
    plan = SavingsPlan(term_years=1, discount=0.15 + 0.03 * seed)
    reserved = Reserved(term_years=1, discount=0.35) if seed % 2 else None
    found = machines_of(profile, rates.sum(axis=0), Options(), reserved, None, plan)[0]
    if seed % 3 == 0 and len(found) > 1:
        found = replace(found, is_covered=np.array([True, False]))
    assert answered(found, rates, None, plan).cost_per_h == pytest.approx(least_cost(found, rates, plan), rel=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_pools_that_are_lost_leave_enough(seed: int) -> None:
    """Every fleet and every part of it on spot that is allowed and survives, tried."""
    profile, rates = two_types(seed)
    spot = Spot(
        discount=0.6, max_share=0.8, max_share_per_pool=0.5, max_share_per_zone=0.6, zones=2, spare_pools=1 + seed % 2
    )
    found = machines(profile, rates, None, spot)
    hours = checked_hours(found, first_signals(found), rates, np.zeros(len(found)), spot)
    answer = Reservation(machines=found, reserved=np.zeros(len(found)), hours=hours, cost_per_h=0.0)
    assert broken(rates, answer, spot) == []
    for hour, traffic in enumerate(rates):
        best, work, price = np.inf, float(found.work(traffic[None])[0]), found.on_demand_per_h
        for fleet in itertools.product(range(9), repeat=len(found)):
            if not carries(found, traffic, np.array(fleet, float)):
                continue
            for part in itertools.product(*(range(n + 1) for n in fleet)):
                in_zone = np.ceil(np.array(part) / 2)
                fits = np.array(part) @ price <= 0.8 * work and (in_zone * price <= 0.5 * work).all()
                lost = in_zone if spot.spare_pools == 1 else np.array(part, float)
                left = [np.array(fleet) - lost * (np.arange(len(found)) == r) for r in range(len(found))]
                if fits and in_zone @ price <= 0.6 * work and all(carries(found, traffic, one) for one in left):
                    saved = np.array(part) @ (price - found.spot_per_h)
                    best = min(best, float(np.array(fleet) @ price - saved))
        assert best - 1e-9 <= hours.fleets.cost_per_h[hour] <= best * 1.1 + 1e-9


def test_the_check_finds_hours_that_could_not_lose_anything() -> None:
    """A fleet that is planned without spares breaks the limits of one with spares."""
    profile, rates = two_types(1)
    plain, spot = machines(profile, rates, None), Spot(discount=0.6, max_share=1.0, max_share_per_pool=1.0)
    answer = finished(plain, first_signals(plain), rates, np.zeros(len(plain)), None)
    for options, said in ((SPARES[0], "is overloaded"), (SPARES[1], "once replicas of")):
        found = machines(profile, rates, None, **options)
        assert any(said in fault for fault in broken(rates, replace(answer, machines=found), None))
    found = machines(profile, rates, None, spot)
    fleets = answer.hours.fleets
    hours = replace(
        answer.hours, fleets=HourFleets(extra=fleets.extra, spot=fleets.extra, cost_per_h=fleets.cost_per_h)
    )
    faults = broken(rates, replace(answer, machines=found, hours=hours), replace(spot, spare_pools=1))
    assert any("once pools of" in fault for fault in faults)


def a_day(options: ScheduleOptions, rate: float = 6.0, **plan: object) -> Schedule:
    """A day of a small service, from three days of traffic."""
    return plan_over_time(
        weekly_demand(rate=rate).part(0, 3 * 144), three_types(), Options(**plan), options, over="day"
    )


@pytest.mark.heavy
def test_a_day_with_spares_costs_more_and_keeps_them_in_every_hour() -> None:
    """The rule keeps them too."""
    options = ScheduleOptions(spot=Spot(discount=0.6, zones=3, spare_pools=1))
    plain, spared = a_day(ScheduleOptions(spot=Spot(discount=0.6, zones=3))), a_day(options, spare_replicas=1)
    assert spared.planned_per_h > plain.planned_per_h
    assert spared.running.cost_per_h > plain.running.cost_per_h
    assert spared.bound_per_h <= spared.planned_per_h


@pytest.mark.heavy
def test_a_savings_plan_is_chosen_where_it_pays(tmp_path: object) -> None:
    """What is committed adds up, and the file says it; a small discount is turned down."""
    large, small = (SavingsPlan(term_years=1, discount=discount) for discount in (0.4, 0.01))
    found, none = a_day(ScheduleOptions(savings_plans=(large,))), a_day(ScheduleOptions())
    assert found.savings_plan == large
    assert found.committed_per_h == pytest.approx(0.6 * found.allowance_per_h)
    assert found.planned_per_h < none.planned_per_h
    assert found.bound_per_h <= found.planned_per_h
    run = found.running
    assert run.cost_per_h == pytest.approx(found.committed_per_h + run.on_demand_per_h + run.spot_per_h)
    assert [one.name for one in found.commitments] == ["", large.name]
    assert Schedule.from_json(found.to_json()).dumps() == found.dumps()
    assert a_day(ScheduleOptions(savings_plans=(small,))).planned_per_h == pytest.approx(none.planned_per_h, rel=0.01)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SavingsPlan(term_years=1, discount=30), "discount must be in"),
        (lambda: SavingsPlan(term_years=0, discount=0.3), "term_years must be > 0"),
        (lambda: SavingsPlan(term_years=1, discount=0.3, upfront_fraction=2), "upfront_fraction must be 0 to 1"),
        (lambda: Spot(discount=0.6, zones=2, spare_pools=3), "spare_pools must be 0 to 2, the number of zones"),
        (lambda: Spot(discount=0.6, max_share_per_zone=-0.1), "max_share_per_zone must be 0 to 1"),
        (
            lambda: ScheduleOptions(savings_plans=(SavingsPlan(term_years=3, discount=0.3),), horizon_years=1),
            "schedule.savings_plans: .* lasts longer than",
        ),
        (lambda: ScheduleOptions(savings_plans=2 * (SavingsPlan(term_years=3, discount=0.3),)), "is listed twice"),
        (
            lambda: a_day(ScheduleOptions(savings_plans=(SavingsPlan(term_years=1, discount=0.3, family="x9"),))),
            "covers no machine that is offered on-demand",
        ),
        (lambda: a_day(ScheduleOptions(), spare_replicas={"smal": 1}), "plan.spare_replicas.*smal"),
    ],
)
def test_what_cannot_be_asked_says_why(make: object, said: str) -> None:
    """With the key."""
    with pytest.raises(InputError, match=said):
        make()  # type: ignore[operator] # a function


def test_limits_that_leave_no_replicas_to_spare_say_so() -> None:
    """What carries the day carries it no more with replicas lost."""
    limits = {"max_instances": {"small": 0, "large": 4, "pair": 0}}
    with pytest.raises(InfeasibleError, match="no fleet within the limits") as error:
        a_day(ScheduleOptions(), rate=4.0, spare_total_replicas=3, **limits)
    assert any("with replicas to spare" in reason for reason in error.value.reasons)
