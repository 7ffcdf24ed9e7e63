"""The adaptive greedy heuristic of Cheng and Nguyen (arXiv 2604.07472, 2026), from its published description.

We read its abstract and summaries, not the algorithms line by line. It chooses models, tiers of GPUs, degrees of
parallelism and routes together. Here the model is given, a query type is a bucket of sizes, and a tier with its degree
is a replica type; its rates under limits on the mean determine the sizes that it can serve (feasibility selection).

- Greedy: first, one instance each of some types that cover all sizes is rented. Then each size is assigned: to
  instances with free capacity, otherwise to the same instances at another degree if that meets the limits (degree
  upgrade), otherwise to a new instance with the lowest price per newly served request (cost per effective coverage).
- Adaptive: the same is done with several orders of the sizes, and the cheapest fleet is kept. Instances are removed or
  replaced by cheaper ones if others have enough free capacity (consolidation, relocation).

The service's headroom is kept free on every instance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from fleets import Array, Counts, fleet, on_mean
from melange.errors import InfeasibleError
from melange.plan.plan import Plan
from melange.plan.problem import Problem, build
from melange.plan.servable import scope_of
from melange.service.session import Session

RANDOM_ORDERS = 4
ROUNDING = 1e-9
SEED = 0


@dataclass(frozen=True)
class Fleet:
    """Instances of each type (R,), and shares of each size (R, B)."""

    count: Counts
    share: Array

    def used(self, problem: Problem) -> Array:
        """Replicas in use by its requests (R,)."""
        busy = np.where(self.share > 0, problem.load * np.where(self.share > 0, self.share, 1.0), 0.0)
        return np.asarray(busy.sum(axis=1))

    def cost(self, problem: Problem) -> float:
        """Cost of all instances [USD/h]."""
        return float(self.count @ problem.cost)


def greedy(session: Session) -> Plan:
    """The cheapest fleet that the heuristic finds."""
    question = on_mean(session)
    scope = scope_of(question)
    whole = build(question, scope.allowed, scope.served)
    problem = whole.only(_cheapest_of_alike(question.profile.engines, whole))
    rate = question.workload.request_rate.ravel()[problem.cells]
    built = [found for order in _orders(problem, rate) if (found := _constructed(problem, rate, order)) is not None]
    if not built:
        raise InfeasibleError("no order of the sizes leads to a fleet")
    best = _improved(problem, min(built, key=lambda one: one.cost(problem)))
    shape = question.profile.max_request_rate.shape
    instances, share = np.zeros(shape[0], np.int64), np.zeros((shape[0], shape[1] * shape[2]))
    instances[problem.types] = best.count
    share[np.ix_(problem.types, problem.cells)] = best.share
    return fleet(question, instances, share.reshape(shape))


def _cheapest_of_alike(engines: tuple[object, ...], problem: Problem) -> np.ndarray:
    """Mask of the types (R,) that can be simulated and are the cheapest with their engine and number of replicas."""
    kept = np.zeros(len(problem.types), bool)
    known: set[object] = set()
    for r in np.argsort(problem.cost, kind="stable"):
        engine = engines[problem.types[r]]
        key = (engine, problem.replicas[r])
        kept[r] = engine is not None and key not in known
        known.add(key)
    return kept


def _orders(problem: Problem, rate: Array) -> list[np.ndarray]:
    """The orders in which sizes are assigned: by rate, by cost, by the number of types that serve them, at random."""
    able = np.isfinite(problem.load)
    price = (problem.cost / problem.replicas)[:, None] * np.where(able, problem.load, np.inf)
    orders = [np.argsort(key, kind="stable") for key in (-rate, rate, -price.min(axis=0), able.sum(axis=0))]
    random = np.random.default_rng(SEED)
    return [*orders, *(random.permutation(len(rate)) for _ in range(RANDOM_ORDERS))]


def _constructed(problem: Problem, rate: Array, order: np.ndarray) -> Fleet | None:
    """A fleet built size by size; None if a limit leaves a size without a type."""
    count = _covering(problem, rate)
    if count is None:
        return None
    found = Fleet(count=count, share=np.zeros(problem.load.shape))
    for b in order:
        while (left := 1.0 - found.share[:, b].sum()) > ROUNDING:
            step = _filled(problem, found, b, left) or _upgraded(problem, found, b) or _rented(problem, found, b, left)
            if step is None:
                return None
            found = step
    return found


def _covering(problem: Problem, rate: Array) -> Counts | None:
    """One instance of each of some types that cover all sizes, chosen by the lowest price per newly covered request."""
    count, left = np.zeros(len(problem.cost), np.int64), rate.copy()
    able = np.isfinite(problem.load)
    while (left > 0).any():
        covered = able @ left
        allowed = (covered > 0) & (_room(problem, count) > 0)
        if not allowed.any():
            return None
        r = int(np.argmin(np.where(allowed, problem.cost / np.maximum(covered, ROUNDING), np.inf)))
        count[r] += 1
        left[able[r]] = 0.0
    return count


def _filled(problem: Problem, found: Fleet, b: int, left: float) -> Fleet | None:
    """Assign a part of a size to instances with free capacity, the cheapest capacity first."""
    spare = problem.capacity * found.count - found.used(problem)
    price = problem.cost / problem.capacity * problem.load[:, b]
    open_to = (spare > ROUNDING) & np.isfinite(problem.load[:, b])
    if not open_to.any():
        return None
    r = int(np.argmin(np.where(open_to, price, np.inf)))
    return _with_share(found, r, b, min(left, spare[r] / problem.load[r, b]))


def _upgraded(problem: Problem, found: Fleet, b: int) -> Fleet | None:
    """The same instances at another degree, if that serves a size that theirs cannot, and all they carry."""
    offer_of = [name.rpartition(" tp")[0] for name in problem.names]  # "aws/us-east-1/g5.12xlarge tp2"
    for r in np.flatnonzero((found.count > 0) & ~np.isfinite(problem.load[:, b])):
        for s in np.flatnonzero(np.isfinite(problem.load[:, b]) & (found.count == 0)):
            if offer_of[r] != offer_of[s] or problem.cost[r] != problem.cost[s]:
                continue
            count, share = found.count.copy(), found.share.copy()
            count[r], count[s] = 0, found.count[r]
            share[r], share[s] = 0.0, found.share[r]
            moved = Fleet(count=count, share=share)
            if (moved.used(problem) < problem.capacity * moved.count + ROUNDING)[s]:
                return moved
    return None


def _rented(problem: Problem, found: Fleet, b: int, left: float) -> Fleet | None:
    """Rent instances for a size, of the type with the lowest price per newly served request."""
    part = np.minimum(problem.capacity / problem.load[:, b], left)  # share of the size that one instance serves
    allowed = (part > 0) & (_room(problem, found.count) > 0)
    if not allowed.any():
        return None
    r = int(np.argmin(np.where(allowed, problem.cost / np.maximum(part, ROUNDING), np.inf)))
    more = int(min(max(left // part[r], 1), _room(problem, found.count)[r]))
    count = found.count.copy()
    count[r] += more
    return replace(found, count=count)


def _room(problem: Problem, count: Counts) -> Array:
    """Number of additional instances of each type that may be rented (R,)."""
    room = np.full(len(count), 1e9)
    for limit in problem.limits:
        drawn = limit.members
        room[drawn] = np.minimum(room[drawn], (limit.most - limit.taken(count)) // limit.weight)
    if problem.max_types is not None and np.count_nonzero(count) >= problem.max_types:
        room[count == 0] = 0.0
    return room


def _with_share(found: Fleet, r: int, b: int, part: float) -> Fleet:
    share = found.share.copy()
    share[r, b] += part
    return replace(found, share=share)


def _improved(problem: Problem, found: Fleet) -> Fleet:
    """Improve a fleet while it gets cheaper by moving all load of one type to another, or by removing an instance."""
    while True:
        cost = found.cost(problem) - ROUNDING
        cheaper = _absorbed(problem, found)
        if cheaper is None or cheaper.cost(problem) >= cost:
            order = sorted(map(int, np.flatnonzero(found.count)), key=lambda r: -problem.cost[r])
            fewer = (one for r in order for one in _neighbours(problem, found, r) if one is not None)
            cheaper = next(fewer, None)
        if cheaper is None:
            return found
        found = cheaper


def _absorbed(problem: Problem, found: Fleet) -> Fleet | None:
    """The cheapest fleet in which one type takes over the load of another type, or of all others."""
    active = np.flatnonzero(found.count)
    used, best = found.used(problem), None
    for given in [*([r] for r in active), list(active)]:
        share = found.share[given].sum(axis=0)
        count = found.count.copy()
        count[given] = 0
        work = np.where(share > 0, problem.load * np.where(share > 0, share, 1.0), 0.0).sum(axis=1)
        total = work + np.where(count > 0, used, 0.0)
        able = np.isfinite(total)
        needed = np.ceil(np.where(able, total, 0.0) / problem.capacity - ROUNDING)
        able &= needed - count <= _room(problem, count)
        cost = np.where(able, count @ problem.cost + (needed - count) * problem.cost, np.inf)
        s = int(np.argmin(cost))
        if able[s] and (best is None or cost[s] < best.cost(problem)):
            after = found.share.copy()
            after[given] = 0.0
            after[s] += share
            count[s] = int(needed[s])
            best = Fleet(count=count, share=after)
    return best


def _neighbours(problem: Problem, found: Fleet, r: int) -> Iterator[Fleet | None]:
    """Fleets without one instance of a type, and with a cheaper one instead of it, the cheapest first."""
    given_back = found.count.copy()
    given_back[r] -= 1
    yield _relocated(problem, replace(found, count=given_back), r)
    room = _room(problem, given_back)
    for s in np.argsort(problem.cost, kind="stable"):
        if problem.cost[s] < problem.cost[r] - ROUNDING and room[s] > 0:
            count = given_back.copy()
            count[s] += 1
            yield _relocated(problem, replace(found, count=count), r)


def _relocated(problem: Problem, found: Fleet, r: int) -> Fleet | None:
    """The fleet with the excess load of one type moved to others; None if their free capacity is too small."""
    share = found.share.copy()
    used = found.used(problem)
    spare = problem.capacity * found.count - used
    over, spare[r] = -spare[r], 0.0
    price = (problem.cost / problem.capacity)[:, None] * problem.load
    cells = np.flatnonzero(share[r])
    ratio = np.where(spare[:, None] > ROUNDING, price[:, cells], np.inf).min(axis=0) / price[r, cells]
    for b in cells[np.argsort(ratio, kind="stable")]:
        able = np.flatnonzero((spare > ROUNDING) & np.isfinite(price[:, b]))
        for s in able[np.argsort(price[able, b], kind="stable")]:
            part = min(share[r, b], spare[s] / problem.load[s, b], over / problem.load[r, b])
            if part <= ROUNDING:
                break
            share[r, b] -= part
            share[s, b] += part
            spare[s] -= part * problem.load[s, b]
            over -= part * problem.load[r, b]
    return replace(found, share=share) if over <= ROUNDING else None
