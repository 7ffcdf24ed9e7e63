from __future__ import annotations

import numpy as np
import pytest
from balance_cases import small_plan
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_cases import answering
from simulated import engine, fleet

from melange.errors import InputError
from melange.plan.routing import policy_state
from melange.replica import policy as policies
from melange.replica.policy import (
    FULL,
    PLAN_LEAST_WORK,
    PLAN_SHARES,
    POLICIES,
    PREFIX_AFFINITY,
    choose,
    finished,
    lost,
    sent,
)
from melange.replica.policy_state import PolicyState
from melange.replica.simulated.cluster import play
from melange.replica.simulated.compiled_policy import compiled_policy
from melange.replica.simulated.replica_index import fill_index, indexed

EVERY_POLICY = pytest.mark.parametrize("policy", range(len(POLICIES)), ids=POLICIES)
SMALL, LARGE = 50, 500  # input tokens in the first and the second bucket of the small plan


def small_fleet(first: int = 2, second: int = 1, share_of_first: float = 0.25) -> PolicyState:
    """The small plan's types, this many replicas of each, with room for any number of requests."""
    plan = small_plan(share_of_first, rate=1e7)
    names = [one.name for one in plan.replica_types]
    return policy_state(plan, dict(zip(names, (first, second), strict=True)))


@pytest.mark.parametrize("policy", [PLAN_LEAST_WORK, PLAN_SHARES])
@given(share=st.floats(0.02, 0.98), requests=st.integers(1, 400))
@settings(max_examples=40, deadline=None)
def test_shares_are_exact_to_within_one_request(policy: int, share: float, requests: int) -> None:
    """After any number of requests each type has had its share of them, give or take one."""
    balancer = small_fleet(share_of_first=share)
    chosen = [choose(policy, balancer, SMALL, 10, 0.0) for _ in range(requests)]
    firsts = sum(balancer.type_of[replica] == 0 for replica in chosen)
    assert abs(firsts - share * requests) <= 1


def test_shares_hold_in_each_input_bucket_by_itself() -> None:
    """Large prompts between small ones change nothing of the small ones' shares, and go where the plan says."""
    balancer = small_fleet(share_of_first=0.25)
    small = []
    for _ in range(100):
        small.append(choose(PLAN_LEAST_WORK, balancer, SMALL, 10, 0.0))
        assert balancer.type_of[choose(PLAN_LEAST_WORK, balancer, LARGE, 10, 0.0)] == 1
    assert sum(balancer.type_of[replica] == 0 for replica in small) == 25


def test_a_shorter_limit_is_a_smaller_request() -> None:
    """What the client allows bounds what the completion is expected to take."""
    balancer = fleet([0, 1], "lists")
    part = [sent(balancer, 0, 1000, limit) for limit in (10, 0)]
    table = balancer.part[2 * 2 : 2 * 2 + 2]
    assert part[0] == table[0]
    assert part[1] == pytest.approx(np.mean(table))


def test_the_least_full_replica_of_a_type_is_next() -> None:
    """Inside a type requests go where the fewest parts are taken."""
    balancer = small_fleet(first=3, second=0, share_of_first=1.0)
    for _ in range(30):
        replica = choose(PLAN_LEAST_WORK, balancer, SMALL, 10, 0.0)
        assert balancer.fill[replica] == min(balancer.fill)
        sent(balancer, replica, SMALL, 10)
    assert balancer.outstanding == [10, 10, 10]


def test_a_full_type_spills_over_to_one_that_can_serve() -> None:
    """Small prompts leave a full type for one with room; where both are full, or cannot serve, they stay."""
    balancer = small_fleet(first=1, second=1, share_of_first=1.0)
    balancer.fill[0] = FULL + 0.01
    assert choose(PLAN_LEAST_WORK, balancer, SMALL, 10, 0.0) == 1
    balancer.fill[1] = 1.0
    assert choose(PLAN_LEAST_WORK, balancer, SMALL, 10, 0.0) == 0
    # The first type cannot serve large prompts with long completions.
    balancer.fill[:] = [0.0, 1.5]
    assert choose(PLAN_LEAST_WORK, balancer, LARGE, 400, 0.0) == 1


def test_where_the_plans_types_are_down_the_fittest_serves() -> None:
    """Large prompts go to the other type only when their own has no replica left."""
    balancer = small_fleet(first=1, second=1)
    balancer.is_up[1] = 0
    assert choose(PLAN_LEAST_WORK, balancer, LARGE, 10, 0.0) == 0


@EVERY_POLICY
@given(
    ups=st.lists(st.booleans(), min_size=5, max_size=5),
    fills=st.lists(st.floats(0, 3), min_size=5, max_size=5),
    inputs=st.integers(1, 3000),
    limit=st.integers(0, 500),
    chance=st.floats(0, 1, exclude_max=True),
)
@settings(max_examples=60, deadline=None)
def test_never_a_replica_that_is_down(
    policy: int, ups: list[bool], fills: list[float], inputs: int, limit: int, chance: float
) -> None:
    """Whatever is known and asked; -1 where all are down, and only there."""
    balancer = fleet([0, 0, 1, 2, 2], "lists")
    balancer.is_up[:], balancer.fill[:] = [int(up) for up in ups], fills
    replica = choose(policy, balancer, inputs, limit, chance)
    assert ups[replica] if any(ups) else replica == -1


@EVERY_POLICY
def test_lists_and_compiled_arrays_choose_alike(policy: int) -> None:
    """A thousand requests that come and go: the same replicas, and the same book at the end."""
    random, compiled = np.random.default_rng(policy), compiled_policy()
    lists, arrays = fleet([0, 0, 1, 2], "lists"), indexed(fleet([0, 0, 1, 2], "arrays"))
    held: list[tuple[int, int, float]] = []
    for step in range(1000):
        fill_index(arrays)
        inputs, limit, chance = int(random.integers(1, 2500)), int(random.integers(0, 500)), float(random.uniform())
        up = int(random.uniform() < 0.9)
        lists.is_up[step % 4] = arrays.is_up[step % 4] = up
        replica = policies.choose(policy, lists, inputs, limit, chance)
        assert replica == compiled.choose(policy, arrays, inputs, limit, chance)
        if replica < 0:
            continue
        part = policies.sent(lists, replica, inputs, limit)
        assert part == compiled.sent(arrays, replica, inputs, limit)
        held.append((replica, inputs, part))
        if len(held) > 8:
            replica, inputs, part = held.pop(int(random.integers(len(held))))
            outputs = int(random.integers(1, 400))
            policies.finished(lists, replica, inputs, outputs, part)
            compiled.finished(arrays, replica, inputs, outputs, part)
    for name in PolicyState._fields:
        np.testing.assert_array_equal(getattr(lists, name), getattr(arrays, name), err_msg=name)


def test_what_is_booked_is_given_back_to_the_last_part() -> None:
    """A thousand requests that end in any way leave an empty fleet and, of those that finished, their lengths."""
    balancer, random = fleet([0, 1], "lists"), np.random.default_rng(1)
    before = sum(balancer.completions)
    held = []
    for _ in range(1000):
        replica, inputs = int(random.integers(2)), int(random.integers(1, 2000))
        held.append((replica, inputs, sent(balancer, replica, inputs, 0)))
    for place in random.permutation(1000):
        replica, inputs, part = held[place]
        if place % 2:
            finished(balancer, replica, inputs, 10, part)
        else:
            lost(balancer, replica, part)
    assert balancer.outstanding == [0, 0]
    assert balancer.fill == [0.0, 0.0]
    assert sum(balancer.completions) == before + 500


def test_old_lengths_are_forgotten() -> None:
    """When completions grow long, what is expected of new ones follows."""
    balancer = fleet([0, 1], "lists")
    for _ in range(3000):
        finished(balancer, 0, 50, 20, sent(balancer, 0, 50, 0))
    for _ in range(6000):
        finished(balancer, 0, 50, 300, sent(balancer, 0, 50, 0))
    assert balancer.completions[1] / (balancer.completions[0] + balancer.completions[1]) > 0.9


def test_a_plan_without_rates_or_replicas_is_no_fleet() -> None:
    """A foreign type, no replica, and a plan of before rates were kept are distinguished."""
    plan = small_plan()
    with pytest.raises(InputError, match="H100 are not in the plan"):
        policy_state(plan, {"H100": 1})
    with pytest.raises(InputError, match="plan: no replicas"):
        policy_state(plan, {})
    bare = answering(small_plan(), max_request_rate=np.zeros((2, 2, 2)))
    with pytest.raises(InputError, match="the rates of its replicas are missing"):
        policy_state(bare)


def keys(count: int, seed: int = 0) -> list[float]:
    """Keys of this many conversations."""
    return np.random.default_rng(seed).random(count).tolist()


def test_requests_with_a_key_go_to_the_same_replica() -> None:
    """While it has room; keys are spread evenly; and a replica that goes moves only its own."""
    state = fleet([0] * 8, "lists")
    homes = [choose(PREFIX_AFFINITY, state, 50, 10, key) for key in keys(4000)]
    assert homes == [policies.home(state, 50, 10, key) for key in keys(4000)]
    counts = np.bincount(homes, minlength=8)
    assert counts.min() > 0.85 * 500
    assert counts.max() < 1.15 * 500
    state.is_up[3] = 0
    after = [choose(PREFIX_AFFINITY, state, 50, 10, key) for key in keys(4000)]
    assert all(now == before for now, before in zip(after, homes, strict=True) if before != 3)
    assert 3 not in after


def test_a_full_replica_sends_its_keys_elsewhere() -> None:
    """The bound on load: the least full replica of the type takes what its own has no room for."""
    state = fleet([0] * 3, "lists")
    wanted = policies.home(state, 50, 10, 0.4)
    state.fill[wanted] = 0.95
    state.fill[(wanted + 1) % 3] = 0.5
    assert choose(PREFIX_AFFINITY, state, 50, 10, 0.4) == (wanted + 2) % 3


def test_keys_keep_to_the_shares_of_types() -> None:
    """Types take the plan's part of the keys, and a key stays with its type."""
    share = np.repeat([0.3, 0.7], 6)
    state = fleet([0, 0, 1, 1, 1], "lists", share=share)
    types = np.array([state.type_of[choose(PREFIX_AFFINITY, state, 50, 10, key)] for key in keys(4000)])
    assert types.mean() == pytest.approx(0.7, abs=0.03)


def test_what_is_cached_counts_where_the_key_belongs() -> None:
    """By hand: 50 of 200 tokens are read on the replica of the key; one key for all, and the rest have to read 200."""
    random, size = np.random.default_rng(3), np.full(400, 200)
    engines, arrival_s = [engine(kv_tokens=1e6)] * 4, np.cumsum(random.exponential(0.5, 400))
    read = []
    for keyed in (random.random(400), np.full(400, 0.4)):
        state = fleet([0] * 4, share=np.ones(6))
        outcome = play(
            *(engines, state, PREFIX_AFFINITY, arrival_s, size, size // 10),
            cached_tokens=np.full(400, 150),
            keys=keyed,
        )
        home = [policies.home(state, 200, 0, key) for key in keyed.tolist()]
        moved = np.count_nonzero(outcome.replica != np.array(home))
        assert outcome.prompt_tokens.sum() == 400 * 50 + moved * 150
        read.append(moved)
    assert read[0] < read[1]
