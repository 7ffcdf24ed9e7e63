"""Burstiness within windows, against gaps that are drawn with a known one."""

import numpy as np
import pytest

from melange.workload.burstiness import pooled_burstiness


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("burstiness", [0.5, 1.0, 2.0, 4.0])
def test_it_is_that_of_the_gaps_whatever_the_rates(seed: int, burstiness: float) -> None:
    """Gamma-distributed gaps in windows whose rates differ a hundred times."""
    random = np.random.default_rng([seed, 7])
    counts = random.integers(2000, 6000, 24)
    means = 10 ** random.uniform(-2, 0, 24)
    shape = burstiness**-2
    gaps = [random.gamma(shape, mean / shape, count) for count, mean in zip(counts, means, strict=True)]
    found = pooled_burstiness(counts, [one.sum() for one in gaps], [(one**2).sum() for one in gaps])
    assert found == pytest.approx(burstiness, rel=0.05)


@pytest.mark.parametrize(
    ("gaps", "sums_s", "squares_s2", "ties"),
    [
        ([], [], [], []),
        ([29], [29.0], [58.0], [0]),
        ([1] * 100, [1.0] * 100, [1.0] * 100, [0] * 100),
        ([100], [100.0], [200.0], [20]),
        ([100], [0.0], [0.0], [0]),
    ],
    ids=["no window", "few gaps", "no window with two gaps", "coarse clock", "all at once"],
)
def test_what_cannot_be_told_is_none(
    gaps: list[int], sums_s: list[float], squares_s2: list[float], ties: list[int]
) -> None:
    """Nothing is made up from too little."""
    assert pooled_burstiness(gaps, sums_s, squares_s2, ties) is None


def test_even_gaps_are_no_bursts() -> None:
    """Rounding leaves nothing below zero."""
    assert pooled_burstiness([1000], [100.0], [10.0]) == pytest.approx(0.0, abs=1e-6)
