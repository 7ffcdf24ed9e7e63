"""What stands in for a type that is out goes when that is back; a region is left only where nothing of it is there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from operate_cases import Life, life_of
from plan_cases import offer, profile

from melange.deploy.operate.controller_state import ControllerState, Exclusion
from melange.deploy.operate.decide import Brief
from melange.deploy.operate.drivers.pretend_fleet import READY, STARTING
from melange.deploy.operate.exclusions import excluded_after, is_out
from melange.deploy.operate.fleet_planner import FleetPlanner
from melange.deploy.operate.observation import Observation, TypeSeen
from melange.deploy.operate.operate_settings import OperateSettings
from melange.plan.options import Options
from melange.plan.question import Question
from melange.plan.solve import solve
from melange.workload.workload import Buckets, Workload


def cost(life: Life) -> float:
    """What is wanted costs [USD/h]."""
    return life.brief.planner.cost(life.state.target or {})


@pytest.mark.parametrize("seed", range(5))
def test_stand_ins_go_when_the_type_is_back(seed: int) -> None:
    """Within the time of the exclusion and a start, whatever else might be given back of the stand-ins meanwhile."""
    life = life_of(seed, exclude_s=1200.0, settle_s=3600.0)
    for _ in range(20):
        life.look(1.0)
    before = cost(life)
    name = max(life.state.target or {}, key=(life.state.target or {}).get)
    life.fleet.lose(name, life.now_s + 1200.0)
    for _ in range(15):
        life.look(1.0)
    assert not (life.state.target or {}).get(name)
    stood_in = cost(life)
    # Tried again after 20 minutes, or after 40 more where it was still out then.
    for _ in range(60):
        life.look(1.0)
    # The slack of whole instances may come on top.
    assert cost(life) <= 1.25 * before
    assert (life.state.target or {}).get(name) or stood_in <= 1.25 * before


@pytest.mark.parametrize("seed", range(2))
def test_another_mix_goes_before_giving_a_little_back(seed: int) -> None:
    """Of expensive instances a few are not needed, but a cheap type would serve it all: that is what is taken."""
    offers = [
        replace(offer(name, usd), provider="cloud", region="r") for name, usd in (("costly", 9.0), ("cheap", 1.0))
    ]
    load = Workload.at_upper_edges(Buckets.ordinal(1, 1), np.array([[8.0 + seed]]))
    plan = solve(Question(workload=load, profile=profile(offers, np.ones((2, 1, 1))), options=Options(headroom=0.1)))
    settings = OperateSettings(interval_s=60.0, window_s=60.0, settle_s=600.0, start_up_s=60.0, drain_s=60.0)
    life = life_of(0)
    life.plan = plan
    life.brief = Brief(planner=FleetPlanner(plan), settings=settings, first={"costly": 14})
    for _ in range(25):
        life.look(1.0)
    assert not (life.state.target or {}).get("costly")
    assert (life.state.target or {})["cheap"] <= 14


def excluded(ready: int, stage: str) -> set[str]:
    """Types that are out after two of a region's three were refused, with instances of the third in some stage."""
    offers = [offer(f"t{k}", 1.0) for k in range(4)]
    offers = [replace(one, provider="cloud", region="a" if k < 3 else "b") for k, one in enumerate(offers)]
    load = Workload.at_upper_edges(Buckets.ordinal(1, 1), np.array([[1.0]]))
    plan = solve(Question(workload=load, profile=profile(offers, np.ones((4, 1, 1)))))
    brief = Brief(planner=FleetPlanner(plan), settings=OperateSettings(), first={})
    there = TypeSeen(ready=ready) if stage == READY else TypeSeen(starting_s=(30.0,) * ready)
    fleet = {"t0": TypeSeen(failures=("out of stock",)), "t1": TypeSeen(failures=("out of stock",)), "t2": there}
    seen = Observation(at_s=1e9, fleet=fleet)
    kept, _ = excluded_after(brief, ControllerState(), seen)
    return {name for name in brief.planner.types_by_name if is_out(kept, name, 1e9)}


def test_a_region_is_left_where_nothing_of_it_is_there() -> None:
    """Two types that are refused leave the rest of it out only if no instance serves there or starts."""
    assert excluded(0, READY) == {"t0", "t1", "t2"}
    assert excluded(2, READY) == {"t0", "t1"}
    assert excluded(1, STARTING) == {"t0", "t1"}


def test_a_region_is_not_tried_again_for_a_failure_of_long_ago() -> None:
    """A type whose time is nearly over does not end that of the region in which another fails now."""
    types = [replace(offer(f"t{k}", 1.0), provider="cloud", region="a" if k < 3 else "b") for k in range(4)]
    load = Workload.at_upper_edges(Buckets.ordinal(1, 1), np.array([[1.0]]))
    plan = solve(Question(workload=load, profile=profile(types, np.ones((4, 1, 1)))))
    brief = Brief(planner=FleetPlanner(plan), settings=OperateSettings(exclude_s=1800.0), first={})
    before = ControllerState(excluded={"t1": Exclusion(until_s=1e9 + 30.0, times=1, reason="out of stock")})
    seen = Observation(at_s=1e9, fleet={"t0": TypeSeen(failures=("out of stock",))})
    kept, _ = excluded_after(brief, before, seen)
    assert kept["t2"].until_s == 1e9 + 1800.0


def one_size(counts: dict[str, int], **settings: float) -> Life:
    """A fleet of two types of equal instances, one nine times as expensive, that eight requests per second come to."""
    offers = [
        replace(offer(name, usd), provider="cloud", region="r") for name, usd in (("costly", 9.0), ("cheap", 1.0))
    ]
    load = Workload.at_upper_edges(Buckets.ordinal(1, 1), np.array([[8.0]]))
    plan = solve(Question(workload=load, profile=profile(offers, np.ones((2, 1, 1))), options=Options(headroom=0.0)))
    given = {"interval_s": 60.0, "window_s": 60.0, "settle_s": 600.0, "start_up_s": 60.0, "drain_s": 60.0, "slack": 0.0}
    life = life_of(0)
    life.plan = plan
    life.brief = Brief(planner=FleetPlanner(plan), settings=OperateSettings(**(given | settings)), first=counts)
    return life


def test_replacements_do_not_keep_stand_ins() -> None:
    """What had to change in the last hour leaves room for a cheaper fleet; cheaper fleets are limited by themselves."""
    for voluntary, is_left in ((0, True), (6, False)):
        life = one_size({"costly": 9})
        recent = tuple(life.now_s - 1.0 for _ in range(8))
        life.state = replace(life.state, changes_s=recent, voluntary_s=recent[:voluntary])
        for _ in range(30):
            life.look(1.0)
        assert (not (life.state.target or {}).get("costly")) is is_left


@pytest.mark.parametrize(
    ("least", "looks", "count"), [(0.0, 60, 8), (0.1, 60, 8), (0.2, 60, 9), (0.2, 90, 8), (0.4, 90, 9)]
)
def test_small_savings_are_left_alone(least: float, looks: int, count: int) -> None:
    """One of nine instances is given back where a ninth of the cost is enough; after 72 windows a third of it is."""
    life = one_size({"cheap": 9}, least_saving=least)
    for _ in range(looks):
        life.look(1.0)
    assert life.state.target == {"cheap": count}


def test_a_state_of_before_counts_all_changes_as_voluntary() -> None:
    """A file without the times of voluntary changes is read, as strict as it was."""
    content = ControllerState(changes_s=(1.0, 2.0)).to_json()
    assert ControllerState.from_json(content).voluntary_s == ()
    del content["voluntary_s"]
    assert ControllerState.from_json(content).voluntary_s == (1.0, 2.0)


def test_part_of_the_traffic_is_served_where_no_fleet_carries_all() -> None:
    """One instance is left of the only type that serves long requests: what serves short ones is ordered at once."""
    offers = [replace(offer(name, usd), provider="cloud", region=name) for name, usd in (("all", 2.0), ("short", 9.0))]
    load = Workload.at_upper_edges(Buckets.ordinal(2, 1), np.array([[8.0], [2.0]]))
    speed = np.array([[[2.0], [2.0]], [[2.0], [0.0]]])
    plan = solve(Question(workload=load, profile=profile(offers, speed)))
    life = life_of(0)
    life.plan = plan
    life.brief = Brief(planner=FleetPlanner(plan), settings=life.brief.settings, first=dict(plan.instances_by_name))
    for _ in range(10):
        life.look(1.0)
    assert set(life.state.target or {}) == {"all"}
    left = life.fleet.instances[:1]
    life.fleet.lose("all", life.now_s + 1e9)
    life.fleet.instances = left
    life.look(1.0)  # orders it again, and is refused
    _, decision = life.look(1.0)
    assert life.state.target == {"all": 1, "short": 4}
    assert any("no available fleet carries all of the traffic" in line for line in decision.lines)


def test_a_replacement_has_slack() -> None:
    """What is planned for a type that is out leaves room for more traffic, as every other change does."""
    life = one_size({"cheap": 8}, slack=0.5)
    life.look(1.0)
    life.fleet.lose("cheap", life.now_s + 1e9)
    life.look(1.0)
    life.look(1.0)
    assert life.state.target == {"costly": 12}
