"""Balancing policies: they choose the replica for a request, with only the information that a real balancer has.

This is the prompt's length, the longest completion that the client allows, the outstanding requests of each replica,
and the lengths of past completions. The length of a completion is unknown until it ends.

The same source is used twice: the live proxy runs these functions on lists, the simulator compiles them and runs them
on arrays (:mod:`melange.replica.simulated.compiled_policy`). The code is therefore limited to what both support:
numbers, flat sequences, loops. ``t`` is a replica type that the plan uses, ``r`` a replica, ``i`` and ``o`` buckets of
input and output.
"""

from __future__ import annotations

from melange.replica.policy_state import Floats, PolicyState

PLAN_LEAST_WORK, PLAN_SHARES, PAPER, LEAST_OUTSTANDING, ROUND_ROBIN, RANDOM, PREFIX_AFFINITY = range(7)

# Their names, the default first.
POLICIES = ("plan-least-work", "plan-shares", "paper", "least-outstanding", "round-robin", "random", "prefix-affinity")

# Policies that send each type its share of the plan while it has room.
FOLLOWING_SHARES = ("plan-least-work", "plan-shares", "prefix-affinity")

# A replica this full takes requests only if no other type has more room: the capacity that the default headroom leaves.
# Of values from 0.7 to 1, 0.9 and 0.8 met the SLO for most requests on five plans.
FULL = 0.9
# A type takes requests of a full type only if it can serve nearly all of the completion lengths that they may have.
LEAST_SERVABLE = 0.9
# At this number of completions of one input bucket its counts are halved, so that new ones have more weight.
_REMEMBERED = 2000.0


def choose(policy: int, state: PolicyState, input_tokens: int, max_tokens: int, uniform: float) -> int:
    """The replica that takes a request; -1 if none is up.

    Parameters
    ----------
    policy
        Index into ``POLICIES``.
    state
        The balancer's knowledge; credits and turns are advanced, but the request is not booked (see :func:`sent`).
    input_tokens
        Prompt length [tokens].
    max_tokens
        Longest completion that the client allows [tokens]; 0 if it sets no limit.
    uniform
        A random number in [0, 1) for ``paper`` and ``random``; for ``prefix-affinity`` the request's key, equal for
        requests that share a prefix.
    """
    if policy == PLAN_LEAST_WORK:
        return _plan_least_work(state, input_tokens, max_tokens)
    if policy == PLAN_SHARES:
        return _plan_shares(state, input_tokens, max_tokens)
    if policy == PAPER:
        return _paper(state, input_tokens, uniform)
    if policy == LEAST_OUTSTANDING:
        return _least_outstanding(state)
    if policy == ROUND_ROBIN:
        return _next_in_turn(state, -1)
    if policy == PREFIX_AFFINITY:
        return _prefix_affinity(state, input_tokens, max_tokens, uniform)
    return _random(state, uniform)


def home(state: PolicyState, input_tokens: int, max_tokens: int, key: float) -> int:
    """The replica to which ``prefix-affinity`` sends a request with this key unless it is full; -1 if none is up."""
    t = _type_of_key(state, _bucket(state.input_edges, input_tokens), _last_output(state, max_tokens), key)
    return _replica_of_key(state, t, key) if t >= 0 else -1


def sent(state: PolicyState, replica: int, input_tokens: int, max_tokens: int) -> float:
    """Book a request on a replica; returns the part of the replica that it occupies, to be released when it ends."""
    i = _bucket(state.input_edges, input_tokens)
    part = _expected(state, state.part, state.type_of[replica], i, _last_output(state, max_tokens))
    state.outstanding[replica] += 1
    state.fill[replica] += part
    return part


def waits(state: PolicyState, replica: int, input_tokens: int) -> None:
    """Count the prompt of a request as unread until its first token, which the caller reports with :func:`read`."""
    state.unread[replica] += input_tokens


def read(state: PolicyState, replica: int, input_tokens: int) -> None:
    """Count the prompt of a request as read: at its first token, or if the request is lost before that."""
    state.unread[replica] -= input_tokens


def finished(state: PolicyState, replica: int, input_tokens: int, output_tokens: int, part: float) -> None:
    """Release the booked part of a request, and record the length of its completion."""
    lost(state, replica, part)
    i = _bucket(state.input_edges, input_tokens)
    outputs = len(state.output_edges)
    state.completions[i * outputs + _bucket(state.output_edges, output_tokens)] += 1.0
    state.seen[i] += 1.0
    state.output_sum[i] += output_tokens
    if state.seen[i] >= _REMEMBERED:
        state.seen[i] *= 0.5
        state.output_sum[i] *= 0.5
        for o in range(outputs):
            state.completions[i * outputs + o] *= 0.5


def lost(state: PolicyState, replica: int, part: float) -> None:
    """Release the booked part of a request that failed or was sent to another replica."""
    state.outstanding[replica] -= 1
    state.fill[replica] -= part
    if state.outstanding[replica] == 0:
        state.fill[replica] = 0.0  # removes the rounding error


def _plan_least_work(state: PolicyState, input_tokens: int, max_tokens: int) -> int:
    """Types by the plan's shares, and within a type the replica with the least work; another type if it is full."""
    i, last = _bucket(state.input_edges, input_tokens), _last_output(state, max_tokens)
    t = _next_type(state, i, last)
    if t < 0:
        return _least_outstanding(state)
    part = _expected(state, state.part, t, i, last)
    best = _with_room(state, t, part)
    return best if best >= 0 else _refuge(state, t, i, last, _least_work(state, t))


def _plan_shares(state: PolicyState, input_tokens: int, max_tokens: int) -> int:
    """Types exactly by the plan's shares; the replicas of a type in turn."""
    t = _next_type(state, _bucket(state.input_edges, input_tokens), _last_output(state, max_tokens))
    return _next_in_turn(state, t) if t >= 0 else _least_outstanding(state)


def _prefix_affinity(state: PolicyState, input_tokens: int, max_tokens: int, key: float) -> int:
    """Send requests that share a prefix to the same replica while it has room, otherwise by the plan's shares.

    Keys are divided among types by the plan's shares, and within a type by rendezvous hashing: adding or removing a
    replica does not move keys between the others.
    """
    i, last = _bucket(state.input_edges, input_tokens), _last_output(state, max_tokens)
    t = _type_of_key(state, i, last, key)
    if t < 0:
        return _least_outstanding(state)
    part = _expected(state, state.part, t, i, last)
    wanted = _replica_of_key(state, t, key)
    if state.fill[wanted] + part <= FULL:
        return wanted
    best = _with_room(state, t, part)
    return best if best >= 0 else _refuge(state, t, i, last, _least_work(state, t))


def _type_of_key(state: PolicyState, i: int, last: int, key: float) -> int:
    """The type whose part of the keys contains this one; the most capable type if none of the plan's types is up."""
    types, total = len(state.turn) - 1, 0.0
    for t in range(types):
        if _is_any_up(state, t):
            total += _expected(state, state.share, t, i, last)
    if total <= 1e-12:
        return _fittest_type(state, i, last)
    left, chosen = key * total, -1
    for t in range(types):
        share = _expected(state, state.share, t, i, last) if _is_any_up(state, t) else 0.0
        if share > 1e-12 and left >= 0.0:
            chosen = t
        left -= share
    return chosen


def _replica_of_key(state: PolicyState, t: int, key: float) -> int:
    """The replica of a type with the largest hash of replica and key; -1 if none is up."""
    start = int(key * 2147483646.0) + 1
    best, most, place = -1, -1, 0
    for r in range(len(state.type_of)):
        if state.type_of[r] != t:
            continue
        place += 1
        if state.is_up[r]:
            mixed = (start + place * 1299709) % 2147483647
            for _ in range(3):  # Lehmer's generator, with shifts that separate neighboring keys
                mixed = (mixed ^ (mixed >> 11)) * 48271 % 2147483647
            if mixed > most:
                best, most = r, mixed
    return best


def _paper(state: PolicyState, input_tokens: int, uniform: float) -> int:
    """Random, weighted by capacity at the mean observed output length of the input bucket (Mélange, section 5.5)."""
    i = _bucket(state.input_edges, input_tokens)
    mean = state.output_sum[i] / state.seen[i] if state.seen[i] > 0 else 1.0
    o = _bucket(state.output_edges, mean)
    inputs, outputs = len(state.input_edges), len(state.output_edges)
    total = 0.0
    for r in range(len(state.type_of)):
        total += state.is_up[r] * state.rate[(state.type_of[r] * inputs + i) * outputs + o]
    if total <= 0.0:
        return _random(state, uniform)
    left, chosen = uniform * total, -1
    for r in range(len(state.type_of)):
        weight = state.is_up[r] * state.rate[(state.type_of[r] * inputs + i) * outputs + o]
        if weight > 0.0 and left >= 0.0:
            chosen = r
        left -= weight
    return chosen


def _least_outstanding(state: PolicyState) -> int:
    """The first replica with the fewest outstanding requests."""
    best = -1
    for r in range(len(state.type_of)):
        if state.is_up[r] and (best < 0 or state.outstanding[r] < state.outstanding[best]):
            best = r
    return best


def _random(state: PolicyState, uniform: float) -> int:
    """Any replica that is up, with equal probability."""
    ups = 0
    for r in range(len(state.type_of)):
        ups += state.is_up[r]
    wanted, place = int(uniform * ups), 0
    for r in range(len(state.type_of)):
        if state.is_up[r]:
            if place == wanted:
                return r
            place += 1
    return -1


def _next_in_turn(state: PolicyState, t: int) -> int:
    """The next replica of a type, or of all types if ``t`` is -1, that is up."""
    replicas = len(state.type_of)
    place = t if t >= 0 else len(state.turn) - 1
    for step in range(1, replicas + 1):
        r = (state.turn[place] + step) % replicas
        if state.is_up[r] and (t < 0 or state.type_of[r] == t):
            state.turn[place] = r
            return r
    return -1


def _next_type(state: PolicyState, i: int, last: int) -> int:
    """The type with the most credit for an input bucket, by smooth weighted round robin; -1 if none is up.

    Every type is credited with its share; the type with the most credit is chosen and debited with the sum of all
    shares. Over any sequence of requests, each type gets its share to within one request.
    """
    types = len(state.turn) - 1
    best, total = -1, 0.0
    for t in range(types):
        weight = _expected(state, state.share, t, i, last) if _is_any_up(state, t) else 0.0
        if weight <= 1e-12:
            continue
        total += weight
        state.credit[i * types + t] += weight
        if best < 0 or state.credit[i * types + t] > state.credit[i * types + best]:
            best = t
    if best >= 0:
        state.credit[i * types + best] -= total
        return best
    return _fittest_type(state, i, last)


def _fittest_type(state: PolicyState, i: int, last: int) -> int:
    """The type with the highest rate for a size, if the plan's types for it are all down; -1 if no type serves it."""
    best, best_rate = -1, 0.0
    for t in range(len(state.turn) - 1):
        rate = _expected(state, state.rate, t, i, last) if _is_any_up(state, t) else 0.0
        if rate > best_rate:
            best, best_rate = t, rate
    return best


def _refuge(state: PolicyState, t: int, i: int, last: int, best: int) -> int:
    """The least full replica of the other types if it has room; otherwise ``best``, a replica of the type itself."""
    refuge, least = best, 1.0
    for other in range(len(state.turn) - 1):
        if other == t or not _is_any_up(state, other) or _servable(state, other, i, last) < LEAST_SERVABLE:
            continue
        r = _least_full(state, other)
        after = state.fill[r] + _expected(state, state.part, other, i, last)
        if after < least:
            refuge, least = r, after
    return refuge


def _with_room(state: PolicyState, t: int, part: float) -> int:
    """The replica of a type with the least work if it has room, otherwise the least full one; -1 if that has none."""
    best = _least_work(state, t)
    if state.fill[best] + part > FULL:
        best = _least_full(state, t)
    return best if state.fill[best] + part <= FULL else -1


def _least_full(state: PolicyState, t: int) -> int:
    """The first of the least full replicas of a type; -1 if none is up."""
    best = -1
    for r in range(len(state.type_of)):
        if state.type_of[r] == t and state.is_up[r] and (best < 0 or state.fill[r] < state.fill[best]):
            best = r
    return best


def _least_work(state: PolicyState, t: int) -> int:
    """The first replica of a type with the least work; -1 if none is up."""
    best, least = -1, 0.0
    for r in range(len(state.type_of)):
        if state.type_of[r] == t and state.is_up[r]:
            work = state.fill[r] + state.request_part[t] * state.outstanding[r] + state.unread_part[t] * state.unread[r]
            if best < 0 or work < least:
                best, least = r, work
    return best


def _is_any_up(state: PolicyState, t: int) -> bool:
    for r in range(len(state.type_of)):  # noqa: SIM110  (Numba does not support generators here)
        if state.type_of[r] == t and state.is_up[r]:
            return True
    return False


def _expected(state: PolicyState, table: Floats, t: int, i: int, last: int) -> float:
    """The mean of a table over the output buckets that a prompt may get, weighted by observed completions."""
    inputs, outputs = len(state.input_edges), len(state.output_edges)
    value, total = 0.0, 0.0
    for o in range(last + 1):
        count = state.completions[i * outputs + o]
        value += count * table[(t * inputs + i) * outputs + o]
        total += count
    if total > 0.0:
        return value / total
    return table[(t * inputs + i) * outputs + last]


def _servable(state: PolicyState, t: int, i: int, last: int) -> float:
    """Share of the completions that a prompt may get which a type can serve, weighted by observed completions, 0-1."""
    inputs, outputs = len(state.input_edges), len(state.output_edges)
    able, total = 0.0, 0.0
    for o in range(last + 1):
        count = state.completions[i * outputs + o]
        total += count
        if state.rate[(t * inputs + i) * outputs + o] > 0.0:
            able += count
    return able / total if total > 0.0 else 0.0


def _last_output(state: PolicyState, max_tokens: int) -> int:
    """The last output bucket that a completion may fall into."""
    if max_tokens <= 0:
        return len(state.output_edges) - 1
    return _bucket(state.output_edges, max_tokens)


def _bucket(edges: Floats, tokens: float) -> int:
    """The bucket of a number of tokens; the last bucket if there are more."""
    for place in range(len(edges)):
        if tokens <= edges[place]:
            return place
    return len(edges) - 1
