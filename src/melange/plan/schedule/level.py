"""A first guess of when to send work that may wait, which makes the load of the week as level as possible.

The program counts work only, as if all machines were equal. A base N costs the share rho of the hourly price:

    min  rho H N + sum_h o_h;    i_h + s_h <= N + o_h
    q_h = q_(h-1) + a_h - s_h;    0 <= q_h <= most that may wait
"""

from __future__ import annotations

import numpy as np

from melange.plan.milp.highs import LinearRows, minimise
from melange.plan.schedule.machines import Machines
from melange.plan.schedule.waiting import Waiting
from melange.workload.workload import Array

# Cost of the base as a share of the hourly price if nothing can be reserved: any share below 1 levels the load.
_BASE = 0.5


def level_placement(machines: Machines, own: Array, waiting: Waiting) -> Array:
    """Work that waits after each hour (H,) such that the load, with the hours' own work (H,), is level."""
    arriving, hours = waiting.work, len(own)
    ratio = np.min(machines.reserved_per_h / machines.on_demand_per_h)
    base = float(ratio) if ratio < 1 else _BASE
    each = np.arange(hours)
    # Columns: N, o, s, q. Rows: load, balance.
    row = [each, each, each, hours + each, hours + each, hours + (each + 1) % hours]
    column = [np.zeros(hours, np.int64), 1 + each, 1 + hours + each, 1 + hours + each, *[1 + 2 * hours + each] * 2]
    value = [np.ones(hours), np.ones(hours), -np.ones(hours), np.ones(hours), np.ones(hours), -np.ones(hours)]
    if hours == 1:
        row, column, value = row[:-2], column[:-2], value[:-2]
    at, to, by = np.concatenate(row), np.concatenate(column), np.concatenate(value)
    order = np.lexsort((at, to))
    program = LinearRows(
        cost=np.concatenate([[base * hours], np.ones(hours), np.zeros(2 * hours)]),
        lower=np.zeros(1 + 3 * hours),
        upper=np.concatenate([np.full(1 + 2 * hours, np.inf), waiting.most_waiting]),
        row_lower=np.concatenate([own, arriving]),
        row_upper=np.concatenate([np.full(hours, np.inf), arriving]),
        start=np.searchsorted(to[order], np.arange(2 + 3 * hours)).astype(np.int32),
        row=at[order].astype(np.int32),
        value=by[order],
    )
    found = minimise(program)
    if found.x is None:
        return np.zeros(hours)
    room = np.maximum(found.x[0] + found.x[1 : 1 + hours] - own, 0.0)
    left = waiting.left_by(room * (1 + 1e-9) + 1e-12)
    return np.zeros(hours) if left is None else left
