"""The tables of the compiled simulation and their columns.

There are a few wide tables rather than many arrays, because compiled functions pass each array as seven words.
The module is imported as ``at``, for expressions such as ``whole[at.USED]``.
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
    FULL_UNITS,  # KV cache of one block in layers that attend to all tokens [tokens of one layer]
    SLIDING_UNITS,  # the same in layers with a window
    WINDOW_TOKENS,
    STATE_UNITS,  # KV cache of a request whatever its length [tokens of one layer]
    CAPACITY,  # KV cache capacity [tokens of one layer]
    USED,  # part of the capacity in use
    RESERVED,  # part of the capacity reserved for running requests at their full length, if the engine reserves
    IS_RESERVED,
    PEAK,
    HEAD,  # the queue's first request
    WAITING,
    RUNNING,
    LAST,  # the running request that was admitted last
    PARTIAL,  # the request whose prompt is partly processed
    PARTIAL_DONE,  # the number of its tokens that are processed
    DECODING,  # requests that get a token in each step
    STEP,  # decode steps so far: the clock for KV blocks and for ends of requests
    GROWING,  # decoding requests shorter than the window
    CONTEXT_TOKENS,  # total context of decoding requests at the next step
    WINDOW_CONTEXT_TOKENS,  # the same within the window
    SEGMENT,  # kind of the current segment
    RUN_STEPS,  # and its number of steps
    READY,  # prompts that end with this step
    STALLED,  # decoding requests that a prompt step delays
    STEPS,
    MADE,
    WASTED,
    PROMPT,
    RECOMPUTED,
    LOWEST,  # the largest priority level of the requests
    TAILS,  # the last queued request of each priority level, 0 first, from this column on
) = range(36)
LEVELS = 8  # the maximum number of priority levels
WHOLE = TAILS + LEVELS
IDLE, DECODE, MIXED, PROMPTS = range(4)

# Replicas, real numbers (n, REAL).
(
    BEGAN,  # begin and end of the segment [s]; a run of m steps takes m FIRST + GROWTH m (m - 1) / 2
    ENDS,
    FIRST,
    GROWTH_S,
    ADDED,  # total time that prompts have added to steps [s]
    STALL,  # time for which decoding requests have been paused for prompts [s]
    BUSY,
    KV_TIME,  # KV cache in use, integrated over time [tokens of one layer x s]
    KEPT,  # share of a prompt's reusable tokens that the prefix cache still holds
    REAL,
) = range(10)

# Requests, whole numbers (N, NUMBERS).
(
    INPUT,
    OUTPUT,
    REUSABLE,  # number of first tokens of the prompt that an earlier prompt also began with
    CACHED,  # number of these that the replica's prefix cache holds
    LIMIT,  # the longest completion that the client allows; 0: no limit
    NEXT,  # the next request in the queue, or the running one admitted after this one
    PREVIOUS,  # the running request admitted before this one
    PLACE,  # index in the heap of ends
    PROGRESS,  # tokens generated; for a decoding request: its context minus the replica's STEP
    REPLICA,
    STATUS,
    PREEMPTIONS,
    RETRIES,
    LEVEL,  # priority level: 0 goes first
    SHIFT,  # added to the prompt length when the balancer looks up the bucket, if the class matters too [tokens]
    NUMBERS,
) = range(16)

# Requests, moments (N, MOMENTS).
ADMITTED, FIRST_TOKEN, FINISH, MARK, PART, MOMENTS = range(6)
NOBODY = -1


class World(NamedTuple):
    """The state of a simulation: n replicas with room for S requests each, and N requests.

    Parameters
    ----------
    whole, real
        Replicas (n, WHOLE) and (n, REAL).
    cost
        Coefficients of their steps (n, C).
    phases
        Number of decoding requests by the step at which they start a new KV block, modulo the block's size: of all
        requests, and of those shorter than the window (n, 2, block).
    keys, members
        Heap of the steps at which decoding requests end or fill the window, and these requests (n, S).
    ready
        Requests whose prompts end with this step (n, S).
    gaps
        Times between tokens, counted in bins (n, BINS).
    order, place_of
        Heap of the replicas by the end of their segments, and the index of each replica in it (n).
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
    """The external events of a simulation, except requests.

    Parameters
    ----------
    when, which, is_up
        Times at which a replica is lost or added, its index, and whether it is added (E + 1); the last event never
        happens.
    sample_s, waiting, running
        Sample times (S), and the numbers of waiting and running requests then (S, n).
    cursor
        Number of processed events and of processed samples, and the first of the requests to be sent again (3).
    """

    when: Real
    which: Whole
    is_up: Whole
    sample_s: Real
    waiting: Small
    running: Small
    cursor: Whole
