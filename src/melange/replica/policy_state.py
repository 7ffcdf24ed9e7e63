"""The balancer's state, for the policies of :mod:`melange.replica.policy`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64] | list[float]
Ints = npt.NDArray[np.int64] | list[int]


class PolicyState(NamedTuple):
    """The balancer's state for T replica types, n replicas and I x O buckets, with the counts of completions so far.

    All fields are flat sequences: a table over (t, i, o) has its cell at ``(t I + i) O + o``, one over (i, o) at
    ``i O + o``.

    Parameters
    ----------
    type_of
        Replica type of each replica (n), in ascending order.
    input_edges, output_edges
        Upper edges of the buckets (I), (O) [tokens]; larger requests count in the last bucket.
    share
        The plan's share of a bucket's requests for a type (T I O), 0-1.
    part
        Part of a replica that one request of a bucket occupies while it runs (T I O): one over the requests that run
        at the planned maximum rate; 1 if the type cannot serve the bucket.
    rate
        The planned maximum rate (T I O) [1/s]; 0 if the type cannot serve the bucket.
    is_up
        Whether a replica takes requests (n), 0 or 1.
    outstanding
        Outstanding requests of each replica: sent, and not completed (n).
    fill
        Sum of the parts that the outstanding requests occupy, as expected when they were sent (n): above 1, the replica
        runs more requests than its SLO allows.
    unread
        Prompt tokens of outstanding requests without a first token (n): they wait, or delay running requests.
    request_part, unread_part
        Weight of each outstanding request, and of each unread token, when a replica of a type is chosen, in parts of a
        replica in addition to ``fill`` (T).
    completions
        Observed completions by bucket (I O); the initial values are the plan's traffic.
    seen, output_sum
        Observed completions by input bucket, and their tokens (I): the paper's running mean.
    credit
        Credit of each type in smooth weighted round robin, by input bucket (I T).
    turn
        The last chosen replica within each type, and of all types, for round robin (T + 1).
    """

    type_of: Ints
    input_edges: Floats
    output_edges: Floats
    share: Floats
    part: Floats
    rate: Floats
    is_up: Ints
    outstanding: Ints
    fill: Floats
    unread: Floats
    request_part: Floats
    unread_part: Floats
    completions: Floats
    seen: Floats
    output_sum: Floats
    credit: Floats
    turn: Ints
