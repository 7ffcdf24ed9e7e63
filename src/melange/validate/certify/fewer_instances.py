"""Remove instances from a large fleet: factors on rates find its proportions, and leave a few instances too many.

From one fleet of a hundred instances to the next, the share of requests that meet the SLO hardly differs. So instances
can be removed from one type after another, many at once, as long as the rest still holds.
"""

from __future__ import annotations

import numpy as np

from melange.plan.problem import ROUNDING
from melange.validate.certify.effort import Effort
from melange.validate.certify.headroom import Search
from melange.validate.certify.plan_trial import Trial

# The part of a type's instances that is removed at first; half as many if the rest then misses. With more, more
# simulations miss. Chosen by judgment.
_FIRST_PART = 0.125
# Largest CPU time of this step [s]. Chosen by judgment.
_MOST_S = 2.0


def with_fewer_instances(search: Search, best: Trial) -> Trial:
    """The best plan of several types, without the instances that it does not need in simulation.

    Parameters
    ----------
    search
        The plans tried so far, and the judge.
    best
        A plan that holds.
    """
    effort = Effort(judge=search.judge, first=search.judge.work_s, most_s=_MOST_S)
    cost = np.array([one.cost_per_h for one in best.plan.replica_types])
    used = np.flatnonzero(best.plan.instances)
    for place in sorted(used, key=lambda r: -float(cost[r] * best.plan.instances[r])):
        fewer = max(1, round(_FIRST_PART * int(best.plan.instances[place])))
        while fewer and not effort.is_spent():
            instances = best.plan.instances.copy()
            instances[place] = max(0, instances[place] - fewer)
            tried = _tried(search, best, instances)
            if tried is None:
                fewer //= 2
            else:
                best = tried
    return best


def _tried(search: Search, best: Trial, instances: np.ndarray) -> Trial | None:
    """A smaller fleet, with shares by the factors of the best one; None if it misses."""
    plan = search.of(instances, best.factor) if instances.any() else None
    if plan is None or plan.cost_per_h >= best.plan.cost_per_h - ROUNDING:
        return None
    trial = search.judge.trial(plan, best.factor)
    return trial if search.judge.holds(trial) else None
