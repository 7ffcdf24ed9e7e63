"""What pictures are made from: a plan, its stages, and the means to make others like it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date

from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.present.figures.efficiency import Winners, comparable_types, request_cost, winners
from melange.present.figures.legend import Legend, legend_of
from melange.present.sweeps import LimitSweep, Point, limits_in_order, sweep_limits, sweep_rates
from melange.profile.profile import Profile
from melange.slo import Slo
from melange.workload.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Study:
    """A plan, what it was made from, and what it takes to make others like it.

    Parameters
    ----------
    plan, workload, profile, options
        The stages.
    estimate_at
        The profile under another SLO; None where capacities were given and hold under one SLO only.
    day
        When it was made; None: not said.
    progress
        Called with a few words when something long begins.
    """

    plan: Plan
    workload: Workload
    profile: Profile
    options: Options
    estimate_at: Callable[[Slo], Profile] | None = None
    day: date | None = None
    progress: Callable[[str], None] = field(default=lambda _: None)
    compared: list[int] = field(init=False)
    found: Winners = field(init=False)
    legend: Legend = field(init=False)

    def __post_init__(self) -> None:
        compared = comparable_types(self.profile, self.plan, self.options)
        found = winners(request_cost(self.profile), compared)
        object.__setattr__(self, "compared", compared)
        object.__setattr__(self, "found", found)
        object.__setattr__(self, "legend", legend_of(self.plan, self.workload, compared, found))

    @property
    def own(self) -> Plan | None:
        """The plan as a point of the sweeps; None where they do not keep to what it does: a budget, a certificate."""
        return self.plan if self.options.budget_per_h is None and self.plan.certificate is None else None

    def sweep_rates(self) -> tuple[Point, ...]:
        """Plans from a fraction of the service's rate to twice it."""
        self.progress("planning for other rates")
        return sweep_rates(self.workload, self.profile, self.options, known=self.own)

    def sweep_limits(self) -> tuple[LimitSweep, ...]:
        """Plans under other limits, one sweep for each limit of the SLO; none where nothing can be estimated."""
        slo = self.profile.slo
        if self.estimate_at is None or slo is None:
            return ()
        self.progress("planning for other limits")
        known = None if self.own is None else Point(at=0.0, plan=self.own, profile=self.profile)
        return tuple(
            sweep_limits(self.workload, slo, metric, self.estimate_at, self.options, known=known)
            for metric in limits_in_order(slo)
        )
