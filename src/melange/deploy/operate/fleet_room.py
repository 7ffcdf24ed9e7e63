"""How many instances the limits of a question leave to add to a fleet: stock, accelerators, types, budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from melange.plan.problem import ROUNDING, allowed_types, build

if TYPE_CHECKING:
    from melange.plan.question import Question


class Room:
    """The limits of a question, for instances that are added beyond what the traffic needs.

    Parameters
    ----------
    question
        The plan's question, with all types that may be rented.
    """

    def __init__(self, question: Question) -> None:
        every = np.ones(question.workload.request_rate.size, bool)
        self._problem = build(question, allowed_types(question), every)
        self._place = {name: r for r, name in enumerate(self._problem.names)}

    def of(self, fleet: Mapping[str, int], name: str, wanted: int) -> int:
        """Instances of a type that can be added to a fleet: up to ``wanted``, or the least that the type may have."""
        problem, r = self._problem, self._place.get(name)
        if r is None or wanted <= 0 or not np.isfinite(problem.load[r]).any():
            return 0
        count = np.array([fleet.get(one, 0) for one in problem.names], np.int64)
        least = 1
        if not count[r]:
            if problem.max_types is not None and np.count_nonzero(count) >= problem.max_types:
                return 0
            least = max(int(problem.least[r]), int(np.ceil(problem.spare[r] / problem.replicas[r])))
        most = float(max(wanted, least))
        for limit in problem.limits:
            for weight in limit.weight[limit.members == r]:
                most = min(most, (limit.most - float(limit.taken(count))) / weight)
        if problem.budget_per_h is not None:
            most = min(most, (problem.budget_per_h - float(problem.cost @ count)) / problem.cost[r])
        added = int(np.floor(most + ROUNDING))
        return added if added >= least else 0

    def within(self, wanted: Mapping[str, int]) -> dict[str, int]:
        """As much of a fleet as the limits allow, type after type."""
        fleet: dict[str, int] = {}
        for name, count in wanted.items():
            fleet[name] = min(count, self.of(fleet, name, count))
        return fleet
