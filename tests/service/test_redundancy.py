"""A plan that one instance or spot alone carries says so, with what redundancy costs."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from plan_cases import offer, profile, workload

from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.plan.search_clock import count_whole
from melange.plan.solve import solve
from melange.profile.profile import Profile
from melange.service.caution_words import with_word_on_redundancy


def capacities(market: str = "on-demand") -> Profile:
    """Two types; a replica serves 10 requests/s for 1 USD/h, or 30 for 4."""
    offers = [replace(offer(name, cost), market=market) for name, cost in (("L4", 1.0), ("H100", 4.0))]
    return profile(offers, [[[10.0]], [[30.0]]])


def said(plan: Plan) -> str:
    """The message on redundancy; empty without one."""
    return next((one.message for one in with_word_on_redundancy(plan).cautions if one.kind == "no-redundancy"), "")


def test_one_instance_says_what_a_second_one_costs() -> None:
    """The difference of two plans: two of the cheap type instead of one."""
    plan = solve(workload([[5.0]]), capacities(), Options(headroom=0.0))
    spare = solve(workload([[5.0]]), capacities(), Options(headroom=0.0, spare_replicas=1))
    assert (plan.instances.sum(), spare.instances.sum()) == (1, 2)
    assert spare.cost_per_h - plan.cost_per_h == pytest.approx(1.0)
    assert said(plan) == "one failure stops the service; --set plan.spare_replicas=1 costs +1.00 USD/h (closed form)"


def test_a_plan_of_several_instances_says_nothing_and_plans_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual case costs no time."""
    plan = solve(workload([[25.0]]), capacities(), Options(headroom=0.0))
    assert plan.instances.sum() > 1
    monkeypatch.delattr("melange.plan.solve.solve")
    assert with_word_on_redundancy(plan) is plan


@pytest.mark.parametrize("change", [{"solve_s": 30.0}, {"status": "time limit"}], ids=["late", "unproven"])
def test_a_plan_that_used_its_time_is_followed_by_no_search(
    change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The warning stays, and says why it gives no cost."""
    plan = replace(solve(workload([[5.0]]), capacities(), Options(headroom=0.0, time_limit_s=30.0)), **change)
    monkeypatch.delattr("melange.plan.solve.solve")
    assert said(plan).startswith("one failure stops the service; plan.spare_replicas gives a second instance (")
    assert said(plan).endswith("not searched for: plan.time_limit_s is used up)")


def test_the_searches_share_what_is_left_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may take what those before it left; when nothing is left, there is no further one."""
    plan = solve(workload([[5.0]]), capacities(), Options(headroom=0.0, time_limit_s=30.0))
    limits: list[float] = []

    def slow(question: Question) -> Plan:
        """Half a second of work, and a single instance whatever the spares."""
        limits.append(question.options.time_limit_s)
        count_whole(rows=1, pauses=29_353)
        return plan

    monkeypatch.setattr("melange.plan.solve.solve", slow)
    assert "not searched for" in said(replace(plan, solve_s=29.0))
    assert limits == pytest.approx([1.0, 0.5], abs=0.1)


def test_limits_that_leave_no_spare_are_said() -> None:
    """One instance of one type, and no more of it."""
    options = Options(headroom=0.0, max_accelerators={"L4": 1}, exclude=("H100",))
    plan = solve(workload([[5.0]]), capacities(), options)
    assert said(plan).endswith("no plan with --set plan.spare_replicas=1 is possible within its limits")


def test_spot_alone_is_said() -> None:
    """Several instances, all of which the provider may take back."""
    plan = solve(workload([[25.0]]), capacities("spot"), Options(headroom=0.0))
    assert plan.instances.sum() > 1
    assert said(plan).startswith("every instance is spot")
    one = solve(workload([[5.0]]), capacities("spot"), Options(headroom=0.0))
    assert "spot interruption stops the service" in said(one)


def test_one_instance_with_several_replicas_needs_more_spares() -> None:
    """The setting that is named gives at least two instances."""
    rng = np.random.default_rng(7)
    for _ in range(20):
        rates = profile(
            [offer(n, float(rng.uniform(1, 9))) for n in ("L4", "A10G", "H100")], rng.uniform(5, 50, (3, 1, 1))
        )
        plan = solve(workload([[float(rng.uniform(0.5, 4.0))]]), rates)
        spare = int(said(plan).split("spare_replicas=")[1].split()[0])
        assert solve(plan.question.with_options(spare_replicas=spare)).instances.sum() > 1
