"""A schedule: what to reserve, the fleets of all hours, and the rule that follows the traffic.

Arrays have the axes (hour H, replica type T), over the types that are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from melange.errors import Caution, InputError
from melange.files import Json, dump_document, read_as, write_document
from melange.plan.schedule.backtest import RunningCost
from melange.plan.schedule.choose_rule import FrontierPoint
from melange.plan.schedule.contracts import Reserved, SavingsPlan, ScheduleOptions
from melange.plan.schedule.deferred import Deferred
from melange.plan.schedule.rule import ScalingRule
from melange.plan.server import Server
from melange.profile.profile import ReplicaType
from melange.records import check_cost
from melange.units import H_PER_MONTH, H_PER_WEEK
from melange.workload.cycle import HOURS_BY_CYCLE
from melange.workload.frozen_array import frozen_array
from melange.workload.workload import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentOutlook:
    """A commitment and its risk.

    Parameters
    ----------
    name
        Term and upfront payment; empty for none at all.
    reserved
        Instances to reserve, by replica type name.
    cost_per_h
        Cost of the hours' fleets with it [USD/h].
    reserved_per_h
        Cost of the reserved instances, used or not [USD/h].
    committed_per_h
        Cost of the savings plan, used or not [USD/h].
    break_even_fraction
        Share of the time in which a reserved instance must be needed to be worth its price, 0-1.
    upfront_usd
        What is paid at the beginning [USD].
    at_less_traffic_per_h
        The same as ``cost_per_h`` if 30 % of the traffic goes away and the commitment stays [USD/h].
    uncommitted_at_less_per_h
        Cost of the hours in that case if nothing had been reserved [USD/h].
    """

    name: str
    reserved: Mapping[str, int]
    cost_per_h: float
    reserved_per_h: float
    break_even_fraction: float
    upfront_usd: float
    at_less_traffic_per_h: float
    uncommitted_at_less_per_h: float
    committed_per_h: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """Another way to run the service, over the same windows.

    Parameters
    ----------
    name
        The alternative in words.
    outcome
        Its cost and shortage.
    note
        A remark on it.
    """

    name: str
    outcome: RunningCost
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayedStretch:
    """A stretch of time that was simulated request by request.

    Parameters
    ----------
    label
        The hour that it lies in.
    requests
        Number of simulated requests.
    load
        The window's load as a share of its fleet's planned capacity: above 1, requests are short.
    attainment
        Share of these requests that met the SLO, 0-1. Requests that may wait count separately.
    low
        Lower end of the attainment's 95 % interval, 0-1.
    started, drained
        Replicas that joined and left in this time.
    words
        What was simulated.
    deferred_requests
        Requests that may wait which were simulated in the same window.
    deferred_attainment
        Share of these that met the limits of their class, counted from when they were sent, 0-1; None: there were none.
    attainment_alone
        ``attainment`` of the same window without requests that may wait, 0-1; None: there were none.
    """

    label: str
    requests: int
    load: float
    attainment: float
    low: float
    started: int
    drained: int
    words: str
    deferred_requests: int = 0
    deferred_attainment: float | None = None
    attainment_alone: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Schedule:
    """A plan over time.

    Parameters
    ----------
    over
        The cycle that repeats: ``day`` or ``week``.
    labels
        Name of each hour (H).
    replica_types
        The types that are used (T), as rented on demand.
    reserved
        Instances that run all the time (T,).
    on_demand, spot
        Additional instances in each hour (H, T), each hour planned for its own traffic.
    request_rate
        Arrivals per second that each hour is planned for (H,) [1/s].
    work_per_h
        Lowest on-demand cost of that traffic, with fractional instances (H,) [USD/h].
    hour_cost_per_h
        Cost of each hour, including reserved instances (H,) [USD/h].
    reserved_per_h, on_demand_per_h, spot_per_h
        Price of an instance of each type in each market (T,) [USD/h]; nan if it is not offered. Spot includes the cost
        of its replacements.
    bound_per_h
        Lower bound: no schedule of the hours costs less on average [USD/h].
    commitment
        The chosen commitment; None if nothing is reserved.
    savings_plan, committed_per_h
        The chosen savings plan, or None, and its cost, used or not [USD/h].
    commitments
        Outlooks of every commitment on offer, and of no commitment.
    rule
        How the rest follows the traffic; None if the reserved instances are enough.
    running
        The rule run over the whole history: the cost of the service.
    training, unseen
        The same in the first two thirds, on which the rule was chosen, and in the last third.
    frontier
        Other rules, by cost, with their outcomes in the last third.
    alternatives
        Other ways to run the service.
    clairvoyant_per_h
        Cost with perfect knowledge of every window and the same commitment, with whole instances [USD/h]; None if no
        fleet within the limits carries every window.
    static
        Instances of the fleet for the peak (T,); if it has types that the schedule does not use, the note of its
        alternative names them.
    options
        The settings of the schedule.
    headroom
        Share of each replica's capacity kept free, 0-1.
    window_s
        Length of a window of the history [s].
    slo, model, source
        The SLO, the model and the source of the traffic, in words.
    time_zone
        Time zone of the hours, ``workload.time_zone`` of the service; empty if the history has no dates, and in older
        files.
    played
        Windows that were simulated request by request.
    deferred
        The classes of requests that may wait, and when they are sent; None if there are none.
    solve_s
        Time to plan [s].
    servers
        Start options of the servers of each type, for the busiest hour; empty in older files.
    cautions
        Warnings for the reader.
    """

    over: str
    labels: tuple[str, ...]
    replica_types: tuple[ReplicaType, ...]
    reserved: Array
    on_demand: Array
    spot: Array
    request_rate: Array
    work_per_h: Array
    hour_cost_per_h: Array
    reserved_per_h: Array
    on_demand_per_h: Array
    spot_per_h: Array
    bound_per_h: float
    commitment: Reserved | None
    commitments: tuple[CommitmentOutlook, ...]
    rule: ScalingRule | None
    running: RunningCost
    training: RunningCost
    unseen: RunningCost
    frontier: tuple[FrontierPoint, ...]
    alternatives: tuple[Alternative, ...]
    clairvoyant_per_h: float | None
    static: Array
    options: ScheduleOptions
    headroom: float
    window_s: float
    slo: str = ""
    model: str = ""
    source: str = ""
    time_zone: str = ""
    savings_plan: SavingsPlan | None = None
    committed_per_h: float = 0.0
    played: tuple[PlayedStretch, ...] = ()
    deferred: Deferred | None = None
    solve_s: float = 0.0
    servers: tuple[Server, ...] = ()
    cautions: tuple[Caution, ...] = field(default=())

    def __post_init__(self) -> None:
        hours, types = len(self.labels), len(self.replica_types)
        if self.deferred is not None and any(len(one.sending_rate) != hours for one in self.deferred.classes):
            raise InputError(f"schedule.deferred: rates must be those of the {hours} hours")
        if HOURS_BY_CYCLE.get(self.over) != hours:
            raise InputError(f"schedule: {hours} hours are not a {self.over}")
        check_cost(self.clairvoyant_per_h, "schedule.clairvoyant_per_h")
        if self.servers and [one.replica_type for one in self.servers] != [one.name for one in self.replica_types]:
            raise InputError("schedule.servers: must be those of the replica types, in their order")
        shapes = {"reserved": (types,), "static": (types,), "on_demand": (hours, types), "spot": (hours, types)}
        shapes |= dict.fromkeys(("reserved_per_h", "on_demand_per_h", "spot_per_h"), (types,))
        shapes |= {"request_rate": (hours,), "work_per_h": (hours,), "hour_cost_per_h": (hours,)}
        for name, shape in shapes.items():
            object.__setattr__(self, name, frozen_array(getattr(self, name), f"schedule.{name}", shape))
        for name in ("reserved", "on_demand", "spot", "static"):
            counts = getattr(self, name)
            if not ((counts >= 0) & (counts == np.round(counts))).all():
                raise InputError(f"schedule.{name} must be whole numbers >= 0")

    @property
    def cost_per_week(self) -> float:
        """Cost of the service in a week, run by the rule over its history [USD]."""
        return self.running.cost_per_h * H_PER_WEEK

    @property
    def cost_per_month(self) -> float:
        """The same in a month of 730 hours [USD]."""
        return self.running.cost_per_h * H_PER_MONTH

    @property
    def planned_per_h(self) -> float:
        """Average cost of the hours' own fleets, which are planned with knowledge of each hour [USD/h]."""
        return float(self.hour_cost_per_h.mean())

    @property
    def reserved_cost_per_h(self) -> float:
        """Cost of the reserved instances [USD/h]."""
        return float(self.reserved @ np.where(self.reserved > 0, self.reserved_per_h, 0.0))

    @property
    def allowance_per_h(self) -> float:
        """On-demand use that the savings plan pays for in every hour, at on-demand prices [USD/h]."""
        return 0.0 if self.savings_plan is None else self.committed_per_h / (1 - self.savings_plan.discount)

    @property
    def commitment_name(self) -> str:
        """The commitments in words; empty if there are none."""
        return " and ".join(one.name for one in (self.commitment, self.savings_plan) if one is not None)

    @property
    def gap(self) -> float:
        """Proven distance of the hours' fleets to the best possible ones, 0-1."""
        return max(0.0, 1.0 - self.bound_per_h / self.planned_per_h) if self.planned_per_h > 0 else 0.0

    @property
    def static_per_h(self) -> float:
        """Cost of running the fleet for the peak on demand all the time [USD/h]."""
        return next((one.outcome.cost_per_h for one in self.alternatives if one.name == STATIC), float("nan"))

    @property
    def savings(self) -> float:
        """Share of the cost that is saved compared with the fleet for the peak, 0-1."""
        return 1.0 - self.running.cost_per_h / self.static_per_h

    def instances_at(self, hour: int) -> dict[str, dict[str, int]]:
        """Instances in an hour by market and replica type name; only those that run are listed."""
        return {
            market: {one.name: int(n) for one, n in zip(self.replica_types, counts, strict=True) if n}
            for market, counts in (
                ("reserved", self.reserved),
                ("on-demand", self.on_demand[hour]),
                ("spot", self.spot[hour]),
            )
        }

    def to_json(self) -> Json:
        """As a JSON object."""
        names = [one.name for one in self.replica_types]
        content: Json = {
            "cost_per_week": self.cost_per_week,
            "cost_per_month": self.cost_per_month,
            "savings": self.savings,
            "gap": self.gap,
            "planned_per_h": self.planned_per_h,
            "bound_per_h": self.bound_per_h,
            "clairvoyant_per_h": self.clairvoyant_per_h,
            "over": self.over,
            "labels": list(self.labels),
            "replica_types": [one.to_json() for one in self.replica_types],
            "reserved": dict(zip(names, self.reserved.astype(int).tolist(), strict=True)),
            "static": dict(zip(names, self.static.astype(int).tolist(), strict=True)),
            "prices": {
                name: {
                    market: None if np.isnan(price) else float(price)
                    for market, price in (
                        ("reserved", self.reserved_per_h[t]),
                        ("on-demand", self.on_demand_per_h[t]),
                        ("spot", self.spot_per_h[t]),
                    )
                }
                for t, name in enumerate(names)
            },
            "hours": {
                "request_rate": self.request_rate.tolist(),
                "work_per_h": self.work_per_h.tolist(),
                "cost_per_h": self.hour_cost_per_h.tolist(),
                "on_demand": self.on_demand.astype(int).tolist(),
                "spot": self.spot.astype(int).tolist(),
            },
            "commitment": None if self.commitment is None else asdict(self.commitment),
            "savings_plan": None if self.savings_plan is None else asdict(self.savings_plan),
            "commitments": [asdict(one) | {"reserved": dict(one.reserved)} for one in self.commitments],
            "rule": None if self.rule is None else self.rule.to_json(),
            "frontier": [{"settings": asdict(one.settings), "outcome": asdict(one.outcome)} for one in self.frontier],
            "alternatives": [asdict(one) for one in self.alternatives],
            "options": asdict(self.options)
            | {name: [asdict(one) for one in getattr(self.options, name)] for name in _LISTED},
            "warnings": [caution.to_json() for caution in self.cautions],
            "played": [asdict(one) for one in self.played],
            "deferred": None if self.deferred is None else self.deferred.to_json(),
            "servers": [one.to_json() for one in self.servers],
        }
        content |= {name: asdict(getattr(self, name)) for name in ("running", "training", "unseen")}
        return content | {name: getattr(self, name) for name in PLAIN}

    @classmethod
    def from_json(cls, content: Json) -> Schedule:
        """From the JSON object that :meth:`to_json` makes."""
        from melange.plan.schedule.schedule_file import schedule_from_json

        return schedule_from_json(content)

    def dumps(self) -> str:
        """The text of a ``schedule.json``."""
        return dump_document("schedule", self.to_json())

    def save(self, path: str | Path) -> Path:
        """Write a ``schedule.json``."""
        return write_document(path, "schedule", self.to_json())

    @classmethod
    def read(cls, path: str | Path) -> Schedule:
        """Read a ``schedule.json``."""
        return read_as(path, "schedule", cls.from_json)


# Names of the alternatives that other code looks up.
STATIC, AT_ONCE = "a fleet for the peak, on demand", "all requests served as they arrive"
_LISTED = ("reserved", "savings_plans", "deferrals")
PLAIN = ("headroom", "window_s", "slo", "model", "source", "time_zone", "solve_s", "committed_per_h")
