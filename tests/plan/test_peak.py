"""The lowest peak load of a fleet: the same as a linear program finds, with prices that prove it."""

from __future__ import annotations

import numpy as np
import pytest
from over_time_cases import machines
from plan_cases import offer, profile

from melange.plan.schedule.machines import Machines
from melange.plan.schedule.peak import _of_any, peak_of


def case(seed: int, types: int, able: float) -> tuple[Machines, np.ndarray, np.ndarray]:
    """Machines of which some do not serve some sizes, traffic with an empty size and a rare one, and a fleet."""
    random = np.random.default_rng([seed, types])
    rate = random.uniform(0.5, 1.5, (types, 1, 1)) * random.uniform(0.2, 5.0, (types, 4, 5))
    rate = np.where(random.random(rate.shape) < able, rate, 0.0)
    rate[0] = np.maximum(rate[0], 0.3)
    found = machines(
        profile([offer(f"type{r}", float(random.uniform(1, 9))) for r in range(types)], rate), np.ones((1, 20)), None
    )
    traffic = random.uniform(0.0, 3.0, 20)
    traffic[3], traffic[7] = 0.0, 1e-7
    return found, traffic, random.uniform(0.5, 6.0, len(found))


@pytest.mark.parametrize("types", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("able", [1.0, 0.6])
@pytest.mark.parametrize("seed", range(4))
def test_the_peak_is_that_of_a_linear_program(seed: int, able: float, types: int) -> None:
    """Shares and prices prove each other: neither a lower peak nor a higher bound is there."""
    found, traffic, carried = case(seed, types, able)
    peak, price, share = peak_of(found, traffic, carried)
    speed = found.max_request_rate
    with np.errstate(divide="ignore", invalid="ignore"):
        load = np.where(traffic > 0, traffic / speed, 0.0) / carried[:, None]
        least = np.where(speed > 0, price[:, None] / speed, np.inf).min(axis=0)
    assert not share[speed <= 0].any()
    np.testing.assert_allclose(share.sum(axis=0)[traffic > 0], 1.0)
    assert (np.where(share > 0, load, 0.0) * share).sum(axis=1).max() == pytest.approx(peak)
    assert (price >= 0).all()
    assert price @ carried == pytest.approx(1.0)
    assert traffic @ least == pytest.approx(peak, rel=1e-8)
    used = traffic > 0
    solved = _of_any(load[:, used])
    assert solved is not None
    shared = np.where(solved[0] > 0, load[:, used], 0.0) * solved[0]
    assert shared.sum(axis=1).max() == pytest.approx(peak, rel=1e-6)


def test_machines_that_are_not_used_have_the_prices_that_leave_the_peak_as_it_is() -> None:
    """The signal of a fleet that falls short asks as much of fleets with other machines as it may."""
    found, traffic, carried = case(0, 4, 1.0)
    carried[1] = 0.0
    peak, price, share = peak_of(found, traffic, carried)
    assert not share[1].any()
    with np.errstate(divide="ignore", invalid="ignore"):
        least = (price[:, None] / found.max_request_rate).min(axis=0)
        others = np.delete(price[:, None] / found.max_request_rate, 1, axis=0).min(axis=0)
    assert traffic @ least == pytest.approx(peak, rel=1e-8)
    assert np.isclose(price[1] / found.max_request_rate[1], others).any()


def test_a_peak_that_is_enough_need_not_be_the_lowest() -> None:
    """The search ends early, with shares that keep to it; where none do, with the lowest peak."""
    found, traffic, carried = case(1, 5, 1.0)
    peak, _, _ = peak_of(found, traffic, carried)
    loose, _, share = peak_of(found, traffic, carried, enough=1.05 * peak)
    assert peak <= loose <= 1.05 * peak
    np.testing.assert_allclose(share.sum(axis=0)[traffic > 0], 1.0)
    assert peak_of(found, traffic, carried, enough=0.9 * peak)[0] == pytest.approx(peak)


def test_a_size_without_a_machine_is_said() -> None:
    """The peak is infinite, and the prices are those of the machines that serve it."""
    found, traffic, carried = case(0, 3, 0.6)
    serves = found.max_request_rate > 0
    size = int(np.flatnonzero((serves.sum(axis=0) == 1) & serves[0] & (traffic > 0))[0])
    carried[0] = 0.0
    peak, price, share = peak_of(found, traffic, carried)
    assert np.isinf(peak)
    assert price[0] > 0
    assert not share.any()
    assert serves[:, size].tolist() == [True, False, False]
