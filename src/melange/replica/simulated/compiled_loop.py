"""The event loop for replicas behind a balancer, compiled.

A simulation spends its time in this function, the only entry point of compiled code: it ships compiled with the package
(:mod:`melange.replica.simulated.kernel`), or Numba compiles it at the first call.
"""

# Numba compiles these without annotations; tests run them.
# mypy: disable-error-code="no-untyped-def,misc"

from __future__ import annotations

import math

from melange.replica.policy import PREFIX_AFFINITY
from melange.replica.simulated import columns as at
from melange.replica.simulated.batching import begin, clear, enqueue, finish, fits
from melange.replica.simulated.compiled_index import changed
from melange.replica.simulated.compiled_policy import compiled_policy
from melange.replica.simulated.compiling import compiled, inner
from melange.replica.simulated.heaps import settle
from melange.replica.simulated.outcome import FAILED, REFUSED

_policy = compiled_policy()
_choose, _sent, _waits, _read = _policy.choose, _policy.sent, _policy.waits, _policy.read
_lost, _home = _policy.lost, _policy.home

_GOLDEN = 0.6180339887498949  # the fractional parts of its multiples are spread evenly over [0, 1)


@compiled
def run(world, script, fleet, policy, arrival_s, uniform, first, last, until_s):
    """Process all events in the order of time: requests ``first`` to ``last`` arrive, then time runs to ``until_s``.

    The loop contains one call of each function only, because each call is compiled separately.
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


@inner
def _send(world, fleet, policy, k, now, uniform):
    """Send a request to the replica that the policy chooses; returns the replica that has accepted it, or -1."""
    requests = world.requests
    looked_up = requests[k, at.INPUT] + requests[k, at.SHIFT]
    replica = _choose(policy, fleet, looked_up, requests[k, at.LIMIT], uniform)
    requests[k, at.REPLICA] = replica
    requests[k, at.STATUS] = FAILED  # until its last token
    if replica < 0:
        return -1
    if not fits(world.whole[replica], requests, k):
        requests[k, at.STATUS] = REFUSED
        return -1
    requests[k, at.CACHED] = int(requests[k, at.REUSABLE] * world.real[replica, at.KEPT])
    is_moved = policy == PREFIX_AFFINITY and replica != _home(fleet, looked_up, requests[k, at.LIMIT], uniform)
    if is_moved:
        requests[k, at.CACHED] = 0
    world.moments[k, at.PART] = _sent(fleet, replica, looked_up, requests[k, at.LIMIT])
    _waits(fleet, replica, requests[k, at.INPUT])
    if fleet.tree.shape[1] > 0:
        changed(fleet, replica)
    enqueue(world, replica, k, now)
    return replica


@inner
def _change(world, script, fleet, replica, is_up, now):
    """Add or remove a replica: its requests are to be sent to another one, or fail if they were sent again before."""
    if is_up == fleet.is_up[replica]:
        return
    fleet.is_up[replica] = is_up
    if is_up == 1:
        changed(fleet, replica)
        return
    requests, moments = world.requests, world.moments
    k, last = clear(world, replica, now), at.NOBODY
    while k != at.NOBODY:
        after = requests[k, at.NEXT]
        _lost(fleet, replica, moments[k, at.PART])
        if math.isnan(moments[k, at.FIRST_TOKEN]):
            _read(fleet, replica, requests[k, at.INPUT])
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
    changed(fleet, replica)
