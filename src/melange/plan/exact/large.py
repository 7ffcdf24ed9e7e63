"""Solve large problems to a proven gap: a program over clusters of buckets proposes, the whole problem corrects.

The relaxed program bounds the cost from below. Its fleet is tried on the whole problem; if the fleet does not carry the
traffic, cuts that it violates are added and the clusters are refined.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from melange.plan.exact.clusters import cluster, relaxed, served_alike
from melange.plan.exact.lattice import permitted
from melange.plan.exact.projection import Cuts, first_cuts, lifted, probe
from melange.plan.exact.start import trimmed
from melange.plan.fleet import TOLERANCE, Fleet, least_peak_shares
from melange.plan.milp.formulation import formulate
from melange.plan.milp.highs import PeakLoad, minimise
from melange.plan.milp.program import Say, start_point
from melange.plan.options import Options
from melange.plan.problem import ROUNDING, Positions, Problem
from melange.plan.search_clock import now_s

# The figures below are CPU time on 24 random instances of 500 buckets x 40 types (bench/instances.py) to a gap of 1e-3,
# geometric mean; no setting proves one of them within 20 s. Differences below 5 % are chance.

# Clusters and types of the program that searches for a good first fleet. With fewer, the fleet is worse or there is
# none; with more, finding it takes longer. Half the clusters: 1.7 times the time, up to 33 times; twice: no difference.
# Half the types: 1.1 times, up to 35 times; twice: 1.4 times.
_ROUGH_CLUSTERS, _ROUGH_TYPES = 40, 30
# A type is wanted for a bucket to the extent that it costs less than this many times the cheapest. 1.15: no difference;
# 1.6: one more instance unproven.
_WANTED = 1.3
# Clusters of the first bounding program, and the factor by which each later one has more. With fewer, bounds are weak;
# with more, each program takes longer. Half: no difference in the mean, and 1.2 times in sum; twice: 1.1 times. Growing
# fourfold: no difference.
_FIRST_CLUSTERS, _MORE_CLUSTERS = 120, 2
# Share of the time left for the search for a good fleet, so that some time is left for the proof. It matters only if
# the time limit is short. Half and twice: no difference at 20 s.
_ROUGH_TIME_SHARE = 0.1
# Programs over one set of clusters before clusters are refined; each has the cuts learned from the previous one. Two:
# one more instance unproven; eight: no difference.
_ROUNDS = 4
# Fleets from which cuts are learned; each has one instance more than the previous one. One: one more instance unproven;
# eight: no difference.
_CORRECTIONS = 4
# Factors on the prices of idle types in the cuts of one fleet, over the true prices: each cut is valid, and they rule
# out different fleets. Only the last: no difference; only the last and one correction: 1.2 times the time in sum on 16
# instances of 2,000 x 200.
_LIFTS = (1.0, 1.1, np.inf)


@dataclass(slots=True, eq=False)
class _Known:
    """What is known so far.

    Parameters
    ----------
    count
        Instances of the best fleet (R,).
    cost
        Its cost [USD/h].
    bound
        No fleet costs less [USD/h].
    """

    count: Positions
    cost: float
    bound: float

    def is_proven(self, gap: float) -> bool:
        """Whether the gap is closed."""
        return self.bound >= self.cost * (1.0 - gap) - ROUNDING

    def offer(self, problem: Problem, count: Positions) -> None:
        """Keep a fleet that carries everything, if it is cheaper."""
        cost = float(problem.cost @ count)
        if cost < self.cost - ROUNDING:
            self.count, self.cost = count, cost


def by_clusters(problem: Problem, options: Options, start: Positions, *, say: Say, deadline: float) -> Fleet:
    """The cheapest fleet to within ``options.gap``, starting from a fleet that carries everything."""
    probes = probe(problem)
    known = _Known(count=start, cost=float(problem.cost @ start), bound=probes.floor)
    if not known.is_proven(options.gap):
        _improve(problem, known, options, deadline)
    cuts = first_cuts(problem, probes, few=True)
    size = _FIRST_CLUSTERS
    while not known.is_proven(options.gap) and now_s() < deadline:
        say(f"best {known.cost:.2f} USD/h, lower bound {known.bound:.2f}; {size} clusters of request sizes")
        _bound(problem, known, cuts, options, size, deadline)
        size = min(size * _MORE_CLUSTERS, problem.load.shape[1])
    found = least_peak_shares(problem, problem.carried(known.count))
    assert found is not None
    status = "optimal" if known.is_proven(options.gap) else "time limit"
    return Fleet(
        instances=known.count, share=found[0], after_loss={}, bound=min(known.bound, known.cost), status=status
    )


def _improve(problem: Problem, known: _Known, options: Options, deadline: float) -> None:
    """Search for a better fleet among plans that serve the buckets of a cluster alike, with the most wanted types."""
    priced = (problem.cost / problem.capacity)[:, None] * problem.load
    least = priced.min(axis=0)
    want = (np.maximum(0.0, _WANTED - priced / least) * least).sum(axis=1)
    kept = np.zeros(len(want), bool)
    kept[np.argsort(-want, kind="stable")[:_ROUGH_TYPES]] = True
    kept |= known.count > 0
    part = problem.only(kept)
    rough = served_alike(part, cluster(part, _ROUGH_CLUSTERS))
    milp = formulate(rough)
    seconds = _ROUGH_TIME_SHARE * (deadline - now_s())
    start = start_point(rough, milp, known.count[kept])
    # Half the gap, here and below: the other half is for what clusters lose against the whole problem.
    outcome = minimise(milp.program, time_limit_s=seconds, gap=options.gap / 2, seed=options.seed, start=start)
    if outcome.x is not None:
        count = np.zeros(len(kept), np.int64)
        count[kept] = np.round(outcome.x[: len(part.cost)])
        _try(problem, known, count)


def _try(problem: Problem, known: _Known, count: Positions) -> bool:
    """Offer a fleet, and the same fleet trimmed, if it carries everything."""
    found = least_peak_shares(problem, problem.carried(count))
    if found is None or found[1] > 1 + TOLERANCE:
        return False
    known.offer(problem, trimmed(problem, count))
    return True


def _bound(problem: Problem, known: _Known, cuts: Cuts, options: Options, size: int, deadline: float) -> None:
    """One round: solve the relaxed program with the cuts so far, raise the bound, try its fleet, learn cuts from it."""
    rough = relaxed(problem, cluster(problem, size))
    for _ in range(_ROUNDS):
        milp = formulate(rough, cuts=cuts.weight)
        outcome = minimise(
            milp.program,
            time_limit_s=deadline - now_s(),
            gap=options.gap / 2,
            seed=options.seed,
            start=start_point(rough, milp, known.count),
            heuristics=False,
            # If the relaxation has a point below this, clusters are too coarse to prove the gap: stop early.
            target=known.cost * (1.0 - options.gap),
        )
        known.bound = max(known.bound, outcome.bound)
        if known.is_proven(options.gap) or outcome.x is None:
            return
        count = np.round(outcome.x[: len(problem.cost)]).astype(np.int64)
        if _try(problem, known, count) or known.is_proven(options.gap):
            return
        if not _learn(problem, known, cuts, count):
            return


def _learn(problem: Problem, known: _Known, cuts: Cuts, count: Positions) -> bool:
    """Add cuts that a fleet violates, and try the fleet with the instances that it lacks; False if no cut was added."""
    learnt = False
    for _ in range(_CORRECTIONS):
        used = np.flatnonzero(count)
        carried = problem.carried(count)
        peak, price, worth = PeakLoad(problem.load[used])(carried[used])
        if not np.isfinite(peak) or peak <= 1 + TOLERANCE:
            break
        full = np.zeros(len(count))
        full[used] = price
        full = lifted(problem, full, worth, count > 0)
        true = problem.cost / problem.capacity
        scale = float(price @ true[used] / (true[used] @ true[used]))
        for factor in _LIFTS:
            trial = full.copy()
            idle = count == 0
            trial[idle] = np.minimum(full[idle], factor * scale * true[idle])
            weight = cuts.add(problem, trial)
            learnt |= weight is not None and bool(weight @ carried < 1 - TOLERANCE)
        count = count.copy()
        # One more of the type that relieves the overload at least cost.
        count[int(np.argmax(full * problem.capacity / problem.cost))] += 1
        if problem.cost @ count >= known.cost:
            break
        if permitted(problem, count[None]).all() and _try(problem, known, count):
            break
    return learnt
