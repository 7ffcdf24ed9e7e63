"""Histogram of the times between the tokens of requests, compiled: all steps of a run are counted at once."""

# Numba compiles these without annotations; tests run them.
# mypy: disable-error-code="no-untyped-def,misc"

from __future__ import annotations

import math

from melange.replica.simulated import columns as at
from melange.replica.simulated.compiling import inner
from melange.replica.simulated.outcome import BINS, GROWTH, LEAST_GAP_S

_SCALE = 1.0 / math.log(GROWTH)
_START = math.log(LEAST_GAP_S)


@inner
def _bin_of(gap_s):
    """The bin of a time between two tokens."""
    place = int((math.log(gap_s) - _START) * _SCALE) if gap_s > LEAST_GAP_S else 0
    return min(place, BINS - 1)


@inner
def count_gap(gaps, gap_s, count):
    """Count one gap of ``count`` requests."""
    if count > 0:
        gaps[_bin_of(gap_s)] += count


@inner
def count_run(whole, real, gaps, steps):
    """Count the gaps of a run, whose step j takes ``first + growth j``; prompts may have delayed its first step."""
    if steps == 0:
        return
    first, growth, batch = real[at.FIRST], real[at.GROWTH_S], whole[at.DECODING]
    if real[at.STALL] > 0.0:
        stalled = min(whole[at.STALLED], batch)
        place = _bin_of(first)
        gaps[place] -= stalled
        gaps[_bin_of(first + real[at.STALL])] += stalled
        real[at.STALL] = 0.0
    low, high = _bin_of(first), _bin_of(first + growth * (steps - 1))
    if low == high:
        gaps[low] += batch * steps
        return
    counted = 0
    for place in range(low, high):
        edge = LEAST_GAP_S * GROWTH ** (place + 1.0)
        until = min(max(math.ceil((edge - first) / growth), counted), steps)
        gaps[place] += batch * (until - counted)
        counted = until
    gaps[high] += batch * (steps - counted)
