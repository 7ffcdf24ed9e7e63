"""Windows of a schedule played out request by request."""

from __future__ import annotations

import numpy as np
import pytest

import melange
from melange.errors import InputError
from melange.plan.options import Options
from melange.plan.schedule.contracts import Reserved, ScheduleOptions, Spot
from melange.plan.schedule.plan_over_time import plan_over_time
from melange.plan.schedule.schedule import Schedule
from melange.profile.profile import Profile
from melange.slo import Slo
from melange.validate.play_rule import play_rule
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
