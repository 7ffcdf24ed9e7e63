"""Small schedules that the tests of the deploy stage share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from deploy_cases import replica_type

from melange.plan.schedule.backtest import RunningCost
from melange.plan.schedule.contracts import ScheduleOptions
from melange.plan.schedule.rule import RuleSettings, ScalingRule, Signal
from melange.plan.schedule.schedule import STATIC, Alternative, Schedule
from melange.profile.profile import ReplicaType
from melange.workload.cycle import HOURS_BY_CYCLE
from melange.workload.workload import Buckets


def schedule_of(
    counts: np.ndarray, types: Iterable[ReplicaType], start_up_s: float = 300.0, time_zone: str = "Europe/Berlin"
) -> Schedule:
    """A schedule with these counts on demand (H, T)."""
    some, hours = tuple(types), len(counts)
    settings = RuleSettings(ahead="last", look_back=1, margin=0.0, target=1.0, stable_windows=1)
    signal = Signal(request_weight=np.ones((1, 1)), reserved_load=0.0)
    rule = ScalingRule(
        replica_type=some[0].name,
        settings=settings,
        signals=(signal,),
        window_s=600.0,
        delay_windows=0.5,
        buckets=Buckets(input_edges=(1000,), output_edges=(500,)),
    )
    run = RunningCost(cost_per_h=1.0, on_demand_per_h=1.0, spot_per_h=0.0, short_fraction=0.0, short_windows_fraction=0)
    none, price = np.zeros(len(some)), np.ones(len(some))
    return Schedule(
        over=next(name for name, length in HOURS_BY_CYCLE.items() if length == hours),
        labels=tuple(map(str, range(hours))),
        replica_types=some,
        reserved=none,
        static=none,
        on_demand=counts,
        spot=0 * counts,
        request_rate=np.ones(hours),
        work_per_h=np.ones(hours),
        hour_cost_per_h=counts.sum(axis=1),
        reserved_per_h=price,
        on_demand_per_h=price,
        spot_per_h=price,
        bound_per_h=1.0,
        commitment=None,
        commitments=(),
        rule=rule,
        running=run,
        training=run,
        unseen=run,
        frontier=(),
        alternatives=(Alternative(name=STATIC, outcome=run),),
        clairvoyant_per_h=None,
        options=ScheduleOptions(start_up_s=start_up_s),
        headroom=0.0,
        window_s=600.0,
        model="meta-llama/Llama-3.1-8B-Instruct",
        time_zone=time_zone,
    )


def two_regions(accelerators: int = 1) -> list[ReplicaType]:
    """The same instance type in two regions."""
    types = [replica_type(f"aws/{region}/g6.xlarge", "L4") for region in ("us-east-1", "eu-west-1")]
    return [replace(one, offer=replace(one.offer, accelerators=accelerators)) for one in types]
