"""Requests that may wait: the hours that they are sent in, held to every count tried, and what becomes of them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from over_time_cases import carries, machines, three_types, two_types, weekly_demand
from plan_cases import offer, profile

from melange.errors import InfeasibleError, InputError
from melange.plan.options import Options
from melange.plan.schedule.beside_others import carried_beside
from melange.plan.schedule.contracts import Deferral, Reserved, ScheduleOptions, Spot
from melange.plan.schedule.deferred_hours import Placed, Shared, search_placed
from melange.plan.schedule.machines import Machines
from melange.plan.schedule.plan_over_time import plan_over_time
from melange.plan.schedule.reserve import finished
from melange.plan.schedule.schedule import Schedule
from melange.plan.schedule.sending import late_fractions, sent_of
from melange.plan.schedule.signals import first_signals
from melange.plan.schedule.waiting import Waiters, Waiting, last_hours
from melange.present.terminal.schedule_words import proof_sentence
from melange.profile.profile import Profile
from melange.workload.classed_demand import demand_of_classes
from melange.workload.demand import Demand
from melange.workload.workload import Buckets

MOST = 5  # instances of a type that are tried


def room_of(found: Machines, rates: np.ndarray, mix: np.ndarray, fleet: np.ndarray, most: float) -> float | None:
    """Work of a mix that a fleet takes besides some rates, by halving; None where it does not carry the rates."""
    if not carries(found, rates, fleet):
        return None
    low, high = 0.0, most
    if carries(found, rates + high * mix, fleet):
        return high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if carries(found, rates + middle * mix, fleet) else (low, middle)
    return low


def is_in_time(classes: Sequence[Waiting], room: Sequence[float]) -> bool:
    """Whether work that is sent as soon as there is room, what is due first before all else, leaves in time."""
    if sum(room) < sum(float(one.work.sum()) for one in classes) - 1e-9:
        return False  # it would take many cycles to see
    queue: list[list[float]] = []  # due, amount
    for hour in range(8 * len(room)):
        queue += [[hour + one.lag, float(one.work[hour % len(room)])] for one in classes]
        queue.sort()
        left = room[hour % len(room)] + 1e-9
        while queue and left > 0:
            part = min(left, queue[0][1])
            queue[0][1], left = queue[0][1] - part, left - part
            if queue[0][1] > 1e-9:
                break
            queue.pop(0)
        if any(due <= hour and amount > 1e-7 for due, amount in queue):
            return False
    return True


def enumerated(found: Machines, own: np.ndarray, *classes: Waiting) -> float:
    """The least cost of two types over some hours with work of one mix that may wait, every count tried [USD/h]."""
    hours, mix = len(own), Waiters(classes).mix([np.zeros(len(own))] * len(classes))[0]
    fleets = [np.array(one, float) for one in itertools.product(range(MOST + 1), repeat=len(found))]
    most = float(sum(one.work.sum() for one in classes))
    rooms = [[room_of(found, rates, mix, fleet, most) for fleet in fleets] for rates in own]
    best = np.inf
    for held in fleets:
        if (held > 0)[~np.isfinite(found.reserved_per_h)].any():
            continue
        fixed = float(held @ np.where(held > 0, found.reserved_per_h, 0.0))
        choices: list[list[tuple[float, float]]] = []
        for hour in range(hours):
            rented = sorted(
                (float((fleet - held) @ found.on_demand_per_h), -room)
                for fleet, room in zip(fleets, rooms[hour], strict=True)
                if room is not None and (fleet >= held).all()
            )
            choices.append([])
            for cost, room in rented:
                if not choices[-1] or -room > choices[-1][-1][1] + 1e-12:
                    choices[-1].append((cost, -room))
        for fleet_of in itertools.product(*choices):
            cost = fixed + sum(one[0] for one in fleet_of) / hours
            if cost < best - 1e-12 and is_in_time(classes, [one[1] for one in fleet_of]):
                best = cost
    return best


@pytest.mark.parametrize("seed", range(16))
def test_three_hours_cost_what_every_count_tried_costs(seed: int) -> None:
    """Two types, reserved or not, work that may wait no hour, one or two."""
    found_profile, _ = two_types(seed)
    random = np.random.default_rng(seed + 100)
    own = random.uniform(0.1, 2.0, (3, 2)) * random.uniform(0.3, 1.5, (3, 1))
    arrivals = random.uniform(0, 1.5, (3, 1)) * random.uniform(0.1, 1, 2)
    reserved = Reserved(term_years=1, discount=float(random.uniform(0.2, 0.6))) if seed % 2 else None
    found = machines(found_profile, own + arrivals, reserved)
    waiting = Waiting.of(found, arrivals, seed % 3)
    shared = Shared(own=own, classes=(waiting,), spot=None)
    at_once = (np.zeros(3),)
    rates = shared.rates(at_once)
    start = finished(found, first_signals(found), rates, np.zeros(len(found)), None)
    best = search_placed(shared, Placed(waiting=at_once, rates=rates, reservation=start))
    assert best.cost_per_h == pytest.approx(enumerated(found, own, waiting), abs=1e-6)
    assert (best.waiting[0] <= waiting.most_waiting + 1e-6).all()
    np.testing.assert_allclose(best.rates.sum(axis=0), (own + arrivals).sum(axis=0))


@pytest.mark.parametrize("seed", range(12))
def test_two_classes_cost_together_what_every_count_tried_costs(seed: int) -> None:
    """Both are placed at once: one after the other, the first takes hours that the second needs."""
    found_profile, _ = two_types(seed)
    random = np.random.default_rng(seed + 200)
    own = random.uniform(0.1, 2.0, (3, 2)) * random.uniform(0.3, 1.5, (3, 1))
    mix, reserved = random.uniform(0.1, 1, 2), Reserved(term_years=1, discount=0.4) if seed % 2 else None
    arrivals = [random.uniform(0, 1.0, (3, 1)) * mix for _ in range(2)]
    found = machines(found_profile, own + sum(arrivals), reserved)
    classes = tuple(Waiting.of(found, rates, lag) for rates, lag in zip(arrivals, (seed % 2, 2), strict=True))
    shared = Shared(own=own, classes=classes, spot=None)
    at_once = (np.zeros(3), np.zeros(3))
    rates = shared.rates(at_once)
    start = finished(found, first_signals(found), rates, np.zeros(len(found)), None)
    best = search_placed(shared, Placed(waiting=at_once, rates=rates, reservation=start))
    assert best.cost_per_h == pytest.approx(enumerated(found, own, *classes), abs=1e-6)
    for left, one in zip(best.waiting, classes, strict=True):
        assert (left <= one.most_waiting + 1e-6).all()


@pytest.mark.parametrize("seed", range(20))
def test_classes_are_in_time_where_the_earliest_deadline_first_is(seed: int) -> None:
    """What intervals of hours say, a queue that is watched says too; and what waits adds up."""
    random = np.random.default_rng(seed)
    hours, said = 6, []
    classes = tuple(
        Waiting(rates=random.uniform(0, 2, (hours, 1)), weight=np.ones(1), lag=int(lag))
        for lag in random.integers(0, 9, 3)
    )
    waiters = Waiters(classes)
    for _ in range(30):
        room = random.dirichlet(np.full(hours, 1.5)) * waiters.work.sum() * random.uniform(0.98, 2.0)
        said.append(waiters.is_in_time(room))
        assert said[-1] == is_in_time(classes, room.tolist())
        left = waiters.left_by(room)
        assert (left is not None) == said[-1]
        if left is not None:
            sent = [one.work - np.diff(after, prepend=after[-1:]) for one, after in zip(classes, left, strict=True)]
            assert (np.array(sent) >= -1e-9).all()
            assert (np.sum(sent, axis=0) <= room + 1e-9).all()
            for after, one in zip(left, classes, strict=True):
                assert (after <= one.most_waiting + 1e-9).all()
    assert any(said) or all(one.lag == 0 for one in classes)


def test_requests_are_sent_in_the_order_of_their_arrival() -> None:
    """By hand: what waits of an hour's size is sent with the next hours', and nothing is lost over a cycle."""
    waiting = Waiting(rates=np.array([[4.0, 0.0], [0.0, 2.0], [0.0, 0.0]]), weight=np.array([1.0, 1.0]), lag=2)
    assert last_hours(np.array([4.0, 2.0, 0.0]), 2).tolist() == [4.0, 6.0, 2.0]
    left = waiting.left_by(np.array([1.0, 2.0, 3.0]))
    assert left is not None
    assert left.tolist() == [3.0, 3.0, 0.0]
    assert waiting.sent(left).tolist() == [[1.0, 0.0], [2.0, 0.0], [1.0, 2.0]]
    assert waiting.left_by(np.array([1.0, 0.0, 5.0])) is not None
    assert replace(waiting, lag=1).left_by(np.array([1.0, 0.0, 5.0])) is None  # the first hour's would be a third late
    assert waiting.left_by(np.array([1.0, 2.0, 2.9])) is None


def classed(demand: Demand, faster: tuple[float, ...]) -> Profile:
    """Three types that serve each class faster than the first, by the factors given."""
    known = three_types()
    rates = np.concatenate([times * known.max_request_rate for times in faster], axis=1)
    return replace(profile([one.offer for one in known.replica_types], rates), buckets=demand.buckets)


def day(seed: int, share: float) -> tuple[Demand, Profile]:
    """A day with batch work beside a chat, and three types that serve both."""
    whole = weekly_demand(seed, rate=5.0).part(0, 144)
    whole = replace(whole, buckets=Buckets(input_edges=(500,), output_edges=(100, 400)))
    parts = {"default": replace(whole, rate=whole.rate * (1 - share)), "batch": replace(whole, rate=whole.rate * share)}
    both = demand_of_classes(parts)
    return both, classed(both, (1.0, 1.2))


@pytest.fixture(scope="module")
def schedules() -> list[Schedule]:
    """Days with deadlines of 2 and 24 hours, with a commitment, and one with spot."""
    found = []
    for seed, hours in enumerate((2, 24), 1):
        demand, types = day(seed, 0.2 + 0.2 * seed)
        settings = ScheduleOptions(
            reserved=(Reserved(term_years=1, discount=0.4),),
            spot=Spot(discount=0.6, zones=2) if seed == 2 else None,
            deferrals=(Deferral(name="batch", deadline_s=hours * 3600.0),),
        )
        found.append(plan_over_time(demand, types, Options(), settings, over="day"))
    return found


def test_waiting_never_costs_more_and_never_less_than_nothing(schedules: list[Schedule]) -> None:
    """Between the hours without what may wait and the hours that serve it as it arrives, and above the bound."""
    saved = []
    for one in schedules:
        deferred = one.deferred
        assert deferred is not None
        assert deferred.at_once_per_h is not None
        assert deferred.without_per_h - 1e-9 <= one.planned_per_h <= deferred.at_once_per_h + 1e-9
        assert one.bound_per_h <= one.planned_per_h + 1e-9
        saved.append(1 - one.planned_per_h / deferred.at_once_per_h)
        assert one.running.late_fraction <= one.options.short_fraction
        assert any("as they arrive" in other.name for other in one.alternatives)
    assert max(saved) > 0.05


def test_all_that_arrives_is_sent_within_its_deadline(schedules: list[Schedule]) -> None:
    """As many requests as arrive, none before it does, and none that waits longer than it may."""
    for one in schedules:
        assert one.deferred is not None
        (waits,) = one.deferred.classes
        assert waits.sending_rate.sum() == pytest.approx(waits.arrival_rate.sum())
        lag = one.options.deferrals[0].lag_hours
        # Sizes differ from hour to hour, and what may wait is counted in work.
        most = 1.6 * last_hours(waits.arrival_rate * 3600, lag)
        assert (waits.waiting <= most + 1e-6).all()
        assert waits.mean_wait_s <= lag * 3600


def test_a_file_says_it_all_again(schedules: list[Schedule]) -> None:
    """The classes that wait, what waiting is worth, and the settings."""
    for one in schedules:
        again = Schedule.from_json(one.to_json())
        assert again.to_json() == one.to_json()
        assert again.options == one.options


def test_work_that_may_wait_finds_room_within_limits_that_the_peak_breaks() -> None:
    """No fleet within the limits serves all as it arrives, and one does if some waits."""
    demand, _ = day(3, 0.5)
    types = replace(profile([offer("one", 1.0)], np.full((1, 2, 2), 1.1)), buckets=demand.buckets)
    settings = ScheduleOptions(deferrals=(Deferral(name="batch", deadline_s=24 * 3600.0),))
    found = plan_over_time(demand, types, Options(max_instances={"one": 6}), settings, over="day")
    assert found.on_demand.sum(axis=1).max() <= 6
    assert found.deferred is not None
    assert found.deferred.at_once_per_h is None
    # Nor does one carry every window of the history as it arrives, which pages and files say.
    assert found.clairvoyant_per_h is None
    assert Schedule.from_json(json.loads(found.dumps())).clairvoyant_per_h is None
    assert "No fleet within the limits carries every window" in proof_sentence(found)
    assert found.deferred.at_once is None
    with pytest.raises(InfeasibleError, match="no fleet within the limits"):
        plan_over_time(demand, types, Options(max_instances={"one": 3}), settings, over="day")


def test_two_classes_wait_each_for_its_own_time() -> None:
    """Both are sent, and both together cost no more than as they arrive."""
    whole = replace(
        weekly_demand(5, rate=6.0).part(0, 144), buckets=Buckets(input_edges=(500,), output_edges=(100, 400))
    )
    parts = {name: replace(whole, rate=whole.rate * part) for name, part in (("default", 0.5), ("a", 0.3), ("b", 0.2))}
    both = demand_of_classes(parts)
    found_profile = classed(both, (1.0, 1.0, 1.1))
    deferrals = (Deferral(name="a", deadline_s=24 * 3600.0), Deferral(name="b", deadline_s=3 * 3600.0))
    found = plan_over_time(both, found_profile, Options(), ScheduleOptions(deferrals=deferrals), over="day")
    assert found.deferred is not None
    assert [one.name for one in found.deferred.classes] == ["b", "a"]
    for one in found.deferred.classes:
        assert one.sending_rate.sum() == pytest.approx(one.arrival_rate.sum())
    assert found.planned_per_h <= (found.deferred.at_once_per_h or 0.0) + 1e-9


@pytest.mark.parametrize("seconds", [0.0, 1800.0, float("nan"), float("inf")])
def test_a_deadline_is_an_hour_or_more(seconds: float) -> None:
    """Schedules choose among hours."""
    with pytest.raises(InputError, match=r"classes\.batch\.deadline must be an hour or more"):
        Deferral(name="batch", deadline_s=seconds)


def test_what_is_due_is_sent_whatever_the_plan() -> None:
    """A plan that sends nothing in some hours: requests leave an hour before their deadline."""
    hour = np.arange(48) % 24
    arriving, sending = np.ones(24), np.zeros(24)
    sending[0] = 24.0
    sent = sent_of(np.ones((48, 1)), hour, arriving, sending, window_s=3600.0, deadline_s=3 * 3600.0)
    total = np.cumsum(sent.rates[:, 0])
    arrived = np.arange(1.0, 49.0)
    assert (sent.reached[1:] >= sent.due - 1e-9).all()  # before it is due
    assert (np.diff(sent.reached) >= 0).all()
    assert total[-1] <= arrived[-1] + 2.0 + 1e-9  # and what waited before the history began
    planned = sent_of(np.ones((48, 1)), hour, arriving, np.ones(24), window_s=3600.0, deadline_s=3 * 3600.0)
    np.testing.assert_allclose(planned.rates[:, 0], 1.0)
    heavier = sent_of(2 * np.ones((48, 1)), hour, arriving, np.ones(24), window_s=3600.0, deadline_s=3 * 3600.0)
    np.testing.assert_allclose(heavier.rates[6:, 0], 2.0)  # twice as many, twice as fast


def test_requests_are_late_where_the_others_leave_no_room() -> None:
    """By hand: one request a second each hour, room for none, then for all of it."""
    hour, one = np.arange(4), np.ones(4)
    sent = sent_of(np.ones((4, 1)), hour, one, one, window_s=3600.0, deadline_s=2 * 3600.0)
    given, up, demand = np.array([1.0]), np.ones((4, 1)), np.ones((4, 1))

    def late(held: list[float]) -> float:
        always = np.array(held)[:, None]
        return float(late_fractions([sent], np.ones((1, 1)), given, up, always, demand, 3600.0)[0, 0])

    assert late([1.0, 1.0, 1.0, 1.0]) == 0.0
    assert late([0.0, 2.0, 1.0, 1.0]) == 0.0  # an hour late, which it may be
    assert late([0.0, 0.0, 3.0, 1.0]) == pytest.approx(0.25)  # the first hour's come after two
    assert late([0.0, 0.0, 0.0, 0.0]) == pytest.approx(0.5)  # those of the last two may still come


def test_replicas_carry_less_of_what_waits_beside_others() -> None:
    """Of the classes that may wait alone; the bounds of an estimate go along."""
    _, types = day(1, 0.3)
    found = carried_beside(types, {"batch"})
    for name in ("max_request_rate", "low", "high"):
        before, after = getattr(types, name), getattr(found, name)
        np.testing.assert_array_equal(after[:, :1], before[:, :1])
        np.testing.assert_allclose(after[:, 1:], 0.9 * before[:, 1:])
    np.testing.assert_array_equal(carried_beside(three_types(), set()).low, three_types().low)
