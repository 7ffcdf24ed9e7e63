"""How sure a share is: intervals that hold what is true as often as they say."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from melange.validate.attainment import attainment, wilson


def coverage(true: float, draw: object, runs: int = 5, repeats: int = 400) -> float:
    """Part of the intervals that hold the true share."""
    held = 0
    for seed in range(repeats):
        random = np.random.default_rng(seed)
        interval = attainment([draw(random) for _ in range(runs)])  # type: ignore[operator]
        held += interval.low <= true <= interval.high
    return held / repeats


@pytest.mark.parametrize("true", [0.5, 0.95, 0.995, 0.999])
def test_intervals_of_independent_requests_hold_the_true_share(true: float) -> None:
    """At least 95 times in a hundred, as far as 400 intervals can tell, and with 1,800 requests a run."""
    assert coverage(true, lambda random: random.random(1800) < true) >= 0.93


def test_intervals_of_requests_that_miss_together_hold_the_true_share() -> None:
    """One miss brings others, for about 50 requests: as if independent, one interval in three would lie beside it."""

    def bursts(random: np.random.Generator) -> np.ndarray:
        """A state that lasts for 50 requests in the mean, and is bad for one in 20."""
        good = np.empty(1800, bool)
        state = random.random() < 0.95
        for k, (leave, fresh) in enumerate(zip(random.random(1800), random.random(1800), strict=True)):
            if leave < 0.02:
                state = fresh < 0.95
            good[k] = state
        return good

    def naive(random: np.random.Generator) -> bool:
        pooled = np.concatenate([bursts(random) for _ in range(5)])
        low, high = wilson(float(pooled.mean()), len(pooled))
        return low <= 0.95 <= high

    assert np.mean([naive(np.random.default_rng(seed)) for seed in range(100)]) < 0.7
    assert coverage(0.95, bursts, repeats=120) >= 0.9


def test_intervals_of_runs_that_miss_as_a_whole_hold_the_true_share() -> None:
    """A queue that outlasts a batch: each run has a share of its own, which ten batches of it cannot tell."""

    def runs(random: np.random.Generator) -> np.ndarray:
        return random.random(1800) < 1 - random.gamma(0.5, 0.01)

    assert coverage(0.995, runs, runs=10) >= 0.85


def test_no_miss_at_all_is_no_certainty() -> None:
    """A hundred requests that all met the SLO prove 96.3 %, ten thousand 99.96 %."""
    assert attainment([np.ones(100, bool)]).low == pytest.approx(0.963, abs=0.001)
    assert attainment([np.ones(10_000, bool)]).low == pytest.approx(0.9996, abs=0.0001)
    z = NormalDist().inv_cdf(0.975)
    assert wilson(1.0, 400)[0] == pytest.approx(1 / (1 + z * z / 400))
