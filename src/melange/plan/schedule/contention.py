"""Choose the machines for the search of a schedule: from the relaxation, and from fleets of whole instances."""

from __future__ import annotations

import numpy as np

from melange.plan.schedule.machines import Machines
from melange.plan.schedule.relaxed import Relaxation
from melange.workload.demand import Indices
from melange.workload.workload import Array

# Most machines in the search. All pairs are tried for every hour, so twice as many machines take four times as long. On
# a week of ServeGen's m-mid, eight instead of six made the answer 0.12 % cheaper, and four 0.3 % more expensive.
_MOST = 6
# Share of the relaxed cost below which a machine is noise.
_NOISE = 2e-3


def in_contention(machines: Machines, rates: Array, relaxation: Relaxation) -> Indices:
    """Places of the machines to search among, at most six of them.

    Machines of the relaxation come first, by their share of its cost. The relaxation rents fractions of large machines,
    so the search also gets the machines that carry small, medium and large hours at the lowest cost when they are
    rented whole and alone: a small service runs on small machines.
    """
    chosen = [
        r for r in np.argsort(-relaxation.used_share, kind="stable").tolist() if relaxation.used_share[r] > _NOISE
    ]
    work = machines.work(rates)
    order = np.argsort(work, kind="stable")
    alone = []
    for quantile in (0.5, 0.1, 1.0, 0.25, 0.75, 0.9):
        hour = order[min(len(order) - 1, int(quantile * len(order)))]
        with np.errstate(divide="ignore", invalid="ignore"):
            load = np.where(rates[hour] > 0, rates[hour] / machines.max_request_rate, 0.0).sum(axis=1)
        cost = np.where(np.isfinite(load), np.ceil(load / machines.capacity) * machines.on_demand_per_h, np.inf)
        alone += np.argsort(cost, kind="stable")[:2].tolist()
    # Two places are kept for machines that are good when rented whole.
    kept = list(dict.fromkeys(chosen))[: _MOST - 2]
    kept += [r for r in dict.fromkeys(alone) if r not in kept][: _MOST - len(kept)]
    kept += [r for r in dict.fromkeys(chosen) if r not in kept][: _MOST - len(kept)]
    return np.array(sorted(_serving(machines, kept)))


def _serving(machines: Machines, kept: list[int]) -> list[int]:
    """The machines, and others until every size is served."""
    able = machines.max_request_rate > 0
    found = list(kept)
    while (lacking := ~able[found].any(axis=0)).any():
        serves = able[:, lacking].sum(axis=1)
        price = np.where(serves > 0, machines.price / np.maximum(serves, 1), np.inf)
        found.append(int(np.argmin(price)))
    return found
