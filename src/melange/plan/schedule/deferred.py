"""Requests that may wait: when a schedule sends them, and what that saves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from melange.errors import InputError
from melange.files import Json
from melange.plan.schedule.backtest import History, RunningCost
from melange.plan.schedule.hours_that_share import Sharing
from melange.plan.schedule.sending import sent_of
from melange.plan.schedule.traffic import CycleTraffic
from melange.records import items, mapping, number, one_line, record
from melange.units import S_PER_H
from melange.workload.classed_demand import only_classes
from melange.workload.cycle import hours_of
from melange.workload.demand import Demand, Indices
from melange.workload.frozen_array import frozen_array
from melange.workload.workload import Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeferredClass:
    """A class of requests that may wait, hour by hour.

    Parameters
    ----------
    name
        Name of the class.
    deadline_s
        Time from the arrival of a request until it must be done [s].
    arrival_rate, sending_rate
        Requests per second that arrive, and that are sent to the fleet, in each hour (H,) [1/s].
    late_fraction
        Share of its requests that were done after their deadline, with the rule over the whole history, 0-1.
    """

    name: str
    deadline_s: float
    arrival_rate: Array
    sending_rate: Array
    late_fraction: float = 0.0

    def __post_init__(self) -> None:
        for name in ("arrival_rate", "sending_rate"):
            rate = np.asarray(getattr(self, name), float)
            object.__setattr__(self, name, frozen_array(rate, f"deferred.{self.name}.{name}", rate.shape))
        if self.arrival_rate.shape != self.sending_rate.shape or self.arrival_rate.ndim != 1:
            raise InputError(f"deferred.{self.name}: arrival_rate and sending_rate must have a value for each hour")
        if not (self.sending_rate >= 0).all():
            raise InputError(f"deferred.{self.name}.sending_rate must be >= 0")

    @property
    def waiting(self) -> Array:
        """Requests that wait at the end of each hour (H,)."""
        left = np.cumsum(self.arrival_rate - self.sending_rate) * S_PER_H
        return np.asarray(left - left.min())

    @property
    def mean_wait_s(self) -> float:
        """How long its requests wait on average before they are sent (Little's law) [s]."""
        return float(self.waiting.mean()) / max(float(self.arrival_rate.mean()), 1e-300)

    @classmethod
    def from_json(cls, content: Any, place: str) -> DeferredClass:
        """From the mapping that ``asdict`` makes."""
        given = mapping(content, place)
        rates = {
            name: np.array([number(v, at) for at, v in items(given[name], f"{place}.{name}")])
            for name in ("arrival_rate", "sending_rate")
        }
        return cls(
            name=one_line(given["name"], f"{place}.name"),
            deadline_s=number(given["deadline_s"], f"{place}.deadline_s"),
            late_fraction=number(given["late_fraction"], f"{place}.late_fraction"),
            **rates,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferred:
    """The classes of requests that may wait, and what waiting is worth.

    Parameters
    ----------
    classes
        The classes with their sending rates, the shortest deadline first.
    without_per_h
        Average cost of the hours' own fleets without these classes [USD/h].
    at_once_per_h
        Their average cost if all requests are served as they arrive [USD/h]; None if no fleet within the limits can.
    at_once
        The running cost in that case, with a separate rule over the whole history.
    """

    classes: tuple[DeferredClass, ...]
    without_per_h: float
    at_once_per_h: float | None = None
    at_once: RunningCost | None = None

    def to_json(self) -> Json:
        """As a JSON object."""
        return asdict(self) | {
            "classes": [
                asdict(one) | {"arrival_rate": one.arrival_rate.tolist(), "sending_rate": one.sending_rate.tolist()}
                for one in self.classes
            ]
        }

    @classmethod
    def from_json(cls, content: Any) -> Deferred:
        """From the JSON object that :meth:`to_json` makes."""
        given = mapping(content, "deferred")
        at_once = given.get("at_once")
        return record(
            cls,
            given,
            "deferred",
            classes=tuple(DeferredClass.from_json(one, at) for at, one in items(given["classes"], "deferred.classes")),
            at_once=None if at_once is None else record(RunningCost, at_once, "deferred.at_once"),
        )


def deferred_of(sharing: Sharing, traffic: CycleTraffic, late: Sequence[float] = ()) -> Deferred | None:
    """A schedule's results for the classes that may wait; None if there are none."""
    if not traffic.deferred:
        return None
    classes = tuple(
        DeferredClass(
            name=one.name,
            deadline_s=one.deadline_s,
            arrival_rate=rates[:, sharing.hours.everything.cells].sum(axis=1),
            sending_rate=sent.sum(axis=1),
        )
        for (one, rates), sent in zip(traffic.deferred, sharing.sent, strict=True)
    )
    if late:
        classes = tuple(replace(one, late_fraction=part) for one, part in zip(classes, late, strict=True))
    arriving = sharing.as_it_arrives
    return Deferred(
        classes=classes,
        without_per_h=sharing.without_per_h,
        at_once_per_h=None if arriving is None else arriving.reservation.cost_per_h,
    )


def history_as_sent(deferred: Deferred | None, demand: Demand, over: str, cells: Indices | None = None) -> History:
    """The windows of a demand; requests that may wait are in the windows in which the schedule sends them.

    ``cells`` are the sizes that are served, in the flattened grid; None: all.
    """

    def windows(part: Demand) -> History:
        rates = part.rates()
        return History.of(rates if cells is None else rates[:, cells], demand.window_s)

    if deferred is None:
        return windows(demand)
    names = {one.name for one in deferred.classes}
    own = windows(only_classes(demand, set(demand.buckets.classes) - names))
    hour = hours_of(demand, over)
    sent = tuple(
        sent_of(
            windows(only_classes(demand, {one.name})).rates,
            hour,
            one.arrival_rate,
            one.sending_rate,
            window_s=demand.window_s,
            deadline_s=one.deadline_s,
        )
        for one in deferred.classes
    )
    rates = own.rates + sum((one.rates for one in sent), np.zeros(1))
    return replace(own, rates=rates, own=own.rates, sent=sent)
