"""The policies over an index choose as those that look through all replicas do."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from melange.deploy.live.indexed_policy import IndexedState, indexed_policy
from melange.replica import policy
from melange.replica.policy import POLICIES
from melange.replica.policy_state import PolicyState


def random_state(random: np.random.Generator) -> PolicyState:
    """A fleet of some types and replicas under way, with shares and rates of which some are zero."""
    types, inputs, outputs = (int(random.integers(1, most)) for most in (6, 5, 6))
    counts = random.integers(1, 9, types)
    n = int(counts.sum())
    share = random.random((types, inputs, outputs)) * (random.random((types, inputs, outputs)) < 0.6)
    rate = random.random((types, inputs, outputs)) * 9 * (random.random((types, inputs, outputs)) < 0.8)
    part = np.where(rate > 0, random.random(rate.shape) * 0.3, 1.0)
    outstanding = random.integers(0, 5, n)
    # Few values, so that several replicas are equally full.
    fill = np.where(outstanding > 0, random.integers(0, 12, n) / 8, 0.0)
    completions = random.integers(0, 30, (inputs, outputs)).astype(float)
    lists = {
        "type_of": np.repeat(np.arange(types), counts),
        "input_edges": np.cumsum(random.integers(10, 900, inputs)).astype(float),
        "output_edges": np.cumsum(random.integers(10, 300, outputs)).astype(float),
        "share": share.ravel(),
        "part": part.ravel(),
        "rate": rate.ravel(),
        "is_up": (random.random(n) < random.choice([0.2, 0.7, 1.0])).astype(int),
        "outstanding": outstanding,
        "fill": fill,
        "unread": np.where(outstanding > 0, random.integers(0, 3, n) * 500.0, 0.0),
        "request_part": random.integers(0, 2, types) / 8,
        "unread_part": random.integers(0, 2, types) * 1e-3,
        "completions": completions.ravel(),
        "seen": completions.sum(axis=1),
        "output_sum": completions.sum(axis=1) * 50,
        "credit": random.normal(size=inputs * types),
        "turn": random.integers(0, n, types + 1),
    }
    return PolicyState(**{name: values.tolist() for name, values in lists.items()})


@pytest.mark.parametrize("name", POLICIES)
def test_choices_are_those_of_the_policies_that_look_through_all(name: str) -> None:
    """From 150 random states, over 40 requests each, with completions, failures, ejections and returns between them."""
    random = np.random.default_rng(POLICIES.index(name) + 41)
    index_of, chosen = POLICIES.index(name), 0
    choose = indexed_policy().choose
    for _ in range(150):
        plain = random_state(random)
        indexed = IndexedState(copy.deepcopy(plain))
        held: list[tuple[int, int, float, int]] = []
        for _ in range(40):
            tokens, most = int(random.integers(1, 3000)), int(random.choice([0, 20, 200, 2000]))
            uniform = float(random.random())
            r = policy.choose(index_of, plain, tokens, most, uniform)
            assert choose(index_of, indexed, tokens, most, uniform) == r
            if r >= 0:
                chosen += 1
                part = policy.sent(plain, r, tokens, most)
                i, last = indexed.cell(tokens, most)
                unread = tokens if random.random() < 0.7 else 0
                policy.waits(plain, r, unread)
                assert indexed.book(r, i, last, unread) == pytest.approx(part)
                held.append((r, tokens, part, unread))
            if held and random.random() < 0.3:
                place = int(random.integers(len(held)))
                r, tokens, part, unread = held[place]
                policy.read(plain, r, unread)
                indexed.read(r, unread)
                held[place] = (r, tokens, part, 0)
            if held and random.random() < 0.6:
                r, tokens, part, unread = held.pop(int(random.integers(len(held))))
                policy.read(plain, r, unread)
                if random.random() < 0.8:
                    outputs = int(random.integers(1, 1500))
                    policy.finished(plain, r, tokens, outputs, part)
                    indexed.learn(indexed.cell(tokens, 0)[0], outputs)
                else:
                    policy.lost(plain, r, part)
                indexed.give_back(r, part, unread)
            if random.random() < 0.2:
                r, is_up = int(random.integers(len(plain.is_up))), bool(random.random() < 0.6)
                plain.is_up[r] = int(is_up)
                indexed.set_up(r, is_up)
        assert indexed.all_up == sum(plain.is_up)
        for field in set(PolicyState._fields) - {"input_edges", "output_edges"}:
            assert getattr(indexed, field) == pytest.approx(getattr(plain, field)), field
    assert chosen > 3000


def test_keys_of_large_fleets_go_where_the_policy_sends_them() -> None:
    """From the size on at which hashes are computed together, with replicas that are down, and where all are."""
    random = np.random.default_rng(5)
    choose, affinity = indexed_policy().choose, POLICIES.index("prefix-affinity")
    for each in (23, 24, 25, 160):
        state = random_state(random)
        types = len(state.turn) - 1
        n = each * types
        lists = {"type_of": sorted(r % types for r in range(n)), "outstanding": [0] * n, "fill": [0.0] * n}
        lists["unread"] = [0] * n
        for ups in (0.0, 0.05, 0.6, 1.0):
            is_up = (random.random(n) < ups).astype(int).tolist()
            plain = state._replace(**lists, is_up=is_up, turn=[0] * (types + 1))
            indexed = IndexedState(copy.deepcopy(plain))
            for uniform in random.random(40).tolist():
                assert choose(affinity, indexed, 300, 0, uniform) == policy.choose(affinity, plain, 300, 0, uniform)


def test_of_equally_full_replicas_the_first_is_next() -> None:
    """Also in fleets whose size is no power of two, and when the first of them is not up."""
    for count in (1, 2, 3, 5, 8, 13):
        state = random_state(np.random.default_rng(count))
        lists = {"type_of": [0] * count, "is_up": [1] * count, "fill": [0.5] * count, "outstanding": [1] * count}
        indexed = IndexedState(state._replace(**lists, turn=[0, 0]))
        assert (indexed.least_full(0), indexed.fewest()) == (0, 0)
        indexed.set_up(0, False)
        assert (indexed.least_full(0), indexed.fewest()) == ((1, 1) if count > 1 else (-1, -1))


def test_a_choice_looks_at_few_of_a_thousand_replicas() -> None:
    """Two reads of how full a replica is for each level of the tournament, and no more."""

    class Counted(list[float]):
        reads = 0

        def __getitem__(self, place: int) -> float:  # type: ignore[override] # one place at a time
            Counted.reads += 1
            return super().__getitem__(place)

    n = 1000
    state = random_state(np.random.default_rng(7))
    types = len(state.turn) - 1
    lists = {"type_of": sorted(r % types for r in range(n)), "is_up": [1] * n, "outstanding": [0] * n}
    indexed = IndexedState(state._replace(**lists, fill=[0.0] * n, unread=[0.0] * n))
    indexed._work = Counted(indexed._work)
    for tournament in indexed._least:
        tournament._values = indexed._work
    Counted.reads = 0
    for _ in range(100):
        r = indexed_policy().choose(0, indexed, 50, 0, 0.0)
        i, last = indexed.cell(50, 0)
        indexed.give_back(r, indexed.book(r, i, last, 50), 50)
    assert 100 < Counted.reads < 100 * 60
