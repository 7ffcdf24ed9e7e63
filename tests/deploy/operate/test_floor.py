"""The floor and the spare instances: filled up to what the limits of the question allow, and no further."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from deploy_cases import plan_of, replica_type
from operate_cases import Life, life_of
from plan_cases import offer, profile

from melange.deploy.operate.decide import Brief
from melange.deploy.operate.fleet_planner import FleetPlanner
from melange.deploy.operate.operate_settings import OperateSettings
from melange.deploy.operate.operation import Operation, floor_of
from melange.errors import InputError
from melange.plan.options import Options
from melange.plan.question import Question
from melange.plan.schedule.rule import RuleSettings, ScalingRule, Signal
from melange.plan.solve import solve
from melange.workload.workload import Buckets, Workload


def limited(options: Options, stock: int | None = None, **settings: object) -> Life:
    """Two requests per second on instances of one per second: cheap ones, of which ``stock`` exist, and costly ones."""
    offers = [offer("cheap", 1.0, max_instances=stock), offer("costly", 3.0)]
    load = Workload.at_upper_edges(Buckets.ordinal(1, 1), np.array([[2.0]]))
    plan = solve(Question(workload=load, profile=profile(offers, np.ones((2, 1, 1))), options=options))
    given = {"interval_s": 60.0, "window_s": 60.0, "start_up_s": 60.0, "drain_s": 60.0, "slack": 0.0}
    chosen = OperateSettings(**(given | settings))
    life = life_of(0)
    first = {name: count for name, count in plan.instances_by_name.items() if count}
    life.plan = plan
    life.brief = Brief(planner=FleetPlanner(plan, floor=chosen.floor), settings=chosen, first=first)
    return life


@pytest.mark.parametrize(
    ("options", "stock", "fleet"),
    [
        (Options(), None, {"cheap": 6}),
        (Options(max_instances={"cheap": 4}), None, {"cheap": 4, "costly": 2}),
        (Options(max_accelerators={"cheap": 3}), None, {"cheap": 3, "costly": 3}),
        (Options(), 5, {"cheap": 5, "costly": 1}),
        (Options(max_instances={"cheap": 4}, min_replicas=3), None, {"cheap": 4, "costly": 3}),
        (Options(max_instances={"cheap": 4}, spare_replicas=1), None, {"cheap": 4, "costly": 2}),
        (Options(exclude=("costly",)), 4, {"cheap": 4}),
        (Options(max_types=1), 4, {"cheap": 4}),
        (Options(max_instances={"cheap": 4, "costly": 1}), None, {"cheap": 4, "costly": 1}),
        (Options(budget_per_h=5.5), None, {"cheap": 5}),
    ],
)
def test_a_total_floor_is_filled_with_what_is_available(
    options: Options, stock: int | None, fleet: dict[str, int]
) -> None:
    """Six instances in total: at the start, and in every fleet that is planned later."""
    life = limited(options, stock, floor={"": 6})
    _, decision = life.look(1.0)
    assert decision.state.target == fleet
    assert life.brief.planner.cheapest(life.plan.workload.request_rate) == fleet
    short = f"the floor cannot be reached: 6 instances in total ({sum(fleet.values())} available)"
    assert (short in decision.lines) is (sum(fleet.values()) < 6)


def test_a_floor_of_a_type_ends_at_its_stock() -> None:
    """Nothing is ordered that does not exist, at no look, and the first decision says so."""
    life = limited(Options(), 3, floor={"cheap": 5})
    lines = [line for _ in range(20) for line in life.look(1.0)[1].lines]
    assert life.state.target == {"cheap": 3}
    assert [line for line in lines if "floor" in line] == ["the floor cannot be reached: 5 x cheap (3 available)"]


def test_floors_of_types_share_a_limit() -> None:
    """Two types of one accelerator: what the first takes is not there for the second."""
    offers = [offer("one", 1.0), replace(offer("two", 3.0, accelerators=2), accelerator="one")]
    load = Workload.at_upper_edges(Buckets.ordinal(1, 1), np.array([[1.0]]))
    options = Options(max_accelerators={"one": 6})
    plan = solve(Question(workload=load, profile=profile(offers, np.ones((2, 1, 1))), options=options))
    assert FleetPlanner(plan, floor={"one": 3, "two": 3}).floor == {"one": 3, "two": 1}


def test_spare_instances_end_at_the_stock() -> None:
    """Not all of the three spare instances exist: the log says so once for each number, not at each poll."""
    life = limited(Options(exclude=("costly",)), 5, spare=3)
    lines: list[tuple[int, str]] = []
    for poll, factor in enumerate([1.2] * 10 + [1.6] * 10 + [0.8] * 20 + [1.2] * 10):
        lines += [(poll, line) for line in life.look(factor)[1].lines if "spare instances are" in line]
        life.state = type(life.state).from_json(life.state.to_json())
        if poll == 9:
            assert life.state.target == {"cheap": 5}
    said = "not all spare instances are available: {} of 3 x cheap"
    assert [line for _, line in lines] == [said.format(2), said.format(1), said.format(2)]
    assert [poll // 10 for poll, _ in lines] == [0, 1, 4]


def by_rule(life: Life) -> Brief:
    """Its brief with a rule of one instance per request and second."""
    settings = RuleSettings(ahead="last", look_back=1, margin=0.0, target=1.0, stable_windows=1)
    signal = Signal(request_weight=np.ones((1, 1)), reserved_load=0.0)
    rule = ScalingRule(
        replica_type="cheap", settings=settings, signals=(signal,), window_s=60.0, delay_windows=0.5, buckets=None
    )
    return replace(life.brief, rule=rule)


def test_what_a_rule_wants_is_said_with_the_spare_instances() -> None:
    """Four for the traffic and two more."""
    life = limited(Options(), spare=2)
    life.brief = by_rule(life)
    lines = [line for _ in range(3) for line in life.look(2.0)[1].lines]
    assert any(line.endswith("the schedule's rule wants 6 x cheap with 2 spare instances") for line in lines)


def test_a_rule_that_wants_more_than_the_stock_is_said_once() -> None:
    """Four instances and a spare one by the rule, of which three exist; and that no fleet carries the traffic."""
    life = limited(Options(exclude=("costly",)), 3, spare=1)
    ruled = by_rule(life)
    without = limited(Options(exclude=("costly",)), 3)
    for one, said in (
        (life, "not all instances of the rule are available: 3 of 5 x cheap"),
        (without, "no available fleet carries the traffic"),
    ):
        one.brief = ruled if one is life else one.brief
        lines = [line for _ in range(10) for line in one.look(2.0)[1].lines]
        assert lines.count(said) == 1
        assert one.state.target == {"cheap": 3}


@pytest.mark.parametrize(
    ("spare", "factor", "why"),
    [
        (0, 1.5, "the predicted traffic takes 150% of the capacity"),
        (1, 1.5, "the predicted traffic takes 150% of the capacity, and 300% without the spare instance"),
        (1, 0.75, "the predicted traffic takes 75% of the capacity, and 150% without the spare instance"),
        (2, 0.75, "the predicted traffic takes 75% of the capacity, and nothing else serves it without the 2 spare "),
    ],
)
def test_the_reason_has_the_load_of_the_traffic_alone(spare: int, factor: float, why: str) -> None:
    """The load of the whole fleet, and that of the fleet without its spare instances."""
    life = limited(Options(headroom=0.0), spare=spare)
    life.look(None)
    _, decision = life.look(factor)
    assert [line for line in decision.lines if "scale up" in line and why in line]


def operation(*used: str) -> Operation:
    """A service with five types, of which a plan uses some: by default, the first."""
    types = [
        replica_type("aws/us-east-1/g6.xlarge", "L4"),
        replica_type("aws/us-east-1/g6.12xlarge tp4", "L4"),
        replica_type("aws/us-east-1/g6e.xlarge", "L40S"),
        replica_type("gcp/europe-west4/a2-highgpu-1g", "A100-40GB"),
        replica_type("gcp/europe-west4/a2-highgpu-2g tp2", "A100-40GB"),
    ]
    counts = [int(one.name in (used or (types[0].name,))) for one in types]
    return Operation(plan=plan_of(np.full((5, 3, 2), 0.2), counts, types))


@pytest.mark.parametrize(
    ("text", "floor"),
    [
        ("L4=2", {"aws/us-east-1/g6.xlarge": 2}),
        ("aws/us-east-1/g6.12xlarge tp4=2", {"aws/us-east-1/g6.12xlarge tp4": 2}),
        ("g6.12xlarge=2", {"aws/us-east-1/g6.12xlarge tp4": 2}),
        ("l40s=2", {"aws/us-east-1/g6e.xlarge": 2}),
        ("nvidia-l40s=2", {"aws/us-east-1/g6e.xlarge": 2}),
        ("g6.xlarge=1", {"aws/us-east-1/g6.xlarge": 1}),
        ("g6=1", {"aws/us-east-1/g6.xlarge": 1}),
        ("gcp/europe-west4/a2-highgpu-1g=3", {"gcp/europe-west4/a2-highgpu-1g": 3}),
        ("7", {"": 7}),
    ],
)
def test_a_floor_takes_the_names_that_a_replica_takes(text: str, floor: dict[str, int]) -> None:
    """A type's name, its accelerator, or a part of its name; types that the plan uses come first."""
    assert floor_of([text], operation()) == floor


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["A100-40GB=1"], "--floor: 'A100-40GB' is ambiguous: gcp/europe-west4/a2-highgpu-1g, gcp/"),
        (
            ["europe-west4=1"],
            "--floor: 'europe-west4' is ambiguous: gcp/europe-west4/a2-highgpu-1g, gcp/",
        ),
        (["X=2"], "--floor: unknown replica type 'X'"),
        (["L=2"], "--floor: unknown replica type 'L'"),
        (["L4=2", "l4=3"], "--floor: aws/us-east-1/g6.xlarge is given twice"),
        (["1", "2"], "--floor: the total is given twice"),
        (["L4=-1"], "--floor: must be NAME=N or N, got 'L4=-1'"),
    ],
)
def test_a_floor_that_names_no_single_type_is_refused(texts: list[str], said: str) -> None:
    """Letters within a word of a name are not a name."""
    with pytest.raises(InputError) as fault:
        floor_of(texts, operation())
    assert str(fault.value).startswith(said)


def test_a_name_that_fits_several_used_types_is_ambiguous() -> None:
    """An accelerator of two types of the plan."""
    with pytest.raises(InputError, match=r"'L4' is ambiguous: aws/us-east-1/g6.xlarge, aws/us-east-1/g6.12xlarge tp4$"):
        floor_of(["L4=2"], operation("aws/us-east-1/g6.xlarge", "aws/us-east-1/g6.12xlarge tp4"))
