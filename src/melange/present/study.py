"""The input of pictures: an exploration, with the types and colors that its pictures share."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date

from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.sweeps import Exploration
from melange.present.figures.efficiency import Winners, comparable_types, request_cost, winners
from melange.present.figures.legend import Legend, legend_of
from melange.profile.profile import Profile
from melange.workload.workload import Workload


def compared_types(plan: Plan) -> list[int]:
    """Types that are compared by request size, by index; the intervals of other types are not shown."""
    # A second pool performs like its type, and plans at other limits and rates have no second pools.
    return [r for r in comparable_types(plan) if not plan.replica_types[r].pool]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Study:
    """A plan and its curves, as shown on pages.

    Parameters
    ----------
    exploration
        The plan, and plans at other rates and limits.
    day
        Date of the plan; None if unknown.
    compared
        Indexes in ``replica_types`` of the types that are compared by request size.
    found
        The cheapest of these types for each size.
    legend
        Letters and colors of the types.
    """

    exploration: Exploration
    day: date | None = None
    compared: list[int] = field(init=False)
    found: Winners = field(init=False)
    legend: Legend = field(init=False)

    def __post_init__(self) -> None:
        compared = compared_types(self.plan)
        found = winners(request_cost(self.profile), compared)
        object.__setattr__(self, "compared", compared)
        object.__setattr__(self, "found", found)
        object.__setattr__(self, "legend", legend_of(self.plan, self.workload, compared, found))

    @property
    def plan(self) -> Plan:
        """The plan that is shown."""
        return self.exploration.plan

    @property
    def workload(self) -> Workload:
        """The workload of the plan."""
        return self.plan.question.workload

    @property
    def profile(self) -> Profile:
        """The profile of the plan."""
        return self.plan.question.profile

    @property
    def options(self) -> Options:
        """The plan's options."""
        return self.plan.question.options
