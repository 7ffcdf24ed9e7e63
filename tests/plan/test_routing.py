"""What requests count as where a replica of a type is chosen."""

from __future__ import annotations

import numpy as np
import pytest
from balance_cases import small_plan

from melange.plan.routing import policy_state


@pytest.mark.parametrize("share_of_first", [0.25, 0.9])
def test_a_request_counts_by_its_size_by_number_and_by_its_unread_prompt(share_of_first: float) -> None:
    """As much again as the type's average request for being one; 16 of these for a mean prompt that is unread."""
    plan = small_plan(share_of_first, rate=8.0)
    state = policy_state(plan, kind="arrays")
    used = np.flatnonzero(plan.instances)
    parts = np.asarray(state.part).reshape(len(used), *plan.workload.request_rate.shape)
    for t, r in enumerate(used):
        sent = plan.share[r] * plan.workload.request_rate
        average = float((parts[t] * sent).sum() / sent.sum())
        prompt = float((plan.workload.input_tokens * sent).sum() / sent.sum())
        assert state.request_part[t] == pytest.approx(average)
        assert state.unread_part[t] * prompt == pytest.approx(16 * average)
    assert not np.any(state.unread)
