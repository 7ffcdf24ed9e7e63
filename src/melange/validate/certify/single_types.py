"""The cheapest certified fleet of one replica type: a mix must beat it, and the search for mixes starts from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from melange.plan.certificate import MOST_CARRIED
from melange.plan.problem import ROUNDING, limits_of, loads
from melange.plan.servable import Scope, scope_of
from melange.validate.attainment import wilson
from melange.validate.certify.effort import MOST_WORK_S, Effort
from melange.validate.certify.headroom import Search
from melange.validate.certify.plan_trial import Trial
from melange.validate.certify.spare import own_spare
from melange.workload.workload import Array

# If this many times the closed form's replicas still miss, more are not tried: replicas are not what is missing. Chosen
# by judgment.
_MOST_TIMES = 32.0
# Precision of the counts of large fleets, and of the count of the cheapest type. With a finer one, each type costs a
# simulation more. Twice: no difference in the twelve cases of bench/certify.py, whose fleets have few instances.
_PRECISION, _FINE_PRECISION = 0.01, 0.002
# Growth of counts while a fleet misses: the first for each multiple of the allowed misses, within the other two. With
# slower growth, more fleets that miss are simulated; with faster, more counts lie between the one that holds and the
# last that missed. A least rise of 1.1: no difference; beyond that, chosen by judgment.
_RISE, _LEAST_RISE, _MOST_RISE = 0.06, 1.04, 2.0
# First guess at the replicas that a fleet needs, over the closed form's; later guesses are what the types tried so far
# needed. 1: no difference.
_FIRST_GUESS = 1.1
# Effort after which proofs of single types take no more instances away [s]: one of hundreds saves little, and two pools
# may save more. Chosen by judgment.
_REFINING_S = 8.0
# A trial gives a fleet up, but not if it has at most this part fewer instances than a proven one: they hold about the
# same, so the requests of trials are harder than those of proofs. With more, more proofs fail. Chosen by judgment.
_NEARLY = 0.02
# A trial of fewer requests than this gives a fleet up only if it has this many times the allowed misses: a fleet that
# holds 95.3 % had 94.0 % of its first 8,000. With more, more proofs fail. Chosen by judgment.
_TELLING, _BY_FAR = 20_000, 1.5
# Most fleets that are proven only to be compared with a mix. With more, a figure for comparison takes longer.
_MOST_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Lone:
    """A replica type by itself.

    Parameters
    ----------
    place
        Position of the type in the profile.
    load
        Replicas that the closed form needs for all traffic.
    replicas
        Replicas on one instance.
    spare
        Replicas that may be lost.
    cost_per_h
        Cost of an instance [USD/h].
    least, most
        Least and most instances that may be rented.
    """

    place: int
    load: float
    replicas: int
    spare: int
    cost_per_h: float
    least: int
    most: float

    def count(self, times: float) -> int:
        """Instances for a multiple of the closed form's replicas."""
        return max(self.least, math.ceil((self.load * times + self.spare) / self.replicas - ROUNDING))

    def carried(self, count: float) -> float:
        """The load of each replica of a number of instances, not counting the spare ones."""
        return self.load / max(count * self.replicas - self.spare, ROUNDING)


def cheapest_single_type(search: Search) -> Array:
    """Find the cheapest fleet of one type that holds; returns the load that a replica of each type carries (R,).

    The types are tried in the order of their closed-form cost. A type that would cost more than the best fleet so far,
    however well it does, is not tried; its load is nan.
    """
    carried = np.full(len(search.question.profile.replica_types), np.nan)
    best: Trial | None = None
    cheapest: Lone | None = None
    guess = _FIRST_GUESS
    left = _candidates(search)
    while left:
        one = min(left, key=lambda each: each.count(guess) * each.cost_per_h)
        left.remove(one)
        ceiling = math.inf if best is None else best.plan.cost_per_h
        if one.count(1 / MOST_CARRIED) * one.cost_per_h >= ceiling - ROUNDING:
            continue
        found, carried[one.place] = _smallest(search, one, guess, ceiling, _PRECISION)
        if found is not None:
            best, cheapest = found, one
            guess = float(np.clip(1 / carried[one.place], 1 / MOST_CARRIED, _MOST_TIMES))
    if best is not None and cheapest is not None:
        # Start just below the count that holds, which is known only to a hundredth.
        slightly_less = 1 / cheapest.carried(float(best.plan.instances.sum() - 1))
        ceiling = best.plan.cost_per_h
        finer, carried_finer = _smallest(search, cheapest, slightly_less, ceiling, _FINE_PRECISION)
        if finer is not None:
            best, carried[cheapest.place] = finer, carried_finer
    return carried


def cheaper_single_type(search: Search, best: Trial, most_s: float = _REFINING_S) -> Trial:
    """The cheapest proven fleet of one type if it costs less than the best plan; else the best plan.

    For each type, the largest fleet that costs less is examined, unless it is known to miss: if it misses, so do all
    smaller ones. A fleet that is not surely below the target gets a proof. So no answer costs more than a fleet of one
    type that the same runs would have certified.

    Parameters
    ----------
    search
        The plans tried so far, and the judge.
    best
        The cheapest proven plan.
    most_s
        Effort after which no more instances are taken away [s]; the effort of a whole search limits it, too.
    """
    spent_s = search.judge.work_s
    effort = Effort(judge=search.judge, first=spent_s, most_s=min(most_s, max(0.0, MOST_WORK_S - spent_s)))
    for one in sorted(_candidates(search), key=lambda each: each.count(1 / MOST_CARRIED) * each.cost_per_h):
        best = _proven_below(search, one, best, effort) or best
    return best


def cheapest_proven_alone(search: Search, best: Trial) -> Trial | None:
    """The cheapest fleet of one type among the tried ones that is proven; None if none is among the first few."""
    if np.count_nonzero(best.plan.instances) == 1:
        return best
    known = [one for one in search.judge.known.values() if np.count_nonzero(one.plan.instances) == 1]
    held = sorted(filter(search.judge.holds, known), key=lambda one: one.plan.cost_per_h)
    return next(filter(search.judge.is_proven, map(search.judge.proof, held[:_MOST_SHOWN])), None)


def _proven_below(search: Search, one: Lone, best: Trial, effort: Effort) -> Trial | None:
    """The smallest fleet of a type that is proven and costs less than the best plan; None if there is none."""
    missing = max([one.count(1 / MOST_CARRIED) - 1, *_known_to_miss(search, one)])
    count = int(min(one.most, math.ceil(best.plan.cost_per_h / one.cost_per_h - ROUNDING) - 1))
    thorough = partial(search.proof, best=best)
    found = _proven_alone(search, one, count, thorough) if count > missing else None
    if found is None:
        if not best.plan.instances[one.place] == best.plan.instances.sum() == count + 1:
            return None
        found, missing, count = best, count, count + 1  # a trial gave up a fleet that is nearly as large
    while count - missing > 1 and not effort.is_spent():
        middle = (missing + count) // 2
        proof = _proven_alone(search, one, middle, search.judge.proof)
        missing, count, found = (middle, count, found) if proof is None else (missing, middle, proof)
    # Longer proofs save a few more instances.
    while count > one.count(1 / MOST_CARRIED) and not effort.is_spent():
        proof = _proven_alone(search, one, count - 1, thorough, proven=count)
        if proof is None:
            break
        count, found = count - 1, proof
    return None if found is best else found


def _proven_alone(
    search: Search, one: Lone, count: int, prove: Callable[[Trial], Trial], proven: int | None = None
) -> Trial | None:
    """A fleet of one type that is proven, with ``proven`` instances known to be enough; None if it is not proven."""
    trial = search.of_one_type(one.place, count, one.carried(count))
    is_near = proven is not None and count > (1.0 - _NEARLY) * proven
    if trial is None or not trial.keeps_up or (_is_given_up(search, trial) and not is_near):
        return None
    proof = prove(trial)
    return proof if search.judge.is_proven(proof) else None


def _is_given_up(search: Search, trial: Trial) -> bool:
    """Whether a fleet gets no proof: it surely misses, by far or by as many requests as usually tell."""
    may_miss = 1.0 - search.judge.target - trial.off
    is_told = trial.is_refuted or trial.requests >= _TELLING or 1.0 - trial.attainment.value > _BY_FAR * may_miss
    return is_told and search.judge.surely_misses(trial)


def _known_to_miss(search: Search, one: Lone) -> list[int]:
    """Counts of instances with which a type alone surely misses, from all fleets of equal engines."""
    engines, known = search.question.profile.engines, search.judge.known.values()
    alone = [each for each in known if np.count_nonzero(each.plan.instances) == 1 and _is_given_up(search, each)]
    alike = [each for each in alone if engines[int(each.plan.instances.argmax())] == engines[one.place]]
    return [sum(each.plan.replicas.values()) // one.replicas for each in alike]


def _candidates(search: Search) -> list[Lone]:
    """The types that can serve everything; among types with one engine and no limit of their own, the cheapest."""
    question = search.question
    scope: Scope = scope_of(question)
    types, engines = question.profile.replica_types, question.profile.engines
    load = loads(question.workload, question.profile)[:, scope.served].sum(axis=1)
    limits = limits_of(types, question.options)
    found: dict[object, Lone] = {}
    for place in sorted(range(len(types)), key=lambda r: types[r].cost_per_h):
        if not (scope.allowed[place] and engines[place] and np.isfinite(load[place])):
            continue
        drawn = [
            float((limit.most / limit.weight[limit.members == place])[0]) for limit in limits if place in limit.members
        ]
        one = Lone(
            place=place,
            load=float(load[place]),
            replicas=types[place].replicas_per_instance,
            spare=max(own_spare(question.options, types[place].name), question.options.spare_total_replicas),
            cost_per_h=types[place].cost_per_h,
            least=max(1, math.ceil(question.options.min_total_replicas / types[place].replicas_per_instance)),
            most=math.floor(min(drawn) + ROUNDING) if drawn else math.inf,
        )
        if one.most >= one.least:
            found.setdefault((engines[place], one.replicas, place if drawn else None), one)
    return list(found.values())


def _smallest(search: Search, one: Lone, guess: float, ceiling: float, precision: float) -> tuple[Trial | None, float]:
    """The smallest fleet of a type that holds and costs less than ``ceiling``, and the load that a replica carries.

    If no fleet holds, the load is what the largest tried fleet would have carried; nan if too many requests miss on the
    type even alone.
    """
    most = min(one.most, float(np.ceil(ceiling / one.cost_per_h - ROUNDING)) - 1, one.count(_MOST_TIMES))
    first = one.count(1 / MOST_CARRIED)
    missing, holding, best = first - 1, math.inf, None
    count = int(min(max(one.count(guess), first), most))
    while missing < count < holding:
        trial = search.of_one_type(one.place, count, one.carried(count))
        if trial is None:
            break
        if search.judge.holds(trial):
            best, holding = trial, count
        else:
            missing = count
        if holding - missing <= max(1.0, precision * missing):
            break
        if math.isfinite(holding):
            count = (missing + int(holding)) // 2 if missing >= first else _below(holding, missing)
            continue
        sent, may_miss = max(float(trial.sent.sum()), 1.0), 1.0 - search.judge.target
        alone = float(trial.hopeless.sum()) / sent
        if wilson(alone, int(sent))[0] > may_miss:
            return None, math.nan  # more replicas do not help; with fewer sizes it may carry as much as others
        allowed = may_miss - alone  # by chance, a short run may have too many requests that miss alone
        missed = (1.0 - trial.attainment.value - alone) / allowed if allowed > 0 else math.inf
        times = max(_rise(missed), 1.0 / (1.0 - float(trial.excess.max())))  # requests in excess would wait forever
        count = int(min(max(missing + 1, math.ceil(missing * min(times, _MOST_RISE))), most))
    between = missing + 0.5 if best is not None else float(missing)
    return best, one.carried(between) if between * one.replicas > one.spare else 1.0


def _below(holding: float, missing: int) -> int:
    """The next count below one that holds, if none has missed yet: a small step, because guesses are good."""
    return max(missing + 1, min(int(holding) - 1, math.floor(holding / _LEAST_RISE)))


def _rise(missed: float) -> float:
    """Factor on a count of replicas whose requests miss ``missed`` times as often as they may."""
    return float(np.clip(1.0 + _RISE * missed, _LEAST_RISE, _MOST_RISE))
