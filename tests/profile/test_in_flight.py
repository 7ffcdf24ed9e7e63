"""Requests in flight at the maximum rate of each type."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from profile_cases import offer

from melange.catalog.bundled import find_model
from melange.profile.estimate import estimate
from melange.profile.in_flight import in_flight
from melange.slo import Slo
from melange.workload.prefix_reuse import PrefixReuse
from melange.workload.workload import Buckets, Workload

LLAMA = find_model("meta-llama/Llama-3.1-8B-Instruct")
BUCKETS = Buckets(input_edges=(200, 1000, 3000), output_edges=(100, 500))
TRAFFIC = Workload.at_upper_edges(BUCKETS, np.ones((3, 2)))


def test_requests_in_flight() -> None:
    """Under a TPOT limit that binds, a replica at its maximum rate holds rate x (prompt + o x limit) requests."""
    profile = estimate(LLAMA, [offer("A100-80GB")], Slo(tpot_s=0.02), BUCKETS)
    found = in_flight(profile, TRAFFIC)
    assert found is not None
    assert (found > 0.99 * profile.max_request_rate * np.array([100, 500]) * 0.02).all()
    assert found.shape == profile.max_request_rate.shape


def test_prompts_in_a_prefix_cache_take_no_time() -> None:
    """With most prompt tokens cached, a request stays about as long as its completion takes."""
    reuse = PrefixReuse.fixed([0.95] * 3, "said")
    traffic = replace(TRAFFIC, prefix_reuse=reuse)
    profile = estimate(LLAMA, [offer("A100-80GB")], Slo(tpot_s=0.05), traffic)
    found = in_flight(profile, traffic)
    assert found is not None
    stay_s = found / profile.max_request_rate
    assert (stay_s < np.array([100, 500]) * 0.05 * 1.1).all()


def test_a_profile_without_engines_does_not_say() -> None:
    """Measured rates alone do not say how long a request stays."""
    profile = estimate(LLAMA, [offer("A100-80GB")], Slo(tpot_s=0.05), TRAFFIC)
    assert in_flight(replace(profile, engines=()), TRAFFIC) is None
