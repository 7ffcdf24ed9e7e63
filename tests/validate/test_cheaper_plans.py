"""Plans below the answer: every cheaper single type gets a proof, open proofs go on, spare instances go."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from searching import fresh, judge_of, search_of, small_service

from melange.plan.problem import loads
from melange.plan.question import Question
from melange.plan.solve import solve
from melange.validate.attainment import Interval, attainment
from melange.validate.certify import proofs, small_fleets
from melange.validate.certify.certify import certify
from melange.validate.certify.effort import MOST_WORK_S
from melange.validate.certify.fewer_instances import with_fewer_instances
from melange.validate.certify.headroom import Search
from melange.validate.certify.judge import Judge
from melange.validate.certify.plan_trial import Trial
from melange.validate.certify.single_types import cheaper_single_type, cheapest_proven_alone
from melange.workload.workload import Array


def search_at_its_target(seed: int) -> tuple[Search, float]:
    """The search of a drawn service, and the target of its SLO."""
    question = small_service(seed)
    slo = question.profile.slo
    assert slo is not None
    assert slo.attainment is not None
    return search_of(question, slo.attainment), slo.attainment


def able_types(question: Question) -> list[int]:
    """The types that serve every size."""
    return np.flatnonzero(np.isfinite(loads(question.workload, question.profile).sum(axis=1))).tolist()


def oversized(search: Search, place: int, count: int) -> Trial:
    """Some instances of a type."""
    load = loads(search.question.workload, search.question.profile)[place].sum()
    trial = search.of_one_type(place, count, load / count)
    assert trial is not None
    return trial


@pytest.mark.parametrize("seed", [*(pytest.param(seed, marks=pytest.mark.heavy) for seed in (1, 3, 8)), 21])
def test_no_answer_costs_more_than_a_single_type_that_can_be_proven(seed: int) -> None:
    """From a fleet that is far too large down to one below which every type misses or fails its proof."""
    search, target = search_at_its_target(seed)
    types, able = search.question.profile.replica_types, able_types(search.question)
    best = cheaper_single_type(search, oversized(search, able[0], 24))
    assert np.count_nonzero(best.plan.instances) == 1
    assert search.judge.is_proven(best)
    assert fresh(best.plan).value >= target - 0.005
    for place in able:
        count = math.ceil(best.plan.cost_per_h / types[place].cost_per_h - 1e-9) - 1
        if count < 1:
            continue
        below = oversized(search, place, count)
        assert search.judge.surely_misses(below) or not search.judge.is_proven(search.judge.proof(below))


@pytest.mark.parametrize("seed", [3, 21])
def test_a_mix_is_compared_with_a_single_type_that_is_proven(seed: int) -> None:
    """The cheapest tried fleet of one type whose proof succeeds; fleets that only seem to hold are passed over."""
    search, _ = search_at_its_target(seed)
    tried = [oversized(search, place, count) for place in able_types(search.question) for count in (1, 2, 8, 16, 24)]
    mix = replace(tried[0], plan=replace(tried[0].plan, instances=np.ones_like(tried[0].plan.instances)))
    found = cheapest_proven_alone(search, mix)
    assert found is not None
    assert search.judge.is_proven(found)
    cheaper = [one for one in tried if one.plan.cost_per_h < found.plan.cost_per_h and search.judge.holds(one)]
    assert not any(search.judge.is_proven(search.judge.proof(one)) for one in cheaper)
    assert cheapest_proven_alone(search, found) is found


@pytest.mark.heavy
@pytest.mark.parametrize("seed", [1, 3, 21])
def test_a_required_type_costs_at_most_one_instance_more_than_the_best_single_type(seed: int) -> None:
    """Whichever type is required: the best fleet of one type beside it needs none of its capacity."""
    question = small_service(seed)
    types = question.profile.replica_types
    alone = certify(question.with_options(max_types=1))
    for place in able_types(question):
        plan = certify(question.with_options(require=(types[place].name,)))
        assert plan.instances[place]
        assert plan.cost_per_h <= alone.cost_per_h + types[place].cost_per_h + 1e-6


def in_a_row(judge: Judge, missed: int, rows: int, requests: int = 1600) -> Trial:
    """A trial with its misses in some rows."""
    is_met = np.ones(requests, bool)
    for row in range(rows):
        first = (2 * row + 1) * requests // (2 * rows)
        is_met[first : first + missed // rows] = False
    types = len(judge.question.profile.replica_types)
    table = np.zeros((types, *judge.question.workload.request_rate.shape))
    return Trial(
        plan=None,  # type: ignore[arg-type]
        factor=table,
        attainment=attainment([is_met]),
        sent=table,
        missed=table,
        hopeless=table,
        by_class=((is_met,),),
        worst=0,
        off=0.0,
        causes=(),
        used=np.zeros(types),
        shortest=judge.requests,
    )


@pytest.mark.parametrize(("rows", "is_given_up"), [(3, False), (54, True)])
def test_a_plan_is_given_up_where_clusters_of_misses_say_so(rows: int, is_given_up: bool) -> None:
    """Of 1,600 requests 54 miss where 0.5 % may: by three queues it may hold all the same."""
    judge = judge_of(small_service(24), 0.995)
    assert judge.surely_misses(in_a_row(judge, 54, rows)) == is_given_up


def test_a_proof_that_is_open_goes_on_for_as_long_as_it_may() -> None:
    """With more requests, until it is proven or refuted, or the effort is spent."""
    question = small_service(24)
    judge = judge_of(question, 0.9)
    trial = judge.trial(solve(question), np.ones(question.profile.max_request_rate.shape))
    first = judge.proof(trial)
    judge.target = first.attainment.value - 0.7 * (first.attainment.value - first.attainment.low)
    assert not judge.is_proven(first)
    judge.further_s = 0.0
    assert judge.longer_proof(first) is first
    judge.further_s = 5.0
    longer = judge.longer_proof(first)
    assert sum(map(len, longer.samples)) >= 1.4 * sum(map(len, first.samples))
    assert judge.further_s < 5.0


@pytest.mark.parametrize(("saves", "goes_on"), [(0.001, False), (0.02, True)])
def test_a_plan_that_saves_little_leaves_effort_to_others(saves: float, *, goes_on: bool) -> None:
    """A saving of 0.1 % may take a third of what is left, one of 2 % all of it."""
    question = small_service(24)
    judge = judge_of(question, 0.9)
    trial = judge.trial(solve(question), np.ones(question.profile.max_request_rate.shape))
    first = judge.proof(trial)
    judge.target = first.attainment.value - 0.7 * (first.attainment.value - first.attainment.low)
    judge.further_s = 4.0 * first.work_s
    assert (judge.longer_proof(first, saves) is not first) == goes_on


def test_small_steps_end_while_there_is_effort_for_proofs_and_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step saves a little, and there is always another one."""
    question = small_service(24)
    search = search_of(question, 0.9)
    first = search.trial(np.full(question.profile.max_request_rate.shape, 0.5))
    assert search.judge.holds(first)

    def slightly_cheaper(search: Search, best: Trial, _: Array) -> Trial:
        search.judge.work_s += 1.0
        plan = replace(best.plan, cost_per_h=0.999 * best.plan.cost_per_h)
        search.judge.known[str(search.judge.work_s).encode()] = found = replace(best, plan=plan)
        return found

    monkeypatch.setattr(proofs, "cheaper_fleet", slightly_cheaper)
    proofs.look_for_cheaper(search, first.factor)
    assert 0.5 * MOST_WORK_S < search.judge.work_s < 0.7 * MOST_WORK_S
    assert search.best is not None
    assert search.best.plan.cost_per_h < 0.99 * first.plan.cost_per_h


@pytest.mark.parametrize(("used", "times"), [(0.0, 1.0), (0.5, 2.0), (0.9, 5.0)])
def test_a_fleet_that_is_nearly_full_is_proven_by_longer_runs(used: float, times: float) -> None:
    """As 1 over what is left of its throughput, up to 100,000 requests where the shortest proof has 20,000."""
    question = small_service(24)
    judge = judge_of(question, 0.5, requests=8000)
    trial = judge.trial(solve(question), np.ones(question.profile.max_request_rate.shape))
    proof = judge.proof(replace(trial, used=np.full_like(trial.used, used)))
    assert len(proof.samples[0]) == pytest.approx(0.8 * 20_000 * times, rel=0.01)


@pytest.mark.parametrize(
    ("below", "proven", "is_settled"),
    [(-0.002, 2000, True), (0.004, 2000, True), (0.006, 2000, False), (0.006, 20_001, True)],
)
def test_the_share_of_a_longer_run_counts(
    monkeypatch: pytest.MonkeyPatch, below: float, proven: int, *, is_settled: bool
) -> None:
    """It is below the target by at most half of its interval's upper half, or has too few requests to tell."""
    judge = judge_of(small_service(24), 0.9)
    spread = replace(in_a_row(judge, 0, 1, proven), attainment=Interval(value=0.91, low=0.905, high=0.915))
    held = Interval(value=0.9 - below, low=0.89 - below, high=0.91 - below)
    later = replace(in_a_row(judge, 0, 1, 10_000), attainment=held)
    monkeypatch.setattr(Judge, "_with_run", lambda *_: later)
    monkeypatch.setattr(Judge, "_length_for", lambda *_: 2000)
    assert judge.has_settled(spread) == is_settled


def test_fleets_that_nearly_held_get_easier_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mix that costs less than the best plan is tried again with shares that are easier on the requests."""
    found = []
    for seed in (24, 7, 9):
        search, target = search_at_its_target(seed)
        types = search.question.profile.replica_types
        factor = np.ones(search.question.profile.max_request_rate.shape)
        plans = [search.of(np.array(each), factor) for each in ((1, 1, 1), (2, 1, 1), (1, 2, 1), (3, 1, 0), (2, 2, 0))]
        mixes = [search.judge.trial(plan, factor) for plan in plans if plan is not None]
        best = oversized(search, len(types) - 1, 16)
        monkeypatch.setattr(small_fleets, "_NEARLY_ALLOWED", 1.0 / (1.0 - target))
        known = {one.plan.instances.tobytes(): one for one in mixes}
        for tried in small_fleets.nearly_held(search, best):
            before = known[tried.plan.instances.tobytes()]
            assert search.judge.ease(tried.plan, 3).strain < search.judge.ease(before.plan, 3).strain
            assert tried.plan.cost_per_h < best.plan.cost_per_h
            found.append(tried)
    assert found


def test_instances_that_a_large_fleet_can_do_without_are_taken_away() -> None:
    """What is left holds, costs less, and has no more of any type."""
    question = small_service(24)
    question = replace(question, workload=question.workload.at_rate(20.0))
    search = search_of(question, 0.9)
    first = search.trial(np.full(question.profile.max_request_rate.shape, 0.4))
    assert search.judge.holds(first)
    least = with_fewer_instances(search, first)
    assert search.judge.holds(least)
    assert least.plan.cost_per_h < first.plan.cost_per_h
    assert (least.plan.instances <= first.plan.instances).all()
