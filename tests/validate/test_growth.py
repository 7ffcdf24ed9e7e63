"""Fleets that do not keep up are seen as such, and not certified, however loose the limits are."""

from __future__ import annotations

import numpy as np
import pytest
from planned import inputs

from melange.plan.plan import Plan
from melange.plan.question import question_of
from melange.plan.solve import with_instances
from melange.replica.policy import POLICIES
from melange.slo import Slo
from melange.validate.attainment import counted
from melange.validate.certify.certify import certify
from melange.validate.certify.throughput import at_full_throughput, used_throughput
from melange.validate.simulate import draw_for, simulate

pytestmark = pytest.mark.heavy


def growth(plan: Plan) -> float:
    """Mean TTFT of the last tenth of a long run over that of the third one."""
    outcome = simulate(plan, draw_for(plan, 200_000, seed=77), seed=77).outcome
    ttft = outcome.ttft_s[counted(len(outcome.arrival_s))]
    tenth = len(ttft) // 10
    return float(ttft[-tenth:].mean() / ttft[2 * tenth : 3 * tenth].mean())


@pytest.mark.parametrize(
    "slo", [Slo(ttft_s=60.0), Slo(tpot_s=0.4), Slo(ttft_s=20.0, tpot_s=0.2, attainment=0.5)], ids=str
)
def test_loose_limits_do_not_stand_for_throughput(slo: Slo) -> None:
    """Requests would be late after hours only, or never as their limits see it; the queue grows all the same."""
    plan = certify(*inputs(12.0, "azure-conversation", slo))
    assert plan.certificate is not None
    assert plan.certificate.low >= plan.certificate.target
    assert growth(plan) < 2.0


@pytest.mark.parametrize("mix", ["azure-conversation", "arena", "azure-code"])
def test_throughput_says_which_fleets_keep_up(mix: str) -> None:
    """As a long run does: what needs all of it and more grows by the rest, what needs less ends what has come."""
    question = question_of(*inputs(200.0, mix, Slo(tpot_s=0.4)), None)
    full = at_full_throughput(question).profile.max_request_rate

    def plan_of(count: int) -> Plan:
        plan = with_instances(question, np.array([0, 0, count]))
        assert plan is not None
        return plan

    def used(plan: Plan) -> float:
        return float(used_throughput(plan, full, lambda count, seed: draw_for(plan, count, seed=seed), POLICIES[0])[2])

    def unserved(plan: Plan) -> float:
        """Share of the requests that come in the second half of a long run by which more are inside at its end."""
        outcome = simulate(plan, draw_for(plan, 200_000, seed=78), seed=78).outcome
        inside = (outcome.waiting + outcome.running).sum(axis=1)
        return float(inside[-1] - inside[len(inside) // 2]) / 100_000

    needed = next(count for count in range(1, 100) if used(plan_of(count)) <= 1)
    short, enough = plan_of(max(1, int(0.85 * needed))), plan_of(needed + 1)
    assert unserved(short) == pytest.approx(1 - 1 / used(short), abs=0.03)
    assert unserved(short) > 0.1
    assert unserved(enough) < 0.01
