"""The traffic of a cycle: all of it, and separately the requests that may wait."""

from __future__ import annotations

from dataclasses import dataclass

from melange.plan.schedule.contracts import Deferral, ScheduleOptions
from melange.units import S_PER_H
from melange.workload.classed_demand import only_classes
from melange.workload.cycle import Cycle, fold
from melange.workload.demand import Demand
from melange.workload.workload import Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CycleTraffic:
    """The traffic of a cycle.

    Parameters
    ----------
    cycle
        All traffic, as it arrives.
    own
        Rates by hour and size without the requests that may wait (H, I x O) [1/s].
    deferred
        Mean rates of each class that may wait (H, I x O) [1/s], the shortest wait first. The mean is enough, because
        within an hour these requests can wait for capacity.
    change_h
        Time for which a new instance is paid without being of use [h].
    """

    cycle: Cycle
    own: Array
    deferred: tuple[tuple[Deferral, Array], ...] = ()
    change_h: float = 0.0


def traffic_of(demand: Demand, over: str, statistic: str, settings: ScheduleOptions) -> CycleTraffic:
    """The traffic of a demand, with the classes that may wait separate."""
    cycle = fold(demand, over, statistic=statistic)
    deferrals = settings.deferrals
    if not deferrals:
        return CycleTraffic(cycle=cycle, own=cycle.request_rate)
    waits = {one.name for one in deferrals}
    own = fold(only_classes(demand, set(demand.buckets.classes) - waits), over, statistic=statistic)
    ordered = sorted(deferrals, key=lambda one: one.deadline_s)
    deferred = tuple(
        (one, fold(only_classes(demand, {one.name}), over, statistic="mean").request_rate) for one in ordered
    )
    change_s = settings.start_up_s + settings.drain_s + demand.window_s  # a scaler sees a change a window late
    return CycleTraffic(cycle=cycle, own=own.request_rate, deferred=deferred, change_h=change_s / S_PER_H)
