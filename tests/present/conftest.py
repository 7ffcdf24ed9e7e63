"""A service so small that every number of its pictures can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tiny import profile_of, replica_type

from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.solve import solve
from melange.plan.sweeps import explore
from melange.present.study import Study
from melange.profile.profile import Profile
from melange.slo import Slo
from melange.workload.workload import Buckets, Workload


@pytest.fixture
def buckets() -> Buckets:
    """Short and long prompts, short and long answers."""
    return Buckets(input_edges=(100, 1000), output_edges=(50, 500))


@pytest.fixture
def workload(buckets: Buckets) -> Workload:
    """30 requests a second, none of them long in, long out."""
    return Workload.at_upper_edges(buckets, [[15.0, 6.0], [9.0, 0.0]])


@pytest.fixture
def profile(buckets: Buckets) -> Profile:
    """Small at 1.8 USD/h is cheaper for short requests, large at 7.2 USD/h for all others.

    A request costs 1.8/3600/rate = 0.0005/rate USD on the small one, 0.002/rate on the large one.
    """
    small, large = replica_type("small", 1.8), replica_type("large", 7.2)
    return profile_of([small, large], [[[10, 2], [2, 0]], [[20, 10], [10, 5]]], buckets, Slo(tpot_s=0.1))


@pytest.fixture
def plan(workload: Workload, profile: Profile) -> Plan:
    """The cheapest plan, without headroom."""
    return solve(workload, profile, Options(headroom=0.0))


@pytest.fixture
def profile_at(profile: Profile) -> Callable[[Slo], Profile]:
    """Capacities under another SLO: a limit half as tight allows half the rates."""

    def at(slo: Slo) -> Profile:
        factor = (slo.tpot_s or 0.0) / 0.1
        return profile_of(
            list(profile.replica_types), profile.max_request_rate * min(factor, 1.0), profile.buckets, slo
        )

    return at


@pytest.fixture
def study(plan: Plan, profile_at: Callable[[Slo], Profile]) -> Study:
    """All that pages need."""
    return Study(exploration=explore(plan, profile_at))
