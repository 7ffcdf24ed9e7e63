"""Services on shared pools: against enumeration, bounds, pools of nothing, shortages, priorities."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from plan_cases import offer, profile, workload

from melange.catalog.offer import Offer
from melange.errors import InfeasibleError, InputError, SolverError
from melange.plan.fleet import least_peak_shares
from melange.plan.joint.joint_plan import JointPlan, ServicePlan, pool_uses
from melange.plan.joint.member import Member
from melange.plan.joint.next_unit import exchanges
from melange.plan.joint.priorities import fit
from melange.plan.joint.shared_pools import Pools, pools_of
from melange.plan.joint.shortage import ShortPoolsError
from melange.plan.joint.solve_jointly import JointSettings, solve_jointly
from melange.plan.options import Options
from melange.plan.question import Question
from melange.plan.solve import solve

EXACT = JointSettings(gap=1e-9, time_limit_s=20)


def drawn(seed: int) -> tuple[dict[str, Question], Pools]:
    """Two or three services, each with speeds of its own, on two or three types, and one pool or two."""
    random = np.random.default_rng(seed)
    types = int(random.integers(2, 4))
    offers = [
        offer(f"g{r}", float(np.round(random.uniform(1, 5), 1)), int(random.choice([1, 1, 2]))) for r in range(types)
    ]
    questions = {}
    for k in range(int(random.integers(2, 4))):
        rates = np.round(random.lognormal(0.5, 0.7, (types, 1, 2)), 2) + 0.1
        rates[random.random(rates.shape) < 0.15] = 0.0
        rates[0] = np.maximum(rates[0], 0.5)
        traffic = np.round(random.uniform(0.3, 2.5, (1, 2)), 2)
        questions[f"s{k}"] = Question(
            workload=workload(traffic), profile=profile(offers, rates), options=Options(headroom=0.0)
        )
    named = random.permutation(types)[: int(random.integers(1, 3))]
    return questions, Pools(max_accelerators={f"g{r}": int(random.integers(0, 6)) for r in named})


def members(questions: dict[str, Question], pools: Pools) -> list[Member]:
    """The services in numbers."""
    return [Member.of(name, one, pools) for name, one in questions.items()]


def enumerated(questions: dict[str, Question], pools: Pools) -> float:
    """The least cost of all fleets of all services within the pools; infinite where there are none."""
    listed = []
    for one in members(questions, pools):
        fleets = []
        for count in itertools.product(*(range(int(n) + 1) for n in one.problem.most)):
            fleet = np.array(count)
            found = least_peak_shares(one.problem, one.problem.carried(fleet))
            if found is not None and found[1] <= 1 + 1e-9:
                fleets.append((float(one.problem.cost @ fleet), one.draw @ fleet))
        kept = [
            a
            for a in fleets
            if not any(
                b[0] <= a[0] and (b[1] <= a[1]).all() and b is not a and (b[0] < a[0] or (b[1] < a[1]).any())
                for b in fleets
            )
        ]
        listed.append(kept)
    best = np.inf
    for choice in itertools.product(*listed):
        if (sum(use for _, use in choice) <= pools.most).all():
            best = min(best, sum(cost for cost, _ in choice))
    return best


@pytest.mark.heavy
@pytest.mark.parametrize("seed", range(40))
def test_equal_to_enumeration(seed: int) -> None:
    """On tiny cases, infeasible ones included."""
    questions, pools = drawn(seed)
    try:
        least = enumerated(questions, pools)
    except InfeasibleError:  # a size that nobody serves once a pool holds nothing
        with pytest.raises(InfeasibleError):
            members(questions, pools)
        return
    if np.isinf(least):
        with pytest.raises(ShortPoolsError):
            solve_jointly(members(questions, pools), pools, EXACT)
        return
    found = solve_jointly(members(questions, pools), pools, EXACT)
    assert found.cost_per_h == pytest.approx(least, rel=1e-9)
    assert found.bound_per_h <= least * (1 + 1e-9)
    assert (found.taken <= pools.most).all()


def two_services(most: int) -> tuple[dict[str, Question], Pools]:
    """Both are served at 1 USD by one ``fast`` or at 3 USD by one ``slow`` for each request/s."""
    offers = [offer("fast", 1.0), offer("slow", 3.0)]
    made = {
        name: Question(
            workload=workload([[rate]]), profile=profile(offers, [[[1.0]], [[speed]]]), options=Options(headroom=0.0)
        )
        for name, rate, speed in (("a", 4.0, 1.0), ("b", 4.0, 2.0))
    }
    return made, Pools(max_accelerators={"fast": most})


def test_the_scarce_type_goes_where_it_saves_most() -> None:
    """A slow instance costs service a 3 USD for each request/s, and b 1.5 USD."""
    questions, pools = two_services(4)
    found = solve_jointly(members(questions, pools), pools, EXACT)
    assert [one.taken.tolist() for one in found.columns] == [[4.0], [0.0]]
    assert found.cost_per_h == pytest.approx(4 * 1 + 2 * 3)
    assert found.price[0] > 0


def test_enough_for_all_is_planned_apart() -> None:
    """Where no pool is short, each service has the plan that it has alone, and pools have no price."""
    questions, pools = two_services(8)
    found = solve_jointly(members(questions, pools), pools)
    alone = [solve(one).cost_per_h for one in questions.values()]
    assert [one.cost for one in found.columns] == pytest.approx(alone)
    assert found.price.tolist() == [0.0]


def test_the_next_unit_goes_to_who_saves_by_it() -> None:
    """And service a would give one up last: b does not have any."""
    questions, pools = two_services(4)
    these = members(questions, pools)
    found = solve_jointly(these, pools, EXACT)
    more, less = exchanges(these, pools, found)[0]
    assert less is not None
    assert (less.service, less.units, less.changes) == ("a", -1.0, {"fast": -1, "slow": 1})
    assert less.cost_per_h == pytest.approx(2.0)
    # One fast instance replaces half of a slow one of b: by itself it saves nothing.
    assert more is None


def test_a_pool_of_nothing_has_no_price() -> None:
    """Nobody can rent from it, and its price would be the penalty of the program."""
    questions, pools = two_services(0)
    found = solve_jointly(members(questions, pools), pools, EXACT)
    plans = {name: solve(pools.bounded(one)) for name, one in questions.items()}
    assert found.price.tolist() == [0.0]
    assert pool_uses(pools, plans, found.price)[0].price_per_h is None


def test_says_which_pool_is_short_by_how_much_and_for_whom() -> None:
    """Eight are needed: four for each."""
    offers = [offer("only", 1.0)]
    questions = {
        name: Question(workload=workload([[4.0]]), profile=profile(offers, [[[1.0]]]), options=Options(headroom=0.0))
        for name in ("chat", "code")
    }
    pools = Pools(max_accelerators={"only": 6})
    with pytest.raises(ShortPoolsError) as error:
        solve_jointly(members(questions, pools), pools)
    assert error.value.reasons == ("only: at least 8 needed, 6 there: chat at least 4, code at least 4",)


@pytest.mark.heavy
def test_priorities_serve_the_first_whole_and_the_others_in_part() -> None:
    """Of six instances chat has its four, and code half of its traffic."""
    offers = [offer("only", 1.0)]
    questions = {
        name: Question(workload=workload([[4.0]]), profile=profile(offers, [[[1.0]]]), options=Options(headroom=0.0))
        for name in ("chat", "code")
    }
    pools = Pools(max_accelerators={"only": 6})
    found = fit(questions, {"chat": 2, "code": 1}, pools, JointSettings())
    assert found.served_fraction["chat"] == 1.0
    assert found.served_fraction["code"] == pytest.approx(0.5, abs=1 / 32)
    nothing = fit(questions, {"chat": 2, "code": 1}, Pools(max_accelerators={"only": 4}), JointSettings())
    assert nothing.served_fraction == {"chat": 1.0, "code": 0.0}
    with pytest.raises(ShortPoolsError, match="too small"):
        fit(questions, {"chat": 1, "code": 1}, pools, JointSettings())


def test_a_budget_of_all_is_kept_or_refused() -> None:
    """With what is needed at least."""
    questions, _ = two_services(8)
    kept = Pools(max_accelerators={"fast": 8}, budget_per_h=8.0)
    assert solve_jointly(members(questions, kept), kept).cost_per_h == pytest.approx(8.0)
    short = Pools(max_accelerators={"fast": 8}, budget_per_h=7.0)
    with pytest.raises(ShortPoolsError, match=r"8\.00 USD/h, and plan.budget_per_h is 7"):
        solve_jointly(members(questions, short), short)


def test_names_of_pools() -> None:
    """An accelerator, a region, both, an offer, an instance type; unknown ones are told with the nearest."""
    held = Offer(provider="p", region="east", instance_type="i8", accelerator="H100", accelerators=8, cost_per_h=3.0)
    items = profile([held, offer("L4", 1.0)], [[[1.0]], [[1.0]]]).replica_types
    pools = pools_of({"h100": 16}, items, {"h100": "H100"})
    assert pools.max_accelerators == {"H100": 16}
    assert pools.draw(items).tolist() == [[8.0, 0.0]]
    for name, taken in (("east", 8.0), ("east/h100", 8.0), ("p/east/i8", 1.0), ("i8", 1.0)):
        assert pools_of({name: 16}, items, {"h100": "H100"}).draw(items).tolist() == [[taken, 0.0]]
    with pytest.raises(InputError, match="did you mean 'H100'"):
        pools_of({"H10": 16}, items, {})
    with pytest.raises(InputError, match="twice"):
        pools_of({"h100": 16, "H100": 8}, items, {"h100": "H100", "H100": "H100"})


def test_a_plan_beyond_a_pool_is_refused() -> None:
    """Whatever made it: pools are checked again from the plans' instances."""
    questions, _ = two_services(8)
    plans = {name: solve(one) for name, one in questions.items()}
    short = pool_uses(Pools(max_accelerators={"fast": 7}), plans, np.zeros(1))
    services = tuple(
        ServicePlan(name=name, priority=1, served_fraction=1.0, apart_per_h=None, plan=plan)
        for name, plan in plans.items()
    )
    with pytest.raises(SolverError, match="fast: 8 of 7"):
        JointPlan(services=services, pools=short, budget_per_h=None, bound_per_h=None)
    with pytest.raises(SolverError, match="budget"):
        JointPlan(services=services, pools=(), budget_per_h=7.0, bound_per_h=None)
