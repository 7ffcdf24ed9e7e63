"""An index over the replicas changes nothing but the time that a choice takes."""

from __future__ import annotations

import numpy as np
import pytest
from simulated import engine, fleet

from melange.replica.policy import POLICIES
from melange.replica.simulated import replica_index
from melange.replica.simulated.cluster import Event, play
from melange.replica.simulated.outcome import Outcome
from melange.replica.simulated.replica_index import BASE, FILL, LEAVES, WORK, fill_index, indexed

# Types with more and with fewer replicas than are worth a tree.
TYPE_OF = [0] * 97 + [1] * 5 + [2] * 70


def played(policy: int, seed: int) -> Outcome:
    """Requests in bursts that fill the fleet, while replicas are lost, drained and added."""
    random = np.random.default_rng(seed)
    count = 6000
    arrival_s = np.cumsum(random.exponential(0.004, count) * random.choice([0.1, 3.0], count))
    places = random.permutation(len(TYPE_OF))
    events = [Event(at_s=float(2 + k), replica=int(r), is_up=False) for k, r in enumerate(places[:8])]
    events += [Event(at_s=float(12 + k), replica=int(r), is_up=True) for k, r in enumerate(places[:4])]
    events += [
        Event(at_s=float(4 + k), replica=int(r), is_up=False, is_drained=True) for k, r in enumerate(places[8:12])
    ]
    return play(
        [engine(max_sequences=8)] * len(TYPE_OF),
        fleet(TYPE_OF, "arrays"),
        policy,
        arrival_s,
        random.integers(1, 2500, count),
        random.integers(1, 400, count),
        max_tokens=random.integers(0, 500, count),
        events=events,
        seed=seed,
    )


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("policy", range(len(POLICIES)), ids=POLICIES)
def test_trees_and_scans_choose_alike(policy: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, under every policy, while replicas come and go."""
    by_trees = played(policy, seed)
    monkeypatch.setattr(replica_index, "FEW", len(TYPE_OF))
    by_scans = played(policy, seed)
    np.testing.assert_array_equal(by_trees.replica, by_scans.replica)
    np.testing.assert_array_equal(by_trees.finish_s, by_scans.finish_s)
    assert len(set(by_trees.replica.tolist())) > len(TYPE_OF) / 2


@pytest.mark.parametrize("seed", range(20))
def test_the_roots_are_the_first_of_the_least(seed: int) -> None:
    """Also where many are equal, and where replicas are down."""
    random = np.random.default_rng(seed)
    state = indexed(fleet(TYPE_OF, "arrays"))
    state.fill[:] = random.integers(0, 4, len(TYPE_OF))
    state.outstanding[:] = random.integers(0, 2, len(TYPE_OF))
    state.is_up[:] = random.random(len(TYPE_OF)) < random.choice([0.1, 0.9])
    fill_index(state)
    work = state.fill + state.request_part[state.type_of] * state.outstanding
    for t in (0, 2):
        up = [r for r, one in enumerate(TYPE_OF) if one == t and state.is_up[r]]
        root = state.range_of[BASE, t] + 1
        assert state.tree[WORK, root] == min(up, key=lambda r: work[r], default=-1)
        assert state.tree[FILL, root] == min(up, key=lambda r: state.fill[r], default=-1)
    assert state.range_of[LEAVES].tolist() == [128, 0, 128]
