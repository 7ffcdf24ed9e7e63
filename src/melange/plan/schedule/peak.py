"""The lowest peak load of a fleet under some traffic: whether the fleet carries it, with which shares, and a proof.

    minimize t: sum_r f_rb = 1, sum_b (rate_b / max_request_rate_rb) f_rb <= t carried_r

Its duals are prices of load y with y carried = 1, and the peak is sum_b rate_b min_r y_r / max_request_rate_rb. For two
machines sorting is enough; more machines still have few enough rows for a simplex of our own. A schedule needs the
peaks of thousands of fleets. Arrays have the axes (machine R, bucket B).
"""

from __future__ import annotations

import numpy as np

from melange.plan.milp.highs import LinearRows, minimise
from melange.plan.schedule.machines import Machines
from melange.workload.demand import Indices
from melange.workload.workload import Array, Mask

# A fleet carries its traffic up to this peak load: the tolerance of a linear program.
FITS = 1.0 + 1e-7
# Iterations of the simplex before a solver takes over, and the distance from the bound of its prices at which an answer
# counts as the lowest. On a week of ServeGen's m-mid (120 sizes), 3 machines took 14 iterations on average and 5 took
# 29, in 0.3 and 0.6 ms of CPU; HiGHS took 1.3 ms.
_TURNS, _EXACT = 300, 1e-10


def peak_load(machines: Machines, rates: Array, instances: Array, enough: float = 0.0) -> tuple[float, Array, Array]:
    """The lowest peak load of a fleet (R,) under rates (B,), the prices that prove it (R,), and shares (R, B).

    If replicas may be lost, this is the peak of the worst case; the shares are for the case without a loss. A peak of
    ``enough`` or less need not be the lowest.
    """
    first, *others = (peak_of(machines, rates, carried, enough) for carried in machines.scenarios(instances))
    worst = max((first, *others), key=lambda one: one[0])
    return worst[0], worst[1], first[2]


def peak_of(machines: Machines, rates: Array, carried: Array, enough: float = 0.0) -> tuple[float, Array, Array]:
    """The same for the load that each machine takes (R,).

    The peak is infinite if no machine serves some size; the shares are then 0.
    """
    used, cells = np.flatnonzero(carried > 0), np.flatnonzero(rates > 0)
    share = np.zeros((len(machines), len(rates)))
    if not len(cells):
        return 0.0, np.zeros(len(machines)), share
    speed = machines.max_request_rate[np.ix_(used, cells)]
    with np.errstate(divide="ignore"):
        load = rates[cells] / (speed * carried[used, None])  # infinite if the machine cannot serve the size
    lacking = ~(speed > 0).any(axis=0)
    if lacking.any():
        able = machines.max_request_rate[:, cells[lacking]][:, 0] > 0
        return np.inf, np.where(able, machines.price, 0.0), share
    if len(used) == 1:
        part, worth = np.ones(load.shape), np.ones(1)
    elif len(used) == 2:
        part, worth = _of_two(load)
    else:
        found = _of_several(load, machines.price[used] * carried[used], enough) or _of_any(load)
        if found is None:
            return np.inf, machines.price, share
        part, worth = found
    share[np.ix_(used, cells)] = part
    # Compute the peak again from the shares, in plain arithmetic.
    peak = float((np.where(part > 0, load, 0.0) * part).sum(axis=1).max())
    price = np.zeros(len(machines))
    price[used] = worth / carried[used]
    rest = np.flatnonzero(carried <= 0)
    if len(rest):
        # Prices of unused machines: the lowest at which the cost of the traffic stays the same.
        each = _least(load, worth) / rates[cells]
        price[rest] = (machines.max_request_rate[np.ix_(rest, cells)] * each).max(axis=1)
    return peak, price, share


def _least(load: Array, worth: Array) -> Array:
    """Lowest cost of each size (B,) at prices of the loads (R,), some of which may be 0."""
    able = np.isfinite(load)
    return np.asarray(np.where(able, np.where(able, load, 0.0) * worth[:, None], np.inf).min(axis=0))


def _of_two(load: Array) -> tuple[Array, Array]:
    """Shares (2, B) and prices (2,) of two machines: sizes sorted by their load on the first relative to the second.

    Sizes before some size go to the first machine, sizes after it to the second, and the size itself to both.
    """
    first, second = load
    with np.errstate(invalid="ignore"):
        order = np.argsort(np.where(np.isfinite(second), first / second, 0.0), kind="stable")
    on_first, on_second = first[order], second[order]
    before = np.concatenate([[0.0], np.cumsum(on_first)[:-1]])  # on the first machine; below, the rest on the second
    behind = np.concatenate([np.cumsum(on_second[::-1])[::-1][1:], [0.0]])
    place = int(np.argmax(before + on_first >= behind))  # the first size with which the first machine has more
    share = np.zeros(load.shape)
    share[0, order[:place]], share[1, order[place:]] = 1.0, 1.0
    a, b = float(on_first[place]), float(on_second[place])
    if not np.isfinite(a):  # the first has less even with all that it can serve
        return share, np.array([0.0, 1.0])
    part, price = 1.0, np.array([1.0, 0.0])  # sizes that only the first can serve are more than the rest
    if np.isfinite(b):
        part = float(np.clip((behind[place] + b - before[place]) / (a + b), 0.0, 1.0))
        price = np.array([b, a]) / (a + b)
    share[:, order[place]] = part, 1.0 - part
    return share, price


def _of_several(load: Array, worth: Array, enough: float) -> tuple[Array, Array] | None:
    """Shares (R, B) and prices (R,) of more machines, starting from some prices; None after too many iterations.

    A simplex over whole assignments of sizes to machines: at the prices of the basis, each size goes to the machine
    with the lowest cost, and that assignment joins the basis. The rows are the machines' loads, and one row makes the
    parts of the assignments add up to 1. The columns are these parts, the slack of the loads, and the peak.
    """
    count, sizes = load.shape
    able: Mask = np.isfinite(load)
    is_all_able, each = bool(able.all()), np.arange(sizes)
    finite = load if is_all_able else np.where(able, load, 0.0)

    def assigned(worth: Array) -> tuple[Indices, float, Array]:
        """The cheapest assignment (B,), its cost, and its loads (R,)."""
        cost = finite * worth[:, None]
        if not is_all_able:
            cost[~able] = np.inf
        place = np.asarray(cost.argmin(axis=0), np.int64)
        taken: Array = np.asarray(np.bincount(place, weights=finite[place, each], minlength=count), float)
        return place, float(taken @ worth), taken

    place, _, taken = assigned(worth / worth.sum())
    full = int(taken.argmax())
    # For each position of the basis: the column, its cost, and the assignment that it belongs to.
    basis = np.eye(count + 1)
    basis[:, full] = np.append(np.full(count, -1.0), 0.0)
    basis[:, count] = np.append(taken, 1.0)
    cost = np.eye(count + 1)[full]
    of_column: list[Indices | None] = [None] * count + [place]
    for _ in range(_TURNS):
        inverse = np.linalg.inv(basis)
        dual = cost @ inverse
        point, worth, peak = inverse[:, count], -dual[:count], float(dual[count])
        slack = int(worth.argmin())
        if peak <= enough:
            break
        if worth[slack] < -_EXACT:
            entering, assignment = np.eye(count + 1)[slack], None
        else:
            place, least, taken = assigned(np.maximum(worth, 0.0))
            if least >= peak * (1 - _EXACT):
                break
            entering, assignment = np.append(taken, 1.0), place
        step = inverse @ entering
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(step > 1e-12, np.maximum(point, 0.0) / step, np.inf)
        leaving = int(ratio.argmin())
        basis[:, leaving], cost[leaving], of_column[leaving] = entering, 0.0, assignment
    else:
        return None
    share = np.zeros(load.shape)
    for part, of_sizes in zip(point.tolist(), of_column, strict=True):
        if of_sizes is not None:
            share[of_sizes, each] += max(part, 0.0)
    return share / share.sum(axis=0), np.maximum(worth, 0.0) / np.maximum(worth, 0.0).sum()


def _of_any(load: Array) -> tuple[Array, Array] | None:
    """The same from a linear program; None if the solver finds no answer."""
    able = np.isfinite(load)
    type_of, size_of = np.nonzero(able)
    pairs, (count, sizes) = len(type_of), load.shape
    # The rate of one size may be a millionth of another's, so each size has a row in which its shares add up to 1.
    program = LinearRows(
        cost=np.append(np.zeros(pairs), 1.0),
        lower=np.zeros(pairs + 1),
        upper=np.full(pairs + 1, np.inf),
        row_lower=np.concatenate([np.ones(sizes), np.full(count, -np.inf)]),
        row_upper=np.concatenate([np.ones(sizes), np.zeros(count)]),
        start=np.append(np.arange(0, 2 * pairs + 1, 2), 2 * pairs + count).astype(np.int32),
        row=np.concatenate([np.column_stack([size_of, sizes + type_of]).ravel(), sizes + np.arange(count)]).astype(
            np.int32
        ),
        value=np.concatenate([np.column_stack([np.ones(pairs), load[able]]).ravel(), -np.ones(count)]),
    )
    found = minimise(program)
    if found.x is None or not len(found.row_dual):
        return None
    share = np.zeros(load.shape)
    share[able] = np.clip(found.x[:-1], 0.0, None)
    return share / np.maximum(share.sum(axis=0), 1e-12), np.maximum(-found.row_dual[sizes:], 0.0)
