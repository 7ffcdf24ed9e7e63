"""Replicas that are drained: they take no more requests and end those that they hold."""

from __future__ import annotations

import numpy as np
from simulated import engine, fleet

from melange.replica.policy import LEAST_OUTSTANDING
from melange.replica.simulated.cluster import Event, play
from melange.replica.simulated.outcome import SERVED, Outcome


def played(events: tuple[Event, ...], count: int = 400) -> Outcome:
    """Requests on three replicas."""
    random = np.random.default_rng(5)
    arrival_s = np.cumsum(random.exponential(0.05, count))
    inputs, outputs = random.integers(1, 300, count), random.integers(20, 200, count)
    return play([engine()] * 3, fleet([0, 0, 0]), LEAST_OUTSTANDING, arrival_s, inputs, outputs, events=events)


def test_a_drained_replica_ends_what_it_holds_and_takes_no_more() -> None:
    """Where a lost one has its requests sent elsewhere, a drained one serves all that it had begun."""
    at_s = 8.0
    found = played((Event(at_s=at_s, replica=1, is_up=False, is_drained=True),))
    assert (found.status == SERVED).all()
    assert found.retries.sum() == 0
    own = found.replica == 1
    assert found.arrival_s[own].max() < at_s
    assert found.finish_s[own].max() > at_s
    lost = played((Event(at_s=at_s, replica=1, is_up=False),))
    assert lost.retries.sum() > 0


def test_a_drain_after_the_last_request_changes_nothing() -> None:
    """And none at all is as before."""
    plain, late = played(()), played((Event(at_s=1e6, replica=1, is_up=False, is_drained=True),))
    assert plain.finish_s.tolist() == late.finish_s.tolist()
