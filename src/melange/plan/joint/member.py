"""One of several services in numbers: its own problem, and what its instances draw from the pools."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from melange.errors import InfeasibleError, MelangeError
from melange.plan.cheapest import cheapest
from melange.plan.exact.dominated import needed_types
from melange.plan.joint.shared_pools import Pools
from melange.plan.options import Options
from melange.plan.problem import Positions, Problem, build
from melange.plan.question import Question
from melange.plan.servable import Scope, scope_of
from melange.workload.workload import Array, Mask


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Column:
    """One fleet of a service, as a choice in the program over all services.

    Parameters
    ----------
    instances
        Instances of each type (R,).
    cost
        Its cost [USD/h].
    taken
        Its use of each pool (J,).
    """

    instances: Positions
    cost: float
    taken: Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Member:
    """A service among others.

    Parameters
    ----------
    name
        Name of the service.
    question
        Its question, limited to the whole of each pool.
    scope
        Types and sizes of the plan.
    problem
        The problem in numbers, with R types.
    draw
        Use of each pool by one instance of each type (J, R).
    columns
        Known fleets, by their counts.
    """

    name: str
    question: Question
    scope: Scope
    problem: Problem
    draw: Array
    columns: dict[bytes, Column] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, question: Question, pools: Pools) -> Member:
        """Build the member from its question.

        Raises
        ------
        InfeasibleError
            Some sizes have no type that serves them, even with the whole of each pool for this service alone.
        """
        bounded = pools.bounded(question).at_confidence()
        scope = scope_of(bounded)
        problem = build(bounded, scope.allowed, scope.served)
        items = [bounded.profile.replica_types[r] for r in problem.types]
        return cls(name=name, question=bounded, scope=scope, problem=problem, draw=pools.draw(items))

    def column(self, instances: Positions) -> Column:
        """A fleet (R,) as a column, stored for later."""
        found = Column(
            instances=instances, cost=float(self.problem.cost @ instances), taken=np.asarray(self.draw @ instances)
        )
        return self.columns.setdefault(instances.tobytes(), found)

    def floor(self, price: Array) -> tuple[float, Array, float]:
        """Relaxation with fractional instances at pool prices (J,): cost with prices, use (J,), cost without prices.

        Each size uses the type with the lowest cost: sum_b min_r (c_r + price draw_r) l_rb / C_r. No fleet costs less.
        """
        problem = self.problem
        unit = (problem.cost + price @ self.draw) / problem.capacity
        priced = unit[:, None] * problem.load
        best = priced.argmin(axis=0)
        busy = np.bincount(best, problem.load[best, np.arange(len(best))], minlength=len(unit))
        instances = busy / problem.capacity
        return float(priced.min(axis=0).sum()), np.asarray(self.draw @ instances), float(problem.cost @ instances)

    def cheapest(self, price: Array, options: Options, deadline: float) -> tuple[Column, float]:
        """The cheapest fleet at prices of the pools (J,), and a lower bound on its cost including those prices.

        Raises
        ------
        InfeasibleError
            There is no fleet.
        """
        return self._solved(self.problem.with_changes(cost=self.problem.cost + price @ self.draw), options, deadline)

    def within(self, most: Array, options: Options, deadline: float) -> Column | None:
        """The cheapest fleet that takes at most this much of each pool (J,); None if none was found."""
        limits = {one.name: one for one in self.problem.limits}
        from melange.plan.problem import Limit

        for j in np.flatnonzero(self.draw.any(axis=1)).tolist():
            where = np.flatnonzero(self.draw[j])
            limits[f"pool {j}"] = Limit(
                name=f"pool {j}", members=where, weight=self.draw[j, where], most=float(most[j])
            )
        room = self.problem.most.copy()
        for j in range(len(most)):
            where = np.flatnonzero(self.draw[j])
            each = np.floor(np.maximum(most[j], 0.0) / self.draw[j, where] + 1e-9).astype(np.int64)
            room[where] = np.minimum(room[where], each)
        if (self.problem.least > room).all():
            return None
        tight = self.problem.with_changes(limits=tuple(limits.values()), most=room)
        usable: Mask = (room > 0) & (self.problem.least <= np.maximum(room, 1))
        if not np.isfinite(tight.load[usable]).any(axis=0).all():
            return None
        try:
            return self._solved(tight, options, deadline, usable)[0]
        except MelangeError:
            return None

    def least_of(self, pool: int, options: Options, deadline: float) -> float:
        """Lower bound on the use of one pool by any of its fleets."""
        problem = self.problem
        small = 1e-4 * problem.cost / problem.cost.max()
        column, bound = self._solved(problem.with_changes(cost=self.draw[pool] + small), options, deadline)
        # The small price on all instances only breaks ties, and is subtracted again.
        proven = np.ceil(bound - float(small @ column.instances) - 1e-6)
        return float(min(column.taken[pool], max(proven, 0.0)))

    def _solved(
        self, problem: Problem, options: Options, deadline: float, kept: Mask | None = None
    ) -> tuple[Column, float]:
        inside = np.ones(len(problem.cost), bool) if kept is None else np.asarray(kept, bool)
        inside = inside.copy()
        inside[inside] = needed_types(problem.only(inside))
        reduced = problem.only(inside)
        for item in problem.requirements:
            if not item.member[inside].any():
                raise InfeasibleError(f"{self.name}: {item.name} cannot be used")
        fleet = cheapest(reduced, options, say=lambda _: None, deadline=deadline)
        instances = np.zeros(len(problem.cost), np.int64)
        instances[inside] = fleet.instances
        return self.column(instances), float(fleet.bound)
