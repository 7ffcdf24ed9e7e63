"""CPU time of a choice in a large fleet: by the balancer's index, and by a scan of all replicas as in the simulator."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

from melange.deploy.live.indexed_policy import IndexedState, indexed_policy
from melange.plan.plan import Plan
from melange.plan.routing import policy_state
from melange.replica import policy
from melange.replica.policy import POLICIES

INPUT_TOKENS, OUTPUT_TOKENS = 500, 64
UNREAD = 0  # tokens that the index counts as unread: none, since the scan does not count them either


def choices(plan: Plan, replicas: int, count: int, name: str) -> tuple[float, float]:
    """CPU time to choose a replica and to book and release a request: by the index, and by a scan [us]."""
    wanted, keys = POLICIES.index(name), itertools.cycle(k / 97 for k in range(97))
    names = [name for name, used in plan.replicas.items() if used]
    counts = {name: replicas // len(names) for name in names}
    indexed, plain = IndexedState(policy_state(plan, counts)), policy_state(plan, counts)
    choose = indexed_policy().choose

    def over_index() -> None:
        r = choose(wanted, indexed, INPUT_TOKENS, 0, next(keys))
        i, last = indexed.cell(INPUT_TOKENS, 0)
        part = indexed.book(r, i, last, UNREAD)
        indexed.learn(i, OUTPUT_TOKENS)
        indexed.give_back(r, part, UNREAD)

    def over_all() -> None:
        r = policy.choose(wanted, plain, INPUT_TOKENS, 0, next(keys))
        part = policy.sent(plain, r, INPUT_TOKENS, 0)
        policy.finished(plain, r, INPUT_TOKENS, OUTPUT_TOKENS, part)

    return _cpu_us(over_index, count), _cpu_us(over_all, max(count // replicas, 20))


def _cpu_us(do: Callable[[], None], count: int) -> float:
    """The minimum of five rounds [us]."""
    rounds = []
    for _ in range(5):
        before_s = time.process_time()
        for _ in range(count):
            do()
        rounds.append((time.process_time() - before_s) / count * 1e6)
    return min(rounds)
