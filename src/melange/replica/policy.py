"""Which replica takes this request: policies that see only what a real balancer sees.

That is the prompt's length, the longest completion that the client allows, what was sent where and has not come back,
and the lengths of completions that have. The true length of a completion is known when it ends and not before.

One source serves twice: the live proxy runs these functions as they are, on lists; the simulator compiles them, on
arrays (:mod:`melange.replica.simulated.compiled_policy`). So they keep to the Python that both understand: numbers,
flat sequences, loops. ``t`` is a replica type that the plan uses, ``r`` a replica, ``i`` and ``o`` buckets of input
and output.
"""

from __future__ import annotations

from melange.replica.policy_state import Floats, PolicyState

PLAN_LEAST_WORK, PLAN_SHARES, PAPER, LEAST_OUTSTANDING, ROUND_ROBIN, RANDOM, PREFIX_AFFINITY = range(7)

# What people call them, the default first.
POLICIES = ("plan-least-work", "plan-shares", "paper", "least-outstanding", "round-robin", "random", "prefix-affinity")

# Those that send each type its share of the plan, while it has room.
FOLLOWING_SHARES = ("plan-least-work", "plan-shares", "prefix-affinity")

# A replica this full takes requests only if no other type has more room: what the default headroom leaves. Of 0.7 to 1,
# 0.9 and 0.8 held the SLO of most requests on five plans.
FULL = 0.9
# A type is a refuge for requests of another only where it can serve nearly all that they may become.
LEAST_SERVABLE = 0.9
# Completions of one input bucket that are remembered in full; then its counts are halved, so that new ones weigh more.
_REMEMBERED = 2000.0


def choose(policy: int, state: PolicyState, input_tokens: int, max_tokens: int, uniform: float) -> int:
    """The replica that takes a request; -1 where none is up.

    Parameters
    ----------
    policy
        Index into ``POLICIES``.
    state
        What is known; credits and turns move on, nothing is booked yet (:func:`sent`).
    input_tokens
        Prompt length [tokens].
    max_tokens
        Longest completion that the client allows [tokens]; 0 where it did not say.
    uniform
        A random number in [0, 1), which ``paper`` and ``random`` use; of ``prefix-affinity`` the request's key, the
        same for requests that share a prefix.
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
    """The replica that ``prefix-affinity`` sends a request with that key to unless it is full; -1 where none is up."""
    t = _type_of_key(state, _bucket(state.input_edges, input_tokens), _last_output(state, max_tokens), key)
    return _replica_of_key(state, t, key) if t >= 0 else -1


def sent(state: PolicyState, replica: int, input_tokens: int, max_tokens: int) -> float:
    """Book a request on a replica; returns the part of it that is booked, which must be given back when it ends."""
    i = _bucket(state.input_edges, input_tokens)
    part = _expected(state, state.part, state.type_of[replica], i, _last_output(state, max_tokens))
    state.outstanding[replica] += 1
    state.fill[replica] += part
    return part


def waits(state: PolicyState, replica: int, input_tokens: int) -> None:
    """Note that the first token of a request that was sent will be seen: until then its prompt is unread."""
    state.unread[replica] += input_tokens


def read(state: PolicyState, replica: int, input_tokens: int) -> None:
    """Note the first token of a request, or that it is lost before."""
    state.unread[replica] -= input_tokens


def finished(state: PolicyState, replica: int, input_tokens: int, output_tokens: int, part: float) -> None:
    """Give back what a request was booked with, and learn from the length of its completion."""
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
    """Give back what a request was booked with that failed, or was sent elsewhere."""
    state.outstanding[replica] -= 1
    state.fill[replica] -= part
    if state.outstanding[replica] == 0:
        state.fill[replica] = 0.0  # what rounding has left


def _plan_least_work(state: PolicyState, input_tokens: int, max_tokens: int) -> int:
    """The plan's shares; inside a type the replica with the least work; another type where that one is over-full."""
    i, last = _bucket(state.input_edges, input_tokens), _last_output(state, max_tokens)
    t = _next_type(state, i, last)
    if t < 0:
        return _least_outstanding(state)
    part = _expected(state, state.part, t, i, last)
    best = _with_room(state, t, part)
    return best if best >= 0 else _refuge(state, t, i, last, _least_work(state, t))


def _plan_shares(state: PolicyState, input_tokens: int, max_tokens: int) -> int:
    """The plan's shares, exactly; inside a type each replica in turn."""
    t = _next_type(state, _bucket(state.input_edges, input_tokens), _last_output(state, max_tokens))
    return _next_in_turn(state, t) if t >= 0 else _least_outstanding(state)


def _prefix_affinity(state: PolicyState, input_tokens: int, max_tokens: int, key: float) -> int:
    """Requests that share a prefix to the same replica while it has room; else where the plan's shares would send them.

    Types by the plan's shares of the keys, and inside a type by rendezvous hashing: a replica that goes or comes moves
    the keys of no other.
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
    """The type in whose part of the keys this one lies; the fittest where none of the plan's is up."""
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
    """The replica of a type whose hash with the key is largest; -1 where none is up."""
    start = int(key * 2147483646.0) + 1
    best, most, place = -1, -1, 0
    for r in range(len(state.type_of)):
        if state.type_of[r] != t:
            continue
        place += 1
        if state.is_up[r]:
            mixed = (start + place * 1299709) % 2147483647
            for _ in range(3):  # Lehmer's generator, and shifts so that neighbors part
                mixed = (mixed ^ (mixed >> 11)) * 48271 % 2147483647
            if mixed > most:
                best, most = r, mixed
    return best


def _paper(state: PolicyState, input_tokens: int, uniform: float) -> int:
    """Weighted random by capacity at the mean output seen in the input bucket (Mélange, section 5.5)."""
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
    """The replica with the fewest outstanding requests, the first of several."""
    best = -1
    for r in range(len(state.type_of)):
        if state.is_up[r] and (best < 0 or state.outstanding[r] < state.outstanding[best]):
            best = r
    return best


def _random(state: PolicyState, uniform: float) -> int:
    """Any replica that is up, all alike."""
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
    """The next replica that is up, of a type or (-1) of all."""
    replicas = len(state.type_of)
    place = t if t >= 0 else len(state.turn) - 1
    for step in range(1, replicas + 1):
        r = (state.turn[place] + step) % replicas
        if state.is_up[r] and (t < 0 or state.type_of[r] == t):
            state.turn[place] = r
            return r
    return -1


def _next_type(state: PolicyState, i: int, last: int) -> int:
    """The type that is owed most of an input bucket's requests, by smooth weighted round robin; -1 where none is up.

    Every type is credited with its share, the one with most is taken and debited with their sum: over any stretch of
    requests each gets its share to within one request.
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
    """Where the plan's own types for a size are all down: the type that carries most of it; -1 where none does."""
    best, best_rate = -1, 0.0
    for t in range(len(state.turn) - 1):
        rate = _expected(state, state.rate, t, i, last) if _is_any_up(state, t) else 0.0
        if rate > best_rate:
            best, best_rate = t, rate
    return best


def _refuge(state: PolicyState, t: int, i: int, last: int, best: int) -> int:
    """The least full replica of another type that has room; else the best of the type itself."""
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
    """The replica of a type with the least work, or else the least full one, if a request has room; -1 where none."""
    best = _least_work(state, t)
    if state.fill[best] + part > FULL:
        best = _least_full(state, t)
    return best if state.fill[best] + part <= FULL else -1


def _least_full(state: PolicyState, t: int) -> int:
    """The replica of a type that is least full, the first of several; -1 where none is up."""
    best = -1
    for r in range(len(state.type_of)):
        if state.type_of[r] == t and state.is_up[r] and (best < 0 or state.fill[r] < state.fill[best]):
            best = r
    return best


def _least_work(state: PolicyState, t: int) -> int:
    """The replica of a type with the least work, the first of several; -1 where none is up."""
    best, least = -1, 0.0
    for r in range(len(state.type_of)):
        if state.type_of[r] == t and state.is_up[r]:
            work = state.fill[r] + state.request_part[t] * state.outstanding[r] + state.unread_part[t] * state.unread[r]
            if best < 0 or work < least:
                best, least = r, work
    return best


def _is_any_up(state: PolicyState, t: int) -> bool:
    for r in range(len(state.type_of)):  # noqa: SIM110  (Numba knows no generators here)
        if state.type_of[r] == t and state.is_up[r]:
            return True
    return False


def _expected(state: PolicyState, table: Floats, t: int, i: int, last: int) -> float:
    """A table's value over the completions that a prompt may get, each as often as it was seen."""
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
    """Part of what a prompt may become that a type can serve, 0-1."""
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
    """The bucket of a number of tokens; the last one beyond its edge."""
    for place in range(len(edges)):
        if tokens <= edges[place]:
            return place
    return len(edges) - 1
