"""Small fleets, tried one by one: the steps from one instance to the next are large, and factors on rates miss some.

The routing of prompts decides what a small fleet holds. A long prompt stops the short answers beside it, so a fleet
whose shares have the lowest peak load may miss the SLO although it meets the SLO with other shares. Shares are moved in
two ways as long as simulated requests meet their limits more easily: by the headroom of one type against the others,
and by the size of the prompts. Fleets that stay far from the SLO drop out round by round.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from melange.plan.plan import Plan
from melange.plan.problem import ROUNDING
from melange.validate.certify.effort import Effort, is_late
from melange.validate.certify.headroom import Search, as_asked
from melange.validate.certify.plan_trial import Trial, nearest_shares
from melange.workload.workload import Array

# The figures below are from the twelve cases of bench/certify.py at 4 requests a second: cost of certified plans, CPU
# time of all certificates (known to a tenth). None changed more than two plans; beyond that, chosen by judgment.

# Fleets are tried one by one if the best known one has at most this many instances: with more, there are too many to
# try; with none, one plan costs 10 % more, in 0.6 times the time; half and twice: no difference. The other two are the
# number of fleets that are examined, and of types in them: half and twice, and three types: no difference.
_SMALL_FLEET, _MOST_FLEETS, _MOST_TYPES = 16, 400, 5
# The summed loads must also be at most this share of the capacity that the factors leave: a fleet beyond it would need
# more than moved shares. 1.1 and 1.5: no difference.
_MOST_PEAK = 1.25
# Number of fleets with the lowest peak load that are simulated; number for which the types' headroom is moved, and most
# for which prompts are moved: more finds more, and takes longer. Half and twice: no difference; prompts of none: one
# plan costs 10 % more, in 0.85 times the time.
_SIMULATED, _BALANCED, _MOVED = 40, 8, 5
# Largest CPU time of all these simulations [s]: with long outputs fewer fleets are examined. Half: one plan costs 22 %
# more; twice: no difference in five of the cases.
_MOST_S = 3.0
# Parts of that time after which no further fleet is examined, and after which no headroom is moved: the rest is for the
# steps that follow. Chosen by judgment.
_LOOKING, _BALANCING = 0.4, 0.75
# Multiples of the misses that the SLO allows: strain that no move makes up for (half: 0.85 times the time; twice: no
# difference), misses that moves may make up for (half: 0.9 times the time; twice: no difference), misses that need no
# moves (twice: two plans cost 7 and 5 % more), and misses that other requests may show to be within the SLO (half and
# twice: no difference).
_FAR, _WORTH_MOVES, _ENOUGH, _WORTH_A_TRIAL = 30.0, 3.0, 0.4, 1.5
# A more expensive fleet may become easier on requests than a cheaper one that is this many times easier now. 1: one
# plan costs 10 % more, in 0.85 times the time; 3: one costs 5 % less.
_NEARLY = 1.5
# Factors that move the headroom of a type against the others (without: one plan costs 10 % more, in 0.85 times the
# time), and number of moves of prompts that are tried (half: one plan costs 10 % more; twice: no difference).
_HEADROOM_STEPS, _MOVES = (1.35, 1.16), 40
# Sets of requests that choose moves. Other requests decide on the result, so moves that only fit these sets are
# detected, and cost time. One: no difference, in 0.85 times the time; six: no difference.
_SETS = 3
# Fleets whose proofs failed, or nearly held, that get other shares after all; most misses, as a multiple of those that
# the SLO allows; largest CPU time of that [s]; and moves of prompts that are tried for each. Chosen by judgment, after
# fleets that would save 8 % were given up because the first shares that were proven missed.
_AFTER_ALL, _NEARLY_ALLOWED, _AFTER_ALL_S, _MORE_MOVES = 4, 1.5, 4.0, 120
# How moves of prompts are drawn: one size, all sizes up to it, or all from it on; and the part that moves. By judgment.
_SIZES_CHANCE, _PARTS = (0.7, 0.15, 0.15), (1.0, 0.5, 0.25)


@dataclass(slots=True, kw_only=True, eq=False)
class _Entrant:
    """A fleet whose shares are moved.

    Parameters
    ----------
    plan
        The plan, with the shares under which requests meet their limits most easily so far.
    instances
        Instances of each replica type (R,).
    factor
        Factors on the rates with which the shares were found (R, I, O).
    strain
        How hard the plan is for requests, 0-1; see :meth:`~melange.validate.certify.judge.Judge.strain`.
    """

    plan: Plan
    instances: npt.NDArray[np.int64]
    factor: Array
    strain: float


def cheaper_fleet(search: Search, best: Trial, factor: Array) -> Trial:
    """The cheapest small fleet found that holds and costs less than the best known plan; else that plan.

    Parameters
    ----------
    search
        The plans tried so far, and the judge.
    best
        The best known plan.
    factor
        Factors on rates (R, I, O) that determine shares.
    """
    options = search.question.options
    if options.slices or options.spare_total_replicas or best.plan.instances.sum() > _SMALL_FLEET:
        return best
    effort = Effort(judge=search.judge, first=search.judge.work_s, most_s=_MOST_S)
    entrants = [
        one for one in _entrants(search, best, factor, effort) if one.strain <= _FAR * (1.0 - search.judge.target)
    ]
    promising = _promising(entrants)
    for entrant in promising:
        if effort.is_spent(_BALANCING):
            break
        entrant.strain = search.judge.ease(entrant.plan, _SETS).strain
        _balance(search, entrant, effort)
    moves = _MOVED
    for entrant in sorted(promising, key=lambda one: one.strain):  # one that holds rules out all that cost as much
        if entrant.plan.cost_per_h > best.plan.cost_per_h - ROUNDING:
            continue
        tried, is_moved = _tried(search, entrant, moves > 0, effort)
        moves -= is_moved
        if tried is not None and search.judge.holds(tried):
            best = tried
    return best


def nearly_held(search: Search, best: Trial) -> Iterator[Trial]:
    """Small fleets of several types that cost less than the best plan and nearly held, with shares that are easier.

    One set of shares decides on a fleet until its proof. If the proof fails by little, other shares may hold.

    Parameters
    ----------
    search
        The plans tried so far, and the judge.
    best
        The cheapest proven plan.
    """
    judge, options = search.judge, search.question.options
    if options.slices or options.spare_total_replicas or best.plan.instances.sum() > _SMALL_FLEET:
        return
    mixes = [one for one in judge.known.values() if np.count_nonzero(one.plan.instances) > 1]
    cheaper = [one for one in mixes if one.plan.cost_per_h < best.plan.cost_per_h - ROUNDING]
    near = [one for one in cheaper if 1.0 - one.attainment.value <= _NEARLY_ALLOWED * (1.0 - judge.target - one.off)]
    effort = Effort(judge=judge, first=judge.work_s, most_s=_AFTER_ALL_S)
    for one in sorted(nearest_shares(near), key=lambda each: -each.attainment.value)[:_AFTER_ALL]:
        if effort.is_spent() or is_late(judge):
            return
        strain = judge.ease(one.plan, _SETS).strain
        entrant = _Entrant(plan=one.plan, instances=one.plan.instances, factor=one.factor, strain=strain)
        _balance(search, entrant, effort)
        _move(search, entrant, np.random.default_rng(0), effort, _MORE_MOVES)
        if entrant.plan is not one.plan:
            yield judge.trial(entrant.plan, entrant.factor)


def _tried(search: Search, entrant: _Entrant, may_move: bool, effort: Effort) -> tuple[Trial | None, bool]:
    """A fleet in simulation if it comes near the SLO, and whether its prompts were moved to get there."""
    allowed, is_moved = 1.0 - search.judge.target, False
    missed = 1.0 - search.judge.ease(entrant.plan, _SETS).met
    if may_move and not effort.is_spent() and _ENOUGH * allowed < missed <= _WORTH_MOVES * allowed:
        is_moved = True
        _move(search, entrant, np.random.default_rng(0), effort)
        missed = 1.0 - search.judge.ease(entrant.plan, _SETS).met
    return (search.judge.trial(entrant.plan, entrant.factor) if missed <= _WORTH_A_TRIAL * allowed else None), is_moved


def _entrants(search: Search, best: Trial, factor: Array, effort: Effort) -> list[_Entrant]:
    """Fleets cheaper than the best known plan, each simulated once."""
    fleets = _cheaper_fleets(search, best)
    peaks = [_peak(search, instances, factor) for instances in fleets]
    found = []
    for place in sorted(range(len(fleets)), key=peaks.__getitem__)[:_SIMULATED]:
        plan = search.of(fleets[place], factor) if peaks[place] <= _MOST_PEAK else None
        if plan is not None:
            found.append(_Entrant(plan=plan, instances=fleets[place], factor=factor, strain=1.0))
    for entrant in found:
        if effort.is_spent(_LOOKING):
            break
        entrant.strain = search.judge.ease(entrant.plan, 1).strain
    return found


def _peak(search: Search, instances: npt.NDArray[np.int64], factor: Array) -> float:
    """Highest load of a fleet's types over what the factors leave of them; infinite if the fleet misses a size."""
    key = instances.tobytes() + factor.tobytes()
    if key not in search.peaks:
        plan = search.of(instances, factor)
        search.peaks[key] = np.inf if plan is None else float((plan.load / _least(factor)).max())
    return search.peaks[key]


def _promising(entrants: list[_Entrant]) -> list[_Entrant]:
    """The entrants that are easier on requests than all cheaper ones, or nearly, the cheapest first."""
    front: list[_Entrant] = []
    for entrant in sorted(entrants, key=lambda one: (one.plan.cost_per_h, one.strain)):
        if entrant.strain < _NEARLY * min((one.strain for one in front), default=np.inf):
            front.append(entrant)
    return sorted(sorted(front, key=lambda one: one.strain)[:_BALANCED], key=lambda one: one.plan.cost_per_h)


def _balance(search: Search, entrant: _Entrant, effort: Effort) -> None:
    """Give one type more headroom than the others if requests then meet their limits more easily."""
    for step in _HEADROOM_STEPS:
        for r in np.flatnonzero(entrant.instances):
            for times in (step, 1 / step):
                factor = entrant.factor.copy()
                factor[r] *= times
                plan = None if effort.is_spent(_BALANCING) else search.of(entrant.instances, factor)
                if plan is not None and _is_better(search, entrant, plan):
                    entrant.factor = factor


def _move(search: Search, entrant: _Entrant, random: np.random.Generator, effort: Effort, moves: int = _MOVES) -> None:
    """Move prompts of one size, or of all sizes from it up or down, between types if that makes it easier."""
    used = np.flatnonzero(entrant.instances)
    sizes = np.flatnonzero(search.question.workload.request_rate.sum(axis=1))
    if len(used) < 2:
        return
    for _ in range(moves):
        if effort.is_spent():
            return
        place = int(random.integers(len(sizes)))
        moved = [sizes[place : place + 1], sizes[: place + 1], sizes[place:]][int(random.choice(3, p=_SIZES_CHANCE))]
        part = float(random.choice(_PARTS))
        plan = _moved(search, entrant.plan, moved, int(random.choice(used)), part)
        if float(plan.load.max()) <= max(_MOST_PEAK, float(entrant.plan.load.max())):
            _is_better(search, entrant, plan)


def _is_better(search: Search, entrant: _Entrant, plan: Plan) -> bool:
    """Whether a plan is easier on requests than the entrant's plan; if so, it replaces the entrant's plan."""
    strain = search.judge.ease(plan, _SETS).strain
    if strain >= entrant.strain - ROUNDING:
        return False
    entrant.plan, entrant.strain = plan, strain
    return True


def _moved(search: Search, plan: Plan, sizes: npt.NDArray[np.intp], target: int, part: float) -> Plan:
    """The plan with a part of some input buckets' requests sent to one type, as far as it can serve them."""
    share = plan.share.copy()
    able = search.question.profile.max_request_rate[target, sizes] > 0
    row = share[:, sizes] * (1.0 - part * able)
    row[target] += part * able * share[:, sizes].sum(axis=0)
    share[:, sizes] = row
    return as_asked(replace(plan, share=share), plan.question)


def _least(factor: Array) -> Array:
    """The smallest factor of each type that is not 0 (R,)."""
    return np.asarray(np.where(factor > 0, factor, np.inf).min(axis=(1, 2)))


def _cheaper_fleets(search: Search, best: Trial) -> list[npt.NDArray[np.int64]]:
    """Fleets of a few types that cost less than the best: the most expensive, and none below all plans tried."""
    plans = [trial.plan for trial in search.judge.known.values()]
    used = _types(search, np.sum([plan.instances for plan in plans], axis=0))
    cost = np.array([best.plan.replica_types[r].cost_per_h for r in used])
    least = min(plan.cost_per_h for plan in plans)
    ceiling = best.plan.cost_per_h - ROUNDING
    spent, counts = np.zeros(1), np.zeros((1, 0), np.int64)
    for price in cost:
        most = np.minimum(((ceiling - spent) / price).astype(np.int64), _SMALL_FLEET)
        rows = np.repeat(np.arange(len(spent)), most + 1)
        count = np.arange(len(rows)) - np.repeat(np.cumsum(most + 1) - most - 1, most + 1)
        spent, counts = spent[rows] + count * price, np.column_stack([counts[rows], count])
    # From the most expensive down: the cheapest fleets carry least, and are dropped if there are too many fleets.
    between = np.flatnonzero((spent >= least) & (spent < ceiling))
    if len(between) > _MOST_FLEETS:
        between = between[spent[between] >= np.partition(spent[between], -_MOST_FLEETS)[-_MOST_FLEETS]]
    order = np.lexsort((*counts[between].T[::-1], spent[between]))[::-1]
    found = []
    for row in counts[between[order[:_MOST_FLEETS]]]:
        instances = np.zeros_like(best.plan.instances)
        instances[used] = row
        found.append(instances)
    return found


def _types(search: Search, tried: Array) -> npt.NDArray[np.intp]:
    """The replica types that plans have used, and a few that carry the traffic at least cost."""
    rate, carried = search.question.workload.request_rate, search.question.profile.max_request_rate
    served = (rate * (carried > 0)).sum(axis=(1, 2))
    work = np.divide(rate, carried, out=np.zeros_like(carried), where=carried > 0).sum(axis=(1, 2))
    price = np.array([one.cost_per_h / one.replicas_per_instance for one in search.question.profile.replica_types])
    spent = np.divide(price * work, served, out=np.full(len(work), np.inf), where=served > 0)
    order = sorted(range(len(work)), key=lambda r: (-float(tried[r] > 0), float(spent[r])))
    return np.array(sorted(r for r in order[:_MOST_TYPES] if np.isfinite(spent[r])), np.intp)
