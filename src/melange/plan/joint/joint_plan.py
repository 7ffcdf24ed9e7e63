"""The plan of several services: the plan of each service, and the pools that they share."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from melange.errors import Caution, InputError, SolverError
from melange.files import Json, dump_document, read_as, write_document
from melange.plan.joint.next_unit import Exchange
from melange.plan.joint.shared_pools import Pools
from melange.plan.plan import Plan
from melange.plan.problem import limits_of
from melange.records import items, mapping, number, one_line, record, records

# Excess over a pool or a limit that does not count: sums of whole counts are exact to far below this.
_EPS = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ServicePlan:
    """One service of several.

    Parameters
    ----------
    name
        Name of the service.
    priority
        Services of a higher priority go first if pools are too small for all.
    served_fraction
        Share of its traffic that is planned for, 0-1.
    apart_per_h
        Its cost if it had the whole of each pool to itself [USD/h].
    plan
        Its fleet and routing; None if nothing is left for it.
    """

    name: str
    priority: int
    served_fraction: float
    apart_per_h: float | None
    plan: Plan | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolUse:
    """A pool and its use.

    Parameters
    ----------
    name
        Accelerator, region, region/accelerator, offer or instance type.
    unit
        ``accelerators`` or ``instances``.
    most
        How many there are.
    taken
        How many each service takes, by service name.
    price_per_h
        The most that one more unit would save, as a price in a program that may rent fractions of instances [USD/h];
        0: no service is short of it; None if the pool is empty to begin with.
    next_unit
        The service that would take more, and what changes; None if no service would, or if this was not computed.
    last_unit
        The service that would give some up at the least cost.
    """

    name: str
    unit: str
    most: int
    taken: dict[str, int]
    price_per_h: float | None
    next_unit: Exchange | None = None
    last_unit: Exchange | None = None

    @property
    def left(self) -> int:
        """Units that no service takes."""
        return self.most - sum(self.taken.values())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JointPlan:
    """Plans of several services on shared pools.

    Parameters
    ----------
    services
        The plans, in the order of the file.
    pools
        The shared pools.
    budget_per_h
        Highest cost allowed for all services [USD/h]; None: no limit.
    bound_per_h
        Lower bound: no plans of all services within the pools cost less, under the closed form [USD/h]. For certified
        plans: no fleets that meet the SLO cost less, as far as loads are additive.
    solve_s
        Time that the search took [s].
    cautions
        Warnings about all services.

    Raises
    ------
    SolverError
        More is rented than a pool, a limit or the budget allows: a bug. Every limit is checked again here.
    """

    services: tuple[ServicePlan, ...]
    pools: tuple[PoolUse, ...]
    budget_per_h: float | None
    bound_per_h: float | None
    solve_s: float = 0.0
    cautions: tuple[Caution, ...] = ()

    def __post_init__(self) -> None:
        if faults := broken_pools(self):
            raise SolverError(f"the plans exceed the shared limits: {'; '.join(faults)}", hint="this is a bug")

    @property
    def plans(self) -> dict[str, Plan]:
        """Plans by service name, for services that have one."""
        return {one.name: one.plan for one in self.services if one.plan is not None}

    @property
    def cost_per_h(self) -> float:
        """Cost of all services [USD/h]."""
        return float(sum(plan.cost_per_h for plan in self.plans.values()))

    @property
    def gap(self) -> float:
        """Proven distance to the best possible plans, 0-1; 1 if nothing is proven."""
        cost = self.cost_per_h
        if self.bound_per_h is None or cost <= 0:
            return 1.0
        return max(0.0, 1.0 - self.bound_per_h / cost)

    @property
    def holds(self) -> bool | None:
        """Whether every plan was shown to meet its SLO and all traffic is served; None if nothing was simulated."""
        if any(one.served_fraction < 1 for one in self.services):
            return False
        held = [plan.holds for plan in self.plans.values()]
        return None if None in held else all(held)

    def to_json(self) -> Json:
        """As a JSON object."""
        return {
            "cost_per_h": self.cost_per_h,
            "bound_per_h": self.bound_per_h,
            "gap": self.gap,
            "holds": self.holds,
            "budget_per_h": self.budget_per_h,
            "services": [
                {
                    "name": one.name,
                    "priority": one.priority,
                    "served_fraction": one.served_fraction,
                    "apart_per_h": one.apart_per_h,
                    "plan": None if one.plan is None else one.plan.to_json(),
                }
                for one in self.services
            ],
            "pools": [asdict(one) for one in self.pools],
            "solve_s": self.solve_s,
            "warnings": [caution.to_json() for caution in self.cautions],
        }

    @classmethod
    def from_json(cls, content: Json) -> JointPlan:
        """From the JSON object that :meth:`to_json` makes."""
        services = []
        for place, value in items(content["services"], "services"):
            one = mapping(value, place)
            apart, plan = one["apart_per_h"], one["plan"]
            services.append(
                ServicePlan(
                    name=one_line(one["name"], f"{place}.name"),
                    priority=int(number(one["priority"], f"{place}.priority")),
                    served_fraction=number(one["served_fraction"], f"{place}.served_fraction"),
                    apart_per_h=None if apart is None else number(apart, f"{place}.apart_per_h"),
                    plan=None if plan is None else Plan.from_json(dict(mapping(plan, f"{place}.plan"))),
                )
            )
        pools = []
        for place, value in items(content["pools"], "pools"):
            one = dict(mapping(value, place))
            ends = {key: one.pop(key, None) for key in ("next_unit", "last_unit")}
            parsed = {k: None if v is None else record(Exchange, v, f"{place}.{k}") for k, v in ends.items()}
            pools.append(record(PoolUse, one, place, **parsed))
        budget, bound = content["budget_per_h"], content["bound_per_h"]
        try:
            return cls(
                services=tuple(services),
                pools=tuple(pools),
                budget_per_h=None if budget is None else number(budget, "budget_per_h"),
                bound_per_h=None if bound is None else number(bound, "bound_per_h"),
                solve_s=number(content["solve_s"], "solve_s"),
                cautions=records(Caution, content.get("warnings", ()), "warnings"),
            )
        except SolverError as error:
            raise InputError(f"the file contradicts itself: {error}", hint="plan again") from error

    def dumps(self) -> str:
        """The text of its file."""
        return dump_document("fleet", self.to_json())

    def save(self, path: str | Path) -> Path:
        """Write its file."""
        return write_document(path, "fleet", self.to_json())

    @classmethod
    def read(cls, path: str | Path) -> JointPlan:
        """Read its file."""
        return read_as(path, "fleet", cls.from_json)


def pool_uses(
    pools: Pools,
    plans: dict[str, Plan],
    price: np.ndarray,
    ends: list[tuple[Exchange | None, Exchange | None]] | None = None,
) -> tuple[PoolUse, ...]:
    """What plans take of each pool."""
    taken = {name: pools.draw(plan.replica_types) @ plan.instances for name, plan in plans.items()}
    uses = []
    for j, name in enumerate(pools.names):
        more, less = ends[j] if ends else (None, None)
        most = int(pools.most[j])
        uses.append(
            PoolUse(
                name=name,
                unit="accelerators" if j < len(pools.max_accelerators) else "instances",
                most=most,
                taken={service: int(use[j]) for service, use in taken.items()},
                price_per_h=float(price[j]) if most > 0 else None,
                next_unit=more,
                last_unit=less,
            )
        )
    return tuple(uses)


def broken_pools(plan: JointPlan) -> list[str]:
    """Pools, limits of single services and the budget that the plans' instances exceed, in words."""
    cards = {one.name: one.most for one in plan.pools if one.unit == "accelerators"}
    rented = {one.name: one.most for one in plan.pools if one.unit == "instances"}
    pools = Pools(max_accelerators=cards, max_instances=rented)
    taken, faults, cost = np.zeros(len(pools.names)), [], 0.0
    for name, one in plan.plans.items():
        count = one.instances.astype(float)
        taken += pools.draw(one.replica_types) @ count
        cost += float(sum(n * t.cost_per_h for n, t in zip(count, one.replica_types, strict=True)))
        own = limits_of(one.replica_types, one.options)
        faults += [f"{name}: {limit.name}" for limit in own if limit.taken(count) > limit.most + _EPS]
    faults += [
        f"{name}: {used:g} of {most:g}"
        for name, used, most in zip(pools.names, taken, pools.most, strict=True)
        if used > most + _EPS
    ]
    if plan.budget_per_h is not None and cost > plan.budget_per_h * (1 + _EPS):
        faults.append(f"budget: {cost:.2f} USD/h of {plan.budget_per_h:g}")
    return faults
