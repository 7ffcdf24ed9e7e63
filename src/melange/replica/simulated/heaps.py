"""Two binary heaps, compiled: the ends of a replica's requests, and the ends of all replicas' segments."""

# Numba compiles these without annotations; tests run them.
# mypy: disable-error-code="no-untyped-def,misc"

from __future__ import annotations

from melange.replica.simulated import columns as at
from melange.replica.simulated.compiling import inner


@inner
def _is_before(key, request, other_key, other):
    return key < other_key or (key == other_key and request < other)


@inner
def rise(keys, members, requests, place):
    """Move an entry of a replica's heap (S,) up to its place; equal keys are in the order of the requests."""
    key, request = keys[place], members[place]
    while place > 0:
        parent = (place - 1) // 2
        if not _is_before(key, request, keys[parent], members[parent]):
            break
        keys[place], members[place] = keys[parent], members[parent]
        requests[members[place], at.PLACE] = place
        place = parent
    keys[place], members[place] = key, request
    requests[request, at.PLACE] = place


@inner
def sink(keys, members, requests, place, size):
    """Move an entry of a replica's heap (S,) down to its place."""
    key, request = keys[place], members[place]
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and _is_before(keys[child + 1], members[child + 1], keys[child], members[child]):
            child += 1
        if not _is_before(keys[child], members[child], key, request):
            break
        keys[place], members[place] = keys[child], members[child]
        requests[members[place], at.PLACE] = place
        place = child
    keys[place], members[place] = key, request
    requests[request, at.PLACE] = place


@inner
def remove(keys, members, requests, place, size):
    """Remove an entry from a replica's heap (S,) with ``size`` entries."""
    last = size - 1
    if place == last:
        return
    keys[place], members[place] = keys[last], members[last]
    moved = members[place]
    requests[moved, at.PLACE] = place
    rise(keys, members, requests, place)
    sink(keys, members, requests, requests[moved, at.PLACE], last)


@inner
def settle(order, place_of, ends, replica):
    """Move a replica to its place in the heap ``order`` (n,); equal ends are in the order of the replicas."""
    size = len(order)
    place = place_of[replica]
    end = ends[replica]
    while place > 0:
        parent = (place - 1) // 2
        if not _is_before(end, replica, ends[order[parent]], order[parent]):
            break
        order[place] = order[parent]
        place_of[order[place]] = place
        place = parent
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and _is_before(ends[order[child + 1]], order[child + 1], ends[order[child]], order[child]):
            child += 1
        if not _is_before(ends[order[child]], order[child], end, replica):
            break
        order[place] = order[child]
        place_of[order[place]] = place
        place = child
    order[place] = replica
    place_of[replica] = place
