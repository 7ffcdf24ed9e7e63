"""Two pools of one replica type: what they save, what they serve, and where none are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from searching import fresh, judge_of, small_service, with_options

from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.plan.sweeps import explore
from melange.present.study import Study
from melange.present.terminal.plan_tables import letters
from melange.present.terminal.plan_words import used_types
from melange.profile.profile import LONG_POOL, pool_of
from melange.validate.certify import certify as certification
from melange.validate.certify import second_pools
from melange.validate.certify.certify import certify
from melange.validate.certify.headroom import as_asked
from melange.validate.certify.judge import Judge
from melange.validate.certify.plan_trial import Trial
from melange.validate.certify.pool_split import Split, splits_of
from melange.validate.certify.second_pools import _main_type_alone, in_pools, with_pools
from melange.validate.certify.thinning import of_rows

pytestmark = pytest.mark.heavy


def question() -> Question:
    """An L4 more is needed where long prompts and short ones share them."""
    return small_service(11)


@cache
def pooled() -> Plan:
    """The certified plan."""
    return certify(question())


@cache
def alone() -> Plan:
    """The one of a single pool."""
    return certify(with_options(question(), max_types=1))


def test_two_pools_need_fewer_instances_and_hold() -> None:
    """Each prompt goes to one of them, by its length; fresh requests meet the SLO as often as is asked."""
    plan = pooled()
    used = np.flatnonzero(plan.instances)
    assert [plan.replica_types[r].pool for r in used] == ["", LONG_POOL]
    assert plan.instances.sum() < alone().instances.sum()
    assert plan.cost_per_h < alone().cost_per_h
    assert fresh(plan).value >= 0.9
    first, second = (plan.share[r].sum(axis=1) > 0 for r in used)
    assert np.flatnonzero(first).max() < np.flatnonzero(second).min()
    assert plan.share.sum(axis=0)[plan.workload.request_rate > 0] == pytest.approx(1.0)


def test_a_plan_is_compared_with_one_pool_of_its_types() -> None:
    """What two pools save is what the certificate says."""
    proof = pooled().certificate
    assert proof is not None
    assert proof.single_type == alone().replica_types[int(alone().instances.argmax())].name
    assert proof.single_type_per_h == pytest.approx(alone().cost_per_h)
    assert not any(name.endswith(LONG_POOL) for name in pooled().single_type)


def test_a_plan_with_pools_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Pools keep their names, their shares and what they are pools of."""
    pooled().save(tmp_path / "plan.json")
    read = Plan.read(tmp_path / "plan.json")
    assert read.replica_types == pooled().replica_types
    assert np.array_equal(read.share, pooled().share)
    assert read.cost_per_h == pooled().cost_per_h


def test_a_limit_on_types_counts_pools() -> None:
    """Who asks for one type wants one kind of server behind one address."""
    assert np.count_nonzero(alone().instances) == 1


def test_what_is_asked_of_a_type_is_asked_of_its_second_pool() -> None:
    """Spare replicas by name, and the same rates."""
    asked = with_options(question(), spare_replicas={"paper/A10G": 1})
    place = [one.name for one in asked.profile.replica_types].index("paper/A10G")
    both = with_pools(asked, [(place, "long")])
    assert both.profile.replica_types[-1] == pool_of(asked.profile.replica_types[place], LONG_POOL)
    assert both.options.spare_replicas == {"paper/A10G": 1, "paper/A10G long": 1}
    assert np.array_equal(both.profile.max_request_rate[-1], both.profile.max_request_rate[place])


def test_pools_keep_their_letters_and_have_colors() -> None:
    """The table of types, the routing grid and the pictures name them alike; other limits know no second pool."""
    plan = pooled()
    legend = Study(exploration=explore(plan)).legend
    used = np.flatnonzero(plan.instances).tolist()
    by_letter = dict(zip(letters(plan), used_types(plan), strict=True))
    assert {one.letter: one.r for one in legend.entries if one.r in used} == by_letter
    assert len({one.color for one in legend.entries if one.r in used}) == len(used)
    assert not any(plan.replica_types[one.r].pool for one in legend.of_compared)
    assert legend.left_out + len(legend.compared) == len({one.type_name for one in plan.replica_types})


def test_instances_without_requests_are_not_split() -> None:
    """Spare instances of a type that no request is sent to have no work to divide, which is no division by zero."""
    plan = alone()
    place = int(plan.instances.argmax())
    full = plan.question.profile.max_request_rate
    assert splits_of(plan, place, 0, full)
    assert splits_of(replace(plan, share=np.zeros_like(plan.share)), place, 0, full) == []


def test_the_main_type_of_a_mix_is_split_by_itself() -> None:
    """At the cost of the mix, with all of its requests; not if the type is known, or cannot serve one of the sizes."""
    plan = alone()
    r = int(plan.instances.argmax())
    costs = np.array([one.cost_per_h for one in plan.replica_types])
    other = next(place for place in np.argsort(costs) if place != r)
    instances = plan.instances * 4
    instances[other] = 1
    mix = replace(plan, instances=instances, cost_per_h=float(costs @ instances))
    (found,) = _main_type_alone(mix, set())
    assert found.instances[r] == found.instances.sum() == int(mix.cost_per_h / costs[r])
    assert found.cost_per_h == pytest.approx(found.instances[r] * costs[r])
    assert (found.share[r] == (plan.workload.request_rate > 0)).all()
    assert found.share.sum(axis=0).max() == 1.0
    assert found.load[r] * found.instances[r] == pytest.approx(plan.load[r] * plan.instances[r])
    assert _main_type_alone(mix, {r}) == []
    profile = plan.question.profile
    rates = profile.max_request_rate.copy()
    rates[r, *np.argwhere(plan.workload.request_rate > 0)[0]] = 0.0
    unable = replace(mix, question=replace(plan.question, profile=replace(profile, max_request_rate=rates)))
    assert _main_type_alone(unable, set()) == []


def test_needless_instances_are_taken_from_a_plan_in_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a plan with two instances more than needed, each of them is taken away again, with a proof."""
    small = small_service(5)
    of_one_type = with_options(small, exclude=("A10G", "A100-80GB"))
    asked = replace(of_one_type, workload=small.workload.at_rate(3 * small.workload.total_rate))
    fewer, seen = second_pools._with_fewer, []

    def from_more(judge: Judge, best: Trial, pairs: Sequence[tuple[int, int]]) -> Trial:
        instances = best.plan.instances.copy()
        instances[pairs[0][1]] += 2
        cost = float(instances @ np.array([one.cost_per_h for one in best.plan.replica_types]))
        plan = as_asked(replace(best.plan, instances=instances, cost_per_h=cost), best.plan.question)
        found = fewer(judge, judge.proof(judge.trial(plan, best.factor)), pairs)
        seen.append((best.plan.instances.sum(), found.plan.instances.sum(), judge.is_proven(found)))
        return best

    monkeypatch.setattr(second_pools, "_with_fewer", from_more)
    certify(asked)
    ((needed, left, is_proven),) = seen
    assert left <= needed
    assert is_proven


def test_steps_grow_while_they_succeed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100 instances, 3, 6, 11 and 19 are taken away; 29 and 15 are too many, 7 are not, and then 3 and 2 are."""
    tried: list[int] = []

    def proven(judge: Judge, plan: Plan, split: Split, count: int, best: Trial) -> Trial | None:
        tried.append(count)
        return replace(best, plan=split.applied(plan)) if count >= 54 else None

    monkeypatch.setattr(second_pools, "_proof", proven)
    monkeypatch.setattr(second_pools, "_easiest", lambda judge, plan, splits, effort: splits[:1])
    monkeypatch.setattr(second_pools, "_seems_to_hold", lambda judge, plan: True)
    plan = pooled()
    first, second = np.flatnonzero(plan.instances)
    instances = np.zeros_like(plan.instances)
    instances[first], instances[second] = 60, 40
    judge = judge_of(plan.question, 0.9)
    trial = judge.trial(replace(plan, instances=instances), np.ones(plan.share.shape))
    found = second_pools._with_fewer(judge, trial, [(int(first), int(second))])
    assert found.plan.instances.sum() == 54
    assert tried == [97, 91, 80, 61, 32, 46, 54, 51, 52]


def test_a_second_type_of_nearly_the_same_cost_has_time_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first type has spent the time of this step, its twin, 1 % more expensive, is still split."""
    monkeypatch.setattr(second_pools, "_MOST_S", -1.0)
    monkeypatch.setattr(certification, "in_pools", lambda judge, best, others: found.append((judge, best)))
    found: list[tuple[Judge, Trial]] = []
    certify(with_options(question(), max_types=1))
    judge, best = found[0]
    r = int(best.plan.instances.argmax())
    first = best.plan.replica_types[r]
    twin = replace(first, name="twin", offer=replace(first.offer, cost_per_h=1.01 * first.offer.cost_per_h))
    profile = of_rows(judge.question.profile, [r, r], (first, twin))
    asked = replace(with_options(judge.question, max_types=None), profile=profile)
    both = replace(judge, question=asked, known={})

    def fleet(place: int) -> Trial:
        instances, share = np.zeros(2, int), np.zeros((2, *best.plan.share.shape[1:]))
        instances[place], share[place] = best.plan.instances[r], best.plan.share[r]
        cost = float(instances @ np.array([first.cost_per_h, twin.cost_per_h]))
        load = best.plan.load[[r, r]] * (instances > 0)
        plan = replace(best.plan, question=asked, instances=instances, share=share, load=load, cost_per_h=cost)
        return both.trial(plan, np.ones(share.shape))

    assert in_pools(both, fleet(0), []) is None
    pools = in_pools(both, fleet(0), [fleet(0), fleet(1)])
    assert pools is not None
    assert [pools.plan.replica_types[r].name for r in np.flatnonzero(pools.plan.instances)] == ["twin", "twin long"]
