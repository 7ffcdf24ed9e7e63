"""Two pools of one replica type: long prompts are kept away from short ones, on machines that are all the same.

Reading a prompt holds up every answer beside it. Under limits on single requests that costs replicas: a fleet of one
type must be so large that even the requests beside the longest prompts are in time. If prompts above some length have a
pool of their own, the other requests meet their limits on fewer replicas. Summed loads do not show this, so no program
finds it; the splits are simulated.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from melange.plan.plan import Plan
from melange.plan.problem import ROUNDING
from melange.plan.question import Question
from melange.profile.profile import LONG_POOL, pool_of
from melange.validate.certify.effort import Effort, is_late
from melange.validate.certify.headroom import as_asked
from melange.validate.certify.judge import Judge
from melange.validate.certify.plan_trial import Trial
from melange.validate.certify.pool_split import Split, splits_of
from melange.validate.certify.thinning import of_rows, widened
from melange.validate.run_lengths import shortest
from melange.workload.workload import Mask

# Number of split lengths that are examined closely: those at which requests meet their limits most easily, with as many
# instances as before.
_CLOSELY = 3
# Split lengths whose proofs may fail before a type is left in one pool. Chosen by judgment.
_MOST_FAILED = 3
# A split is tried with at least this part of the instances.
_LEAST_LEFT = 0.1
# Largest part of this step's effort for comparing the splits of a type. Chosen by judgment.
_COMPARING = 0.5
# Number of plans that are split: the best one, and fleets of one type that cost at most this many times as much.
_SPLIT, _MOST_COST = 8, 1.6
# Requests that decide whether a split is worth a trial, in at most this many short runs; and how far it may be below
# the target in the first run. With fewer, chance decides; more take longer. Chosen by judgment.
_REQUESTS, _MOST_SETS, _NEAR = 10_000, 5, 0.005
# Largest CPU time of this step [s]; and of a second type that costs at most this many times as much as the first, if
# the first has spent it: chance decides which of two such types is first. Chosen by judgment.
_MOST_S, _SECOND_S, _NEARLY = 5.0, 3.0, 1.05
# Instances that are added to a split whose proof fails: steps of one instance, or of this part of large fleets; then
# these parts of all, for the short runs that chose the split are off by as much in large fleets (102 instances were
# needed where 97 seemed to hold). Chosen by judgment.
_MOST_ADDED, _ADDED_STEP, _ADDED_PARTS = 3, 0.02, (0.05, 0.08, 0.12, 0.2, 0.3)
# CPU time of failed proofs before a split is given up [s], and more of it for each part of the cost that it would save.
# Chosen by judgment.
_FAILED_S, _FAILED_SAVING_S = 4.0, 30.0
# Part of the instances, at least one, that is taken away from the best plan in pools as long as a proof succeeds; CPU
# time of this [s]; and splits that are proven for each number of instances. Chosen by judgment.
_FEWER, _FEWER_S, _FEWER_PROOFS = 0.03, 4.0, 2


def with_pools(question: Question, added: Sequence[tuple[int, str]]) -> Question:
    """The question with further pools of some of its types (position, name of the pool), at the end.

    A setting for a type by its name also applies to its second pool. ``max_types`` counts both.
    """
    profile, options = question.profile, question.options
    places = [place for place, _ in added]
    rows = [*range(len(profile.replica_types)), *places]
    pools = tuple(pool_of(profile.replica_types[r], pool) for r, pool in added)
    spare = options.spare_replicas
    if isinstance(spare, Mapping):
        named = zip(places, pools, strict=True)
        more = {pool.name: spare[name] for r, pool in named if (name := profile.replica_types[r].name) in spare}
        options = replace(options, spare_replicas={**spare, **more})
    types = (*profile.replica_types, *pools)
    return replace(question, profile=of_rows(profile, rows, types), options=options)


def in_pools(judge: Judge, best: Trial, others: Sequence[Trial]) -> Trial | None:
    """The cheapest proven plan with two pools of its types that costs less than the best one; None if there is none.

    Parameters
    ----------
    judge
        The judge of the question without second pools.
    best
        The cheapest proven plan.
    others
        Fleets of one type that were tried: in two pools they may cost less than any mix. For each type, the cheapest
        that holds, or else the one with the largest attainment, decides how many instances are split.
    """
    options = judge.question.options
    if options.slices or options.spare_total_replicas or options.min_replicas != 1:
        return None
    nearest: dict[int, Trial] = {}
    for one in sorted(others, key=lambda each: each.attainment.value):
        nearest[int(one.plan.instances.argmax())] = one
    for one in sorted(filter(judge.holds, others), key=_cost, reverse=True):
        nearest[int(one.plan.instances.argmax())] = one
    near = [one for one in nearest.values() if _cost(one) <= _MOST_COST * _cost(best) + ROUNDING]
    # Fleets that hold in one pool are the surest; at equal cost, the best plan's type is nearest to the current fleet.
    is_other = {r: not best.plan.instances[r] for r in nearest}
    near.sort(key=lambda one: (not judge.holds(one), _cost(one), is_other[int(one.plan.instances.argmax())]))
    held = sum(map(judge.holds, near))
    main = _main_type_alone(best.plan, {int(one.plan.instances.argmax()) for one in near[:held]})
    ordered = [one.plan for one in near[:held]] + [*main, best.plan] + [one.plan for one in near[held:]]
    bases = list({plan.instances.tobytes(): plan for plan in ordered}.values())[:_SPLIT]
    places = sorted({int(r) for plan in bases for r in np.flatnonzero(plan.instances > 1)})
    if not places:
        return None
    pooled = replace(
        judge,
        question=with_pools(judge.question, [(r, LONG_POOL) for r in places]),
        # A failed proof made runs longer; many splits are compared, and their own proofs make them longer again.
        requests=min(judge.requests, shortest(judge.question.workload, judge.slo)),
        known={},
    )
    effort = Effort(judge=pooled, first=pooled.work_s, most_s=_MOST_S)
    found = best
    for number, base in enumerate(bases):
        is_second = number == 1 and base.cost_per_h <= _NEARLY * bases[0].cost_per_h
        if effort.is_spent() and (is_second or base in main):
            effort = replace(effort, first=pooled.work_s, most_s=_SECOND_S)
        found, effort = _split_all(pooled, _lifted(base, pooled.question), places, found, effort)
    if found is best:
        return None
    types = len(judge.question.profile.replica_types)
    return only_used(_with_fewer(pooled, found, [(r, types + n) for n, r in enumerate(places)]), types)


def _main_type_alone(plan: Plan, known: Set[int]) -> list[Plan]:
    """A fleet at the cost of a mix, of the type on which it spends most; none if the type is known, or cannot serve."""
    costs = np.array([one.cost_per_h for one in plan.replica_types])
    r, is_sent = int((costs * plan.instances).argmax()), plan.workload.request_rate > 0
    instances = np.zeros_like(plan.instances)
    instances[r] = math.floor(plan.cost_per_h / costs[r] + ROUNDING)
    if r in known or np.any(is_sent & (plan.max_request_rate[r] <= 0)):
        return []
    share = np.zeros_like(plan.share)
    share[r] = is_sent
    cost = float(costs @ instances)
    return [as_asked(replace(plan, instances=instances, share=share, cost_per_h=cost), plan.question)]


def _with_fewer(judge: Judge, best: Trial, pairs: Sequence[tuple[int, int]]) -> Trial:
    """The best plan with fewer instances of a type in two pools (pairs of positions), as long as proofs succeed.

    The split that carried the fewest instances was found among a few prompt lengths; here each length is tried. Each
    success doubles the instances that are taken away at once, up to the first failure; then each step halves them.
    """
    effort = Effort(judge=judge, first=judge.work_s, most_s=_FEWER_S)
    for place, second in pairs:
        part, times = _FEWER, 2.0
        while best.plan.instances[second] and part >= _FEWER and not effort.is_spent() and not is_late(judge):
            plan, instances, share = best.plan, best.plan.instances.copy(), best.plan.share.copy()
            count = int(instances[place] + instances[second])
            instances[place], instances[second] = count - max(1, round(part * count)), 0
            share[place], share[second] = share[place] + share[second], 0.0
            fewer = replace(plan, instances=instances, share=share)
            if instances[place] < max(2, _fewest_allowed(judge, fewer, place)):
                part, times = part / 2.0, 0.5
                continue
            splits = _easiest(judge, fewer, splits_of(fewer, place, second, judge.full), effort)
            near = (one for one in splits if not effort.is_spent() and _seems_to_hold(judge, one.applied(fewer)))
            proofs = (_proof(judge, fewer, one, one.count, best) for one in itertools.islice(near, _FEWER_PROOFS))
            found = next(filter(None, proofs), None)
            times = 0.5 if found is None else times
            best, part = found or best, part * times
    return best


def _cost(trial: Trial) -> float:
    return trial.plan.cost_per_h


def _split_all(judge: Judge, plan: Plan, places: Sequence[int], best: Trial, effort: Effort) -> tuple[Trial, Effort]:
    """The best plan, or a proven cheaper one with some of these types in two pools; and the effort that is left."""
    first = len(judge.question.profile.replica_types) - len(places)
    order = sorted(places, key=lambda r: -float(plan.instances[r]) * plan.replica_types[r].cost_per_h)
    most = judge.question.options.max_types or math.inf
    for r in order:
        is_over = effort.is_spent() or is_late(judge)
        if plan.instances[r] < 2 or np.count_nonzero(plan.instances) >= most or is_over:
            continue
        failed: list[Split] = []
        while len(failed) < _MOST_FAILED:
            split = _smallest(judge, plan, r, first + places.index(r), effort, [one.last for one in failed])
            if split is None:
                break
            before = judge.work_s
            found = _proven(judge, plan, split, best)
            effort = replace(effort, first=effort.first + judge.work_s - before)  # proofs are few, but long
            if found is not best:
                best, failed = found, []
                plan = found.plan
                break
            failed.append(split)
            if split.applied(plan).cost_per_h >= best.plan.cost_per_h - ROUNDING:
                break  # it may be worth it together with a split of another type
        if failed:
            plan = failed[0].applied(plan)
    return best, effort


def _proven(judge: Judge, plan: Plan, split: Split, best: Trial) -> Trial:
    """The plan in its pools, or with instances added, if a proof shows that it holds; else the best one.

    Ever more instances are added while the plan costs less than the best one; then as few as hold, by bisection.
    """
    step = max(1, round(_ADDED_STEP * split.count))
    parts = {round(part * split.count) for part in _ADDED_PARTS}
    saves = 1.0 - split.applied(plan).cost_per_h / best.plan.cost_per_h
    effort = Effort(judge=judge, first=judge.work_s, most_s=_FAILED_S + _FAILED_SAVING_S * max(0.0, saves))
    failed, held = split.count - 1, 0
    for added in sorted({*range(0, 1 + _MOST_ADDED * step, step), *parts}):
        if effort.is_spent() or is_late(judge):
            break
        proof = _proof(judge, plan, split, split.count + added, best)
        if proof is not None:
            best, held = proof, split.count + added
            break
        failed = split.count + added
    while held - failed > 1 and not is_late(judge):
        middle = (failed + held) // 2
        proof = _proof(judge, plan, split, middle, best)
        if proof is None:
            failed = middle
        else:
            best, held = proof, middle
    return best


def _proof(judge: Judge, plan: Plan, split: Split, count: int, best: Trial) -> Trial | None:
    """A proof that the plan holds in pools of ``count`` instances, and costs less; None if there is none."""
    tried = [one.applied(plan) for one in split.of(count)]
    if tried[0].cost_per_h >= best.plan.cost_per_h - ROUNDING:
        return None
    easiest = min(tried, key=lambda one: judge.ease(one, 2).strain)
    trial = judge.trial(easiest, np.ones(easiest.share.shape))
    return proof_of(judge, trial)


def proof_of(judge: Judge, trial: Trial) -> Trial | None:
    """A proof that a plan holds, if the trial does not show that it misses; None if there is none."""
    if not judge.holds(trial) and not judge.may_hold(trial):
        return None
    proof = judge.proof(trial)
    return proof if judge.is_proven(proof) else None


def _smallest(
    judge: Judge, plan: Plan, place: int, second: int, effort: Effort, without: Sequence[int] = ()
) -> Split | None:
    """The split of a type that needs the fewest instances, fewer than now; None if there is none.

    ``without`` are buckets that are not to be the last of the first pool.
    """
    count = int(plan.instances[place])
    least = max(2, math.ceil(_LEAST_LEFT * count), _fewest_allowed(judge, plan, place))
    best: Split | None = None
    splits = [one for one in splits_of(plan, place, second, judge.full) if one.last not in without]
    for split in _easiest(judge, plan, splits, effort)[:_CLOSELY]:
        low, high = least - 1, count if best is None else best.count
        while high - low > 1 and not effort.is_spent():
            middle = (low + high) // 2
            holding = next((one for one in split.of(middle) if _seems_to_hold(judge, one.applied(plan))), None)
            if holding is None:
                low = middle
            else:
                high, best = middle, holding
    return best


def _easiest(judge: Judge, plan: Plan, splits: Sequence[Split], effort: Effort) -> list[Split]:
    """Splits, those first that are easiest for requests; none if comparing them leaves too little effort for the rest.

    That happens in fleets of hundreds of replicas, whose runs are long.
    """
    strains = list[float]()
    for split in splits:
        before = judge.work_s
        strains.append(judge.ease(split.applied(plan), 1).strain)
        left = len(splits) - len(strains)
        if effort.is_spent() or left * (judge.work_s - before) > _COMPARING * effort.most_s:
            return []
    return [splits[k] for k in np.argsort(strains, kind="stable")]


def _seems_to_hold(judge: Judge, plan: Plan) -> bool:
    sets = int(np.clip(math.ceil(_REQUESTS / judge.requests), 1, _MOST_SETS))
    return judge.ease(plan, 1).met >= judge.target - _NEAR and judge.ease(plan, sets).met >= judge.target


def _fewest_allowed(judge: Judge, plan: Plan, place: int) -> int:
    """Least instances of a type with which the fleet has the replicas that must run."""
    replicas = np.array([one.replicas_per_instance for one in plan.replica_types])
    others = int(plan.instances @ replicas) - int(plan.instances[place] * replicas[place])
    return math.ceil((judge.question.options.min_total_replicas - others) / int(replicas[place]))


def _lifted(plan: Plan, question: Question) -> Plan:
    """A plan as an answer to the question with second pools, which it does not use."""
    more = len(question.profile.replica_types) - len(plan.instances)
    return replace(
        plan,
        question=question,
        instances=np.append(plan.instances, np.zeros(more, np.int64)),
        load=np.append(plan.load, np.zeros(more)),
        share=np.concatenate([plan.share, np.zeros((more, *plan.share.shape[1:]))]),
    )


def only_used(trial: Trial, types: int) -> Trial:
    """The trial without the second pools that its plan does not use."""
    kept = (np.arange(len(trial.plan.instances)) < types) | (trial.plan.instances > 0)
    return _rows_of(trial, np.flatnonzero(kept))


def _rows_of(trial: Trial, rows: npt.NDArray[np.intp]) -> Trial:
    """The trial with some of its types."""
    plan, profile = trial.plan, trial.plan.question.profile
    types = [profile.replica_types[r] for r in rows]
    question = replace(plan.question, profile=of_rows(profile, rows, types))
    plan = replace(
        plan, question=question, instances=plan.instances[rows], load=plan.load[rows], share=plan.share[rows]
    )
    tables = {name: getattr(trial, name)[rows] for name in ("factor", "sent", "missed", "hopeless", "used")}
    return replace(trial, plan=plan, **tables)


def of_all_types(plan: Plan, question: Question, kept: Mask) -> Plan:
    """A plan of the kept types, and of second pools of some of them, as an answer to the whole question."""
    names = [one.name for one in question.profile.replica_types]
    pools = [one for one in plan.replica_types if one.pool and one.name not in names]
    added = [(names.index(one.type_name), one.pool) for one in pools]
    return widened(plan, with_pools(question, added), np.append(kept, np.ones(len(added), bool)))
