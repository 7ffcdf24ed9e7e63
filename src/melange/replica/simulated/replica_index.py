"""An index over the replicas: the time of a choice grows with the types, not with the replicas.

The policies scan all replicas of a type for the one with the least work, and for the least full one. With hundreds of
replicas that takes longer than all else together. Here, tournament trees have both at their roots. Results are the
same to the bit (:mod:`melange.replica.simulated.compiled_index`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from melange.replica.policy_state import PolicyState

# Replicas of a type up to which it is scanned. With 64 a scan is faster by a tenth where replicas have room, and slower
# where they are full, which takes two or three scans; with 256 and room, both are as fast (measured).
FEW = 64
# Rows of ``range_of``, and of ``noted`` and ``tree``.
FIRST, SIZE, BASE, LEAVES = range(4)
WORK, FILL = range(2)

Reals = npt.NDArray[np.float64]
Wholes = npt.NDArray[np.int64]


class IndexedState(NamedTuple):
    """A balancer's state as arrays, with an index over its n replicas of T types.

    Parameters
    ----------
    type_of, input_edges, output_edges, share, part, rate, is_up, outstanding, fill, unread, request_part, unread_part
        The arrays of a :class:`~melange.replica.policy_state.PolicyState`.
    completions, seen, output_sum, credit, turn
        The same.
    range_of
        The first replica of each type, their number, where the trees of the type begin, and their leaves, a power of
        two (4, T); without leaves, the replicas of a type are scanned.
    noted
        Work and fill of each replica, as of its last matches (2, n).
    tree
        For each node of each tree, the replica below it with the least work, or fill, that is up, the first one of
        equals; -1 if none is up (2, nodes). The children of node k are 2 k and 2 k + 1, and the root is node 1.
    """

    type_of: Wholes
    input_edges: Reals
    output_edges: Reals
    share: Reals
    part: Reals
    rate: Reals
    is_up: Wholes
    outstanding: Wholes
    fill: Reals
    unread: Reals
    request_part: Reals
    unread_part: Reals
    completions: Reals
    seen: Reals
    output_sum: Reals
    credit: Reals
    turn: Wholes
    range_of: Wholes
    noted: Reals
    tree: Wholes


def indexed(state: PolicyState) -> IndexedState:
    """A state of arrays with an index, which is yet to be filled (:func:`fill_index`)."""
    types = len(state.turn) - 1
    edges = np.searchsorted(state.type_of, np.arange(types + 1))
    size = np.diff(edges)
    leaves = np.array([1 << int(n - 1).bit_length() if n > FEW else 0 for n in size], np.int64)
    return IndexedState(
        **{name: np.asarray(values) for name, values in zip(PolicyState._fields, state, strict=True)},
        range_of=np.stack([edges[:-1], size, 2 * np.cumsum(leaves) - 2 * leaves, leaves]).astype(np.int64),
        noted=np.zeros((2, len(state.type_of))),
        tree=np.full((2, int(2 * leaves.sum())), -1, np.int64),
    )


def fill_index(state: IndexedState) -> None:
    """Bring the whole index up to date."""
    t = state.type_of
    work = state.fill + state.request_part[t] * state.outstanding + state.unread_part[t] * state.unread
    state.noted[WORK], state.noted[FILL] = work, state.fill
    for first, count, base, leaves in state.range_of.T.tolist():
        if not leaves:
            continue
        replicas = np.arange(first, first + count)
        for kind in (WORK, FILL):
            values, tree = state.noted[kind], state.tree[kind, base : base + 2 * leaves]
            tree[leaves : leaves + count] = np.where(state.is_up[replicas] == 1, replicas, -1)
            nodes = leaves
            while nodes > 1:
                left, right = tree[nodes : 2 * nodes : 2], tree[nodes + 1 : 2 * nodes : 2]
                is_right = (right >= 0) & ((left < 0) | (values[right] < values[left]))
                tree[nodes // 2 : nodes] = np.where(is_right, right, left)
                nodes //= 2
