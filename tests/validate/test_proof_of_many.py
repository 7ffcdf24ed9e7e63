"""Of many proofs one succeeds by chance: each further one must be surer."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from searching import judge_of, small_service

from melange.plan.solve import solve
from melange.validate.attainment import Interval
from melange.validate.certify.judge import Judge
from melange.validate.certify.plan_trial import Trial


def trial_of(judge: Judge, value: float, low: float) -> Trial:
    """A proof of a plan that keeps up, with an interval."""
    types = len(judge.question.profile.replica_types)
    plan = judge.question
    tables = {name: np.zeros((types, *plan.workload.request_rate.shape)) for name in ("factor", "sent", "missed")}
    return Trial(
        plan=None,  # type: ignore[arg-type]
        attainment=Interval(value=value, low=low, high=1.0),
        hopeless=tables["sent"],
        samples=(),
        causes=(),
        used=np.zeros(types),
        shortest=judge.requests,
        **tables,
    )


@pytest.mark.parametrize("proofs", [1, 2, 4, 16])
def test_each_further_proof_has_a_wider_interval(proofs: int) -> None:
    """By normal quantiles: one proof must be above the target by the lower half of its interval of 95 %."""
    judge = replace(judge_of(small_service(24), 0.9), proofs=proofs)
    normal = NormalDist()
    needed = 0.01 * normal.inv_cdf(1 - 0.025 / min(proofs, 4)) / normal.inv_cdf(0.975)
    assert judge.is_proven(trial_of(judge, 0.9 + 1.001 * needed, 0.89 + 1.001 * needed))
    assert not judge.is_proven(trial_of(judge, 0.9 + 0.999 * needed, 0.89 + 0.999 * needed))


def test_proofs_are_counted() -> None:
    """Each proof on drawn requests counts, whether it succeeds or fails."""
    question = small_service(24)
    judge = judge_of(question, 0.9)
    trial = judge.trial(solve(question), np.ones(question.profile.max_request_rate.shape))
    for number in (1, 2):
        judge.proof(trial)
        assert judge.proofs == number
