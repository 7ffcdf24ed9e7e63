"""What the next unit of a pool would change, and one unit less: who takes it, and what that service gives up for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from melange.plan.joint.member import Column, Member
from melange.plan.joint.shared_pools import Pools
from melange.plan.joint.solve_jointly import JointFleets
from melange.plan.options import Options

# Time for all of it [s], and integer programs: a few tenths of a second each at most.
_TIME_S, _MOST_PROGRAMS = 10.0, 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One service's fleet with a little more or less of a pool.

    Parameters
    ----------
    service
        The service that would take it, or give it up.
    units
        How many of the pool it would take; negative: give up.
    cost_per_h
        What all services would cost more [USD/h]; negative: save.
    changes
        Instances that it would rent more of, by replica type; negative: give back.
    """

    service: str
    units: float
    cost_per_h: float
    changes: dict[str, int] = field(default_factory=dict)


def exchanges(
    members: Sequence[Member], pools: Pools, found: JointFleets
) -> list[tuple[Exchange | None, Exchange | None]]:
    """For each pool: who would take the next of it, and who would give one up at least cost; None where nobody would.

    Each service is planned again by itself with the others' fleets as they are, so chains over several services are
    not looked at.
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
