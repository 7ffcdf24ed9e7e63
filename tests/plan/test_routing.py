"""What a balancer takes each request to occupy: half by its size, half by number."""

from __future__ import annotations

import numpy as np
import pytest
from balance_cases import small_plan

from melange.plan.routing import policy_state
from melange.replica.occupancy import parts_of, sizes_of


@pytest.mark.parametrize("share_of_first", [0.25, 0.9])
def test_a_request_counts_half_by_its_size_and_half_as_the_average_one(share_of_first: float) -> None:
    """So that the traffic that a type gets occupies as much of it in all as by size."""
    plan = small_plan(share_of_first, rate=8.0)
    state = policy_state(plan, kind="arrays")
    sizes, used = sizes_of(plan.workload), np.flatnonzero(plan.instances)
    shape = plan.workload.request_rate.shape
    for t, r in enumerate(used):
        by_size = parts_of(plan.engines[r], plan.max_request_rate[r], plan.slo, sizes)
        sent = plan.share[r] * plan.workload.request_rate
        average = float((by_size * sent).sum() / sent.sum())
        part = np.asarray(state.part).reshape(len(used), *shape)[t]
        np.testing.assert_allclose(part, (by_size + average) / 2)
        assert (part * sent).sum() == pytest.approx((by_size * sent).sum())


def test_an_unread_prompt_of_the_mean_length_counts_as_eight_average_requests() -> None:
    """Of each type's own traffic."""
    plan = small_plan(0.25, rate=8.0)
    state = policy_state(plan, kind="arrays")
    sizes = sizes_of(plan.workload)
    for t, r in enumerate(np.flatnonzero(plan.instances)):
        by_size = parts_of(plan.engines[r], plan.max_request_rate[r], plan.slo, sizes)
        sent = plan.share[r] * plan.workload.request_rate
        mean = float((plan.workload.input_tokens * sent).sum() / sent.sum())
        assert state.unread_part[t] * mean == pytest.approx(8 * float((by_size * sent).sum() / sent.sum()))
    assert not np.any(state.unread)
