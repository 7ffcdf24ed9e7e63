"""How much to commit to spend: the allowance of a savings plan, for given reserved instances.

A commitment of K USD/h at a discount d pays for an allowance A = K / (1 - d) of the on-demand cost of covered
instances, in every hour; use beyond it is billed at the on-demand price. With the fleets of the hours given, the cost

    (1 - d) A + mean over hours of max(0, covered_h - A)

is lowest if a share 1 - d of the hours uses more than A. The fleets depend on the allowance, so both are found in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from melange.plan.schedule.contracts import SavingsPlan
from melange.plan.schedule.hours import HourFleets
from melange.plan.schedule.machines import Machines
from melange.workload.workload import Array

# Rounds of allowance and fleets; three are rarely needed.
_TURNS = 4
# Up to this number of hours, the use of every hour is tried as the allowance, up to this number of allowances.
_FEW_HOURS, _MOST_TRIED = 6, 60


def with_allowance(machines: Machines, plan: SavingsPlan | None, allowance_per_h: float) -> Machines:
    """The machines under a commitment that pays for an allowance of covered on-demand use in each hour [USD/h]."""
    if plan is None:
        return machines
    return replace(machines, allowance_per_h=allowance_per_h, committed_per_h=(1 - plan.discount) * allowance_per_h)


def best_allowance(
    machines: Machines, plan: SavingsPlan | None, weight: Array, fleets_at: Callable[[Machines], HourFleets]
) -> Machines:
    """The machines under the allowance with the lowest cost of hours with some weights (H,).

    ``fleets_at`` gives the fleets of the hours under an allowance.
    """
    if plan is None:
        return machines
    costs: dict[float, float] = {}
    waiting = [0.0]
    is_small = len(weight) <= _FEW_HOURS
    while waiting and len(costs) < (_MOST_TRIED if is_small else _TURNS):
        allowance = waiting.pop(0)
        under = with_allowance(machines, plan, allowance)
        fleets = fleets_at(under)
        costs[allowance] = under.committed_per_h + float(weight @ fleets.cost_per_h) / float(weight.sum())
        used = ((fleets.extra - fleets.spot) * machines.on_demand_per_h * machines.is_covered).sum(axis=1)
        # Use that the allowance pays for is free, so a fleet may be larger than needed. The use shows what is needed.
        more = np.unique(used).tolist() if is_small else [_exceeded(used, weight, 1 - plan.discount)]
        waiting += [one for one in more if one not in costs and one not in waiting]
    return with_allowance(machines, plan, min(costs, key=lambda one: costs[one]))


def _exceeded(used: Array, weight: Array, share: float) -> float:
    """The smallest use that at most a share of the hours exceeds."""
    order = np.argsort(-used, kind="stable")
    above = np.cumsum(weight[order]) / weight.sum()
    return float(used[order[min(int(np.searchsorted(above, share, side="right")), len(used) - 1)]])
