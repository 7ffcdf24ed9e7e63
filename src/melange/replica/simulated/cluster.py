"""Replicas behind a balancer: requests arrive, are sent to a replica, and end."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass

import numpy as np
import numpy.typing as npt

from melange.errors import InputError
from melange.replica.engine import Engine
from melange.replica.policy_state import PolicyState
from melange.replica.simulated import columns as at
from melange.replica.simulated.kernel import run
from melange.replica.simulated.outcome import BINS, SERVED, Outcome
from melange.replica.simulated.replica_index import fill_index, indexed
from melange.workload.workload import Array

# Requests between two checks for interrupts and progress.
_SLICE = 200_000
# Times at which queue lengths are recorded for plots of a run: more are finer, and larger. Chosen by judgment.
_SAMPLES = 256
# Longer than any request: a window that is never left.
_NO_WINDOW = 2**31 - 1
# Later than all events [s].
_FOREVER = 1e300

Integers = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A replica that is lost, drained or added.

    Parameters
    ----------
    at_s
        Time of the event [s].
    replica
        Index of the replica (0 to n - 1).
    is_up
        True: it takes requests from then on (it was started earlier); False: it is lost with all its requests.
    is_drained
        With ``is_up`` False: it takes no more requests, and finishes those that it has. The drain starts with the first
        request that arrives from ``at_s`` on.
    """

    at_s: float
    replica: int
    is_up: bool
    is_drained: bool = False


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
    looked_up: Integers | None = None,
    levels: Integers | None = None,
    keys: Array | None = None,
    events: Sequence[Event] = (),
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Outcome:
    """Simulate all requests on all replicas, step by step.

    Parameters
    ----------
    engines
        One engine for each replica (n).
    fleet
        The balancer's knowledge, as arrays; it is changed. Replicas that are not up wait for their event.
    policy
        Index into :data:`melange.replica.policy.POLICIES`.
    arrival_s
        Arrival at the balancer (N,), ascending [s].
    input_tokens, output_tokens
        Sizes (N,), at least 1.
    cached_tokens
        First tokens of each prompt that earlier prompts also began with (N,), fewer than the prompt. A replica's prefix
        cache holds the share ``prefix_kept`` of its engine, which needs no prefill; None: none.
    max_tokens
        The longest completion that the client allows (N,), 0 if it does not say; None: no client says.
    looked_up
        Tokens by which the balancer looks up each request's bucket (N,), if its class matters too; None: those of its
        prompt.
    levels
        Rank of each request's priority (N,), 0 first, below :data:`~melange.replica.simulated.columns.LEVELS`; None:
        all equal.
    keys
        For ``prefix-affinity``: a number in [0, 1) for each request, equal for requests that share a prefix (N,).
        Cached tokens count only on the replica of the key. None: each request has its own key.
    events
        Replicas that are lost, drained or added. Requests of a lost replica are sent to another one once, with their
        clock running on; a drained replica finishes its requests, and does not come back.
    seed
        Random seed of the policies that choose at random.
    progress
        Called with the share of requests that have arrived, 0-1.

    Raises
    ------
    InputError
        Arrays of different lengths, arrivals that are not ascending, sizes below 1.
    """
    # For compiled code, writable arrays are a type of their own; arrays from a Ray object store are not writable.
    arrival_s = np.require(arrival_s, float, ["C_CONTIGUOUS", "WRITEABLE"])
    requests, moments = requests_of(arrival_s, input_tokens, output_tokens, cached_tokens, max_tokens)
    if len(engines) != len(fleet.type_of):
        raise InputError(f"simulation: {len(fleet.type_of)} replicas need an engine each, got {len(engines)}")
    if looked_up is not None:
        requests[:, at.SHIFT] = looked_up - requests[:, at.INPUT]
    if levels is not None:
        requests[:, at.LEVEL] = levels
    world = world_of(engines, requests, moments)
    world.whole[:, at.LOWEST] = 0 if levels is None else np.max(levels, initial=0)
    drains = [one for one in events if one.is_drained]
    others = [one for one in events if not one.is_drained]
    script = script_of(others, float(arrival_s[-1]) if len(arrival_s) else 0.0, len(engines))
    random, state = np.random.default_rng(seed), indexed(fleet)
    for first, last in _slices(arrival_s, drains):
        for one in drains:
            if one.at_s <= arrival_s[first]:
                fleet.is_up[one.replica] = 0
        fill_index(state)
        run(
            world,
            script,
            state,
            policy,
            arrival_s,
            random.random(last - first) if keys is None else np.ascontiguousarray(keys[first:last], float),
            first,
            last,
            float(arrival_s[last - 1]),
        )
        if progress is not None:
            progress(last / len(arrival_s))
    fill_index(state)
    run(world, script, state, policy, arrival_s, random.random(0), 0, 0, _FOREVER)
    return _outcome(world, script, arrival_s)


def _slices(arrival_s: Array, drains: Sequence[Event]) -> list[tuple[int, int]]:
    """Ranges of requests that are run at once: a range ends when a replica is drained."""
    ends = {len(arrival_s), *range(_SLICE, len(arrival_s), _SLICE)}
    ends |= set(np.searchsorted(arrival_s, [one.at_s for one in drains]).tolist())
    ordered = sorted(end for end in ends if 0 < end <= len(arrival_s))
    return list(itertools.pairwise([0, *ordered]))


def requests_of(
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
        requests[:, at.REUSABLE] = np.minimum(cached_tokens, requests[:, at.INPUT] - 1)
    if max_tokens is not None:
        requests[:, at.LIMIT] = max_tokens
    requests[:, at.REPLICA] = at.NOBODY
    return requests, np.full((count, at.MOMENTS), np.nan)


def world_of(engines: Sequence[Engine], requests: at.Small, moments: Array) -> at.World:
    """The initial state: all replicas idle."""
    kinds = {id(engine): engine for engine in engines}  # by identity: hashing thousands of engines takes long
    place = {key: k for k, key in enumerate(kinds)}
    kind_of = np.array([place[id(engine)] for engine in engines], np.intp)
    table = np.zeros((len(kinds), at.WHOLE), np.int64)
    for row, engine in zip(table, kinds.values(), strict=True):
        row[at.MAX_SEQUENCES] = engine.max_sequences
        row[at.MAX_TOKENS] = engine.max_batched_tokens
        row[at.BLOCK] = engine.block_tokens
        row[at.IS_CHUNKED] = engine.is_chunked
        row[at.IS_RESERVED] = engine.is_fully_reserved
        row[at.MAX_CONTEXT] = engine.max_context
        row[at.FULL_UNITS] = engine.block_tokens * engine.full_layers
        row[at.SLIDING_UNITS] = engine.block_tokens * engine.sliding_layers
        row[at.WINDOW_TOKENS] = engine.window if engine.sliding_layers else _NO_WINDOW
        row[at.STATE_UNITS] = engine.state_units
        row[at.CAPACITY] = int(min(engine.kv_tokens, 2**62))
    n, whole = len(engines), table[kind_of]
    whole[:, [at.HEAD, at.LAST, at.PARTIAL]] = at.NOBODY
    whole[:, at.TAILS :] = at.NOBODY
    real = np.zeros((n, at.REAL))
    real[:, at.ENDS] = math.inf
    real[:, at.KEPT] = np.array([engine.prefix_kept for engine in kinds.values()], float)[kind_of]
    slots = max(engine.max_sequences for engine in kinds.values())
    costs = np.array([astuple(engine.cost) for engine in kinds.values()], float)
    return at.World(
        whole=whole,
        real=real,
        cost=costs[kind_of],
        phases=np.zeros((n, 2, max(engine.block_tokens for engine in kinds.values())), np.int64),
        keys=np.zeros((n, slots), np.int64),
        members=np.zeros((n, slots), np.int32),
        ready=np.zeros((n, slots), np.int32),
        gaps=np.zeros((n, BINS)),
        order=np.arange(n),
        place_of=np.arange(n),
        requests=requests,
        moments=moments,
    )


def script_of(events: Sequence[Event], until_s: float, replicas: int) -> at.Script:
    """Events in order of time, and sample times over the time in which requests arrive."""
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


def _outcome(world: at.World, script: at.Script, arrival_s: Array) -> Outcome:
    """The results, as views of the tables."""
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
