"""Fleets that survive the loss of any K replicas of one type: proven against an enumeration, also among many types."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from plan_cases import _fits, offer, problem_of, profile, random_case, workload

from melange.plan import standing_losses
from melange.plan.exact.dominated import needed_types
from melange.plan.exact.projection import floor_per_h, floor_with_losses, instance_range, probe
from melange.plan.exact.survival import Survival, fleets_below, neighbors
from melange.plan.milp.formulation import formulate, largest_losses, least_loss
from melange.plan.milp.highs import minimise
from melange.plan.options import Options
from melange.plan.problem import Problem
from melange.plan.solve import solve


def asked(lost: int, **options: object) -> Options:
    """No headroom, a full proof, and a number of replicas that may be lost."""
    return Options(headroom=0.0, gap=0.0, spare_total_replicas=lost, **options)


def survives(problem: Problem, count: np.ndarray) -> bool:
    """Whether a fleet carries everything after every loss, by a linear program of its own."""
    lost = np.flatnonzero(count)
    cases = [problem.carried(count), *(problem.carried_after_loss(count, int(r)) for r in lost)]
    return all(_fits(problem.load, carried + 1e-9) for carried in cases)


def listed(problem: Problem, cost_per_h: float) -> Iterator[np.ndarray]:
    """Every fleet that costs at most so much."""
    most = np.minimum(problem.most, np.floor(cost_per_h / problem.cost + 1e-9)).astype(int)
    for count in itertools.product(*(range(n + 1) for n in most)):
        fleet = np.array(count)
        if fleet.any() and problem.cost @ fleet <= cost_per_h + 1e-9:
            yield fleet


@pytest.mark.parametrize("at_most", [0, 10, 30_000])
@pytest.mark.parametrize("lost", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_no_cheaper_fleet_survives(monkeypatch: pytest.MonkeyPatch, seed: int, lost: int, at_most: int) -> None:
    """Listed or by programs, the plan is proven, and every fleet that costs less fails."""
    monkeypatch.setattr(standing_losses, "_MOST_LISTED", at_most)
    case = random_case(7000 + seed, types=4, holes=0.2)
    plan = solve(*case, asked(lost))
    problem = problem_of(*case, asked(lost))
    assert plan.status == "optimal"
    assert plan.bound_per_h == pytest.approx(plan.cost_per_h, rel=1e-6)
    assert survives(problem, plan.instances)
    cheaper = (n for n in listed(problem, plan.cost_per_h) if problem.cost @ n < plan.cost_per_h * (1 - 1e-6))
    assert not any(survives(problem, count) for count in itertools.islice(cheaper, 500))


def test_a_cost_far_above_rounding_is_proven_by_an_empty_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fleets that cost less only by rounding are not listed, and do not keep the proof open."""
    monkeypatch.setattr(standing_losses, "_programmed", None)
    load, rates = alike(3, 5000.0)
    plan = solve(load, rates, asked(1))
    assert (plan.status, plan.bound_per_h, plan.instances.tolist()) == ("optimal", 20_000.0, [4, 0, 0])


def test_traffic_of_almost_nothing_does_not_fail_in_the_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A size of 1e-15 replicas, which only one type serves: more than three replicas of it are needed."""
    monkeypatch.setattr(standing_losses, "_MOST_LISTED", 0)
    offers = [offer("a", 1.0), offer("b", 0.9), offer("c", 1.3)]
    rates = profile(offers, [[[1.0, 1.0, 1.0]], [[1.1, 0.5, 0.0]], [[1.2, 1.0, 0.0]]])
    load = workload([[80.0, 0.03, 5e-15]])
    plan = solve(load, rates, asked(3))
    assert plan.status == "optimal"
    assert plan.instances[0] > 3


def alike(types: int, cost_per_h: float = 1.0, accelerators: int = 1) -> tuple[object, object]:
    """Types with one rate, each a cent more expensive than the previous one, and traffic for 2.5 replicas."""
    offers = [offer(f"t{r}", cost_per_h + 0.01 * r, accelerators) for r in range(types)]
    return workload([[2.5]]), profile(offers, [[[1.0]]] * types)


def test_one_lost_replica_needs_no_second_type() -> None:
    """The loss of one replica takes as much from one type as from two, so the cheapest is enough."""
    assert needed_types(problem_of(*alike(300), asked(1))).sum() == 1
    assert solve(*alike(300), asked(1)).instances.max() == 4


def test_several_lost_replicas_are_spread_over_types() -> None:
    """Four types with a replica each lose one, however many may be lost; four of the first type would lose all."""
    plan = solve(*alike(300), asked(4))
    assert plan.instances[:4].tolist() == [1, 1, 1, 1]
    assert (plan.status, plan.cost_per_h, plan.gap) == ("optimal", pytest.approx(4.06), 0.0)


@pytest.mark.parametrize(("ceiling", "kept"), [(np.inf, 300), (4.06, 4), (3.05, 3), (1.5, 1)])
def test_a_type_goes_if_one_of_each_better_type_costs_too_much(ceiling: float, kept: int) -> None:
    """The fifth is of use only next to the four that are cheaper."""
    problem = problem_of(*alike(300), asked(4))
    assert needed_types(problem, ceiling=ceiling).sum() == kept


def test_an_instance_that_holds_as_many_replicas_as_may_be_lost_dominates() -> None:
    """Two instances of one type then lose no more than one each of two types."""
    offers = [offer("a", 2.0, 4), offer("b", 2.1, 4)]
    rates = profile(offers, [[[1.0]], [[1.0]]])
    problem = problem_of(workload([[2.5]]), rates, asked(4))
    problem = problem.with_changes(replicas=np.array([4.0, 4.0]))
    assert needed_types(problem).tolist() == [True, False]
    assert needed_types(problem.with_changes(spare_total=5)).all()


@pytest.mark.parametrize("lost", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_bounds_and_cuts_keep_every_fleet_that_survives(seed: int, lost: int) -> None:
    """The floor, the ranges, the cuts, the list and the rows of the program all allow the fleets of an enumeration."""
    problem = problem_of(*random_case(7100 + seed, types=3, buckets=3), asked(lost))
    problem = problem.with_changes(replicas=np.array([1.0, 2.0, 4.0])[: len(problem.cost)])
    ceiling = 1.5 * floor_per_h(problem) + (1 + lost) * problem.cost.max()
    good = [count for count in listed(problem, ceiling) if survives(problem, count)]
    assert good
    fleets, cost = np.array(good), np.array(good) @ problem.cost
    assert floor_per_h(problem) <= floor_with_losses(problem) <= cost.min() + 1e-9
    least, most = instance_range(problem, probe(problem), ceiling)
    assert (fleets >= least).all()
    assert (fleets <= most).all()
    survival = Survival(problem=problem, deadline=np.inf)
    for count in listed(problem, ceiling):
        survival.trial(count)
    assert survival.allow(fleets).all()
    below = fleets_below(survival, ceiling + 1e-6, 100_000)
    assert below is not None
    assert {tuple(count) for count in good} <= {tuple(count) for count in below.tolist()}
    best = survival.cheapest_of(below)
    assert best is not None
    assert problem.cost @ best.instances == pytest.approx(cost.min())
    program = formulate(problem, losses=survival.cuts.weight).program
    assert minimise(program).bound <= cost.min() + 1e-6
    rest = fleets @ (survival.cuts.weight * problem.capacity).T
    rest -= np.array([largest_losses(problem, survival.cuts.weight, count) for count in good])
    assert (rest >= 1 - 1e-7).all()


def test_a_loss_is_never_underestimated_by_more_than_the_line_between_its_ends() -> None:
    """With at most as many lost as an instance holds, it is exact; beyond, it is below and meets both ends."""
    problem = problem_of(*alike(2), asked(1)).with_changes(most=np.array([5, 5]))
    assert [part.tolist() for part in least_loss(problem)] == [[1, 1], [0, 0]]
    fixed, slope = least_loss(problem.with_changes(spare_total=3))
    assert (fixed + slope).tolist() == [1, 1]
    assert (fixed + 5 * slope).tolist() == pytest.approx([3, 3])
    assert (fixed + slope * 3 <= 3).all()


def test_neighbors_are_cheaper_and_distinct() -> None:
    """From two instances of the second type: one or two others, and none that costs as much."""
    cost, most = np.array([1.0, 1.5, 4.0]), np.array([9, 9, 9])
    found = neighbors(np.array([0, 2, 0]), most, cost)
    assert sorted(map(tuple, found.tolist())) == [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0), (2, 0, 0)]


def test_hundreds_of_types_are_proven_in_moments() -> None:
    """Sixty hardware types at five prices each: one replica lost, proven without the time limit."""
    rng = np.random.default_rng(3)
    rates = np.repeat(rng.lognormal(0.5, 0.6, (60, 3, 3)), 5, axis=0)
    price = np.repeat(rates.mean(axis=(1, 2))[::5] * rng.uniform(0.7, 1.5, 60), 5) * np.tile([1, 1.1, 1.2, 1.5, 2], 60)
    offers = [offer(f"t{r}", float(np.round(one, 3))) for r, one in enumerate(price)]
    case = workload(rng.lognormal(0, 1, (3, 3))), profile(offers, rates)
    plan = solve(*case, Options(spare_total_replicas=1, time_limit_s=60.0))
    alone = solve(*case, Options(spare_replicas=1))
    assert (plan.status, plan.gap <= 1e-3) == ("optimal", True)
    assert plan.cost_per_h <= alone.cost_per_h
    assert survives(problem_of(*case, Options(spare_total_replicas=1)), plan.instances)
