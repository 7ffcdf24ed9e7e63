"""No fleet is certified whose queues grow, however loose the limits are."""

from __future__ import annotations

import pytest
from planned import inputs

from melange.plan.plan import Plan
from melange.slo import Slo
from melange.validate.attainment import counted
from melange.validate.certify.certify import certify
from melange.validate.simulate import draw_for, simulate


def growth(plan: Plan) -> float:
    """Mean TTFT of the last tenth of a long run over that of the third one."""
    outcome = simulate(plan, draw_for(plan, 60_000, seed=77), seed=77).outcome
    ttft = outcome.ttft_s[counted(outcome)]
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
