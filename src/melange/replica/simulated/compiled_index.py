"""The index over the replicas, compiled: what the policies ask of it, and how it follows changes.

:mod:`melange.replica.simulated.replica_index` has its form.
"""

# Numba compiles these without annotations; tests run them.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,no-any-return,misc"

from __future__ import annotations

from melange.replica.simulated.compiling import inner
from melange.replica.simulated.replica_index import BASE, FILL, FIRST, LEAVES, SIZE, WORK, IndexedState


@inner
def changed(state: IndexedState, r: int) -> None:
    """Bring the index up to date after a change of a replica's requests, or of whether it is up."""
    t = state.type_of[r]
    leaves = state.range_of[LEAVES, t]
    if leaves == 0:
        return
    base, node = state.range_of[BASE, t], leaves + r - state.range_of[FIRST, t]
    entrant = r if state.is_up[r] == 1 else -1
    kinds = 1 + (state.fill[r] != state.noted[FILL, r] or state.tree[WORK, base + node] != entrant)
    state.noted[FILL, r] = state.fill[r]
    state.noted[WORK, r] = (
        state.fill[r] + state.request_part[t] * state.outstanding[r] + state.unread_part[t] * state.unread[r]
    )
    for kind in range(kinds):
        _climb(state.tree[kind, base:], state.noted[kind], node, r, entrant)


@inner
def _climb(tree, values, node, r, entrant):
    """Play the matches of a replica from its leaf up to the root, until it has lost one as before."""
    tree[node] = entrant
    node //= 2
    while node > 0:
        left, right = tree[2 * node], tree[2 * node + 1]
        winner = right if left < 0 or (right >= 0 and values[right] < values[left]) else left
        if winner == tree[node] and winner != r:
            return
        tree[node] = winner
        node //= 2


def least_work(state: IndexedState, t: int) -> int:
    """In place of ``policy._least_work``."""
    if state.range_of[LEAVES, t] > 0:
        return state.tree[WORK, state.range_of[BASE, t] + 1]
    best, least = -1, 0.0
    for r in range(state.range_of[FIRST, t], state.range_of[FIRST, t] + state.range_of[SIZE, t]):
        if state.is_up[r]:
            work = state.fill[r] + state.request_part[t] * state.outstanding[r] + state.unread_part[t] * state.unread[r]
            if best < 0 or work < least:
                best, least = r, work
    return best


def least_full(state: IndexedState, t: int) -> int:
    """In place of ``policy._least_full``."""
    if state.range_of[LEAVES, t] > 0:
        return state.tree[FILL, state.range_of[BASE, t] + 1]
    best = -1
    for r in range(state.range_of[FIRST, t], state.range_of[FIRST, t] + state.range_of[SIZE, t]):
        if state.is_up[r] and (best < 0 or state.fill[r] < state.fill[best]):
            best = r
    return best


def is_any_up(state: IndexedState, t: int) -> bool:
    """In place of ``policy._is_any_up``."""
    if state.range_of[LEAVES, t] > 0:
        return state.tree[WORK, state.range_of[BASE, t] + 1] >= 0
    for r in range(state.range_of[FIRST, t], state.range_of[FIRST, t] + state.range_of[SIZE, t]):
        if state.is_up[r]:
            return True
    return False
