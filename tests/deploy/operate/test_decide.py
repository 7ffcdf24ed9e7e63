"""Properties of the controller's core over drawn services, traffic and failures."""

from __future__ import annotations

import random

import pytest
from operate_cases import Life, life_of

from melange.deploy.operate.fleet_steps import DRAIN, STOP
from melange.units import S_PER_H

LOOKS = 150  # two and a half hours


def traffic(choose: random.Random) -> list[float]:
    """A factor on the planned traffic for each look: a walk with steps up and down."""
    factors, now = [], 1.0
    for _ in range(LOOKS):
        now = min(4.0, max(0.05, now * choose.choice((1.0, 1.0, 0.97, 1.03, 0.8, 1.25))))
        factors.append(now)
    return factors


def lived(life: Life, choose: random.Random) -> list[tuple[object, object]]:
    """A life with losses, and what was seen and decided."""
    log = []
    names = [one.name for one in life.plan.replica_types]
    for factor in traffic(choose):
        if choose.random() < 0.02:
            life.fleet.lose(choose.choice(names), life.now_s + choose.choice((300, 3000)))
        if choose.random() < 0.03:
            life.fleet.crash(choose)
        log.append(life.look(None if choose.random() < 0.1 else factor))
    return log


@pytest.mark.parametrize("seed", range(6))
def test_promises_hold_whatever_comes(seed: int) -> None:
    """Never more changes than the limit, never a drain below the floor or before what is wanted serves."""
    choose = random.Random(seed)
    floor = {"t0": choose.randint(0, 3), "": choose.randint(0, 6)}
    limit = choose.randint(2, 8)
    life = life_of(seed, floor=floor, most_changes_per_h=limit, spare=choose.randint(0, 1))
    changes = []
    for seen, decision in lived(life, choose):
        changes += [seen.at_s] * decision.is_changed
        assert sum(at_s > seen.at_s - S_PER_H for at_s in changes) <= limit
        target = decision.state.target
        for step in decision.steps:
            one = seen.of(step.replica_type)
            if step.verb == DRAIN:
                assert all(seen.of(name).ready >= count for name, count in target.items())
                assert one.ready - step.instances >= max(
                    target.get(step.replica_type, 0), floor.get(step.replica_type, 0)
                )
            if step.verb == STOP:
                assert step.instances <= len(one.draining_s)
                assert step.instances <= max(one.drained, sum(age >= 150.0 for age in one.draining_s))
        drained = sum(step.instances for step in decision.steps if step.verb == DRAIN)
        if drained:
            assert sum(one.ready for one in seen.fleet.values()) - drained >= min(floor[""], sum(target.values()))
        assert all(life.brief.planner.cost_per_h[name] for name in target)


@pytest.mark.parametrize("seed", range(8))
def test_a_lost_type_is_replaced_within_one_look(seed: int) -> None:
    """The look that sees the order refused orders the next best fleet, which carries the traffic once it is up."""
    life = life_of(seed)
    for _ in range(12):
        life.look(1.0)
    name = max(life.state.target, key=life.state.target.get)
    life.fleet.lose(name, life.now_s + 1e9)
    life.look(1.0)  # orders it again, and is refused
    _, decision = life.look(1.0)
    assert any("exclude" in line for line in decision.lines)
    assert not decision.state.target.get(name)
    others = {step.replica_type for step in decision.steps if step.verb == "start"}
    assert others
    assert name not in others
    for _ in range(4):
        seen, _ = life.look(1.0)
    ready = {one: seen.of(one).ready for one in decision.state.target}
    assert life.brief.planner.peak(ready, life.plan.workload.request_rate) <= 1 + 1e-6


@pytest.mark.parametrize("seed", range(6))
def test_the_fleet_follows_a_ramp_and_comes_back(seed: int) -> None:
    """Four times the traffic is carried once it has lasted, and after a quiet time the fleet costs what it did."""
    life = life_of(seed)
    for _ in range(30):
        life.look(1.0)
    cost = life.brief.planner.cost(life.state.target)
    for _ in range(40):
        seen, _ = life.look(4.0)
    ready = {name: one.ready for name, one in seen.fleet.items()}
    assert life.brief.planner.peak(ready, 4 * life.plan.workload.request_rate) <= 1 + 1e-6
    for _ in range(200):
        life.look(1.0)
    assert life.brief.planner.cost(life.state.target) <= cost * 1.3
    assert sum(len(one.draining_s) for one in life.fleet.look(life.now_s).values()) == 0
