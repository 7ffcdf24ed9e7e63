"""The policies with an index over the replicas: the time of a choice grows with the types, not the replicas.

The source of :mod:`melange.replica.policy` is loaded a second time, as the simulator does to compile it. Only functions
that scan all replicas are replaced: by an index that gives the same results and is updated as requests come and go.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from bisect import bisect_left
from collections.abc import Callable
from functools import cache
from operator import mul
from types import ModuleType
from typing import cast

import numpy as np

from melange.replica import policy
from melange.replica.policy import _REMEMBERED
from melange.replica.policy_state import PolicyState

_NAME = "melange.deploy.live._policy_on_an_index"
# Number of replicas from which their hashes with a key are computed together: below, a loop is as fast.
_MANY = 24
_among_few = cast("Callable[[IndexedState, int, float], int]", policy._replica_of_key)


class _Least:
    """A tournament tree for the replica of a range with the least value among those that are up, the first on ties.

    Parameters
    ----------
    values, is_up
        Values and states of all replicas; changes are reported to :meth:`changed`.
    first, count
        The range.
    """

    __slots__ = ("_first", "_is_up", "_leaves", "_tree", "_values")

    def __init__(self, values: list[float] | list[int], is_up: list[int], first: int, count: int) -> None:
        self._values, self._is_up, self._first = values, is_up, first
        self._leaves = 1 << max(count - 1, 0).bit_length()
        self._tree = [-1] * (2 * self._leaves)
        for r in range(first, first + count):
            self._tree[self._leaves + r - first] = r if is_up[r] else -1
        for node in range(self._leaves - 1, 0, -1):
            self._tree[node] = self._winner(node)

    def _winner(self, node: int) -> int:
        left, right = self._tree[2 * node], self._tree[2 * node + 1]
        if left < 0 or (right >= 0 and self._values[right] < self._values[left]):
            return right
        return left

    def changed(self, r: int) -> None:
        """Update the tree after a change of a replica's value or state."""
        tree, node = self._tree, self._leaves + r - self._first
        tree[node] = r if self._is_up[r] else -1
        node >>= 1
        while node:
            winner = self._winner(node)
            if winner == tree[node] and winner != r:
                return  # it has lost, as before
            tree[node] = winner
            node >>= 1

    @property
    def top(self) -> int:
        """The winning replica; -1 if none is up."""
        return self._tree[1]


class IndexedState:
    """A balancer's state with an index over its replicas; fields as in :class:`PolicyState`, as lists.

    Only the last edges differ: they are infinite.

    Parameters
    ----------
    state
        State whose lists are used directly. From now on, only :meth:`book`, :meth:`read`, :meth:`give_back` and
        :meth:`set_up` may change ``fill``, ``unread``, ``outstanding`` and ``is_up``.
    """

    __slots__ = (*PolicyState._fields, "_counts", "_emptiest", "_fewest", "_least", "_ranges", "_stale",
                 "_ups", "_work", "all_up", "inputs", "outputs", "up_count")  # fmt: skip

    type_of: list[int]
    input_edges: list[float]
    output_edges: list[float]
    share: list[float]
    part: list[float]
    rate: list[float]
    is_up: list[int]
    outstanding: list[int]
    fill: list[float]
    unread: list[float]
    request_part: list[float]
    unread_part: list[float]
    completions: list[float]
    seen: list[float]
    output_sum: list[float]
    credit: list[float]
    turn: list[int]

    def __init__(self, state: PolicyState) -> None:
        for name, values in zip(PolicyState._fields, state, strict=True):
            setattr(self, name, values)
        self.inputs, self.outputs = len(state.input_edges), len(state.output_edges)
        # The last bucket takes all larger requests, so a search needs no check.
        self.input_edges = [*state.input_edges[:-1], math.inf]
        self.output_edges = [*state.output_edges[:-1], math.inf]
        types, count = len(self.turn) - 1, len(self.type_of)
        edges = [bisect_left(self.type_of, t) for t in range(types + 1)]
        self._ranges = [(edges[t], edges[t + 1] - edges[t]) for t in range(types)]
        self._work = [self._work_of(r) for r in range(count)]
        self._least = [_Least(self._work, self.is_up, *one) for one in self._ranges]
        self._emptiest = [_Least(self.fill, self.is_up, *one) for one in self._ranges]
        self._fewest = _Least(self.outstanding, self.is_up, 0, count)
        # Replicas that changed since the last query of tournaments that are seldom queried: these two.
        self._stale: set[int] = set()
        self.up_count = [sum(self.is_up[first : first + many]) for first, many in self._ranges]
        self.all_up = sum(self.up_count)
        self._ups: dict[int, list[int]] = {}
        # By input bucket: completions up to an output bucket, and their sum, cached until the next completion. A choice
        # needs them once for each type.
        self._counts: list[dict[int, tuple[list[float], float]]] = [{} for _ in self.input_edges]

    def set_up(self, r: int, is_up: bool) -> None:
        """Mark a replica as up or down."""
        if self.is_up[r] == is_up:
            return
        t = self.type_of[r]
        self.is_up[r] = int(is_up)
        self.up_count[t] += 1 if is_up else -1
        self.all_up += 1 if is_up else -1
        self._least[t].changed(r)
        self._stale.add(r)
        self._ups.clear()

    def cell(self, input_tokens: int, max_tokens: int) -> tuple[int, int]:
        """Input bucket of a request, and the last output bucket that its completion can fall into."""
        last = bisect_left(self.output_edges, max_tokens) if max_tokens > 0 else self.outputs - 1
        return bisect_left(self.input_edges, input_tokens), last

    def _work_of(self, r: int) -> float:
        t = self.type_of[r]
        return self.fill[r] + self.request_part[t] * self.outstanding[r] + self.unread_part[t] * self.unread[r]

    def book(self, r: int, i: int, last: int, unread: int) -> float:
        """Like :func:`melange.replica.policy.sent` for a request of that cell, and ``waits`` for its unread tokens."""
        t = self.type_of[r]
        part = _expected(self, self.part, t, i, last)
        self.outstanding[r] += 1
        self.fill[r] += part
        self.unread[r] += unread
        self._work[r] = self._work_of(r)
        self._least[t].changed(r)
        self._stale.add(r)
        return part

    def held_by(self, r: int) -> tuple[int, float, float]:
        """A replica's requests, the parts that they occupy, and unread tokens."""
        return self.outstanding[r], self.fill[r], self.unread[r]

    def read(self, r: int, unread: int) -> None:
        """Like :func:`melange.replica.policy.read`."""
        self.unread[r] -= unread
        self._work[r] = self._work_of(r)
        self._least[self.type_of[r]].changed(r)

    def give_back(self, r: int, part: float, unread: int) -> None:
        """Like :func:`melange.replica.policy.lost`, and ``read`` for tokens that are still unread."""
        left = self.outstanding[r] - 1
        self.outstanding[r] = left
        self.fill[r] = self.fill[r] - part if left else 0.0  # clear rounding errors
        self.unread[r] -= unread
        self._work[r] = self._work_of(r)
        self._least[self.type_of[r]].changed(r)
        self._stale.add(r)

    def learn(self, i: int, output_tokens: int) -> None:
        """Like :func:`melange.replica.policy.finished`, for a completion of an input bucket."""
        self._counts[i].clear()
        outputs = self.outputs
        self.completions[i * outputs + bisect_left(self.output_edges, output_tokens)] += 1.0
        self.output_sum[i] += output_tokens
        self.seen[i] += 1.0
        if self.seen[i] >= _REMEMBERED:
            self.seen[i] *= 0.5
            self.output_sum[i] *= 0.5
            for place in range(i * outputs, (i + 1) * outputs):
                self.completions[place] *= 0.5

    def least_full(self, t: int) -> int:
        """The least full replica of a type, the first on ties; -1 if none is up."""
        self._refresh()
        return self._emptiest[t].top

    def fewest(self) -> int:
        """The replica with the fewest outstanding requests, the first on ties; -1 if none is up."""
        self._refresh()
        return self._fewest.top

    def _refresh(self) -> None:
        for r in self._stale:
            self._emptiest[self.type_of[r]].changed(r)
            self._fewest.changed(r)
        self._stale.clear()

    def ups(self, t: int) -> list[int]:
        """Replicas that are up, of a type or (-1) of all types, in ascending order."""
        found = self._ups.get(t)
        if found is None:
            first, many = self._ranges[t] if t >= 0 else (0, len(self.type_of))
            found = self._ups[t] = [r for r in range(first, first + many) if self.is_up[r]]
        return found

    def after(self, turn: int, t: int) -> int:
        """The next replica after a given one that is up, of a type or (-1) of all types; -1 if there is none."""
        ups = self.ups(t)
        if not ups:
            return -1
        place = bisect_left(ups, turn + 1)
        return ups[place] if place < len(ups) else ups[0]


def _next_in_turn(state: IndexedState, t: int) -> int:
    place = t if t >= 0 else len(state.turn) - 1
    r = state.after(state.turn[place], t)
    if r >= 0:
        state.turn[place] = r
    return r


def _random(state: IndexedState, uniform: float) -> int:
    ups = state.ups(-1)
    return ups[int(uniform * len(ups))] if ups else -1


def _paper(state: IndexedState, input_tokens: int, uniform: float) -> int:
    i = bisect_left(state.input_edges, input_tokens)
    mean = state.output_sum[i] / state.seen[i] if state.seen[i] > 0 else 1.0
    o = bisect_left(state.output_edges, mean)
    inputs, outputs = state.inputs, state.outputs
    weights = [state.rate[(t * inputs + i) * outputs + o] for t in range(len(state.up_count))]
    total = sum(map(mul, weights, state.up_count))
    if total <= 0.0:
        return _random(state, uniform)
    left, chosen = uniform * total, -1
    for t, weight in enumerate(weights):
        if weight > 0.0 and left >= 0.0 and state.up_count[t]:
            chosen = state.ups(t)[min(int(left / weight), state.up_count[t] - 1)]
        left -= weight * state.up_count[t]
    return chosen


def _replica_of_key(state: IndexedState, t: int, key: float) -> int:
    first, many = state._ranges[t]
    if many < _MANY:
        return _among_few(state, t, key)
    # The same computation, for all replicas at once.
    mixed = (int(key * 2147483646.0) + 1 + np.arange(1, many + 1) * 1299709) % 2147483647
    for _ in range(3):
        mixed = (mixed ^ (mixed >> 11)) * 48271 % 2147483647
    mixed[np.array(state.is_up[first : first + many]) == 0] = -1
    best = int(mixed.argmax())
    return first + best if mixed[best] >= 0 else -1


def _expected(state: IndexedState, table: list[float], t: int, i: int, last: int) -> float:
    known, start = state._counts[i].get(last), (t * state.inputs + i) * state.outputs
    if known is None:
        counts = state.completions[i * state.outputs : i * state.outputs + last + 1]
        known = state._counts[i][last] = counts, sum(counts)
    counts, total = known
    if total > 0.0:
        return sum(map(mul, counts, table[start : start + last + 1]), 0.0) / total
    return table[start + last]


_REPLACED: dict[str, Callable[..., int | float]] = {
    "_least_full": IndexedState.least_full,
    "_least_work": lambda state, t: state._least[t].top,
    "_is_any_up": lambda state, t: state.up_count[t],
    "_least_outstanding": IndexedState.fewest,
    "_next_in_turn": _next_in_turn,
    "_random": _random,
    "_paper": _paper,
    "_replica_of_key": _replica_of_key,
    "_expected": _expected,
    "_bucket": bisect_left,
}


@cache
def indexed_policy() -> ModuleType:
    """A second copy of the policies' module for an :class:`IndexedState`: its functions use the index."""
    spec = importlib.util.spec_from_file_location(_NAME, policy.__file__)
    if spec is None or spec.loader is None:
        raise ImportError(f"{policy.__file__} cannot be loaded again")
    copy = importlib.util.module_from_spec(spec)
    sys.modules[_NAME] = copy
    spec.loader.exec_module(copy)
    for name, function in _REPLACED.items():
        if name not in vars(copy):
            raise ImportError(f"{policy.__file__} has no {name} to replace")
        setattr(copy, name, function)
    return copy
