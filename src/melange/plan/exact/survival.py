"""Which fleets still serve everything after a loss: the cheapest of a list is found, and proven, with few trials.

For fixed instances n the shares are linear programs: one in normal operation, one for the loss of each used type. A
cut y of one of them holds for all: what is left after any loss must satisfy it,

    sum_r y_r (1 - h) p_r n_r - max_s y_s (1 - h) min(K, p_s n_s) >= g(y) := sum_b min_r y_r l_rb      for every y >= 0.

For given fleets this is plain arithmetic. Each fleet that fails yields a cut that rules out similar fleets.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from melange.plan.exact.lattice import TOO_NEAR, permitted
from melange.plan.exact.projection import Cuts, lifted
from melange.plan.fleet import TOLERANCE, Fleet, least_peak_shares, tidied
from melange.plan.milp.highs import PeakLoad
from melange.plan.milp.slices import sliced
from melange.plan.problem import ROUNDING, Positions, Problem
from melange.plan.search_clock import now_s
from melange.workload.workload import Array, Mask

# Numbers held in memory at once while a cut is applied to many fleets: 4 MB, as for lists without losses.
_CHUNK = 500_000
# The cuts that are kept: the first one, the closed-form bound, and the latest. More take longer to apply and rule out
# little more. Chosen by judgment.
_MOST_CUTS = 60
# With more types, two instances are replaced by one, not by two: there would be hundreds of thousands of fleets.
_FEW_TYPES = 60
# All instances of a type are replaced by up to this many of another type. Chosen by judgment.
_MOST_REPLACED = 16


@dataclass(slots=True, eq=False)
class Survival:
    """Cuts and trials of the fleets of one problem with spare replicas in total.

    Parameters
    ----------
    problem
        The problem.
    deadline
        When slices are no longer tried.
    cuts
        What is known of the loads that fleets must take; the closed-form bound at first.
    doubtful
        Cost of the cheapest fleet that failed without proof; infinite if there is none [USD/h].
    """

    problem: Problem
    deadline: float
    cuts: Cuts = field(init=False)
    doubtful: float = field(init=False, default=np.inf)

    def __post_init__(self) -> None:
        self.cuts = Cuts(weight=np.empty((0, len(self.problem.cost))))
        self.cuts.add(self.problem, self.problem.cost / self.problem.capacity)

    def part(self, problem: Problem) -> Survival:
        """The same for a problem with some of the types and fewer instances."""
        found = Survival(problem=problem, deadline=self.deadline)
        # A cut stays valid without types, but a larger part of the demand may be needed: evaluate it again.
        for row in self.cuts.weight[1:, np.isin(self.problem.types, problem.types)]:
            found.cuts.add(problem, row)
        found.doubtful = self.doubtful
        return found

    def allow(self, fleets: Positions, weight: Array | None = None) -> Mask:
        """Which fleets (N, R) satisfy the cuts ``weight`` (K, R) after every loss; None: all cuts known."""
        problem = self.problem
        ok = np.ones(len(fleets), bool)
        for row in self.cuts.weight if weight is None else weight:
            left = np.flatnonzero(ok)
            if not len(left):
                break
            for part in np.array_split(left, 1 + len(left) * len(row) // _CHUNK):
                count = fleets[part]
                lost = np.minimum(problem.replicas * count, problem.spare_total) * row
                rest = count @ (problem.capacity * row) - (1.0 - problem.headroom) * lost.max(axis=1)
                ok[part] = rest >= 1.0 - ROUNDING
                if problem.spare.any():
                    ok[part] &= problem.carried(count) @ row >= 1.0 - ROUNDING
        return ok

    def cheapest_of(self, fleets: Positions, until: float = np.inf) -> Fleet | None:
        """The cheapest of some fleets (N, R) that survives; None if none does, or if time ran out.

        No fleet of the list that costs less survives, except that one of the cost ``doubtful`` may.
        """
        fleets = self.possible(fleets)
        cost = fleets @ self.problem.cost
        order = np.lexsort(((fleets > 0).sum(axis=1), cost))  # among equally cheap ones, fewer types first
        fleets, cost = fleets[order], cost[order]
        while len(fleets):
            known = len(self.cuts.weight)
            found, is_certain = self.trial(fleets[0])
            if found is not None:
                return found
            if not is_certain:
                self.doubtful = min(self.doubtful, float(cost[0]))
            if now_s() > min(self.deadline, until):
                self.doubtful = min(self.doubtful, float(cost[0]))
                return None
            kept = self.allow(fleets[1:], self.cuts.weight[known:])
            fleets, cost = fleets[1:][kept], cost[1:][kept]
            self._forget()
        return None

    def possible(self, fleets: Positions) -> Positions:
        """The fleets (N, R) that break no limit and no cut."""
        problem = self.problem
        ok = permitted(problem, fleets) & fleets.any(axis=1)
        if problem.min_total:
            ok &= fleets @ problem.replicas >= problem.min_total - ROUNDING
        fleets = fleets[ok]
        return fleets[self.allow(fleets)]

    def trial(self, count: Positions) -> tuple[Fleet | None, bool]:
        """The fleet with its shares if it survives every loss, and whether the answer is certain; learns cuts."""
        problem = self.problem
        used = np.flatnonzero(count)
        oracle = PeakLoad(problem.load[used])
        after_loss: dict[int, Array] = {}
        # The most valuable loss first: it fails most often.
        value = problem.cost[used] * np.minimum(count[used], problem.spare_total / problem.replicas[used])
        for lost in used[np.argsort(-value, kind="stable")].tolist():
            share, is_certain = self._shares(oracle, used, problem.carried_after_loss(count, lost))
            if share is None:
                return None, is_certain
            after_loss[lost] = share
        share, is_certain = self._shares(oracle, used, problem.carried(count))
        if share is not None and problem.slices is not None:
            share, is_certain = sliced(problem, share, problem.carried(count), self.deadline)
        if share is None:
            return None, is_certain
        return Fleet(instances=count, share=share, after_loss=after_loss, bound=0.0, status="known"), True

    def _shares(self, oracle: PeakLoad, used: Positions, carried: Array) -> tuple[Array | None, bool]:
        """Shares (R, B) that fit into ``carried`` (R,), and whether the answer is certain; learns a cut if none do."""
        problem = self.problem
        peak, price, worth = oracle(carried[used])
        if peak > 1 + TOO_NEAR:
            weight = np.zeros(len(carried))
            weight[used] = price
            row = self.cuts.add(problem, lifted(problem, weight, worth, carried > 0))
            if row is not None and row @ carried < 1.0 - ROUNDING:
                return None, True
        else:
            whole = np.zeros(problem.load.shape)
            whole[used] = oracle.shares()
            share = tidied(problem, whole, carried)
            if share is not None:
                return share, True
        found = least_peak_shares(problem, carried)
        if found is None or found[1] > 1 + TOLERANCE:
            return None, found is None or peak > 1 + TOO_NEAR
        return found[0], True

    def _forget(self) -> None:
        if len(self.cuts.weight) > _MOST_CUTS:
            self.cuts.weight = np.vstack([self.cuts.weight[:1], self.cuts.weight[1 - _MOST_CUTS :]])


def neighbors(count: Positions, most: Positions, cost: Array) -> Positions:
    """Fleets (N, R) that are cheaper than ``count`` (R,) and near it.

    One or two instances go, or all of a type; one or two others come instead, or several of one type.
    """
    used, unit = np.flatnonzero(count), np.eye(len(count), dtype=np.int64)
    nothing = np.zeros((1, len(count)), np.int64)
    pairs = [unit[r] + unit[s] for at, r in enumerate(used) for s in used[at:] if r != s or count[r] > 1]
    found = [nothing[:0]]
    for one in [*unit[used], *pairs]:
        come = np.vstack([nothing, unit])
        if one.sum() == 1 or len(count) <= _FEW_TYPES:
            both = np.argwhere(np.triu(cost[:, None] + cost < cost @ one - ROUNDING))
            come = np.vstack([come, unit[both[:, 0]] + unit[both[:, 1]]])
        found.append(count - one + come[come @ cost < cost @ one - ROUNDING])
    for r in used:
        times = np.minimum(np.ceil(count[r] * cost[r] / cost - ROUNDING) - 1, np.minimum(most, _MOST_REPLACED))
        found += [count - count[r] * unit[r] + n * unit[times >= n] for n in range(1, int(times.max()) + 1)]
    fleets = np.unique(np.vstack(found), axis=0)
    return np.asarray(fleets[(fleets <= most).all(axis=1)])


def improved(survival: Survival, known: Fleet, deadline: float) -> Fleet:
    """The known fleet, or a cheaper one that few changes lead to."""
    while now_s() < deadline:
        fleets = neighbors(known.instances, survival.problem.most, survival.problem.cost)
        better = survival.cheapest_of(fleets, deadline) if len(fleets) else None
        if better is None:
            break
        known = better
    return known


def fleets_below(survival: Survival, ceiling: float, limit: int) -> Positions | None:
    """Every fleet (N, R) that costs less than a ceiling and satisfies the cuts; None if they are more than a limit.

    Types are added one after another. A part of a fleet goes if no addition within the ceiling can satisfy a cut.
    """
    problem, weight = survival.problem, survival.cuts.weight
    gain = weight * problem.capacity  # (K, R)
    order = np.argsort(-problem.cost, kind="stable")
    # What each USD/h spent on the types that come later gives to each cut at most.
    later = np.zeros((len(order) + 1, len(weight)))
    for at in range(len(order) - 1, -1, -1):
        later[at] = np.maximum(later[at + 1], gain[:, order[at]] / problem.cost[order[at]])
    part = np.zeros((1, len(order)), np.int32)
    spent, given = np.zeros(1), np.zeros((1, len(weight)))
    lost = np.zeros((1, len(weight)))
    for at, r in enumerate(order.tolist()):
        price = float(problem.cost[r])
        parts = [(part, spent, given, lost)]
        for n in range(1, int(problem.most[r]) + 1):
            fits = spent + n * price < ceiling
            if not fits.any():
                break
            more = part[fits].copy()
            more[:, r] = n
            loss = (1.0 - problem.headroom) * weight[:, r] * min(problem.spare_total, problem.replicas[r] * n)
            parts.append((more, spent[fits] + n * price, given[fits] + n * gain[:, r], np.maximum(lost[fits], loss)))
            if sum(len(one[1]) for one in parts) > 3 * limit:
                return None
        part, spent, given, lost = (np.concatenate(item) for item in zip(*parts, strict=True))
        reach = given - lost + (ceiling - spent)[:, None] * later[at + 1]
        kept = (reach >= 1.0 - ROUNDING).all(axis=1)
        part, spent, given, lost = part[kept], spent[kept], given[kept], lost[kept]
        if len(part) > limit:
            return None
    return part.astype(np.int64)
