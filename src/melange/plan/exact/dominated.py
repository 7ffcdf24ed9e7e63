"""Types that no cheapest fleet needs: another type does all they do, and costs no more."""

from __future__ import annotations

import numpy as np

from melange.plan.problem import Positions, Problem
from melange.workload.workload import Array, Mask


def needed_types(problem: Problem, prefer: Positions | None = None, margin: Array | None = None) -> Mask:
    """Which types remain once the dominated ones are set aside (R,).

    Type a dominates type b where an instance of a serves every bucket at least as fast, costs no more, holds as many
    replicas, draws on no more of any limit and satisfies every requirement that b satisfies: each b of a fleet may be
    replaced by an a. Regions and tiers of one machine differ in price only, and shrink to the cheapest.

    Parameters
    ----------
    problem
        The problem, with R types.
    prefer
        Types to keep among equals (R,): those of the plan in force.
    margin
        By how much faster than a type another one must be to dominate it (R, R); None: no slower is enough. Where
        loads are not what they seem, types that are nearly as good are kept by it.
    """
    types = len(problem.cost)
    speed = problem.replicas[:, None] / problem.load  # buckets carried by an instance, in buckets
    favored = np.zeros(types) if prefer is None else -np.asarray(prefer, float)
    order = np.lexsort((np.arange(types), favored, -np.nan_to_num(speed).sum(axis=1), problem.cost))
    kept: list[int] = []
    for r in order:
        rivals = np.array(kept, np.int64)
        factor = 1.0 if margin is None else margin[rivals, r][:, None]
        if not len(rivals) or not _dominates(problem, speed, rivals, int(r), factor).any():
            kept.append(int(r))
    mask = np.zeros(types, bool)
    mask[kept] = True
    return mask


def _dominates(problem: Problem, speed: Array, rivals: Positions, r: int, margin: Array | float) -> Mask:
    """Which rivals, none of them more expensive, dominate type r by a margin (rivals, 1)."""
    able: Mask = problem.replicas[rivals] >= problem.replicas[r]
    able &= (problem.spare[rivals] <= problem.spare[r]) & (problem.least[rivals] <= problem.least[r])
    # Several types may lean on one limit or requirement: its draw must not grow.
    for limit in problem.limits:
        able &= limit.weight[rivals] <= limit.weight[r]
    for requirement in problem.requirements:
        able &= requirement.member[rivals] >= requirement.member[r]
    rivals_able, factor = rivals[able], margin if isinstance(margin, float) else margin[able]
    slower = (problem.load[rivals_able] * factor > problem.load[r]).any(axis=1)
    slower |= (speed[rivals_able] < speed[r] * factor).any(axis=1)
    able[able] = ~slower
    return able
