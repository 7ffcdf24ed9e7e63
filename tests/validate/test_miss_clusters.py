"""Misses that come in clusters say less than as many that come alone."""

from __future__ import annotations

import numpy as np
import pytest

from melange.validate.certify.miss_clusters import clustering, least_missed


def in_clusters(random: np.random.Generator, requests: int, clusters: float, size: float) -> np.ndarray:
    """Which requests miss: a Poisson number of clusters in a row, each of a geometric number of requests."""
    is_missed = np.zeros(requests, bool)
    for start in random.integers(requests, size=random.poisson(clusters)):
        is_missed[start : start + random.geometric(1 / size)] = True
    return is_missed


@pytest.mark.parametrize("size", [1, 4, 16])
def test_clusters_are_counted(size: int) -> None:
    """About one miss in ``size`` begins a cluster."""
    random = np.random.default_rng(size)
    found = [clustering(in_clusters(random, 40_000, 60, size)) for _ in range(20)]
    assert np.mean(found) == pytest.approx(1 / size, rel=0.2)


def test_edges() -> None:
    """No miss, one miss, nothing but misses."""
    assert clustering(np.zeros(100, bool)) == 1.0
    assert clustering(np.arange(100) == 7) == 1.0
    assert clustering(np.ones(100, bool)) == 1.0


def test_two_queues_do_not_refute_a_fleet() -> None:
    """54 misses of 1,600 in two rows: a fleet that misses 0.5 % may show that, as one with 54 misses apart may not."""
    together = np.zeros(1600, bool)
    together[300:330] = together[900:924] = True
    apart = np.arange(1600) % 30 == 0
    assert apart.sum() == together.sum() == 54
    assert least_missed([~together]) < 0.005
    assert 0.02 < least_missed([~apart]) < 54 / 1600


@pytest.mark.parametrize(("clusters", "size"), [(2, 20), (5, 10), (20, 5), (40, 1), (200, 1)])
def test_the_lower_end_is_below_the_true_share(clusters: int, size: int) -> None:
    """In 95 of 100 runs or more, however misses cluster."""
    random = np.random.default_rng([clusters, size])
    runs = [in_clusters(random, 2000, clusters, size) for _ in range(400)]
    true = float(np.mean([run.mean() for run in runs]))
    low = np.array([least_missed([~run]) for run in runs])
    assert (low <= true).mean() >= 0.95
