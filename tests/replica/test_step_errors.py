"""Drawn step times: what their intervals say, together where errors are common."""

from __future__ import annotations

import math

import numpy as np
import pytest
from simulated import engine

from melange.replica.spread import DECILE, spread
from melange.replica.step_errors import common_part, factor_at, step_factors

ESTIMATED = engine(fast=0.8, slow=1.5, source="estimated")
MEASURED = engine(fast=0.95, slow=1.05, source="anchored")
COUNT = 2000


def test_a_tenth_of_the_draws_lies_beyond_each_end_of_the_interval() -> None:
    """The ends are the 10 % and 90 % quantiles, and half of the draws are slower than the middle."""
    factors = step_factors([ESTIMATED, MEASURED], ["A", "B"], COUNT)
    for t, (fast, slow) in enumerate(((0.8, 1.5), (0.95, 1.05))):
        assert np.quantile(factors[:, t], [0.1, 0.5, 0.9]) == pytest.approx([fast, 1.0, slow], rel=0.01)
    assert float(factor_at(ESTIMATED, DECILE)) == pytest.approx(1.5)
    assert float(factor_at(ESTIMATED, -DECILE)) == pytest.approx(0.8)


def test_types_on_one_accelerator_are_wrong_together_and_measured_ones_by_themselves() -> None:
    """Two accelerators share what a source has in common; a measured one shares nothing."""
    every = [ESTIMATED, ESTIMATED, ESTIMATED, MEASURED]
    logs = np.log(step_factors(every, ["A", "A", "B", "C"], COUNT))
    assert logs[:, 0] == pytest.approx(logs[:, 1])
    deviation = math.log(1.5 / 0.8) / (2 * DECILE)
    assert common_part(ESTIMATED) == pytest.approx(min(spread().common / deviation, 1.0))
    ranks = np.argsort(np.argsort(logs, axis=0), axis=0)
    correlation = np.corrcoef(ranks.T)
    assert correlation[0, 2] == pytest.approx(common_part(ESTIMATED) ** 2, abs=0.06)
    assert abs(correlation[0, 3]) < 0.05
    assert common_part(MEASURED) == 0


@pytest.mark.parametrize("first", [0, 128, 5000])
def test_few_draws_are_spread_evenly(first: int) -> None:
    """Of 128 draws the share beyond any quantile is right to 3 points, wherever they begin."""
    z = np.log(step_factors([engine(fast=1 / 1.3, slow=1.3)], ["A"], 128, first=first)[:, 0])
    z = z / math.log(1.3) * DECILE
    for share, quantile in ((0.25, -0.6745), (0.5, 0.0), (0.8, 0.8416)):
        assert float((z < quantile).mean()) == pytest.approx(share, abs=0.03)
