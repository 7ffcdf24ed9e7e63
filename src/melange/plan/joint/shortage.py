"""Why services do not fit into their pools: which pools are short, by how much, and for which services."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from melange.errors import InfeasibleError
from melange.plan.joint.master import Choice
from melange.plan.joint.member import Member
from melange.plan.joint.shared_pools import Pools
from melange.plan.options import Options

# Most services named with a pool, and the time limit for finding reasons [s].
_NAMED, _TIME_S = 6, 20.0


class ShortPoolsError(InfeasibleError):
    """No fleets fit into the pools; ``reasons`` says which pools are short, by how much and for which services."""


def short_alone(member: Member, error: InfeasibleError) -> ShortPoolsError:
    """The error for a service that has no fleet even with the whole of each pool for itself, with the reason."""
    from melange.plan.solve import solve

    try:
        solve(member.question)
    except InfeasibleError as told:
        error = told
    return ShortPoolsError(
        f"{member.name}: {error}, even with all shared pools to itself", reasons=error.reasons, hint=error.hint
    )


def why_short(
    members: Sequence[Member],
    pools: Pools,
    lacking: Choice | None,
    options: Options,
    began: float,
    *,
    is_late: bool = False,
) -> ShortPoolsError:
    """The error for services that do not fit into their pools.

    Parameters
    ----------
    members
        The services (K).
    pools
        The shared pools (J).
    lacking
        The known fleets with the smallest shortage; None if no fleets are known.
    options
        Options of the search for the least that each service takes.
    began
        When the search began.
    is_late
        Whether the search ran out of time.
    """
    deadline = max(time.monotonic(), began) + _TIME_S
    most, proven, likely = pools.most, [], []
    for j, name in enumerate(pools.names):
        # The least that a service takes of one pool if it has all other pools to itself: a sum above the pool's size
        # proves that the pool is too small.
        least = [one.least_of(j, options, deadline) if one.draw[j].any() else 0.0 for one in members]
        if sum(least) > most[j] + 1e-6:
            needed = ", ".join(f"{one.name} at least {n:g}" for one, n in _largest(members, least) if n > 0)
            proven.append(f"{name}: at least {sum(least):g} needed, {most[j]:g} there: {needed}")
        elif lacking is not None and lacking.excess[j] > 0:
            taken = [
                float(list(one.columns.values())[c].taken[j]) for one, c in zip(members, lacking.chosen, strict=True)
            ]
            users = ", ".join(f"{one.name} {n:g}" for one, n in _largest(members, taken) if n > 0)
            likely.append(f"{name}: with {lacking.excess[j]:g} more than the {most[j]:g} there, all fit: {users}")
    hint = "raise offers.max, or give services priorities: services of lower priority are then served in part"
    if proven:
        return ShortPoolsError("the pools are too small for all services", reasons=proven, hint=hint)
    if is_late:
        hint = f"allow more time with plan.time_limit_s ({options.time_limit_s:g} s were not enough), or {hint}"
    return ShortPoolsError("no fleets of all services were found within the pools", reasons=likely, hint=hint)


def _largest(members: Sequence[Member], amounts: Sequence[float]) -> list[tuple[Member, float]]:
    order = np.argsort(-np.asarray(amounts), kind="stable")[:_NAMED]
    return [(members[k], amounts[k]) for k in order.tolist()]
