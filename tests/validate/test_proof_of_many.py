"""Of many proofs one succeeds by chance: each further one must be surer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from searching import judge_of, small_service

from melange.plan.solve import solve
from melange.validate.attainment import Interval
from melange.validate.certify.headroom import as_asked
from melange.validate.certify.judge import Judge
from melange.validate.certify.plan_trial import Trial


def trial_of(judge: Judge, instances: Sequence[int], value: float, low: float) -> Trial:
    """A proof of a fleet that keeps up, with an interval."""
    types = len(judge.question.profile.replica_types)
    asked = judge.question
    counts = np.zeros(types, np.int64)
    counts[: len(instances)] = instances
    tables = {name: np.zeros((types, *asked.workload.request_rate.shape)) for name in ("factor", "sent", "missed")}
    return Trial(
        plan=replace(solve(asked), instances=counts),
        attainment=Interval(value=value, low=low, high=1.0),
        hopeless=tables["sent"],
        by_class=((),),
        worst=0,
        off=0.0,
        causes=(),
        used=np.zeros(types),
        shortest=judge.requests,
        **tables,
    )


def needed(proofs: int) -> float:
    """By how much a proof must be above the target where its interval of 95 % goes 0.01 below: by normal quantiles."""
    normal = NormalDist()
    return 0.01 * normal.inv_cdf(1 - 0.025 / min(proofs, 4)) / normal.inv_cdf(0.975)


def is_proven(judge: Judge, instances: Sequence[int], above: float) -> bool:
    """Whether a fleet is proven that was seen this much above a target of 0.9."""
    return judge.is_proven(trial_of(judge, instances, 0.9 + above, 0.89 + above))


@pytest.mark.parametrize("proofs", [1, 2, 4, 16])
def test_each_further_proof_of_a_mix_has_a_wider_interval(proofs: int) -> None:
    """Whichever mixes were looked at before."""
    judge = judge_of(small_service(24), 0.9)
    for number in range(proofs):
        judge.looks.add(trial_of(judge, (1, 1 + number), 1.0, 1.0).plan)
    assert is_proven(judge, (2, 2), 1.001 * needed(proofs))
    assert not is_proven(judge, (2, 2), 0.999 * needed(proofs))


@pytest.mark.parametrize("proofs", [1, 2, 4, 16])
def test_a_type_alone_is_proven_as_if_it_were_the_only_one(proofs: int) -> None:
    """Only looks at the same fleet count: what misses with some instances misses with fewer."""
    judge = judge_of(small_service(24), 0.9)
    for number in range(16):
        judge.looks.add(trial_of(judge, (1, 1 + number), 1.0, 1.0).plan)
        judge.looks.add(trial_of(judge, (4 + number,), 1.0, 1.0).plan)
    for _ in range(proofs):
        judge.looks.add(trial_of(judge, (3,), 1.0, 1.0).plan)
    assert is_proven(judge, (3,), 1.001 * needed(proofs))
    assert not is_proven(judge, (3,), 0.999 * needed(proofs))


def test_looks_at_proofs_are_counted() -> None:
    """Each proof on drawn requests counts, whether it succeeds or fails; the same proof again is no further look."""
    question = small_service(24)
    judge = judge_of(question, 0.9)
    ones, plan = np.ones(question.profile.max_request_rate.shape), solve(question)
    more = as_asked(replace(plan, instances=plan.instances * 2), question)
    for number, one in ((1, plan), (1, plan), (2, more)):
        judge.proof(judge.trial(one, ones))
        assert sum(judge.looks.seen.values()) == number
