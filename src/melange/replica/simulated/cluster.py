"""Replicas behind a balancer: requests arrive, are sent somewhere, and end; compiled but for the outermost loop."""

# Numba compiles most of these without annotations; tests run them.
# mypy: disable-error-code="no-untyped-def,misc"

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from melange.errors import InputError
from melange.replica.engine import Engine
from melange.replica.policy import PolicyState
from melange.replica.simulated import columns as at
from melange.replica.simulated.batching import begin, clear, enqueue, finish, fits
from melange.replica.simulated.compiled_policy import compiled_policy
from melange.replica.simulated.compiled_step import coefficients
from melange.replica.simulated.compiling import compiled, forget_outdated, inner
from melange.replica.simulated.heaps import settle
from melange.replica.simulated.outcome import BINS, FAILED, REFUSED, SERVED, Outcome
from melange.workload.workload import Array

forget_outdated()
_policy = compiled_policy()
_choose, _sent, _lost = _policy.choose, _policy.sent, _policy.lost

# Requests between two looks at the keyboard and the clock.
_SLICE = 200_000
# Moments at which queues are written down, for pictures of a run: more are finer, and larger. A judgment.
_SAMPLES = 256
# What is longer than any request: a window that nothing leaves.
_NO_WINDOW = 2**31 - 1
# Later than all that happens [s].
_FOREVER = 1e300
_GOLDEN = 0.6180339887498949  # its multiples are spread evenly over [0, 1)

Integers = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A replica that goes or comes.

    Parameters
    ----------
    at_s
        When [s].
    replica
        Which (0 to n - 1).
    is_up
        True: it takes requests from then on (it was started earlier); False: it is lost with all it holds.
    """

    at_s: float
    replica: int
    is_up: bool


def play(
    engines: Sequence[Engine],
    fleet: PolicyState,
    policy: int,
    arrival_s: Array,
    input_tokens: Integers,
    output_tokens: Integers,
    cached_tokens: Integers | None = None,
    max_tokens: Integers | None = None,
    *,
    events: Sequence[Event] = (),
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Outcome:
    """Play requests out on replicas, every one and every step.

    Parameters
    ----------
    engines
        One for each replica (n).
    fleet
        What the balancer knows, as arrays; it is changed. Replicas that are not up wait for their event.
    policy
        Index into :data:`melange.replica.policy.POLICIES`.
    arrival_s
        Arrival at the balancer (N,), ascending [s].
    input_tokens, output_tokens
        Sizes (N,), at least 1.
    cached_tokens
        First tokens of each prompt that need not be read because a prefix cache holds them (N,), less than the prompt;
        None: none.
    max_tokens
        The longest completion that the client allows (N,), 0 where it does not say; None: nobody says.
    events
        Replicas that go and come. What a lost replica held is sent elsewhere once, its clock running on.
    seed
        Of the policies that choose at random.
    progress
        Told the share of requests that have arrived, 0-1.

    Raises
    ------
    InputError
        Arrays of different lengths, arrivals that do not ascend, sizes below 1.
    """
    # Compiled code takes arrays that can be written to for a type of their own; those from a Ray object store cannot.
    arrival_s = np.require(arrival_s, float, ["C_CONTIGUOUS", "WRITEABLE"])
    requests, moments = _requests(arrival_s, input_tokens, output_tokens, cached_tokens, max_tokens)
    if len(engines) != len(fleet.type_of):
        raise InputError(f"simulation: {len(fleet.type_of)} replicas need an engine each, got {len(engines)}")
    world = _world(engines, requests, moments)
    script = _script(events, float(arrival_s[-1]) if len(arrival_s) else 0.0, len(engines))
    random = np.random.default_rng(seed)
    for first in range(0, len(arrival_s), _SLICE):
        last = min(first + _SLICE, len(arrival_s))
        _run(world, script, fleet, policy, arrival_s, random.random(last - first), first, last, arrival_s[last - 1])
        if progress is not None:
            progress(last / len(arrival_s))
    _run(world, script, fleet, policy, arrival_s, random.random(0), 0, 0, _FOREVER)
    return _outcome(world, script, arrival_s)


def _requests(
    arrival_s: Array,
    input_tokens: Integers,
    output_tokens: Integers,
    cached_tokens: Integers | None,
    max_tokens: Integers | None,
) -> tuple[at.Small, Array]:
    """The tables of requests (N, at.NUMBERS) and (N, at.MOMENTS)."""
    count = len(arrival_s)
    given = {"input_tokens": input_tokens, "output_tokens": output_tokens}
    given |= {"cached_tokens": cached_tokens} if cached_tokens is not None else {}
    given |= {"max_tokens": max_tokens} if max_tokens is not None else {}
    for name, values in given.items():
        if len(values) != count:
            raise InputError(f"simulation: {count} arrivals need as many {name}, got {len(values)}")
    if count and (np.diff(arrival_s) < 0).any():
        raise InputError("simulation: arrivals must be in the order of time")
    if count and (input_tokens.min() < 1 or output_tokens.min() < 1):
        raise InputError("simulation: requests need at least 1 token of input and of output")
    requests = np.zeros((count, at.NUMBERS), np.int32)
    requests[:, at.INPUT], requests[:, at.OUTPUT] = input_tokens, output_tokens
    if cached_tokens is not None:
        requests[:, at.CACHED] = np.minimum(cached_tokens, requests[:, at.INPUT] - 1)
    if max_tokens is not None:
        requests[:, at.LIMIT] = max_tokens
    requests[:, at.REPLICA] = at.NOBODY
    return requests, np.full((count, at.MOMENTS), np.nan)


def _world(engines: Sequence[Engine], requests: at.Small, moments: Array) -> at.World:
    """All replicas idle."""
    n = len(engines)
    whole = np.zeros((n, at.WHOLE), np.int64)
    for r, engine in enumerate(engines):
        whole[r, at.MAX_SEQUENCES] = engine.max_sequences
        whole[r, at.MAX_TOKENS] = engine.max_batched_tokens
        whole[r, at.BLOCK] = engine.block_tokens
        whole[r, at.IS_CHUNKED] = engine.is_chunked
        whole[r, at.IS_RESERVED] = engine.is_fully_reserved
        whole[r, at.MAX_CONTEXT] = engine.max_context
        whole[r, at.FULL_UNITS] = engine.block_tokens * engine.full_layers
        whole[r, at.SLIDING_UNITS] = engine.block_tokens * engine.sliding_layers
        whole[r, at.WINDOW_TOKENS] = engine.window if engine.sliding_layers else _NO_WINDOW
        whole[r, at.CAPACITY] = int(min(engine.kv_tokens, 2**62))
    whole[:, [at.HEAD, at.TAIL, at.LAST, at.PARTIAL]] = at.NOBODY
    real = np.zeros((n, at.REAL))
    real[:, at.ENDS] = math.inf
    slots = max(engine.max_sequences for engine in engines)
    return at.World(
        whole=whole,
        real=real,
        cost=coefficients(engines),
        phases=np.zeros((n, 2, max(engine.block_tokens for engine in engines)), np.int64),
        keys=np.zeros((n, slots), np.int64),
        members=np.zeros((n, slots), np.int32),
        ready=np.zeros((n, slots), np.int32),
        gaps=np.zeros((n, BINS)),
        order=np.arange(n),
        place_of=np.arange(n),
        requests=requests,
        moments=moments,
    )


def _script(events: Sequence[Event], until_s: float, replicas: int) -> at.Script:
    """Events in the order of time, and samples over the time in which requests arrive."""
    ordered = sorted(events, key=lambda one: one.at_s)
    return at.Script(
        when=np.array([*(one.at_s for one in ordered), math.inf]),
        which=np.array([*(one.replica for one in ordered), 0]),
        is_up=np.array([*(int(one.is_up) for one in ordered), 1]),
        sample_s=np.linspace(0.0, until_s, _SAMPLES),
        waiting=np.zeros((_SAMPLES, replicas), np.int32),
        running=np.zeros((_SAMPLES, replicas), np.int32),
        cursor=np.array([0, 0, at.NOBODY]),
    )


@compiled()
def _run(world, script, fleet, policy, arrival_s, uniform, first, last, until_s):
    """Let requests ``first`` to ``last`` arrive, and then time pass: all that happens, in the order of time.

    One loop with one call of each part: every call of a function is compiled anew.
    """
    k, cursor, ends = first, script.cursor, world.real[:, at.ENDS]
    now = 0.0
    while True:
        replica = world.order[0]
        end, event = ends[replica], script.when[cursor[0]]
        sample = script.sample_s[cursor[1]] if cursor[1] < len(script.sample_s) else math.inf
        arrival = arrival_s[k] if k < last else until_s
        is_to_begin = False
        if cursor[2] != at.NOBODY or (end > arrival and event > arrival and sample > arrival):
            if cursor[2] != at.NOBODY:
                sending, random = cursor[2], (cursor[2] * _GOLDEN) % 1.0
                cursor[2] = world.requests[sending, at.NEXT]
            elif k == last:
                return
            else:
                now, sending, random = arrival, k, uniform[k - first]
                k += 1
            replica = _send(world, fleet, policy, sending, now, random)
            if replica < 0:
                continue
            is_to_begin = world.whole[replica, at.SEGMENT] == at.IDLE
        elif end <= event and end <= sample:
            now, is_to_begin = end, True
            finish(world, fleet, replica)
        elif event <= sample:
            now, replica = event, script.which[cursor[0]]
            _change(world, script, fleet, replica, script.is_up[cursor[0]], now)
            cursor[0] += 1
        else:
            for r in range(len(ends)):
                script.waiting[cursor[1], r] = world.whole[r, at.WAITING]
                script.running[cursor[1], r] = world.whole[r, at.RUNNING]
            cursor[1] += 1
            continue
        if is_to_begin:
            begin(world, replica, now)
        settle(world.order, world.place_of, ends, replica)


@inner()
def _send(world, fleet, policy, k, now, uniform):
    """Send a request where the policy says; the replica that has taken it, or -1."""
    requests = world.requests
    replica = _choose(policy, fleet, requests[k, at.INPUT], requests[k, at.LIMIT], uniform)
    requests[k, at.REPLICA] = replica
    requests[k, at.STATUS] = FAILED  # until its last token
    if replica < 0:
        return -1
    if not fits(world.whole[replica], requests, k):
        requests[k, at.STATUS] = REFUSED
        return -1
    world.moments[k, at.PART] = _sent(fleet, replica, requests[k, at.INPUT], requests[k, at.LIMIT])
    enqueue(world, replica, k, now)
    return replica


@inner()
def _change(world, script, fleet, replica, is_up, now):
    """A replica comes, or goes: what it held is to be sent elsewhere, or has failed if that had happened before."""
    if is_up == fleet.is_up[replica]:
        return
    fleet.is_up[replica] = is_up
    if is_up == 1:
        return
    requests, moments = world.requests, world.moments
    k, last = clear(world, replica, now), at.NOBODY
    while k != at.NOBODY:
        after = requests[k, at.NEXT]
        _lost(fleet, replica, moments[k, at.PART])
        world.whole[replica, at.WASTED] += requests[k, at.PROGRESS]
        requests[k, at.PROGRESS] = 0
        moments[k, at.FIRST_TOKEN] = math.nan
        if requests[k, at.RETRIES] == 0:
            requests[k, at.RETRIES] = 1
            requests[k, at.NEXT] = at.NOBODY
            if last == at.NOBODY:
                script.cursor[2] = k
            else:
                requests[last, at.NEXT] = k
            last = k
        k = after


def _outcome(world: at.World, script: at.Script, arrival_s: Array) -> Outcome:
    """What was seen, as views of the tables."""
    whole, real, requests, moments = world.whole, world.real, world.requests, world.moments
    ended = moments[:, at.FINISH]
    is_served = requests[:, at.STATUS] == SERVED
    added = moments[:, at.MARK]
    added[~is_served] = np.nan
    capacity = np.maximum(whole[:, at.CAPACITY], 1)
    return Outcome(
        arrival_s=arrival_s,
        input_tokens=requests[:, at.INPUT],
        output_tokens=requests[:, at.OUTPUT],
        replica=requests[:, at.REPLICA],
        status=requests[:, at.STATUS],
        admitted_s=moments[:, at.ADMITTED],
        first_token_s=moments[:, at.FIRST_TOKEN],
        finish_s=ended,
        preemptions=requests[:, at.PREEMPTIONS],
        retries=requests[:, at.RETRIES],
        prefill_wait_s=added,
        until_s=float(np.nanmax(ended)) if is_served.any() else float(arrival_s[-1]) if len(arrival_s) else 0.0,
        busy_s=real[:, at.BUSY],
        steps=whole[:, at.STEPS],
        made_tokens=whole[:, at.MADE],
        wasted_tokens=whole[:, at.WASTED],
        prompt_tokens=whole[:, at.PROMPT],
        recomputed_tokens=whole[:, at.RECOMPUTED],
        kv_share_s=real[:, at.KV_TIME] / capacity,
        peak_kv_share=whole[:, at.PEAK] / capacity,
        sample_s=script.sample_s,
        waiting=script.waiting,
        running=script.running,
        gaps=world.gaps,
    )
