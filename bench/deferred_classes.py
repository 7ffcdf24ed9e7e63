"""Several deferrable classes: the cost of placing them one after the other, compared with all at once.

    python bench/deferred_classes.py                 # 60 drawn services, minutes of CPU

The services have six hours, two or three machine types, which may be reserved in half of the services, and two classes
that may wait for one and for three hours after the hour of their arrival. One mixed-integer program over all hours,
fleets, reserved instances and both classes gives the least cost, to 0.01 %. It is compared with ``melange schedule``,
and with placing one class after the other, as ``melange schedule`` does over a week.
"""

from __future__ import annotations

import argparse
from types import SimpleNamespace
from unittest import mock

import numpy as np

from melange.plan.milp.highs import LinearRows, minimise
from melange.plan.schedule import deferred_hours
from melange.plan.schedule.contracts import Deferral
from melange.plan.schedule.hours_that_share import sharing_hours
from melange.plan.schedule.machines import Machines
from melange.plan.schedule.traffic import CycleTraffic
from melange.workload.cycle import Cycle
from melange.workload.workload import Array

HOURS, SIZES, LAGS = 6, 3, (1, 3)
_GAP, _TIME_S = 1e-4, 120.0


def main() -> None:
    """Print the cost of each method above the least cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", type=int, default=60)
    arguments = parser.parse_args()
    found = np.array([studied(seed) for seed in range(arguments.services)])
    joint, arriving, *tried = found.T
    print(f"{len(found)} services: deferral saves {np.median(1 - joint / arriving):.1%} in the median")
    for name, cost in zip(("melange schedule, all at once", "one after the other"), tried, strict=True):
        above = cost / joint - 1
        print(
            f"{name}: median {np.median(above):.2%}, mean {above.mean():.2%}, 90th percentile "
            f"{np.quantile(above, 0.9):.2%}, worst {above.max():.2%} above the least cost (service {above.argmax()})"
        )


def studied(seed: int) -> tuple[float, ...]:
    """The cost of a service: the least, without deferral, with all classes at once, and one by one [USD/h]."""
    found, own, classes = drawn(seed)
    everything = own + sum(classes)
    cycle = Cycle(
        over="day",
        request_rate=everything,
        mean_rate=everything.sum(axis=1),
        windows=np.ones(HOURS, np.int64),
        is_filled=np.zeros(HOURS, bool),
        labels=tuple(f"hour {h}" for h in range(HOURS)),
        statistic="max",
    )
    deferred = tuple(
        (Deferral(name=f"class{k}", deadline_s=3600.0 * (lag + 1)), rates)
        for k, (lag, rates) in enumerate(zip(LAGS, classes, strict=True))
    )
    traffic = CycleTraffic(cycle=cycle, own=own, deferred=deferred)
    found_costs = []
    for hours_at_once in (deferred_hours.HOURS_AT_ONCE, 0):
        with mock.patch.object(deferred_hours, "HOURS_AT_ONCE", hours_at_once):
            sharing = sharing_hours(found, None, None, traffic, None)
        found_costs.append(sharing.hours.reservation.cost_per_h)
    assert sharing.as_it_arrives is not None
    return (all_at_once(found, own, classes), sharing.as_it_arrives.reservation.cost_per_h, *found_costs)


def drawn(seed: int) -> tuple[Machines, Array, list[Array]]:
    """Machines, the traffic that cannot wait (H, B), and that of each deferrable class, of a fixed mix (H, B) [1/s]."""
    random = np.random.default_rng(seed)
    count = int(random.integers(2, 4))
    machines = machines_of_rates(
        random.uniform(0.5, 4.0, (count, SIZES)) * random.uniform(0.5, 3.0, (count, 1)),
        np.round(random.uniform(0.5, 4.0, count), 2),
        discount=float(random.uniform(0.2, 0.6)) if seed % 2 else None,
    )
    scale = float(random.choice([1.0, 3.0, 9.0]))
    own = scale * random.uniform(0.1, 1.0, (HOURS, SIZES)) * random.uniform(0.3, 1.5, (HOURS, 1))
    classes = [
        scale * random.uniform(0, 1.0, (HOURS, 1)) * random.dirichlet(np.ones(SIZES))[None] for _ in range(len(LAGS))
    ]
    return machines, own, classes


def machines_of_rates(rate: Array, price: Array, discount: float | None) -> Machines:
    """Machines with one replica each."""
    count = len(price)
    return Machines(
        types=tuple(SimpleNamespace(name=f"type{r}") for r in range(count)),  # type: ignore[misc]  # only names count
        position=np.arange(count),
        cells=np.arange(rate.shape[1]),
        max_request_rate=rate,
        capacity=np.ones(count),
        on_demand_per_h=price,
        spot_per_h=np.full(count, np.inf),
        spot_price_per_h=np.full(count, np.inf),
        reserved_per_h=np.full(count, np.inf) if discount is None else price * (1 - discount),
        spare=np.zeros(count),
        is_covered=np.zeros(count, bool),
    )


def all_at_once(machines: Machines, own: Array, classes: list[Array]) -> float:
    """The least cost with deferrable classes, by one mixed-integer program [USD/h].

    Columns: reserved (R) and rented instances (H R), rate of each size on each machine (H R B), sent and waiting
    requests of each class (K H). Rows: each size of each hour is served, no machine is overloaded, and the balance of
    waiting requests.
    """
    types, kinds = len(machines), len(classes)
    fleets, served, sent = types, types + HOURS * types, types + HOURS * types * (1 + SIZES)
    waits, columns = sent + kinds * HOURS, sent + 2 * kinds * HOURS
    loads, balance = HOURS * SIZES, HOURS * (SIZES + types)
    a = np.zeros((balance + kinds * HOURS, columns))
    low, high = np.zeros(len(a)), np.zeros(len(a))
    low[:loads] = high[:loads] = own.ravel()
    low[loads:balance] = -np.inf
    most = np.full(columns, np.inf)
    for h in range(HOURS):
        for r in range(types):
            row = loads + h * types + r
            a[row, r] = a[row, fleets + h * types + r] = -machines.capacity[r]
            for b in range(SIZES):
                column = served + (h * types + r) * SIZES + b
                a[h * SIZES + b, column] = 1.0
                a[row, column] = 1.0 / machines.max_request_rate[r, b]
        for k, rates in enumerate(classes):
            arriving = rates.sum(axis=1)
            a[h * SIZES : (h + 1) * SIZES, sent + k * HOURS + h] = -rates.sum(axis=0) / arriving.sum()
            row = balance + k * HOURS + h
            a[row, sent + k * HOURS + h] = a[row, waits + k * HOURS + h] = 1.0
            a[row, waits + k * HOURS + (h - 1) % HOURS] -= 1.0
            low[row] = high[row] = arriving[h]
            most[waits + k * HOURS + h] = sum(arriving[(h - back) % HOURS] for back in range(LAGS[k]))
    can_reserve = np.isfinite(machines.reserved_per_h)
    most[:types] = np.where(can_reserve, np.inf, 0.0)
    cost = np.zeros(columns)
    cost[:types] = np.where(can_reserve, machines.reserved_per_h, 0.0)
    cost[fleets:served] = np.tile(machines.on_demand_per_h / HOURS, HOURS)
    columns_of, rows_of = np.nonzero(a.T)
    program = LinearRows(
        cost=cost,
        lower=np.zeros(columns),
        upper=most,
        row_lower=low,
        row_upper=high,
        start=np.searchsorted(columns_of, np.arange(columns + 1)).astype(np.int32),
        row=rows_of.astype(np.int32),
        value=a[rows_of, columns_of],
        is_integer=np.arange(columns) < served,
    )
    found = minimise(program, time_limit_s=_TIME_S, gap=_GAP)
    assert found.x is not None
    return float(cost @ found.x)


if __name__ == "__main__":
    main()
