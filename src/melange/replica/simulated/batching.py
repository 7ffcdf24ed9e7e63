"""One replica with the scheduler of vLLM, compiled: continuous batching, chunked prompts, paged KV cache, preemption.

The simulation of a replica is divided into segments. A *decode* segment is a run of steps in which only the context of
each running request grows, by one token per step; its n steps take ``n first + growth n (n - 1) / 2`` and are simulated
at once. A *mixed* segment is one step that processes prompt chunks together with running requests. A *prompts* segment
is one step that processes whole prompts while running requests pause (engines without chunks, vLLM 0.2). A run ends
with the first request that ends or exceeds its sliding window, when KV blocks run out, or at the end of the step in
which a request arrives. If the server's front end needs more time to send a step's tokens than the engine needs for the
step, the step takes that longer time; a run also ends when this changes.

The rules of a step, in this order:

1. Each running request whose tokens start a new block gets one. If there are not enough free blocks, the request
   admitted last is preempted: it frees its blocks, returns to the front of the queue, and is later recomputed.
2. A partly processed prompt is continued, with the tokens that remain in the step's budget.
3. Unless a request has just been preempted, waiting requests are admitted in the order of arrival, as long as there are
   budget, a free sequence, and free blocks for the whole prompt. If requests have priorities, the queue is sorted by
   level, lowest first, and the preempted request is the last admitted one of the highest running level. Layers with a
   sliding window hold blocks for at most the first ``window - 1`` tokens of a request. An engine that reserves memory
   (TensorRT-LLM) admits a request only with blocks for its whole length, and preempts none.
4. At the end of the step every running request gets a token, and each prompt processed to its end its first token.

Blocks are counted without iterating over requests: all requests that start a new block at the same step, modulo the
block's size, are counted together (``phases``), so that the blocks for a run are known in closed form.

See :mod:`melange.replica.simulated.columns` for tables and columns.
"""

# Numba compiles these without annotations; tests run them.
# mypy: disable-error-code="no-untyped-def,misc"

from __future__ import annotations

import math

from melange.replica.simulated import columns as at
from melange.replica.simulated.blocks import steps_in_blocks, taken, units
from melange.replica.simulated.compiled_index import changed
from melange.replica.simulated.compiled_policy import compiled_policy
from melange.replica.simulated.compiled_step import (
    CONTEXT,
    DRAFT_TOKENS,
    STREAM,
    WINDOW,
    WINDOW_CONTEXT,
    attended,
    batch_factor,
    fixed_s,
)
from melange.replica.simulated.compiling import inner
from melange.replica.simulated.gaps import count_gap, count_run
from melange.replica.simulated.heaps import remove, rise, sink
from melange.replica.simulated.outcome import SERVED

_policy = compiled_policy()
_finished, _read = _policy.finished, _policy.read
# If steps grow by less than this, they are treated as equally long: the square root would lose its digits to rounding.
_NO_GROWTH = 1e-9


@inner
def fits(whole, requests, k):
    """Whether a replica could serve this request alone."""
    tokens = requests[k, at.INPUT] + requests[k, at.OUTPUT]
    return tokens <= whole[at.MAX_CONTEXT] and units(whole, tokens - 1) <= whole[at.CAPACITY]


@inner
def enqueue(world, replica, k, now):
    """Add a request at the end of its level in a replica's queue; a run that it may join ends with the current step."""
    whole, real, requests = world.whole[replica], world.real[replica], world.requests
    _wait_behind(whole, requests, k, requests[k, at.LEVEL])
    whole[at.TAILS + requests[k, at.LEVEL]] = k
    if whole[at.SEGMENT] == at.DECODE and whole[at.HEAD] == k and whole[at.RUNNING] < whole[at.MAX_SEQUENCES]:
        steps = _steps_until(real[at.FIRST], real[at.GROWTH_S], now - real[at.BEGAN])
        if steps < whole[at.RUN_STEPS]:
            whole[at.RUN_STEPS] = steps
            real[at.ENDS] = real[at.BEGAN] + _run_s(real[at.FIRST], real[at.GROWTH_S], steps)


@inner
def _wait_behind(whole, requests, k, level):
    """Insert a request into the queue behind all requests of this level and lower ones; at the front if none wait."""
    before = at.NOBODY
    while level >= 0 and before == at.NOBODY:
        before = whole[at.TAILS + level]
        level -= 1
    if before == at.NOBODY:
        requests[k, at.NEXT] = whole[at.HEAD]
        whole[at.HEAD] = k
    else:
        requests[k, at.NEXT] = requests[before, at.NEXT]
        requests[before, at.NEXT] = k
    whole[at.WAITING] += 1


@inner
def begin(world, replica, now):
    """Begin the next segment of a replica; it is idle if there is no work."""
    whole, real, cost, phases = world.whole[replica], world.real[replica], world.cost[replica], world.phases[replica]
    keys, members, ready = world.keys[replica], world.members[replica], world.ready[replica]
    requests, moments = world.requests, world.moments
    real[at.BEGAN] = now
    whole[at.READY] = 0
    if whole[at.IS_CHUNKED] == 1:
        is_preempted = _free_blocks(whole, phases, keys, members, requests)
        if _begin_mixed(whole, real, cost, phases, ready, requests, moments, is_preempted, now):
            return
    elif whole[at.HEAD] != at.NOBODY and _begin_prompts(whole, real, cost, ready, requests, moments, now):
        return
    else:
        _free_blocks(whole, phases, keys, members, requests)
    if whole[at.DECODING] == 0:
        whole[at.SEGMENT] = at.IDLE
        real[at.ENDS] = math.inf
        return
    factor = batch_factor(cost, whole[at.DECODING])
    look_back_s = cost[CONTEXT] * whole[at.CONTEXT_TOKENS] + cost[WINDOW_CONTEXT] * whole[at.WINDOW_CONTEXT_TOKENS]
    real[at.FIRST] = factor * (fixed_s(cost, whole[at.DECODING], 0, 0, 0.0, 0.0, 0) + look_back_s)
    real[at.GROWTH_S] = factor * (cost[CONTEXT] * whole[at.DECODING] + cost[WINDOW_CONTEXT] * whole[at.GROWING])
    whole[at.SEGMENT] = at.DECODE
    whole[at.RUN_STEPS] = steps_in_blocks(whole, phases, keys[0] - whole[at.STEP])
    streamed_s = cost[STREAM] * whole[at.DECODING]
    if streamed_s > real[at.FIRST]:
        if real[at.GROWTH_S] * whole[at.RUN_STEPS] > streamed_s - real[at.FIRST]:
            whole[at.RUN_STEPS] = max(math.ceil((streamed_s - real[at.FIRST]) / real[at.GROWTH_S]), 1)
        real[at.FIRST] = streamed_s
        real[at.GROWTH_S] = 0.0
    real[at.ENDS] = now + _run_s(real[at.FIRST], real[at.GROWTH_S], whole[at.RUN_STEPS])


@inner
def finish(world, fleet, replica):
    """End a replica's segment: count tokens, end completed requests, start decoding processed prompts."""
    whole, real, phases = world.whole[replica], world.real[replica], world.phases[replica]
    keys, members, ready = world.keys[replica], world.members[replica], world.ready[replica]
    requests, moments, gaps = world.requests, world.moments, world.gaps[replica]
    now = real[at.ENDS]
    real[at.BUSY] += now - real[at.BEGAN]
    used, outstanding = whole[at.USED], fleet.outstanding[replica]
    if whole[at.SEGMENT] == at.DECODE:
        steps = whole[at.RUN_STEPS]
        whole[at.STEPS] += steps
        count_run(whole, real, gaps, steps)
        whole[at.USED] += taken(whole, phases, steps)
        _advance(whole, steps)
    else:
        whole[at.STEPS] += 1
        if whole[at.SEGMENT] == at.MIXED:
            count_gap(gaps, now - real[at.BEGAN], whole[at.DECODING])
            _advance(whole, 1)
    real[at.KV_TIME] += 0.5 * (used + whole[at.USED]) * (now - real[at.BEGAN])
    whole[at.PEAK] = max(whole[at.PEAK], whole[at.USED])
    if whole[at.SEGMENT] != at.PROMPTS:
        _end_due(whole, real, phases, keys, members, requests, moments, fleet, replica, now)
    for place in range(whole[at.READY]):
        _first_token(whole, real, phases, keys, members, requests, moments, ready[place], fleet, replica, now)
    if fleet.tree.shape[1] > 0 and (whole[at.READY] > 0 or fleet.outstanding[replica] != outstanding):
        changed(fleet, replica)


@inner
def clear(world, replica, now):
    """Empty a lost replica; returns the first of its requests, linked by ``NEXT``: running ones, then the queue."""
    whole, real, requests = world.whole[replica], world.real[replica], world.requests
    if whole[at.SEGMENT] != at.IDLE:
        real[at.BUSY] += now - real[at.BEGAN]
    if whole[at.SEGMENT] == at.DECODE:  # count the steps that had ended
        first, growth, elapsed = real[at.FIRST], real[at.GROWTH_S], now - real[at.BEGAN]
        steps = _steps_until(first, growth, elapsed)
        steps -= _run_s(first, growth, steps) > elapsed
        whole[at.STEPS] += steps
        count_run(whole, real, world.gaps[replica], steps)
        _advance(whole, steps)
    held = whole[at.HEAD]
    if whole[at.RUNNING] > 0:
        requests[whole[at.LAST], at.NEXT] = held
        held = whole[at.LAST]
        while requests[held, at.PREVIOUS] != at.NOBODY:
            held = requests[held, at.PREVIOUS]
    for place in range(whole[at.DECODING]):
        k = world.members[replica, place]
        requests[k, at.PROGRESS] += whole[at.STEP] - requests[k, at.INPUT]
    for column in (at.HEAD, at.LAST, at.PARTIAL):
        whole[column] = at.NOBODY
    for level in range(at.LEVELS):
        whole[at.TAILS + level] = at.NOBODY
    for column in (at.USED, at.RESERVED, at.WAITING, at.RUNNING, at.DECODING, at.GROWING, at.STALLED):
        whole[column] = 0
    whole[at.CONTEXT_TOKENS] = 0
    whole[at.WINDOW_CONTEXT_TOKENS] = 0
    whole[at.SEGMENT] = at.IDLE
    real[at.STALL] = 0.0
    real[at.ENDS] = math.inf
    phases = world.phases[replica]
    for phase in range(whole[at.BLOCK]):
        phases[0, phase] = phases[1, phase] = 0
    return held


@inner
def _run_s(first, growth, steps):
    return steps * first + growth * (0.5 * steps * (steps - 1.0))


@inner
def _steps_until(first, growth, elapsed):
    """The smallest number of steps of a run, at least one, that take ``elapsed`` or longer."""
    if growth * elapsed < _NO_GROWTH * first * first:
        steps = math.ceil(elapsed / first)
    else:
        half = first - 0.5 * growth
        steps = math.ceil((math.sqrt(half * half + 2.0 * growth * elapsed) - half) / growth)
    steps = max(steps, 1)
    while _run_s(first, growth, steps) < elapsed:  # rounding error of the root: at most one step
        steps += 1
    while steps > 1 and _run_s(first, growth, steps - 1) >= elapsed:
        steps -= 1
    return steps


@inner
def _advance(whole, steps):
    """Count ``steps`` more tokens for every decoding request."""
    whole[at.MADE] += steps * whole[at.DECODING]
    whole[at.CONTEXT_TOKENS] += steps * whole[at.DECODING]
    whole[at.WINDOW_CONTEXT_TOKENS] += steps * whole[at.GROWING]
    whole[at.STEP] += steps


@inner
def _free_blocks(whole, phases, keys, members, requests):
    """Preempt requests until there are blocks for the next step; returns whether any was preempted."""
    is_preempted = False
    while whole[at.DECODING] > 0 and whole[at.USED] + taken(whole, phases, 1) > whole[at.CAPACITY]:
        _preempt(whole, phases, keys, members, requests)
        is_preempted = True
    return is_preempted


@inner
def _preempt(whole, phases, keys, members, requests):
    """Preempt the last admitted request of the highest level, and queue it at the front of its level."""
    k = whole[at.LAST]
    earlier = k
    while requests[k, at.LEVEL] < whole[at.LOWEST] and requests[earlier, at.PREVIOUS] != at.NOBODY:
        earlier = requests[earlier, at.PREVIOUS]
        if requests[earlier, at.LEVEL] > requests[k, at.LEVEL]:
            k = earlier
    if k == whole[at.PARTIAL]:
        whole[at.PARTIAL] = at.NOBODY
        whole[at.USED] -= units(whole, requests[k, at.INPUT] + requests[k, at.PROGRESS])
    else:
        remove(keys, members, requests, requests[k, at.PLACE], whole[at.DECODING])
        context = whole[at.STEP] + requests[k, at.PROGRESS]
        _leave(whole, phases, context)
        requests[k, at.PROGRESS] = context - requests[k, at.INPUT]
    requests[k, at.PREEMPTIONS] += 1
    whole[at.RESERVED] -= _length(whole, requests, k)
    _unlink(whole, requests, k)
    level = requests[k, at.LEVEL]
    _wait_behind(whole, requests, k, level - 1)
    if whole[at.TAILS + level] == at.NOBODY:
        whole[at.TAILS + level] = k


@inner
def _leave(whole, phases, context):
    """Remove a decoding request with this context from the counts, and free its blocks."""
    block = whole[at.BLOCK]
    phase = (whole[at.STEP] - (context - 1)) % block
    phases[0, phase] -= 1
    whole[at.DECODING] -= 1
    whole[at.CONTEXT_TOKENS] -= context
    whole[at.WINDOW_CONTEXT_TOKENS] -= min(context, whole[at.WINDOW_TOKENS])
    if context < whole[at.WINDOW_TOKENS]:
        phases[1, phase] -= 1
        whole[at.GROWING] -= 1
    whole[at.USED] -= units(whole, context - 1)


@inner
def _unlink(whole, requests, k):
    """Remove a request from the list of running ones."""
    before, after = requests[k, at.PREVIOUS], requests[k, at.NEXT]
    if before != at.NOBODY:
        requests[before, at.NEXT] = after
    if after != at.NOBODY:
        requests[after, at.PREVIOUS] = before
    else:
        whole[at.LAST] = before
    whole[at.RUNNING] -= 1


@inner
def _admit(whole, requests, moments, now):
    """Admit the first request of the queue, with blocks for its whole prompt; returns it."""
    k = whole[at.HEAD]
    whole[at.HEAD] = requests[k, at.NEXT]
    tail = at.TAILS + requests[k, at.LEVEL]
    if whole[tail] == k:
        whole[tail] = at.NOBODY
    whole[at.WAITING] -= 1
    requests[k, at.PREVIOUS] = whole[at.LAST]
    requests[k, at.NEXT] = at.NOBODY
    if whole[at.LAST] != at.NOBODY:
        requests[whole[at.LAST], at.NEXT] = k
    whole[at.LAST] = k
    whole[at.RUNNING] += 1
    prompt = requests[k, at.INPUT] + requests[k, at.PROGRESS]
    whole[at.USED] += units(whole, prompt)
    whole[at.RESERVED] += _length(whole, requests, k)
    if math.isnan(moments[k, at.ADMITTED]):
        moments[k, at.ADMITTED] = now
    whole[at.PROMPT] += prompt - requests[k, at.CACHED]
    if requests[k, at.PREEMPTIONS] > 0:
        whole[at.RECOMPUTED] += prompt - requests[k, at.CACHED]
    return k


@inner
def _length(whole, requests, k):
    """KV cache that a request holds at its end."""
    return units(whole, requests[k, at.INPUT] + requests[k, at.OUTPUT] - 1)


@inner
def _has_room(whole, requests, k, decode_units):
    """Whether there are blocks for a waiting request: for its prompt, or for its whole length if memory is reserved."""
    if whole[at.IS_RESERVED] == 1:
        return whole[at.RESERVED] + _length(whole, requests, k) <= whole[at.CAPACITY]
    needed = units(whole, requests[k, at.INPUT] + requests[k, at.PROGRESS])
    return whole[at.USED] + decode_units + needed <= whole[at.CAPACITY]


@inner
def _begin_mixed(whole, real, cost, phases, ready, requests, moments, is_preempted, now):
    """Begin a step that processes prompt chunks together with running requests; False if there is no such prompt."""
    window = cost[WINDOW]
    budget = whole[at.MAX_TOKENS] - whole[at.DECODING] * (1 + int(cost[DRAFT_TOKENS]))
    decode_units = taken(whole, phases, 1)
    prefill, longest, pairs, window_pairs, admitted = 0, 0, 0.0, 0.0, 0
    while budget > 0:
        k, done = whole[at.PARTIAL], whole[at.PARTIAL_DONE]
        if k == at.NOBODY:
            k = whole[at.HEAD]
            if k == at.NOBODY or is_preempted or whole[at.RUNNING] >= whole[at.MAX_SEQUENCES]:
                break
            if not _has_room(whole, requests, k, decode_units):
                break
            _admit(whole, requests, moments, now)
            done = requests[k, at.CACHED]
            admitted += 1
        prompt = requests[k, at.INPUT] + requests[k, at.PROGRESS]
        chunk = min(prompt - done, budget)
        budget -= chunk
        prefill += chunk
        longest = max(longest, chunk)
        pairs += chunk * (done + 0.5 * chunk)
        window_pairs += attended(done + chunk, window) - attended(done, window)
        if done + chunk == prompt:
            ready[whole[at.READY]] = k
            whole[at.READY] += 1
            whole[at.PARTIAL] = at.NOBODY
        else:
            whole[at.PARTIAL] = k
            whole[at.PARTIAL_DONE] = done + chunk
    if prefill == 0:
        return False
    look_back_s = cost[CONTEXT] * whole[at.CONTEXT_TOKENS] + cost[WINDOW_CONTEXT] * whole[at.WINDOW_CONTEXT_TOKENS]
    factor = batch_factor(cost, whole[at.DECODING])
    streamed_s = cost[STREAM] * whole[at.DECODING]
    step_s = factor * (fixed_s(cost, whole[at.DECODING], prefill, longest, pairs, window_pairs, admitted) + look_back_s)
    step_s = max(step_s, streamed_s)
    if whole[at.DECODING] > 0:
        alone_s = factor * (fixed_s(cost, whole[at.DECODING], 0, 0, 0.0, 0.0, 0) + look_back_s)
        alone_s = max(alone_s, streamed_s)
        real[at.ADDED] += step_s - alone_s
    whole[at.USED] += decode_units
    whole[at.SEGMENT] = at.MIXED
    real[at.ENDS] = now + step_s
    return True


@inner
def _begin_prompts(whole, real, cost, ready, requests, moments, now):
    """Begin a step that processes whole prompts while running requests pause; False if none can be admitted."""
    window = cost[WINDOW]
    prefill, longest, pairs, window_pairs = 0, 0, 0.0, 0.0
    while whole[at.HEAD] != at.NOBODY and whole[at.RUNNING] < whole[at.MAX_SEQUENCES]:
        k = whole[at.HEAD]
        prompt, done = requests[k, at.INPUT] + requests[k, at.PROGRESS], requests[k, at.CACHED]
        if prefill > 0 and prefill + prompt - done > whole[at.MAX_TOKENS]:
            break
        if not _has_room(whole, requests, k, 0):
            break
        _admit(whole, requests, moments, now)
        prefill += prompt - done
        longest = max(longest, prompt - done)
        pairs += (prompt - done) * (done + 0.5 * (prompt - done))
        window_pairs += attended(prompt, window) - attended(done, window)
        ready[whole[at.READY]] = k
        whole[at.READY] += 1
    if prefill == 0:
        return False
    step_s = batch_factor(cost, 0) * fixed_s(cost, 0, prefill, longest, pairs, window_pairs, whole[at.READY])
    if whole[at.DECODING] > 0:
        real[at.ADDED] += step_s
        if real[at.STALL] == 0.0:
            whole[at.STALLED] = whole[at.DECODING]
        real[at.STALL] += step_s
    whole[at.SEGMENT] = at.PROMPTS
    real[at.ENDS] = now + step_s
    return True


@inner
def _end_due(whole, real, phases, keys, members, requests, moments, fleet, replica, now):
    """Handle requests that end with this step, and those whose context fills the window in this step."""
    while whole[at.DECODING] > 0 and keys[0] == whole[at.STEP]:
        k = members[0]
        context = whole[at.STEP] + requests[k, at.PROGRESS]
        made = context - requests[k, at.INPUT]
        if context == whole[at.WINDOW_TOKENS]:  # it may also end with this step
            phases[1, (whole[at.STEP] - (context - 1)) % whole[at.BLOCK]] -= 1
            whole[at.GROWING] -= 1
        if made < requests[k, at.OUTPUT]:
            keys[0] = whole[at.STEP] + requests[k, at.OUTPUT] - made
            sink(keys, members, requests, 0, whole[at.DECODING])
            continue
        remove(keys, members, requests, 0, whole[at.DECODING])
        _leave(whole, phases, context)
        _end(whole, real, requests, moments, k, fleet, replica, now)


@inner
def _end(whole, real, requests, moments, k, fleet, replica, now):
    """Handle the last token of a request: it leaves the replica, and the balancer is informed."""
    _unlink(whole, requests, k)
    whole[at.RESERVED] -= _length(whole, requests, k)
    requests[k, at.STATUS] = SERVED
    requests[k, at.PROGRESS] = requests[k, at.OUTPUT]
    moments[k, at.FINISH] = now
    moments[k, at.MARK] = real[at.ADDED] - moments[k, at.MARK]
    _finished(
        fleet, replica, requests[k, at.INPUT] + requests[k, at.SHIFT], requests[k, at.OUTPUT], moments[k, at.PART]
    )


@inner
def _first_token(whole, real, phases, keys, members, requests, moments, k, fleet, replica, now):
    """Handle the end of a prompt: the request gets its first token, or its next one after a preemption."""
    prompt = requests[k, at.INPUT] + requests[k, at.PROGRESS]
    made = requests[k, at.PROGRESS] + 1
    whole[at.MADE] += 1
    if math.isnan(moments[k, at.FIRST_TOKEN]):
        moments[k, at.FIRST_TOKEN] = now
        moments[k, at.MARK] = real[at.ADDED]
        _read(fleet, replica, requests[k, at.INPUT])
    if made == requests[k, at.OUTPUT]:
        whole[at.USED] -= units(whole, prompt)
        _end(whole, real, requests, moments, k, fleet, replica, now)
        return
    context = prompt + 1
    phase = (whole[at.STEP] - prompt) % whole[at.BLOCK]
    phases[0, phase] += 1
    whole[at.CONTEXT_TOKENS] += context
    whole[at.WINDOW_CONTEXT_TOKENS] += min(context, whole[at.WINDOW_TOKENS])
    due = whole[at.STEP] + requests[k, at.OUTPUT] - made
    if context < whole[at.WINDOW_TOKENS]:
        phases[1, phase] += 1
        whole[at.GROWING] += 1
        due = min(due, whole[at.STEP] + whole[at.WINDOW_TOKENS] - context)
    requests[k, at.PROGRESS] = context - whole[at.STEP]
    place = whole[at.DECODING]
    keys[place], members[place] = due, k
    whole[at.DECODING] += 1
    rise(keys, members, requests, place)
