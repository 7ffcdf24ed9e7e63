"""The effect of one more and one less unit of a pool: which service takes it or gives it up, and what changes there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from melange.plan.joint.member import Column, Member
from melange.plan.joint.shared_pools import Pools
from melange.plan.joint.solve_jointly import JointFleets
from melange.plan.options import Options

# Time limit for all exchanges [s], and limit on integer programs, which take a few tenths of a second each at most.
_TIME_S, _MOST_PROGRAMS = 10.0, 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """The change of one service's fleet with a little more or less of a pool.

    Parameters
    ----------
    service
        The service that would take more, or give some up.
    units
        Units of the pool that it would take; negative: give up.
    cost_per_h
        Extra cost of all services [USD/h]; negative: savings.
    changes
        Instances that it would add, by replica type; negative: give back.
    """

    service: str
    units: float
    cost_per_h: float
    changes: dict[str, int] = field(default_factory=dict)


def exchanges(
    members: Sequence[Member], pools: Pools, found: JointFleets
) -> list[tuple[Exchange | None, Exchange | None]]:
    """For each pool: the best service to take one more unit, and the cheapest to give one up; None: no such service.

    Each service is planned again by itself while the others' fleets stay as they are, so exchanges in a chain over
    several services are not considered.
    """
    most, taken = pools.most, found.taken
    options, deadline, left = Options(gap=1e-3), time.monotonic() + _TIME_S, _MOST_PROGRAMS
    answer: list[tuple[Exchange | None, Exchange | None]] = []
    for j in range(len(most)):
        users = [k for k, one in enumerate(members) if one.draw[j].any()]
        if not (most[j] > 0 and found.price[j] > 0) or left < 2 * len(users):
            answer.append((None, None))
            continue
        left -= 2 * len(users)
        more, less = [], []
        for k in users:
            member, column = members[k], found.columns[k]
            rest = most - (taken - column.taken)
            unit = float(np.min(member.draw[j][member.draw[j] > 0]))
            wider, narrower = rest.copy(), rest.copy()
            wider[j] += unit
            narrower[j] = column.taken[j] - unit
            more.append(_exchange(member, column, member.within(wider, options, deadline), j))
            less.append(_exchange(member, column, member.within(narrower, options, deadline), j))
        answer.append((_best([one for one in more if one and one.cost_per_h < 0 and one.units > 0]), _best(less)))
    return answer


def _exchange(member: Member, before: Column, after: Column | None, pool: int) -> Exchange | None:
    if after is None:
        return None
    change = after.instances - before.instances
    return Exchange(
        service=member.name,
        units=float(after.taken[pool] - before.taken[pool]),
        cost_per_h=after.cost - before.cost,
        changes={member.problem.names[r]: int(change[r]) for r in np.flatnonzero(change).tolist()},
    )


def _best(found: Sequence[Exchange | None]) -> Exchange | None:
    known = [one for one in found if one is not None and one.units != 0]
    return min(known, key=lambda one: one.cost_per_h, default=None)
