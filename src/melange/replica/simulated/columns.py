"""Where the compiled simulation keeps what: the columns of its tables.

A few wide tables rather than many arrays, because compiled functions hand each array over in seven words.
Imported as ``at``, so that ``whole[at.USED]`` reads as what it is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Whole = npt.NDArray[np.int64]
Small = npt.NDArray[np.int32]
Real = npt.NDArray[np.float64]

# Replicas, whole numbers (n, WHOLE).
(
    MAX_SEQUENCES,  # limits of the engine
    MAX_TOKENS,
    BLOCK,
    IS_CHUNKED,
    MAX_CONTEXT,
    FULL_UNITS,  # KV cache of one block in layers that look back all the way [tokens of one layer]
    SLIDING_UNITS,  # and in layers with a window
    WINDOW_TOKENS,
    STATE_UNITS,  # KV cache of a request however long it is [tokens of one layer]
    CAPACITY,  # KV cache [tokens of one layer]
    USED,  # of that, held
    RESERVED,  # of that, promised to running requests at their full length, where the engine does so
    IS_RESERVED,
    PEAK,
    HEAD,  # the queue's first request
    WAITING,
    RUNNING,
    LAST,  # the running request that was admitted last
    PARTIAL,  # the one whose prompt is read in part, and how far
    PARTIAL_DONE,
    DECODING,  # requests that get a token in each step
    STEP,  # decode steps done: the clock of KV blocks and ends
    GROWING,  # decoding requests shorter than the window
    CONTEXT_TOKENS,  # what decoding requests hold at the next step
    WINDOW_CONTEXT_TOKENS,  # the same within the window
    SEGMENT,  # what the replica is doing
    RUN_STEPS,  # and for how many steps
    READY,  # prompts that end with this step
    STALLED,  # decoding requests that a prompt step holds up
    STEPS,
    MADE,
    WASTED,
    PROMPT,
    RECOMPUTED,
    LOWEST,  # the largest level of priority that requests have
    TAILS,  # the queue's last request of each level of priority, 0 first, from this column on
) = range(36)
LEVELS = 8  # levels of priority that there may be
WHOLE = TAILS + LEVELS
IDLE, DECODE, MIXED, PROMPTS = range(4)

# Replicas, real numbers (n, REAL).
(
    BEGAN,  # when the segment began and ends [s]; a run of m steps takes m FIRST + GROWTH m (m - 1) / 2
    ENDS,
    FIRST,
    GROWTH_S,
    ADDED,  # what prompts have lengthened steps by, in all [s]
    STALL,  # how long decoding requests have stood still for prompts [s]
    BUSY,
    KV_TIME,  # KV cache held, over time [tokens of one layer x s]
    KEPT,  # share of the tokens that a prompt has in common with earlier ones which the prefix cache still holds
    REAL,
) = range(10)

# Requests, whole numbers (N, NUMBERS).
(
    INPUT,
    OUTPUT,
    REUSABLE,  # first tokens of the prompt that some earlier prompt began with as well
    CACHED,  # those of them that the replica's prefix cache holds
    LIMIT,  # the longest completion that the client allows; 0: it did not say
    NEXT,  # in the queue, or towards the one admitted after it
    PREVIOUS,  # towards the one admitted before it
    PLACE,  # in the heap of ends
    PROGRESS,  # tokens made; of a decoding request: its context less the replica's STEP
    REPLICA,
    STATUS,
    PREEMPTIONS,
    RETRIES,
    LEVEL,  # of priority: 0 goes first
    SHIFT,  # by which a balancer looks its bucket up beyond its prompt, where its class decides as well [tokens]
    NUMBERS,
) = range(16)

# Requests, moments (N, MOMENTS).
ADMITTED, FIRST_TOKEN, FINISH, MARK, PART, MOMENTS = range(6)
NOBODY = -1


class World(NamedTuple):
    """All that a simulation changes, of n replicas with room for S requests each, and N requests.

    Parameters
    ----------
    whole, real
        Replicas (n, WHOLE) and (n, REAL).
    cost
        Coefficients of their steps (n, C).
    phases
        Decoding requests by the step at which they cross into a KV block, modulo the block's size: all of them, and
        those shorter than the window (n, 2, block).
    keys, members
        Heap of the steps at which decoding requests end or fill the window, and which they are (n, S).
    ready
        Requests whose prompts end with this step (n, S).
    gaps
        Times between tokens, counted in bins (n, BINS).
    order, place_of
        Heap of the replicas by the end of their segments, and where each is in it (n).
    requests, moments
        Requests (N, NUMBERS) and (N, MOMENTS).
    """

    whole: Whole
    real: Real
    cost: Real
    phases: Whole
    keys: Whole
    members: Small
    ready: Small
    gaps: Real
    order: Whole
    place_of: Whole
    requests: Small
    moments: Real


class Script(NamedTuple):
    """What happens to a simulation from outside, besides requests.

    Parameters
    ----------
    when, which, is_up
        Moments at which a replica goes or comes, which one, and whether it comes (E + 1); the last one never.
    sample_s, waiting, running
        Moments at which queues are looked at (S), and what they hold (S, n).
    cursor
        Events and samples that are done, and the first of the requests that are to be sent again (3).
    """

    when: Real
    which: Whole
    is_up: Whole
    sample_s: Real
    waiting: Small
    running: Small
    cursor: Whole
