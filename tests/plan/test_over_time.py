"""Planning over time: what to reserve, the fleets of hours, and the rule."""

import itertools
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from over_time_cases import carries, enumerated, machines, three_types, two_types, weekly_demand

from melange.errors import InfeasibleError, InputError
from melange.plan.options import Options
from melange.plan.schedule.backtest import History, live
from melange.plan.schedule.check import broken
from melange.plan.schedule.contracts import Reserved, ScheduleOptions, Spot
from melange.plan.schedule.hours import HourFleets, checked_hours
from melange.plan.schedule.peak import peak_load
from melange.plan.schedule.plan_over_time import plan_over_time
from melange.plan.schedule.relaxed import bound_per_h, relax
from melange.plan.schedule.reserve import finished, search_reserved
from melange.plan.schedule.rule import RuleSettings, ScalingRule, Signal, look_ahead
from melange.plan.schedule.schedule import Schedule
from melange.plan.schedule.signals import first_signals
from melange.plan.schedule.typical import merged_sizes, typical_hours
from melange.workload.workload import Buckets

THREE_YEARS = Reserved(term_years=3, discount=0.55)
SPOT = Spot(discount=0.6, zones=3)


@pytest.mark.parametrize("seed", range(30))
def test_two_hours_of_two_types_are_planned_as_enumeration_does(seed: int) -> None:
    """Reserved and on-demand instances, every count tried."""
    found, rates = two_types(seed)
    kept = machines(found, rates, Reserved(term_years=1, discount=0.3 + 0.01 * seed))
    typical = typical_hours(kept, rates)
    relaxation = relax(kept, typical, merged_sizes(kept, rates), None)
    answer = search_reserved(kept, first_signals(kept), rates, typical, relaxation, None)
    assert broken(rates, answer, None) == []
    assert answer.cost_per_h == pytest.approx(enumerated(kept, rates), rel=1e-9)
    bound = bound_per_h(kept, rates, relaxation.price[typical.of_hour], None)
    assert bound <= answer.cost_per_h * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_hours_with_spot_are_as_cheap_as_every_split_that_is_allowed(seed: int) -> None:
    """Every count of two types and every part of it on spot, within its shares."""
    found, rates = two_types(seed)
    spot = Spot(discount=0.6, max_share=0.7, max_share_per_pool=0.3, zones=2, unavailable_fraction=0.1)
    kept = machines(found, rates, None, spot)
    hours = checked_hours(kept, first_signals(kept), rates, np.zeros(len(kept)), spot)
    for hour, traffic in enumerate(rates):
        best, work = np.inf, float(kept.work(traffic[None])[0])
        for fleet in itertools.product(range(7), repeat=len(kept)):
            if not carries(kept, traffic, np.array(fleet, float)):
                continue
            for part in itertools.product(*(range(n + 1) for n in fleet)):
                paid, in_zone = np.array(part) * kept.on_demand_per_h, np.ceil(np.array(part) / 2)
                if paid.sum() <= 0.7 * work + 1e-9 and (in_zone * kept.on_demand_per_h <= 0.3 * work + 1e-9).all():
                    saved = np.array(part) @ (kept.on_demand_per_h - kept.spot_per_h)
                    best = min(best, float(np.array(fleet) @ kept.on_demand_per_h - saved))
        # Spot is filled by the largest savings first, which whole instances may miss by a little.
        assert best - 1e-9 <= hours.fleets.cost_per_h[hour] <= best * 1.1 + 1e-9


@pytest.mark.parametrize("seed", range(12))
def test_a_signal_says_what_a_linear_program_says(seed: int) -> None:
    """The peak load of a fleet is the most that any signal asks for, with those of its own prices among them."""
    found, rates = two_types(seed, sizes=4)
    kept = machines(found, rates, None)
    fleet = np.full(len(kept), 2.0)
    peak, price, share = peak_load(kept, rates[0], fleet)
    signals = first_signals(kept).with_more(kept, price[None])
    asked = signals.demand(rates[:1])[0] / (signals.per_instance(kept) @ fleet)
    assert asked.max() == pytest.approx(peak, rel=1e-6)
    assert carries(kept, rates[0] / peak * (1 - 1e-6), fleet)
    assert not carries(kept, rates[0] / peak * (1 + 1e-6), fleet)
    assert share.sum(axis=0) == pytest.approx(1.0)


@pytest.fixture(scope="module")
def small_week() -> Schedule:
    """A week of a small service, reserved, on demand and on spot."""
    options = ScheduleOptions(reserved=(THREE_YEARS,), spot=SPOT)
    return plan_over_time(weekly_demand(), three_types(), Options(), options)


def small_day(*reserved: Reserved, seed: int = 0, rate: float = 6.0, **options: object) -> Schedule:
    """A day of a small service, from three days of traffic."""
    demand = weekly_demand(seed, rate=rate).part(0, 3 * 144)
    settings = ScheduleOptions(reserved=reserved, spot=SPOT if reserved else None)
    return plan_over_time(demand, three_types(), Options(**options), settings, over="day")


@pytest.mark.parametrize(("start", "kept"), [(None, ""), (datetime(2026, 3, 2, tzinfo=UTC), "Asia/Tokyo")])
def test_a_schedule_keeps_the_time_zone_of_its_hours(start: datetime | None, kept: str) -> None:
    """Also in its file; hours of a clock without dates have none."""
    demand = replace(weekly_demand().part(0, 3 * 144), start=start, time_zone="Asia/Tokyo")
    found = plan_over_time(demand, three_types(), over="day")
    assert found.time_zone == Schedule.from_json(found.to_json()).time_zone == kept


@pytest.mark.heavy
def test_a_week_is_planned_within_its_bound_and_below_the_peak(small_week: Schedule) -> None:
    """What is said adds up, and the rule leaves about as many requests short as wanted."""
    found = small_week
    assert found.bound_per_h <= found.planned_per_h <= found.static_per_h
    assert 0 < found.gap < 0.2
    run = found.running
    assert run.cost_per_h == pytest.approx(found.reserved_cost_per_h + run.on_demand_per_h + run.spot_per_h)
    assert run.cost_per_h >= found.clairvoyant_per_h * 0.98
    assert found.training.short_fraction <= 0.01
    assert found.unseen.short_fraction <= 0.02
    assert found.savings > 0.4
    costs = [one.outcome.cost_per_h for one in found.frontier]
    assert len(costs) > 3
    kinds = {one.kind for one in found.cautions}
    assert {"stated-discount", "no-horizon"} <= kinds


@pytest.mark.heavy
def test_commitments_are_compared_and_the_cheapest_is_chosen() -> None:
    """One year at 35 % off loses to three at 55 %; less traffic makes a commitment cost more than it saves."""
    found = small_day(Reserved(term_years=1, discount=0.35, upfront_fraction=1.0), THREE_YEARS)
    none, one, three = found.commitments
    assert found.commitment == THREE_YEARS
    assert three.cost_per_h < one.cost_per_h < none.cost_per_h
    assert one.break_even_fraction == pytest.approx(0.65)
    assert one.upfront_usd == pytest.approx(one.reserved_per_h * 8760)
    assert three.at_less_traffic_per_h >= three.reserved_per_h
    assert none.at_less_traffic_per_h == none.uncommitted_at_less_per_h


def test_without_contracts_the_hours_cost_no_more_than_the_peak_all_the_time() -> None:
    """On several services, on-demand alone."""
    for seed in range(2):
        found = small_day(seed=seed, rate=1.0 + 3 * seed)
        assert found.commitment is None
        assert (found.hour_cost_per_h <= found.static_per_h + 1e-9).all()
        assert found.bound_per_h <= found.planned_per_h


@pytest.mark.heavy
def test_limits_are_kept_over_all_markets() -> None:
    """At most four of the small type in any hour, reserved ones included."""
    found = small_day(THREE_YEARS, max_instances={"small": 4}, max_accelerators={"pair": 2})
    total = found.on_demand + found.spot + found.reserved
    for name, most in (("small", 4), ("pair", 1)):
        places = [t for t, one in enumerate(found.replica_types) if one.name == name]
        assert (total[:, places] <= most).all()


def test_limits_below_need_say_which_hours() -> None:
    """One instance of anything does not carry the day."""
    with pytest.raises(InfeasibleError, match="no fleet within the limits carries") as error:
        small_day(max_instances={"small": 1, "large": 1, "pair": 0})
    assert any("needs more than the limits allow" in reason for reason in error.value.reasons)


def test_a_check_in_plain_arithmetic_finds_what_is_wrong() -> None:
    """An instance taken away, a wrong cost, and too much on spot."""
    found, rates = two_types(1)
    kept = machines(found, rates, THREE_YEARS, SPOT)
    answer = finished(kept, first_signals(kept), rates, np.zeros(len(kept)), SPOT)
    assert broken(rates, answer, SPOT) == []
    fleets = answer.hours.fleets

    def with_fleets(**changes: np.ndarray) -> list[str]:
        parts = {"extra": fleets.extra, "spot": fleets.spot, "cost_per_h": fleets.cost_per_h} | changes
        hours = type(answer.hours)(fleets=HourFleets(**parts), signals=answer.hours.signals, share=answer.hours.share)
        return broken(rates, type(answer)(machines=kept, reserved=answer.reserved, hours=hours, cost_per_h=0.0), SPOT)

    assert "costs that do not add up" in with_fleets(cost_per_h=fleets.cost_per_h + 1)
    assert "hour 0 is overloaded" in with_fleets(extra=np.zeros_like(fleets.extra), spot=np.zeros_like(fleets.spot))
    assert "more on spot than its share" in with_fleets(extra=fleets.extra + 9, spot=fleets.spot + 9)


def test_a_schedule_is_read_as_it_was_saved(tmp_path: Path, small_week: Schedule) -> None:
    """And a file in which a count was changed is refused."""
    found = small_week
    path = found.save(tmp_path / "schedule.json")
    assert Schedule.read(path).dumps() == found.dumps()
    content = json.loads(path.read_text())
    content["hours"]["on_demand"][3][0] += 1
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"hours.cost_per_h\[3\]"):
        Schedule.read(path)


def test_a_schedule_without_a_cost_to_compare_with_is_refused(small_week: Schedule) -> None:
    """Its cost is shown as a multiple of that with perfect foresight."""
    with pytest.raises(InputError, match="clairvoyant_per_h must be a cost"):
        replace(small_week, clairvoyant_per_h=0.0)


def test_the_rule_in_the_file_wants_what_the_back_test_ran(small_week: Schedule) -> None:
    """From the rates of the windows before, with the weights that it carries."""
    found, demand = small_week, weekly_demand()
    assert found.rule is not None
    rates = demand.rates().reshape(len(demand), 1, 2)
    wanted = found.rule.wanted_over(rates)
    need = 2 * found.rule.settings.look_back + found.rule.settings.stable_windows
    assert found.rule.wanted(rates[100 - need : 100]) == wanted[100]
    place = [one.name for one in found.replica_types].index(found.rule.replica_type)
    price = found.on_demand_per_h[place]
    # All of it on demand costs at least what the back-test says, which has some on spot.
    assert wanted.mean() * price >= found.running.on_demand_per_h
    assert ScalingRule.from_json(json.loads(json.dumps(found.rule.to_json()))).to_json() == found.rule.to_json()


def test_looking_ahead() -> None:
    """The last load, the highest of three, and a line that is read two windows after the last one."""
    load = np.array([1.0, 3.0, 2.0, 4.0])
    at = {"margin": 0.0, "target": 1.0, "stable_windows": 1}
    assert look_ahead(load, RuleSettings(ahead="last", look_back=1, **at), 0.5).tolist() == load.tolist()
    assert look_ahead(load, RuleSettings(ahead="highest", look_back=3, **at), 0.5).tolist() == [1.0, 3.0, 3.0, 4.0]
    line = look_ahead(np.arange(1.0, 7.0), RuleSettings(ahead="line", look_back=3, **at), 0.5)
    assert line[-1] == pytest.approx(8.0)


def test_start_up_and_drain_cost_what_they_take() -> None:
    """An instance that is ordered serves half a window later and is paid at once; one given back drains."""
    options = ScheduleOptions(start_up_s=300.0, drain_s=60.0)
    wanted = np.array([[1.0], [2.0], [1.0]])
    run = live(wanted, np.array([1.0]), np.array([0.0]), np.array([[1.0], [2.0], [1.0]]), np.zeros(3), options, 600.0)
    assert run.paid[:, 0] == pytest.approx([1.0, 2.0, 1.1])
    assert run.served[:, 0] == pytest.approx([1.0, 0.75, 1.0])
    lost = live(wanted, np.array([1.0]), np.array([0.0]), np.ones((3, 1)), np.array([1.0, 0, 0]), options, 600.0)
    assert lost.served[0, 0] == pytest.approx(0.5)


def test_a_rule_holds_for_sizes_that_come_more_often() -> None:
    """The same request rate of larger requests wants more instances, in proportion to their weight."""
    rule = ScalingRule(
        replica_type="a",
        settings=RuleSettings(ahead="last", look_back=1, margin=0.0, target=0.5, stable_windows=1),
        signals=(Signal(request_weight=np.array([[0.1, 0.4]]), reserved_load=1.0),),
        window_s=600.0,
        delay_windows=0.5,
    )
    assert rule.wanted(np.array([[[10.0, 0.0]]])) == 1
    assert rule.wanted(np.array([[[0.0, 10.0]]])) == 7


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"signals": ()}, "at least one"),
        ({"signals": (Signal(request_weight=np.ones((1, 2)), reserved_load=1.0),)}, r"signals\[0\].* 1 x 1 weights"),
        ({"window_s": 0.0}, "window_s must be > 0"),
        ({"spot_share": 1.5}, "spot_share 0 to 1"),
    ],
)
def test_a_rule_that_no_scaler_can_run_is_refused(change: dict[str, Any], said: str) -> None:
    """As a file that was edited holds it: weights of other sizes than its buckets."""
    fields = {
        "replica_type": "a",
        "settings": RuleSettings(ahead="last", look_back=1, margin=0.0, target=0.5, stable_windows=1),
        "signals": (Signal(request_weight=np.ones((1, 1)), reserved_load=1.0),),
        "window_s": 600.0,
        "delay_windows": 0.5,
        "buckets": Buckets(input_edges=(100,), output_edges=(10,)),
    }
    ScalingRule(**fields)
    with pytest.raises(InputError, match=said):
        ScalingRule(**(fields | change))


def test_missing_windows_are_not_counted() -> None:
    """They have the rates of the window before, and neither cost nor shortage."""
    history = History.of(np.array([[np.nan], [1.0], [np.nan], [3.0]]), 600.0)
    assert history.rates[:, 0].tolist() == [1.0, 1.0, 1.0, 3.0]
    assert history.is_known.tolist() == [False, True, False, True]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Reserved(term_years=0, discount=0.4), "term_years must be > 0"),
        (lambda: Reserved(term_years=1, discount=40), "discount must be in"),
        (lambda: Spot(discount=0.6, max_share=2), "max_share must be 0 to 1"),
        (lambda: ScheduleOptions(reserved=(THREE_YEARS,), horizon_years=1), "lasts longer than"),
        (lambda: ScheduleOptions(short_fraction=0), "short_fraction must be in"),
        (lambda: ScheduleOptions(start_up_s=-1), "start_up must be >= 0"),
        (lambda: ScheduleOptions(start_up_s=1e9), "start_up must be >= 0 s and <= a week, got 1e"),
        (lambda: small_day(Reserved(term_years=1)), "no reserved offer has the same machine"),
        (lambda: small_day(max_types=1), "plan.max_types applies to a plan"),
    ],
)
def test_what_cannot_be_asked_says_why(make: object, said: str) -> None:
    """With the key."""
    with pytest.raises(InputError, match=said):
        make()  # type: ignore[operator] # a function


@pytest.mark.parametrize("limit", [{"max_instances": {"small": 3}}, {"max_accelerators": {"small": 3}}])
def test_hours_at_their_optimum_keep_a_limit_of_one_type(limit: dict[str, object]) -> None:
    """A program of one hour may use three instances of the small type, not the four that would be cheapest."""
    found = small_day(**limit)
    total = found.on_demand + found.spot + found.reserved
    assert total[:, [one.name for one in found.replica_types].index("small")].max() == 3


def test_the_rule_scales_a_type_that_is_available() -> None:
    """Without a limit it scales the pair; with one pair, a type of which there are enough for the busiest hour."""
    assert small_day().rule.replica_type == "pair"
    found = small_day(max_instances={"pair": 1})
    assert found.rule.replica_type != "pair"
    assert found.rule.most is None
    rates = np.full((12, *found.rule.signals[0].request_weight.shape), 1e3)
    capped = replace(found.rule, most=4)
    assert (found.rule.wanted(rates) > 4, capped.wanted(rates)) == (True, 4)
    assert ScalingRule.from_json(capped.to_json()).most == 4


def test_a_rule_asks_for_no_more_than_there_are_beside_the_reserved() -> None:
    """Every type is limited: what is missing is short, in the back-test as well."""
    limits = {"small": 14, "large": 4, "pair": 2}
    found = small_day(THREE_YEARS, max_instances=limits)
    kept = {one.name: count for one, count in zip(found.replica_types, found.reserved, strict=True)}
    name = found.rule.replica_type
    assert found.rule.most == limits[name] - kept[name]
    assert all(name not in one.note or "autoscaler" not in one.name for one in found.alternatives)


def test_a_setting_that_a_schedule_lacks_is_refused_with_those_that_it_has() -> None:
    """By the names that they have in a service."""
    with pytest.raises(InputError, match=r"plan\.budget_per_h applies to a plan, but not to a schedule") as caught:
        small_day(budget_per_h=5.0)
    assert "max_instances" not in caught.value.hint
    assert caught.value.hint.endswith("time_limit_s and offers.max")
