"""Types that no cheapest fleet needs, and the margin by which another one must be better."""

from __future__ import annotations

import numpy as np
import pytest
from plan_cases import offer, problem_of, profile, random_case, workload

from melange.plan.exact.dominated import needed_types
from melange.plan.options import Options
from melange.plan.problem import Problem

EXACT = Options(headroom=0.0)


def pair(ratio: float) -> Problem:
    """Two types, the first one cheaper and faster by a ratio."""
    rates = profile([offer("a", 1.9), offer("b", 2.0)], [[[ratio, ratio]], [[1.0, 1.0]]])
    return problem_of(workload([[1.0, 2.0]]), rates, EXACT)


def margin(types: int, factor: float) -> np.ndarray:
    """The same margin between any two types."""
    return np.full((types, types), factor)


@pytest.mark.parametrize(("factor", "is_kept"), [(1.0, False), (1.1, False), (1.19, False), (1.21, True), (2.0, True)])
def test_a_type_is_set_aside_where_another_one_is_faster_by_the_margin(factor: float, is_kept: bool) -> None:
    """One that is 1.2 times as fast for less money."""
    assert needed_types(pair(1.2), margin=margin(2, factor)).tolist() == [True, is_kept]


def test_a_margin_is_that_of_the_faster_type_over_the_slower_one() -> None:
    """Rows are those that dominate, columns those that are set aside."""
    table = margin(2, 1.0)
    table[0, 1] = 2.0
    assert needed_types(pair(1.2), margin=table).all()
    assert needed_types(pair(1.2), margin=table.T).tolist() == [True, False]


@pytest.mark.parametrize("seed", range(20))
def test_a_larger_margin_keeps_more(seed: int) -> None:
    """Of none it is as of 1, whatever grows with it; and one type is always kept."""
    problem = problem_of(*random_case(seed, types=8, holes=0.1), EXACT)
    kept = [needed_types(problem, margin=margin(8, factor)) for factor in (1.0, 1.1, 1.25, 2.0, 1e6)]
    assert kept[0].tolist() == needed_types(problem).tolist()
    assert all((more | ~less).all() for less, more in zip(kept, kept[1:], strict=False))
    assert kept[0].any()
