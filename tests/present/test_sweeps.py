"""Plans for other rates and limits."""

from __future__ import annotations

import math

import pytest
from plan_cases import asked
from tiny import profile_of, replica_type

from melange.plan.options import Options
from melange.plan.sweeps import explore, limits_in_order, savings_against, single_costs, sweep_rates, with_limit
from melange.present.study import Study
from melange.slo import Slo
from melange.workload.workload import Buckets, Workload


def test_the_paper_s_staircase() -> None:
    """Figure 9: one size at 0.370 (A10G) and 2.0 (A100) requests/s a replica; 1, 2 and 4 requests/s by hand."""
    buckets = Buckets(input_edges=(1000,), output_edges=(500,))
    types = [replica_type("A10G", 1.01), replica_type("A100-80GB", 3.67)]
    profile = profile_of(types, [[[0.370]], [[2.0]]], buckets)
    workload = Workload.at_upper_edges(buckets, [[1.0]])
    points = sweep_rates(asked(workload, profile, Options(headroom=0.0)), (1.0, 2.0, 2.2, 4.0))
    costs = [point.plan.cost_per_h if point.plan else math.nan for point in points]
    assert costs == pytest.approx([3 * 1.01, 3.67, 3.67 + 1.01, 2 * 3.67])
    assert single_costs(points, "A10G") == pytest.approx([3 * 1.01, 6 * 1.01, 6 * 1.01, 11 * 1.01])
    assert savings_against(points[1].plan, "A10G") == pytest.approx(1 - 3.67 / 6.06)  # type: ignore[arg-type]


def test_what_cannot_be_met_is_a_gap_and_not_an_error(workload: Workload, buckets: Buckets) -> None:
    """At most one instance: the service's own rate can be carried, twice the rate cannot."""
    profile = profile_of([replica_type("a", 1.0)], [[[40, 40], [40, 40]]], buckets)
    points = sweep_rates(asked(workload, profile, Options(headroom=0.0, max_instances={"a": 1})), (1.0, 2.0))
    assert [point.plan is None for point in points] == [False, True]
    assert math.isnan(single_costs(points, "a")[1])


def test_a_type_that_cannot_serve_a_size_saves_nothing_countable(study: Study) -> None:
    """Neither a cost nor a saving where a type is no alternative."""
    sizes = Workload.at_upper_edges(study.workload.buckets, [[1.0, 1.0], [1.0, 1.0]])
    points = sweep_rates(asked(sizes, study.profile, Options(headroom=0.0)), (1.0,))
    assert points[0].plan is not None
    assert math.isnan(savings_against(points[0].plan, "small"))


def test_tighter_limits_cost_more(study: Study) -> None:
    """At half the limit every rate is halved, so the plan is that of twice the traffic; looser ones change nothing."""
    (sweep,) = study.exploration.by_limit
    cost_by_limit = {round(point.at, 6): point.plan.cost_per_h for point in sweep.points if point.plan}
    (double,) = sweep_rates(study.plan.question, (2.0,))
    assert double.plan is not None
    assert cost_by_limit[0.05] == double.plan.cost_per_h
    assert cost_by_limit[0.1] == cost_by_limit[0.3] == study.plan.cost_per_h


def test_no_limits_without_an_estimate(study: Study) -> None:
    """A given profile holds under one SLO."""
    assert explore(study.plan).by_limit == ()


def test_limits_are_looked_at_one_by_one() -> None:
    """The time per token first; the others keep their values."""
    slo = Slo(ttft_s=1.0, tpot_s=0.08)
    assert limits_in_order(slo) == ["tpot", "ttft"]
    assert with_limit(slo, "tpot", 0.04) == Slo(ttft_s=1.0, tpot_s=0.04)
