"""Few types, or few that can matter: list every fleet that could be cheapest, and try them in order of cost.

Fleets that cost no more than a known one lie in a small box. The box is listed over all types but one, and cuts give
the least number of the last type. The cheapest fleet left is tried: either it carries the traffic and is the answer, or
it yields a cut that removes it and similar fleets. The first fleet that carries the traffic is proven cheapest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from melange.plan.exact.projection import Cuts, lifted
from melange.plan.fleet import TOLERANCE, Fleet, least_peak_shares, tidied
from melange.plan.milp.highs import PeakLoad
from melange.plan.milp.slices import sliced
from melange.plan.problem import ROUNDING, Positions, Problem
from melange.plan.search_clock import now_s
from melange.workload.workload import Array, Mask

# More points than this are left to the mixed-integer solver. With a higher limit, listing takes memory and time; with a
# lower one, problems that listing proves at once are lost. Total CPU time: on 82 services of bench/services half of it
# no difference, twice 4 % more; on 100 random instances each of 60 buckets x 8, 12 and 20 types neither differs, ten
# times is 12 to 69 % more; on 200 of 6 types half of it 7 % more, a tenth 37 %.
MOST_POINTS = 30_000
# Numbers held in memory at once while many cuts are applied to many fleets: 4 MB. CPU time for 65 cuts and 25,000
# fleets: four times of it 1.3 times, two fifths of it 1.3, a fifth 1.5.
_CHUNK = 500_000
# Peaks closer to 1 than this are decided by a fresh solve: a solver that continues from fleet to fleet is accurate only
# to its tolerance of 1e-7, which must not rule out a fleet.
TOO_NEAR = 1e-7
# Part of a cut that fleets lack without the last type. Above this, they need at least one instance of it, however thin
# the traffic is; below, the lack may be rounding.
_LACKING = 0.5


@dataclass(slots=True, eq=False)
class Lattice:
    """Fleets in a box over all types but one, with the least count of the last type that no cut forbids.

    Parameters
    ----------
    problem
        The planning problem.
    grid
        Instances of each type (N, R); the column of the last type changes.
    last
        The type that is not listed.
    cost
        Cost of each fleet (N,) [USD/h]; infinite for fleets that are ruled out.
    """

    problem: Problem
    grid: Positions
    last: int
    cost: Array

    def raise_to(self, weights: Array) -> None:
        """Raise the last type wherever one of the cuts ``weights`` C(n) >= 1 (K, R) asks for it."""
        problem, last = self.problem, self.last
        carried = problem.carried(self.grid)
        carried[:, last] = 0.0
        across = np.ascontiguousarray(carried.T)
        load, is_lacking = np.zeros(len(carried)), np.zeros(len(carried), bool)
        for part in np.array_split(weights, 1 + len(carried) * len(weights) // _CHUNK):
            if not len(part):
                continue
            short = part @ across
            np.subtract(1.0 - ROUNDING, short, out=short)
            is_lacking |= short.max(axis=0) > _LACKING
            helps = part[:, last] > 0
            if not helps.all():
                load[short[~helps].max(axis=0) > 0] = np.inf
                short = short[helps]
            if len(short):
                short /= part[helps, last][:, None]
                np.maximum(load, short.max(axis=0), out=load)
        self.cost[np.isinf(load)] = np.inf
        replicas = load / (1.0 - problem.headroom) + problem.spare[last]
        with np.errstate(invalid="ignore"):
            count = np.where(load > 0, np.ceil(replicas / problem.replicas[last] - ROUNDING), 0.0)
        count = np.maximum(count, is_lacking)
        where = np.flatnonzero((count > self.grid[:, last]) & np.isfinite(self.cost))
        self.grid[where, last] = count[where]
        self.settle(where)

    def settle(self, where: Positions) -> None:
        """Raise the last type to its minimums, remove fleets that break a limit, and set the costs."""
        problem, last = self.problem, self.last
        part = self.grid[where]
        least = np.zeros(len(where))
        if problem.min_total:
            rest = part @ problem.replicas - part[:, last] * problem.replicas[last]
            least = np.maximum(least, np.ceil((problem.min_total - rest) / problem.replicas[last] - ROUNDING))
        for need in problem.requirements:
            if need.member[last]:
                unmet = ~part[:, np.flatnonzero(need.member)].any(axis=1)
                least = np.maximum(least, unmet)
        count = np.maximum(part[:, last], least)
        whole = max(problem.least[last], np.ceil(problem.spare[last] / problem.replicas[last]))
        part[:, last] = np.where(count > 0, np.maximum(count, whole), 0)
        self.grid[where] = part
        self.cost[where] = np.where(permitted(problem, part), part @ problem.cost, np.inf)


def permitted(problem: Problem, fleets: Positions) -> Mask:
    """Which fleets (N, R) respect every limit that depends on instances alone."""
    ok: Mask = np.asarray((fleets <= problem.most).all(axis=1), bool)
    for limit in problem.limits:
        if len(limit.members) > 1:  # a limit of one type is part of its ``most``
            ok &= limit.taken(fleets) <= limit.most + ROUNDING
    for need in problem.requirements:
        ok &= fleets[:, need.member].any(axis=1)
    if (problem.least > 1).any() or problem.spare.any():
        least = np.maximum(problem.least, np.ceil(problem.spare / problem.replicas))
        ok &= ((fleets == 0) | (fleets >= least)).all(axis=1)
    if problem.max_types is not None:
        ok &= (fleets > 0).sum(axis=1) <= problem.max_types
    return ok


def points(least: Positions, most: Positions) -> float:
    """Number of fleets in the box over all types but its widest."""
    width = (most - least + 1).clip(min=0).astype(float)
    with np.errstate(over="ignore"):  # with thousands of types the product overflows
        return float(width.prod() / max(width.max(), 1.0))


def build_lattice(problem: Problem, least: Positions, most: Positions, cuts: Cuts) -> Lattice:
    """List the box ``least`` to ``most`` (R,) over all types but the widest, and apply the cuts."""
    last = int(np.argmax(most - least))
    axes = [np.arange(low, high + 1) for low, high in zip(least, most, strict=True)]
    axes[last] = least[last : last + 1]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(least))
    lattice = Lattice(problem=problem, grid=grid, last=last, cost=np.zeros(len(grid)))
    lattice.settle(np.arange(len(grid)))
    lattice.raise_to(cuts.weight)
    return lattice


def cheapest_of(
    lattice: Lattice, cuts: Cuts, oracle: PeakLoad, *, prefer: Array, ceiling: float, deadline: float
) -> tuple[Fleet | None, float]:
    """The cheapest fleet of the lattice that carries everything, and the bound it proves.

    Parameters
    ----------
    prefer
        Instances of the current plan (R,): the nearest among equally cheap fleets is tried first.
    ceiling
        Fleets that cost this much or more are skipped [USD/h].
    """
    problem, doubtful = lattice.problem, np.inf
    while True:
        cheapest = float(lattice.cost.min(initial=np.inf))
        bound = min(cheapest, doubtful)
        if not cheapest < ceiling:
            return None, min(bound, ceiling)
        if now_s() > deadline:
            return None, bound
        at = _nearest(lattice, cheapest, prefer)
        count = lattice.grid[at].copy()
        weight, share, certain = _trial(problem, cuts, oracle, count, deadline)
        if share is not None:
            fleet = Fleet(instances=count, share=share, after_loss={}, bound=bound, status="optimal")
            return fleet, bound
        if not certain:
            doubtful = min(doubtful, cheapest)
        if weight is not None:
            lattice.raise_to(weight[None])
        if (lattice.grid[at] == count).all() and np.isfinite(lattice.cost[at]):
            # Rule out only this one fleet: its slices do not fit, or rounding leaves a doubt.
            lattice.grid[at, lattice.last] += 1
            lattice.settle(np.array([at]))


def _nearest(lattice: Lattice, bound: float, prefer: Array) -> int:
    """Among the cheapest fleets the one with the fewest changes, then the fewest types."""
    ties = np.flatnonzero(lattice.cost <= bound * (1 + ROUNDING))
    if len(ties) == 1:
        return int(ties[0])
    fleets = lattice.grid[ties]
    order = np.lexsort(((fleets > 0).sum(axis=1), np.abs(fleets - prefer).sum(axis=1)))
    return int(ties[order[0]])


def _trial(
    problem: Problem, cuts: Cuts, oracle: PeakLoad, count: Positions, deadline: float
) -> tuple[Array | None, Array | None, bool]:
    """A cut that shows why a fleet fails, or shares (R, B) with which it works; and whether the answer is certain."""
    carried = problem.carried(count)
    peak, price, worth = oracle(carried)
    if peak > 1 + TOO_NEAR:
        weight = _cut_of(problem, cuts, price, worth, carried)
        if weight is not None:
            return weight, None, True
    share = tidied(problem, oracle.shares(), carried) if peak <= 1 + TOO_NEAR else None
    if share is None:
        found = least_peak_shares(problem, carried)
        if found is None or found[1] > 1 + TOLERANCE:
            return None, None, peak > 1 + TOO_NEAR or found is None
        share = found[0]
    if problem.slices is not None:
        return None, *sliced(problem, share, carried, deadline)
    return None, share, True


def _cut_of(problem: Problem, cuts: Cuts, price: Array, worth: Array, carried: Array) -> Array | None:
    """Weights of the cut by the duals, prices of unused types raised as far as possible; None if the fleet meets it."""
    weight = cuts.add(problem, lifted(problem, price, worth, carried > 0))
    return weight if weight is not None and weight @ carried < 1.0 - ROUNDING else None
