"""Types that no cheapest fleet needs: another type can do everything that they do, at no higher cost."""

from __future__ import annotations

import numpy as np

from melange.plan.problem import ROUNDING, Positions, Problem
from melange.workload.workload import Array, Mask


def needed_types(
    problem: Problem, prefer: Positions | None = None, margin: Array | None = None, *, ceiling: float = np.inf
) -> Mask:
    """Which types remain once the dominated ones are set aside (R,).

    Type a dominates type b if an instance of a serves every bucket at least as fast, costs no more, holds as many
    replicas, draws no more on any limit and satisfies every requirement that b satisfies: each b of a fleet can be
    replaced by an a. Regions and tiers of one machine differ only in price, so only the cheapest remains.

    With spare replicas in total (K), a fleet of several equal types loses less: a loss takes replicas of one type. If
    the fleet has K replicas of a or of b, they may still be merged: what is left of a + b after the loss is at least
    what is left of the fleet after the same loss of that type alone. So b is useful only next to fewer than K replicas
    of each type that dominates it, and it goes if one instance of each would cost more than the ceiling.

    Parameters
    ----------
    problem
        The problem, with R types.
    prefer
        Types to keep among equals (R,): those of the current plan.
    margin
        How much faster than a type another one must be to dominate it (R, R); None: it must only be no slower. If the
        true loads differ from those of the problem, the margin keeps types that are nearly as good.
    ceiling
        Cost of a known fleet [USD/h]: more expensive ones are not needed. It matters with spare replicas in total.
    """
    types = len(problem.cost)
    speed = problem.replicas[:, None] / problem.load  # buckets carried by an instance, in buckets
    favored = np.zeros(types) if prefer is None else -np.asarray(prefer, float)
    order = np.lexsort((np.arange(types), favored, -np.nan_to_num(speed).sum(axis=1), problem.cost))
    draws = _Draws(problem)
    kept, count = np.zeros(types, np.int64), 0
    own = problem.cost * problem.least
    together = problem.replicas * problem.least >= problem.spare_total  # dominate however many there are of them
    for r in order:
        rivals = kept[:count]
        factor = 1.0 if margin is None else margin[rivals, r][:, None]
        better = rivals[_dominates(problem, draws, speed, rivals, int(r), factor)] if count else rivals
        if not together[better].any() and own[better].sum() + own[r] <= ceiling * (1 + ROUNDING):
            kept[count] = r
            count += 1
    mask = np.zeros(types, bool)
    mask[kept[:count]] = True
    return mask


class _Draws:
    """What each type takes of each limit, in a few columns: a type draws on few limits, however many there are."""

    def __init__(self, problem: Problem) -> None:
        of_type: list[list[tuple[int, float]]] = [[] for _ in problem.cost]
        for number, limit in enumerate(problem.limits):
            for r, weight in zip(limit.members.tolist(), limit.weight.tolist(), strict=True):
                of_type[r].append((number, weight))
        width = max(map(len, of_type), default=0)
        # Unused places refer to an extra limit, on which no type draws.
        self._limit = np.full((len(of_type), width), len(problem.limits))
        self._weight = np.zeros((len(of_type), width))
        for r, drawn in enumerate(of_type):
            for place, (number, weight) in enumerate(drawn):
                self._limit[r, place], self._weight[r, place] = number, weight
        self._mine = np.zeros(len(problem.limits) + 1)

    def is_no_more(self, rivals: Positions, r: int) -> Mask:
        """Which rivals take no more of any limit than type r."""
        self._mine[self._limit[r]] = self._weight[r]
        fits: Mask = np.asarray((self._weight[rivals] <= self._mine[self._limit[rivals]]).all(axis=1), bool)
        self._mine[self._limit[r]] = 0.0
        return fits


def _dominates(problem: Problem, draws: _Draws, speed: Array, rivals: Positions, r: int, margin: Array | float) -> Mask:
    """Which rivals, none of them more expensive, dominate type r by a margin (rivals, 1)."""
    able: Mask = problem.replicas[rivals] >= problem.replicas[r]
    able &= (problem.spare[rivals] <= problem.spare[r]) & (problem.least[rivals] <= problem.least[r])
    # Several types may draw on one limit or requirement: the total draw must not grow.
    able &= draws.is_no_more(rivals, r)
    for requirement in problem.requirements:
        able &= requirement.member[rivals] >= requirement.member[r]
    rivals_able, factor = rivals[able], margin if isinstance(margin, float) else margin[able]
    slower = (problem.load[rivals_able] * factor > problem.load[r]).any(axis=1)
    slower |= (speed[rivals_able] < speed[r] * factor).any(axis=1)
    able[able] = ~slower
    return able
