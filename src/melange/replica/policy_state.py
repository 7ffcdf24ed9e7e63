"""What a balancer knows, for the policies of :mod:`melange.replica.policy`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64] | list[float]
Ints = npt.NDArray[np.int64] | list[int]


class PolicyState(NamedTuple):
    """What a balancer knows of T replica types, n replicas and I x O buckets, and what it has learned so far.

    Flat sequences: a table over (t, i, o) holds its cell at ``(t I + i) O + o``, one over (i, o) at ``i O + o``.

    Parameters
    ----------
    type_of
        Replica type of each replica (n), in ascending order.
    input_edges, output_edges
        Upper edges of the buckets (I), (O) [tokens]; larger requests count as the last one's.
    share
        The plan's: part of a bucket's requests that goes to a type (T I O), 0-1.
    part
        Part of a replica that one request of a bucket occupies while it runs (T I O): one over the requests that run
        at the planned maximum rate; 1 where the type cannot serve the bucket.
    rate
        The planned maximum rate (T I O) [1/s]; 0 where the type cannot serve the bucket.
    is_up
        Whether a replica takes requests (n), 0 or 1.
    outstanding
        Requests that were sent to a replica and have not come back (n).
    fill
        Parts that those occupy, as expected when they were sent (n): above 1 the replica runs more than its SLO allows.
    unread
        Prompt tokens that were sent to a replica and whose first token has not come back (n): they wait, or hold up
        what runs.
    request_part, unread_part
        Part of a replica that each request, and each of these tokens, counts as beside the parts that requests occupy,
        where a replica of a type is chosen (T).
    completions
        Completions seen by bucket (I O), the plan's own traffic as a first guess.
    seen, output_sum
        Completions seen by input bucket, and their tokens (I): the paper's running mean.
    credit
        What each type is owed of an input bucket's requests (I T): smooth weighted round robin.
    turn
        Whose turn it is inside each type, and in all (T + 1).
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
