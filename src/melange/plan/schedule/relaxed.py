"""The week with fractional instances: which machines are in contention, and a lower bound on any schedule's cost.

The program over typical hours k and merged sizes b (formulation.md, "Hours of a week"):

    min  sum_r H c^res_r N_r + sum_k w_k sum_r (c_r o_kr + c^spot_r s_kr)
    sum_r f_krb = 1;    sum_b l_krb f_krb <= C_r (N_r + o_kr + s_kr)
    sum_r c_r s_kr <= sigma work_k;    s_kr <= whole instances that pools hold

A savings plan adds H (1 - d) A to the cost, and use u_kr of covered machines that it pays for: sum_r c_r u_kr <= A.

The duals of the program are prices of load by hour, and they give the bound. The bound is evaluated over all hours and
all sizes in plain NumPy. It does not depend on the solver or the hours that the prices come from: all prices that
respect those of the markets give a bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from melange.errors import SolverError
from melange.plan.milp.highs import LinearRows, minimise
from melange.plan.schedule.contracts import SavingsPlan, Spot
from melange.plan.schedule.machines import Machines
from melange.plan.schedule.spot_room import SpotRoom
from melange.plan.schedule.typical import TypicalHours
from melange.workload.demand import Indices
from melange.workload.workload import Array

# Time limit for a program over typical hours, wall-clock [s]: it takes a second, or a minute on a busy machine. Beyond
# this limit something is wrong.
_TIME_LIMIT_S = 1200.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Relaxation:
    """The answer with fractional instances.

    Parameters
    ----------
    reserved
        Instances to reserve (R,).
    used_share
        Share of each machine in the cost (R,), 0-1.
    price
        Price of a unit of load in each typical hour (T, R) [USD/h].
    cost_per_h
        Average cost of the program over its hours [USD/h].
    """

    reserved: Array
    used_share: Array
    price: Array
    cost_per_h: float


def relax(
    machines: Machines, hours: TypicalHours, merged: Indices, spot: Spot | None, plan: SavingsPlan | None = None
) -> Relaxation:
    """Solve the program over typical hours and merged sizes.

    Raises
    ------
    SolverError
        The solver found no answer.
    """
    types, times, sizes = len(machines), len(hours.weight), int(merged.max()) + 1
    able = np.zeros((types, sizes), bool)
    able[:, merged] = machines.max_request_rate > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.where(machines.max_request_rate > 0, 1.0 / machines.max_request_rate, 0.0)
    load = np.zeros((times, types, sizes))
    for b, group in enumerate(merged):
        load[:, :, group] += hours.rates[:, b, None] * each[None, :, b]
    present = np.zeros((times, sizes), bool)
    for b, group in enumerate(merged):
        present[:, group] |= hours.rates[:, b] > 0
    hour_of, type_of, size_of = np.nonzero(able[None] & present[:, None, :])
    pairs, block = len(hour_of), times * types
    can_reserve, can_spot = np.isfinite(machines.reserved_per_h), np.isfinite(machines.spot_per_h)
    room = SpotRoom.of(machines, machines.work(hours.rates), spot)
    total = float(hours.weight.sum())
    covered = machines.is_covered if plan is not None else np.zeros(types, bool)
    # Columns: reserved (R), on demand (T R), spot (T R), paid for by the plan (T R), its allowance, shares.
    cost = np.concatenate(
        [
            np.where(can_reserve, machines.reserved_per_h, 0.0) * total,
            np.outer(hours.weight, machines.on_demand_per_h).ravel(),
            np.outer(hours.weight, np.where(can_spot, machines.spot_per_h, 0.0)).ravel(),
            np.zeros(block),
            [0.0 if plan is None else (1 - plan.discount) * total],
            np.zeros(pairs),
        ]
    )
    upper = np.concatenate(
        [
            np.where(can_reserve, np.inf, 0.0),
            np.full(block, np.inf),
            np.where(can_spot, room.most(machines.on_demand_per_h), 0.0).ravel(),
            np.tile(np.where(covered, np.inf, 0.0), times),
            [np.inf],
            np.full(pairs, np.inf),
        ]
    )
    # Rows: cover (T S), load (T R), spot (T), allowance (T).
    cover, loads = times * sizes, times * types
    at_time, at_type = np.repeat(np.arange(times), types), np.tile(np.arange(types), times)
    load_row = cover + at_time * types + at_type
    row = np.concatenate(
        [
            load_row.reshape(times, types).T.ravel(),  # reserved: a row for each hour
            load_row,
            load_row,
            cover + loads + at_time,
            load_row,
            cover + loads + times + at_time,
            cover + loads + times + np.arange(times),
            hour_of * sizes + size_of,
            cover + hour_of * types + type_of,
        ]
    )
    column = np.concatenate(
        [
            np.repeat(np.arange(types), times),
            types + np.arange(block),
            types + block + np.arange(block),
            types + block + np.arange(block),
            types + 2 * block + np.arange(block),
            types + 2 * block + np.arange(block),
            np.full(times, types + 3 * block),
            types + 3 * block + 1 + np.arange(pairs),
            types + 3 * block + 1 + np.arange(pairs),
        ]
    )
    value = np.concatenate(
        [
            np.repeat(-machines.capacity, times),
            np.tile(-machines.capacity, times),
            np.tile(-machines.capacity, times),
            np.tile(machines.on_demand_per_h, times),
            np.tile(-machines.capacity, times),
            np.tile(machines.on_demand_per_h, times),
            np.full(times, -1.0),
            np.ones(pairs),
            load[hour_of, type_of, size_of],
        ]
    )
    is_present, order = present.ravel(), np.argsort(column, kind="stable")
    program = LinearRows(
        cost=cost,
        lower=np.zeros(len(cost)),
        upper=upper,
        row_lower=np.concatenate([np.where(is_present, 1.0, 0.0), np.full(loads + 2 * times, -np.inf)]),
        row_upper=np.concatenate([np.where(is_present, 1.0, 0.0), np.zeros(loads), room.all_zones, np.zeros(times)]),
        start=np.searchsorted(column[order], np.arange(len(cost) + 1)).astype(np.int32),
        row=row[order].astype(np.int32),
        value=value[order],
    )
    found = minimise(program, time_limit_s=_TIME_LIMIT_S)
    if found.status != "optimal" or found.x is None:
        raise SolverError(
            f"HiGHS found no answer for typical hours: {found.status}", hint="fewer sizes (workload.buckets) are easier"
        )
    spent = cost * found.x
    by_type = spent[:types] + sum(
        spent[types + j * block : types + (j + 1) * block].reshape(times, types).sum(axis=0) for j in (0, 1)
    )
    price = np.maximum(-found.row_dual[cover : cover + loads].reshape(times, types), 0.0) / hours.weight[:, None]
    return Relaxation(
        reserved=found.x[:types],
        used_share=by_type / max(float(by_type.sum()), 1e-300),
        price=price,
        cost_per_h=float(found.bound) / total,
    )


def bound_per_h(
    machines: Machines, rates: Array, price: Array, spot: Spot | None, plan: SavingsPlan | None = None
) -> float:
    """Lower bound on the cost of any schedule, on average over all hours, from prices of load (H, R) [USD/h].

    Prices are first lowered to what the markets allow: C_r y_hr <= c_r in every hour, and sum_h C_r y_hr <= H c^res_r.
    Use that a savings plan pays for in an hour is worth the highest v_hr / c_r, with v_hr = C_r y_hr. The sum of these
    must not exceed the cost of the plan: sum_h max_r v_hr / c_r <= H (1 - d) over covered machines. Spot lowers the
    worth of an hour by the least amount that the limits on spot require.
    """
    lowered = allowed_prices(machines, price, plan)
    value = lowered * machines.capacity
    worth = worth_of_sizes(machines, lowered)
    gained = np.where(rates > 0, rates * np.where(np.isfinite(worth), worth, 0.0), 0.0).sum(axis=1)
    room = SpotRoom.of(machines, machines.work(rates), spot)
    offered = np.isfinite(machines.spot_per_h)
    excess = np.where(
        offered, np.maximum(0.0, value - np.where(offered, machines.spot_per_h, 0.0)) / machines.on_demand_per_h, 0.0
    )
    # Minimize sigma pi + sum of most_r pi_r with pi + pi_r >= excess_r: the best pi is 0 or one of the excesses.
    levels = np.concatenate([np.zeros((len(rates), 1)), excess], axis=1)
    each = room.most(machines.on_demand_per_h) * machines.on_demand_per_h
    over = (each[:, None, :] * np.maximum(0.0, excess[:, None, :] - levels[:, :, None])).sum(axis=2)
    lost = (room.all_zones[:, None] * levels + over).min(axis=1)
    return float((gained - lost).mean())


def allowed_prices(machines: Machines, price: Array, plan: SavingsPlan | None) -> Array:
    """Prices of load (H, R) lowered to what the markets and a savings plan allow (see :func:`bound_per_h`) [USD/h]."""
    value = np.minimum(price * machines.capacity, machines.on_demand_per_h)
    total = value.sum(axis=0)
    most = machines.reserved_per_h * len(price)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = value * np.where(total > most, most / total, 1.0)
    if plan is not None and machines.is_covered.any():
        worth_of_use = (value / machines.on_demand_per_h)[:, machines.is_covered].max(axis=1).sum()
        value = np.where(
            machines.is_covered, value * min(1.0, (1 - plan.discount) * len(price) / max(worth_of_use, 1e-300)), value
        )
    return np.asarray(value / machines.capacity)


def worth_of_sizes(machines: Machines, price: Array) -> Array:
    """What a request per second of each size is worth at prices of load (H, R): min_r y_r / max rate (H, B) [USD/h]."""
    # Machine by machine: an array (H, R, B) would be large.
    worth = np.full((len(price), machines.max_request_rate.shape[1]), np.inf)
    for r in range(len(machines)):
        speed = machines.max_request_rate[r]
        able = speed > 0
        worth[:, able] = np.minimum(worth[:, able], price[:, [r]] / speed[able])
    return worth
