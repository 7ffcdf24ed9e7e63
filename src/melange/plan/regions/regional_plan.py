"""The plan over regions: each region's plan, and the flow of requests from origins to regions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from melange.errors import Caution, InputError
from melange.files import Json, dump_document, read_as, write_document
from melange.plan.plan import Plan
from melange.records import mapping, number, records

# Tolerance between redundant values.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Requests of one origin that one region serves.

    Parameters
    ----------
    origin, region
        Where the requests come from, and where they go.
    flow_fraction
        Share of the origin's requests, 0-1.
    request_rate
        Rate of these requests [1/s].
    round_trip_s
        Round trip between origin and region [s].
    egress_per_h
        Cost of the data that leaves the region [USD/h].
    """

    origin: str
    region: str
    flow_fraction: float
    request_rate: float
    round_trip_s: float
    egress_per_h: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RegionalPlan:
    """Fleets of several regions for traffic of several origins.

    Parameters
    ----------
    plans
        Plan by region, for regions that serve anything: its fleet serves all requests that origins send there, within
        the SLO minus the longest round trip among them.
    flows
        Which region serves which origin's requests.
    bound_per_h
        No fleets of all regions cost less, egress included, under the closed form [USD/h].
    solve_s
        Time that the search took [s].
    cautions
        Warnings about all of them.

    Raises
    ------
    InputError
        Flows that do not add up to the plans' traffic.
    """

    plans: Mapping[str, Plan]
    flows: tuple[Flow, ...]
    bound_per_h: float
    solve_s: float = 0.0
    cautions: tuple[Caution, ...] = ()

    def __post_init__(self) -> None:
        for region, plan in self.plans.items():
            total = sum(one.request_rate for one in self.flows if one.region == region)
            if abs(total - plan.workload.total_rate) > _ROUNDING * max(1.0, total):
                raise InputError(
                    f"flows: {total:.6g} requests/s go to {region}, but its plan is for {plan.workload.total_rate:.6g}"
                )

    @property
    def egress_per_h(self) -> float:
        """Cost of the data that leaves all regions [USD/h]."""
        return float(sum(one.egress_per_h for one in self.flows))

    @property
    def cost_per_h(self) -> float:
        """Cost of all regions, egress included [USD/h]."""
        return float(sum(plan.cost_per_h for plan in self.plans.values())) + self.egress_per_h

    @property
    def holds(self) -> bool | None:
        """Whether every region's plan was shown to meet its SLO; None if nothing was simulated."""
        held = [plan.holds for plan in self.plans.values()]
        return None if None in held else all(held)

    def to_json(self) -> Json:
        """As a JSON object."""
        return {
            "cost_per_h": self.cost_per_h,
            "egress_per_h": self.egress_per_h,
            "bound_per_h": self.bound_per_h,
            "holds": self.holds,
            "flows": [asdict(one) for one in self.flows],
            "plans": {region: plan.to_json() for region, plan in self.plans.items()},
            "solve_s": self.solve_s,
            "warnings": [caution.to_json() for caution in self.cautions],
        }

    @classmethod
    def from_json(cls, content: Json) -> RegionalPlan:
        """From the JSON object that :meth:`to_json` makes."""
        plans = mapping(content["plans"], "plans")
        return cls(
            plans={region: Plan.from_json(dict(mapping(plan, f"plans.{region}"))) for region, plan in plans.items()},
            flows=records(Flow, content["flows"], "flows"),
            bound_per_h=number(content["bound_per_h"], "bound_per_h"),
            solve_s=number(content["solve_s"], "solve_s"),
            cautions=records(Caution, content.get("warnings", ()), "warnings"),
        )

    def dumps(self) -> str:
        """The text of its file."""
        return dump_document("regions", self.to_json())

    def save(self, path: str | Path) -> Path:
        """Write its file."""
        return write_document(path, "regions", self.to_json())

    @classmethod
    def read(cls, path: str | Path) -> RegionalPlan:
        """Read its file."""
        return read_as(path, "regions", cls.from_json)
