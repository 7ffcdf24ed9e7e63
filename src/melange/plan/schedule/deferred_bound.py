"""A cost that no schedule is below, whenever work that may wait is sent.

At prices of load that the markets allow (see relaxed.py), a request that may wait is worth the least that it is worth
in any of the hours in which it may be sent. What may be on spot follows the work of an hour, in parts of instances: so
it lowers the worth of each request there by as much.
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
        All of them (R).
    own
        Rates of the hours that wait for nothing (H, B) [1/s].
    classes
        What may wait.
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
    """What spot saves at most in each hour for a unit of its work (H,), at prices of load (H, R) [USD/h]."""
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
