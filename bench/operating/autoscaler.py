"""A reactive autoscaler of one type, with a target chosen with hindsight."""

from __future__ import annotations

import numpy as np

from melange.deploy.operate.fleet_planner import FleetPlanner
from melange.deploy.operate.operate_settings import OperateSettings
from melange.workload.workload import Array
from operating.first_plan import REGIONS

LOOK_S = 60.0


class Autoscaler:
    """An autoscaler of the best single type on request rate: HPA on the mean of five minutes, scale-down after five.

    Parameters
    ----------
    rates
        Rates of each window (W, I, O) [1/s].
    """

    def __init__(self, planner: FleetPlanner, rates: Array, window_s: float) -> None:
        self.planner, self.requests, self.window_s = planner, rates.sum(axis=(1, 2)), window_s
        served = [planner.seen(one) for one in rates]
        self.loads: dict[str, Array] = {}
        for one in planner.types:
            if one.offer.region != REGIONS[0]:
                continue
            # Load of one request per second of each size, relative to an instance's planned capacity: with one type,
            # there are no shares, so the loads add up. A type that cannot serve all sizes is not used.
            taken = np.zeros_like(rates[0])
            for cell in np.argwhere(np.sum(served, axis=0) > 0):
                unit = np.zeros_like(taken)
                unit[tuple(cell)] = 1.0
                taken[tuple(cell)] = planner.peak({one.name: 1}, unit)
            if np.isfinite(taken).all():
                self.loads[one.name] = np.tensordot(np.array(served), taken, 2)

    def cost_per_h(self, short: float) -> float:
        """The cost of the best type, at the target with this share of requests short [USD/h]."""
        return min(
            (self._of(loads, short) * self.planner.cost_per_h[name] for name, loads in self.loads.items()),
            default=float("inf"),
        )

    def _of(self, loads: Array, short: float) -> float:
        """Mean number of instances."""
        low, high = 0.05, 2.0
        cost, excess = _autoscaled(loads, self.requests, self.window_s, low)
        if excess > short:
            return float("inf")
        for _ in range(20):
            middle = (low + high) / 2
            cost_there, excess = _autoscaled(loads, self.requests, self.window_s, middle)
            low, high, cost = (middle, high, cost_there) if excess <= short else (low, middle, cost)
        return cost


def _autoscaled(loads: Array, requests: Array, window_s: float, target: float) -> tuple[float, float]:
    """Mean number of paid instances, and the share of requests short, of an autoscaler on request rate."""
    per_window = int(window_s / LOOK_S)
    # Target requests per instance, from the mean mix of the week.
    each = target * requests.mean() / loads.mean()
    rate = np.repeat(requests, per_window)
    load = np.repeat(loads, per_window)
    lately = int(300 / LOOK_S)
    seen = np.convolve(np.concatenate([np.full(lately, rate[0]), rate]), np.full(lately, 1 / lately))[
        : len(rate) + lately
    ]
    asked = np.ceil(seen[lately - 1 : lately - 1 + len(rate)] / each)
    # Scale down only to the maximum of the last five minutes.
    padded = np.concatenate([np.full(lately - 1, asked[0]), asked])
    wanted = np.lib.stride_tricks.sliding_window_view(padded, lately).max(axis=1)
    start = int(OperateSettings().start_up_s / LOOK_S)
    late = np.concatenate([np.full(start, wanted[0]), wanted])
    ready = np.lib.stride_tricks.sliding_window_view(late, start + 1).min(axis=1)
    excess = np.maximum(0.0, 1.0 - ready / np.maximum(load, 1e-12))
    return float(wanted.mean()), float((excess * rate).sum() / rate.sum())
