"""The search for the cheapest fleet: if few fleets can be cheapest, list them; if not, solve the program."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from melange.errors import InfeasibleError, MelangeError
from melange.plan.exact.large import by_clusters
from melange.plan.exact.lattice import MOST_POINTS, build_lattice, cheapest_of, permitted, points
from melange.plan.exact.projection import first_cuts, instance_range, probe
from melange.plan.exact.start import first_fleets, trimmed
from melange.plan.fleet import Fleet, widened
from melange.plan.milp.highs import PeakLoad
from melange.plan.milp.program import OutOfTimeError, Say, by_program, fitting_shares
from melange.plan.options import Options
from melange.plan.problem import ROUNDING, Positions, Problem
from melange.plan.search_clock import now_s
from melange.plan.standing_losses import standing_losses
from melange.workload.workload import Array

# With up to this many types, the neighborhood of the rounded bound is listed to find a better first fleet: 4 counts of
# each type but one, so 16,000 fleets for 8 types, and four times as many for each further type. CPU time on 100 random
# instances of 60 buckets each (bench/instances.py): with a limit of 6, 1.7 times as much for 7 types and 1.5 times for
# 8; with a limit of 9, 2 % less for 9 types; with a limit of 10, 1.4 times as much for 10.
_FEW_TYPES = 8
# Fewer fleets than this are listed at once, without a better first fleet, which would cost more than it saves. On 200
# random instances of 60 buckets x 4 types: half and a quarter of it made no difference, twice was 5 % slower on
# average, never listing at once took 1.3 times as long, and no limit 4.4 times.
_EASY_POINTS = 3_000
# How far below and above the rounded bound counts are tried. CPU time on 100 to 200 random instances, with 4 and 8
# types: with none below 1.06 and 1.1 times, with one above 1.08 (5.6 at most) and 1.0, with three above 1.0 and 1.8.
_BELOW, _ABOVE = 1, 2
# More buckets than this are planned for in clusters. The bounds of clusters are weaker, and their programs are smaller
# than the whole one. Total CPU time on the 82 services of bench/services that have a plan: half of it 1.1 times, twice
# 1.2 times. On 24 to 32 random instances x 40 types, clusters took 1.25 times as much with 100 buckets; the whole
# program took 0.85 times as much with 150 and 1.2 times with 250.
_MANY_BUCKETS = 120
# With more types than this, a first plan is sought among the types that serve some size cheapest: enough types for
# their stocks to serve the size this many times, and at least this many types per size, in at most this share of the
# time left. Chosen by judgment: on 5,000 offers with stocks of 1 to 5, a tenth of the types is left.
_CORE_TYPES, _CORE_STOCK, _CORE_LEAST, _CORE_TIME = 200, 4.0, 8, 0.5
# If a fleet is known already, the search among those types has this share of that time. Chosen by judgment: on 5,000
# offers it found 15.93 USD/h in 2 s. The whole program found 17.20 in 12 s; with slices or at most three types, it did
# not find any below the first fleet (18.35).
_BETTER_TIME = 0.5
# Time for trying slices on one fleet after another [s], and the share of the time left for it. Then the whole program
# is solved, starting from the best fleet known by then.
_LISTING_S, _LISTING_SHARE = 2.0, 0.25
# Slices are first tried on the cheapest fleet for continuous shares, found in this share of the time, and on fleets
# with up to this many more instances. Chosen by judgment.
_CONTINUOUS_TIME, _MOST_ADDED = 0.3, 6
# Relative slack on the cost of the known fleet: cuts and costs are sums of thousands of terms, and their rounding must
# not rule out fleets that are as cheap as the known one, or the known one itself.
_ROOM = 1e-7


def cheapest(problem: Problem, options: Options, *, say: Say, deadline: float, prefer: Array | None = None) -> Fleet:
    """The cheapest fleet that carries everything; ``prefer`` are the current instances (R,).

    Raises
    ------
    InfeasibleError
        There is none.
    """
    if problem.spare_total:
        return standing_losses(problem, options, cheapest, say=say, deadline=deadline)
    favored = np.zeros(len(problem.cost)) if prefer is None else prefer
    oracle = PeakLoad(problem.load) if len(problem.cost) <= _FEW_TYPES else None
    easy = _first(problem, oracle)
    known = easy or _of_core(problem, options, say=say, deadline=deadline)
    if known is None:
        return by_program(problem, options, say=say, deadline=deadline)
    narrowed, least = _narrowed(problem, known.instances)
    if easy is not None and len(narrowed.cost) > _CORE_TYPES:
        known = _improved(problem, narrowed, easy, options, say=say, deadline=deadline)
        narrowed, least = _narrowed(problem, known.instances)
    if points(least, narrowed.most) > _EASY_POINTS and oracle is not None:
        count = _near_bound(problem.with_changes(slices=None), known.instances, oracle, favored, deadline)
        if (better := _fleet(problem, count)) is not None:
            known = better
            narrowed, least = _narrowed(problem, known.instances)
    ceiling = problem.cost @ known.instances
    say(f"first plan: {ceiling:.2f} USD/h; {points(least, narrowed.most):.3g} fleets may cost less")
    if points(least, narrowed.most) <= MOST_POINTS:
        until = deadline if problem.slices is None else _start_of_race(deadline)
        listed = _listed(problem, narrowed, least, favored, until)
        if listed is not None and _is_proven(problem, listed, options):
            return listed
        known = known if listed is None else _better(problem, listed, known, options)
    inside = np.isin(problem.types, narrowed.types)
    part = replace(known, instances=known.instances[inside], share=known.share[inside])
    fleet = widened(problem, _programmed(narrowed, part, options, say=say, deadline=deadline), inside)
    return _better(problem, fleet, known, options)


def _first(problem: Problem, oracle: PeakLoad | None) -> Fleet | None:
    """A first fleet, found in milliseconds; None if no fleet is found that easily."""
    starts = first_fleets(problem)
    if not starts:
        return None
    return _fleet(problem, trimmed(problem, starts[0], oracle)) or _fleet(problem, starts[0])


def _fleet(problem: Problem, count: Positions) -> Fleet | None:
    """A fleet with shares that fit, in whole slices if asked for; None if none were found."""
    share = fitting_shares(problem, count)
    return None if share is None else Fleet(instances=count, share=share, after_loss={}, bound=0.0, status="known")


def _start_of_race(deadline: float) -> float:
    """When the whole program is solved: trying slices on one fleet after another may use up all the time."""
    now = now_s()
    return now + min(_LISTING_S, _LISTING_SHARE * (deadline - now))


def _is_proven(problem: Problem, fleet: Fleet, options: Options) -> bool:
    cost = float(problem.cost @ fleet.instances)
    return fleet.bound >= cost * (1.0 - options.gap) - ROUNDING


def _better(problem: Problem, one: Fleet, other: Fleet, options: Options) -> Fleet:
    """The cheaper of two fleets, with the higher of their bounds."""
    best = min((one, other), key=lambda fleet: float(problem.cost @ fleet.instances))
    best = replace(best, bound=max(one.bound, other.bound))
    return replace(best, status="optimal" if _is_proven(problem, best, options) else "time limit")


def _of_core(problem: Problem, options: Options, *, say: Say, deadline: float) -> Fleet | None:
    """A first fleet for small stocks and many types, from the types alone that serve the sizes cheapest.

    For each size, types are taken in the order of its cost until their stocks could carry it a few times over.
    """
    types = len(problem.cost)
    if types <= _CORE_TYPES:
        return None
    priced = (problem.cost / problem.capacity)[:, None] * problem.load
    carries = (problem.capacity * problem.most)[:, None] / problem.load  # times that a type's stock carries each size
    order = np.argsort(priced, axis=0)
    reach = np.cumsum(np.take_along_axis(carries, order, axis=0), axis=0)
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(types)[:, None], axis=0)
    enough = (reach < _CORE_STOCK).sum(axis=0)
    kept = (rank <= np.maximum(enough, _CORE_LEAST)).any(axis=1)
    for need in problem.requirements:
        kept[np.flatnonzero(need.member)[np.argmin(problem.cost[need.member])]] = True
    if kept.all():
        return None
    now = now_s()
    try:
        part = by_program(problem.only(kept), options, say=say, deadline=now + _CORE_TIME * (deadline - now))
    except MelangeError:
        return None
    return replace(widened(problem, part, kept), bound=0.0)  # its bound holds for the core types only


def _improved(
    problem: Problem, narrowed: Problem, easy: Fleet, options: Options, *, say: Say, deadline: float
) -> Fleet:
    """The easily found fleet, or a cheaper one of few types: among thousands, the solver hardly finds any."""
    now = now_s()
    part = _of_core(narrowed, options, say=say, deadline=now + _BETTER_TIME * (deadline - now))
    if part is None or narrowed.cost @ part.instances >= problem.cost @ easy.instances:
        return easy
    return widened(problem, part, np.isin(problem.types, narrowed.types))


def _programmed(problem: Problem, known: Fleet, options: Options, *, say: Say, deadline: float) -> Fleet:
    """The cheapest fleet by mixed-integer programs, or the known fleet if they find none in time."""
    if problem.load.shape[1] > _MANY_BUCKETS and options.gap > 0 and problem.slices is None:
        return by_clusters(problem, options, known.instances, say=say, deadline=deadline)
    if problem.slices is not None:
        known = _from_continuous(problem, known, options, say=say, deadline=deadline)
    try:
        return by_program(problem, options, say=say, deadline=deadline, known=known)
    except InfeasibleError:
        return _alone_at_its_cost(problem, known)
    except OutOfTimeError:
        return replace(known, bound=probe(problem).floor, status="time limit")


def _alone_at_its_cost(problem: Problem, known: Fleet) -> Fleet:
    """The known fleet as the cheapest, if the solver finds no fleet at all that costs no more.

    By the solver's tolerance the known fleet then carries a little less than everything; by the check's, all of it.
    """
    return replace(known, bound=float(problem.cost @ known.instances), status="optimal")


def _from_continuous(problem: Problem, known: Fleet, options: Options, *, say: Say, deadline: float) -> Fleet:
    """A fleet for slices: the cheapest one for continuous shares with a few instances more; if none fits, the known."""
    now = now_s()
    until = now + _CONTINUOUS_TIME * (deadline - now)
    try:
        found = by_program(problem.with_changes(slices=None), options, say=say, deadline=until, known=known)
    except MelangeError:
        return known
    count = found.instances
    cheapest_first = np.flatnonzero(count)[np.argsort(problem.cost[count > 0], kind="stable")]
    for _ in range(_MOST_ADDED):
        if problem.cost @ count >= problem.cost @ known.instances or now_s() > until:
            return known
        if (fleet := _fleet(problem, count)) is not None:
            return fleet
        unit = np.eye(len(count), dtype=np.int64)
        more = [count + unit[r] for r in cheapest_first if permitted(problem, (count + unit[r])[None]).all()]
        if not more:
            return known
        count = more[0]
    return known


def _near_bound(problem: Problem, known: Positions, oracle: PeakLoad, favored: Array, deadline: float) -> Positions:
    """The best fleet near the rounded bound, if it is cheaper than the known fleet."""
    probes = probe(problem)
    center = np.floor(probes.busy / problem.capacity).astype(np.int64)
    least, most = np.maximum(center - _BELOW, 0), np.minimum(center + _ABOVE, problem.most)
    if (least > most).any():
        return known
    cuts = first_cuts(problem, probes)
    lattice = build_lattice(problem, least, most, cuts)
    ceiling = float(problem.cost @ known)
    fleet, _ = cheapest_of(lattice, cuts, oracle, prefer=favored, ceiling=ceiling, deadline=deadline)
    return known if fleet is None else fleet.instances


def _narrowed(problem: Problem, known: Positions) -> tuple[Problem, Positions]:
    """The problem with only the types and counts of fleets that cost no more than ``known``, and the least counts."""
    ceiling = float(problem.cost @ known) * (1 + _ROOM)
    # Once types are ruled out, buckets cost more to serve, which narrows the counts of the other types.
    while True:
        probes = probe(problem)
        least, most = instance_range(problem, probes, ceiling)
        kept = most > 0
        problem = problem.only(kept).with_changes(most=np.maximum(most[kept], 0))
        if kept.all():
            return problem, least


def _listed(whole: Problem, problem: Problem, least: Positions, favored: Array, deadline: float) -> Fleet | None:
    """The cheapest of the fleets left in ``problem``, a part of ``whole``; None if time ran out or all failed."""
    inside = np.isin(whole.types, problem.types)
    cuts = first_cuts(problem, probe(problem))
    lattice = build_lattice(problem, least, problem.most, cuts)
    fleet, bound = cheapest_of(
        lattice, cuts, PeakLoad(problem.load), prefer=favored[inside], ceiling=np.inf, deadline=deadline
    )
    return None if fleet is None else widened(whole, replace(fleet, bound=bound), inside)
