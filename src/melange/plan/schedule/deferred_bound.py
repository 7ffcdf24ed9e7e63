"""A lower bound on the cost of every schedule, whenever it sends the work that may wait.

At prices of load that the markets allow (see relaxed.py), a request that may wait is worth its lowest value over the
hours in which it may be sent. The spot limit is proportional to the work of an hour, in fractions of instances, so the
most that spot can save is subtracted from the value of each request in that hour.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from melange.plan.schedule.contracts import SavingsPlan, Spot
from melange.plan.schedule.machines import Machines
from melange.plan.schedule.relaxed import allowed_prices, worth_of_sizes
from melange.plan.schedule.waiting import Waiting
from melange.workload.workload import Array


def deferred_bound_per_h(
    machines: Machines,
    own: Array,
    classes: Sequence[Waiting],
    price: Array,
    spot: Spot | None,
    plan: SavingsPlan | None = None,
) -> float:
    """The bound, on average over all hours, from prices of load (H, R) [USD/h].

    Parameters
    ----------
    machines
        All machines (R).
    own
        Rates of the requests that may not wait, by hour (H, B) [1/s].
    classes
        The classes that may wait.
    """
    lowered = allowed_prices(machines, price, plan)
    worth = worth_of_sizes(machines, lowered)
    worth = np.where(np.isfinite(worth), worth, 0.0)
    worth = worth - np.outer(_lost_to_spot(machines, lowered, spot), machines.weights(machines.price))
    total = float((own * worth).sum())
    for one in classes:
        wait = min(one.lag, len(own) - 1)
        least = sliding_window_view(np.concatenate([worth, worth[:wait]]), wait + 1, axis=0).min(axis=2)
        total += float((one.rates * least).sum())
    return total / len(own)


def _lost_to_spot(machines: Machines, price: Array, spot: Spot | None) -> Array:
    """Most that spot can save in each hour per unit of work (H,), at prices of load (H, R) [USD/h]."""
    if spot is None:
        return np.zeros(len(price))
    value, offered = price * machines.capacity, np.isfinite(machines.spot_per_h)
    spot_price = np.where(offered, machines.spot_per_h, 0.0)
    excess = np.where(offered, np.maximum(0.0, value - spot_price) / machines.on_demand_per_h, 0.0)
    whole = min(spot.max_share, spot.max_share_per_zone * spot.zones)
    each = min(spot.max_share, spot.zones * min(spot.max_share_per_pool, spot.max_share_per_zone))
    levels = np.concatenate([np.zeros((len(price), 1)), excess], axis=1)
    over = np.maximum(0.0, excess[:, None, :] - levels[:, :, None]).sum(axis=2)
    return np.asarray((whole * levels + each * over).min(axis=1))
