"""Read a schedule from its file: check the type of every value, and that redundant values agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from melange.errors import Caution, InputError
from melange.files import Json
from melange.plan.schedule.backtest import RunningCost
from melange.plan.schedule.choose_rule import FrontierPoint
from melange.plan.schedule.contracts import Deferral, Reserved, SavingsPlan, ScheduleOptions, Spot
from melange.plan.schedule.deferred import Deferred
from melange.plan.schedule.rule import RuleSettings, ScalingRule
from melange.plan.schedule.schedule import Alternative, CommitmentOutlook, PlayedStretch, Schedule
from melange.plan.server import Server
from melange.profile.profile import ReplicaType
from melange.records import items, mapping, number, one_line, record, records, text, value_of
from melange.workload.workload import Array

# Tolerance between redundant values: sums of floats in a different order.
_ROUNDING = 1e-6


def schedule_from_json(content: Json) -> Schedule:
    """A schedule from the JSON object that its ``to_json`` makes.

    Raises
    ------
    InputError
        A value has the wrong type, or costs contradict the instances at their prices.
    """
    types = records(ReplicaType, content["replica_types"], "replica_types")
    names = [one.name for one in types]
    prices, hours = mapping(content["prices"], "prices"), mapping(content["hours"], "hours")
    frontier = []
    for place, value in items(content["frontier"], "frontier"):
        one = mapping(value, place)
        frontier.append(
            FrontierPoint(
                settings=record(RuleSettings, one["settings"], f"{place}.settings"),
                outcome=record(RunningCost, one["outcome"], f"{place}.outcome"),
            )
        )
    rule, commitment = content["rule"], content["commitment"]
    found = Schedule(
        over=text(content["over"], "over"),
        labels=value_of(tuple[str, ...], content["labels"], "labels"),
        replica_types=types,
        reserved=_by_name(content["reserved"], "reserved", names),
        static=_by_name(content["static"], "static", names),
        on_demand=hours["on_demand"],
        spot=hours["spot"],
        request_rate=hours["request_rate"],
        work_per_h=hours["work_per_h"],
        hour_cost_per_h=hours["cost_per_h"],
        reserved_per_h=_prices(prices, "reserved", names),
        on_demand_per_h=_prices(prices, "on-demand", names),
        spot_per_h=_prices(prices, "spot", names),
        bound_per_h=number(content["bound_per_h"], "bound_per_h"),
        clairvoyant_per_h=None
        if content["clairvoyant_per_h"] is None
        else number(content["clairvoyant_per_h"], "clairvoyant_per_h"),
        commitment=None if commitment is None else record(Reserved, commitment, "commitment"),
        savings_plan=None
        if content.get("savings_plan") is None
        else record(SavingsPlan, content["savings_plan"], "savings_plan"),
        committed_per_h=number(content.get("committed_per_h", 0.0), "committed_per_h"),
        commitments=records(CommitmentOutlook, content["commitments"], "commitments"),
        rule=None if rule is None else ScalingRule.from_json(dict(mapping(rule, "rule"))),
        running=record(RunningCost, content["running"], "running"),
        training=record(RunningCost, content["training"], "training"),
        unseen=record(RunningCost, content["unseen"], "unseen"),
        frontier=tuple(frontier),
        alternatives=records(Alternative, content["alternatives"], "alternatives"),
        options=_options_from_json(content["options"]),
        deferred=None if content.get("deferred") is None else Deferred.from_json(content["deferred"]),
        played=records(PlayedStretch, content.get("played", ()), "played"),
        servers=records(Server, content.get("servers", ()), "servers"),
        cautions=records(Caution, content.get("warnings", ()), "warnings"),
        headroom=number(content["headroom"], "headroom"),
        window_s=number(content["window_s"], "window_s"),
        solve_s=number(content["solve_s"], "solve_s"),
        slo=text(content["slo"], "slo"),
        model=one_line(content["model"], "model"),
        source=text(content["source"], "source"),
        time_zone=one_line(content.get("time_zone", ""), "time_zone"),
    )
    _check(found)
    return found


def _options_from_json(content: Any) -> ScheduleOptions:
    given = mapping(content, "options")
    spot = given.get("spot")
    return record(
        ScheduleOptions,
        given,
        "options",
        reserved=records(Reserved, given.get("reserved", ()), "options.reserved"),
        savings_plans=records(SavingsPlan, given.get("savings_plans", ()), "options.savings_plans"),
        spot=None if spot is None else record(Spot, spot, "options.spot"),
        deferrals=records(Deferral, given.get("deferrals", ()), "options.deferrals"),
    )


def _by_name(content: Any, place: str, names: list[str]) -> Array:
    values = mapping(content, place)
    if set(values) != set(names):
        raise InputError(f"{place}: must have one count for each of the replica types")
    return np.array([number(values[name], f"{place}.{name}") for name in names])


def _prices(content: Mapping[str, Any], market: str, names: list[str]) -> Array:
    prices = []
    for name in names:
        price = mapping(content.get(name), f"prices.{name}").get(market)
        prices.append(np.nan if price is None else number(price, f"prices.{name}.{market}"))
    return np.array(prices)


def _check(schedule: Schedule) -> None:
    """Compare the cost of each hour in the file with the cost of its instances at their prices."""
    fixed = schedule.reserved_cost_per_h + schedule.committed_per_h
    paid = schedule.on_demand * schedule.on_demand_per_h
    plan = schedule.savings_plan
    covered = np.array([plan is not None and plan.covers(one.offer) for one in schedule.replica_types])
    each = paid.sum(axis=1) - np.minimum(paid @ covered.astype(float), schedule.allowance_per_h)
    each = each + schedule.spot @ np.where(schedule.spot.any(axis=0), schedule.spot_per_h, 0.0)
    off = np.flatnonzero(~(np.abs(each + fixed - schedule.hour_cost_per_h) <= _ROUNDING * np.maximum(1.0, each)))
    if len(off):
        hour = int(off[0])
        raise InputError(
            f"hours.cost_per_h[{hour}]: the file says {schedule.hour_cost_per_h[hour]:g}, but the instances at their "
            f"prices cost {each[hour] + fixed:g}",
            hint="the file is damaged: plan again",
        )
