"""Windows of a schedule played out request by request."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import melange
from melange.errors import InputError
from melange.plan.options import Options
from melange.plan.schedule.contracts import Deferral, Reserved, ScheduleOptions, Spot
from melange.plan.schedule.plan_over_time import plan_over_time
from melange.plan.schedule.schedule import Schedule
from melange.profile.profile import Profile
from melange.slo import RequestClass, Slo
from melange.validate.play_rule import play_rule
from melange.workload.classed_demand import demand_of_classes
from melange.workload.demand import Demand
from melange.workload.workload import Buckets

GRID = Buckets(input_edges=(500, 2000), output_edges=(100, 300))


@pytest.fixture(scope="module")
def demand() -> Demand:
    """A day of a small service, busy at noon."""
    random = np.random.default_rng(2)
    hour = np.arange(144) / 6
    rate = 24 * (1 + 0.7 * np.sin(2 * np.pi * (hour - 6) / 24)) * random.uniform(0.85, 1.15, 144)
    inputs, outputs = GRID.upper_sizes()
    return Demand(
        buckets=GRID,
        window_s=600.0,
        rate=rate,
        period=np.zeros(144, int),
        share=np.array([[[0.4, 0.3], [0.2, 0.1]]]),
        input_tokens=0.7 * inputs,
        output_tokens=0.7 * outputs,
    )


@pytest.fixture(scope="module")
def profile(demand: Demand) -> Profile:
    """Two types of AWS."""
    offers = melange.load_catalog().select(gpus=["L4", "L40S"], providers=["aws"], regions=["us-east-1"]).offers
    model = melange.find_model("meta-llama/Llama-3.1-8B-Instruct")
    return melange.estimate(model, offers, Slo(tpot_s=0.08, ttft_s=2.0), demand.workload(), tensor_parallel=1)


@pytest.fixture(scope="module")
def schedule(demand: Demand, profile: Profile) -> Schedule:
    """Reserved, on demand and on spot."""
    options = ScheduleOptions(reserved=(Reserved(term_years=1, discount=0.4),), spot=Spot(discount=0.6, zones=2))
    return plan_over_time(demand, profile, Options(), options, over="day")


@pytest.mark.heavy
def test_windows_are_played_with_their_own_fleets(schedule: Schedule, demand: Demand, profile: Profile) -> None:
    """The busiest, those with most starts and drains, and some at random; those with room meet the SLO."""
    played = play_rule(schedule, demand, profile, Options(), seed=1)
    assert played[0].words.startswith("the busiest window")
    assert played[0].label == demand.label(int(np.argmax(demand.rate)))
    assert any(one.started for one in played)
    assert any(one.drained for one in played)
    assert sum("drawn at random" in one.words for one in played) >= 3
    for one in played:
        assert 0 <= one.low <= one.attainment <= 1
    roomy = [one for one in played if one.load < 0.8 and not one.started]
    assert all(one.attainment > 0.95 for one in roomy)


def test_playing_again_gives_the_same(schedule: Schedule, demand: Demand, profile: Profile) -> None:
    """With the same seed."""
    assert play_rule(schedule, demand, profile, Options()) == play_rule(schedule, demand, profile, Options())


def test_a_profile_without_an_slo_cannot_be_played(schedule: Schedule, demand: Demand, profile: Profile) -> None:
    """Nothing can be said to meet it."""
    bare = Profile(**{name: getattr(profile, name) for name in Profile.__slots__} | {"slo": None})
    with pytest.raises(InputError, match="no SLO"):
        play_rule(schedule, demand, bare, Options())


def test_requests_that_may_wait_count_by_themselves(demand: Demand) -> None:
    """Beside them the others do as well as alone, and they meet their own limits."""
    parts = {"default": replace(demand, rate=0.6 * demand.rate), "batch": replace(demand, rate=0.4 * demand.rate)}
    both = demand_of_classes(parts)
    tight, loose = Slo(tpot_s=0.08, ttft_s=2.0), Slo(latency_s=600.0)
    classes = (RequestClass(name="default", slo=tight), RequestClass(name="batch", slo=loose, priority=1))
    offers = melange.load_catalog().select(gpus=["L4", "L40S"], providers=["aws"], regions=["us-east-1"]).offers
    model = melange.find_model("meta-llama/Llama-3.1-8B-Instruct")
    beside = (classes[0], replace(classes[1], slo=Slo(latency_s=600.0, tpot_s=0.08)))
    found = melange.estimate(model, offers, replace(tight, classes=beside), both.workload(), tensor_parallel=1)
    found = replace(found, slo=replace(tight, classes=classes))
    options = ScheduleOptions(
        reserved=(Reserved(term_years=1, discount=0.4),), deferrals=(Deferral(name="batch", deadline_s=24 * 3600.0),)
    )
    planned = plan_over_time(both, found, Options(), options, over="day")
    played = play_rule(planned, both, found, Options())
    waited = [one for one in played if one.deferred_requests]
    assert waited
    for one in waited:
        assert one.deferred_attainment is not None
        assert one.attainment_alone is not None
        assert one.deferred_attainment > 0.99
        assert one.attainment > one.attainment_alone - 0.02
    assert Schedule.from_json(replace(planned, played=played).to_json()).played == played
