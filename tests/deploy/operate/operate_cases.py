"""A fleet on paper in which orders fail, and a service to run on it, shared by the tests of the controller."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import numpy as np
from plan_cases import offer, profile

from melange.deploy.operate.controller_state import ControllerState
from melange.deploy.operate.decide import Brief, Decision, decide
from melange.deploy.operate.drivers.pretend_fleet import READY, PretendFleet
from melange.deploy.operate.fleet_planner import FleetPlanner
from melange.deploy.operate.observation import Observation
from melange.deploy.operate.operate_settings import OperateSettings
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.plan.solve import solve
from melange.workload.workload import Buckets, Workload


def service(seed: int, rate: float = 20.0) -> Plan:
    """A plan for a drawn service: three or four types, of which two serve every size, over four sizes."""
    choose = np.random.default_rng(seed)
    types = int(choose.integers(3, 5))
    speed = choose.uniform(1.0, 6.0, (types, 1, 1)) * choose.uniform(0.4, 1.6, (types, 2, 2))
    speed[2:][choose.uniform(size=speed[2:].shape) < 0.3] = 0.0
    offers = [offer(f"t{r}", round(float(choose.uniform(0.5, 6.0)), 2)) for r in range(types)]
    offers = [replace(one, provider="cloud", region=f"r{k % 2}") for k, one in enumerate(offers)]
    rates = choose.uniform(0.2, 1.0, (2, 2))
    load = Workload.at_upper_edges(Buckets.ordinal(2, 2), rates * rate / rates.sum())
    return solve(Question(workload=load, profile=profile(offers, speed), options=Options(headroom=0.1)))


class FailingFleet(PretendFleet):
    """A fleet on paper in which some types are not available for some time, and instances are lost."""

    def __init__(self, start_up_s: float = 120.0, drain_s: float = 100.0) -> None:
        super().__init__(start_up_s, drain_s)
        self.gone: dict[str, float] = {}  # until when, by type

    def refuses(self, name: str, now_s: float) -> str:
        """Out of stock, where it is gone."""
        return "out of stock" if now_s < self.gone.get(name, 0.0) else ""

    def lose(self, name: str, until_s: float) -> None:
        """All instances of a type go, and none is available for some time."""
        self.gone[name] = until_s
        self.instances = tuple(one for one in self.instances if one.replica_type != name)

    def crash(self, choose: random.Random) -> None:
        """An instance that serves is lost."""
        ready = [one for one in self.instances if one.stage == READY]
        if ready:
            place = self.instances.index(choose.choice(ready))
            self.instances = (*self.instances[:place], *self.instances[place + 1 :])


@dataclass
class Life:
    """A service that a controller runs.

    Parameters
    ----------
    plan, brief, fleet
        What it is told, and what it acts on.
    """

    plan: Plan
    brief: Brief
    fleet: FailingFleet
    state: ControllerState = field(default_factory=ControllerState)
    now_s: float = 1e9

    def look(self, factor: float | None) -> tuple[Observation, Decision]:
        """One look with that much of the planned traffic, and the steps that follow."""
        rate = None if factor is None else self.plan.workload.request_rate * factor
        seen = Observation(at_s=self.now_s, fleet=self.fleet.look(self.now_s), request_rate=rate)
        decision = decide(self.brief, self.state, seen)
        self.state = decision.state
        self.fleet.take(decision.steps, self.now_s)
        self.now_s += self.brief.settings.interval_s
        return seen, decision


def life_of(seed: int, **settings: object) -> Life:
    """A drawn service under a controller that looks every minute."""
    plan = service(seed)
    given = {"interval_s": 60.0, "window_s": 300.0, "start_up_s": 120.0, "drain_s": 150.0, "patience_s": 400.0}
    chosen = OperateSettings(**(given | settings))
    first = {name: count for name, count in plan.instances_by_name.items() if count}
    planner = FleetPlanner(plan, floor=chosen.floor)
    return Life(plan=plan, brief=Brief(planner=planner, settings=chosen, first=first), fleet=FailingFleet())
