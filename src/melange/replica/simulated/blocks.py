"""The paged KV cache of one replica, compiled: the use by requests, and the need of the next steps.

Decoding requests that start a new block at the same step, modulo the block's size, are counted together (``phases``),
so that the blocks for a run of steps are known without iterating over requests.
"""

# Numba compiles these without annotations; tests run them.
# mypy: disable-error-code="no-untyped-def,misc"

from __future__ import annotations

from melange.replica.simulated import columns as at
from melange.replica.simulated.compiling import inner


@inner
def units(whole, tokens):
    """KV cache of a request with this number of tokens [tokens of one layer]."""
    block = whole[at.BLOCK]
    within = min(tokens, whole[at.WINDOW_TOKENS] - 1)
    cached = -(-tokens // block) * whole[at.FULL_UNITS] + -(-within // block) * whole[at.SLIDING_UNITS]
    return cached + whole[at.STATE_UNITS]


@inner
def taken(whole, phases, steps):
    """KV cache that the next ``steps`` steps need in addition [tokens of one layer]."""
    block = whole[at.BLOCK]
    rounds, rest = steps // block, steps % block
    taken = rounds * (whole[at.DECODING] * whole[at.FULL_UNITS] + whole[at.GROWING] * whole[at.SLIDING_UNITS])
    for ahead in range(rest):
        phase = (whole[at.STEP] + ahead) % block
        taken += phases[0, phase] * whole[at.FULL_UNITS] + phases[1, phase] * whole[at.SLIDING_UNITS]
    return taken


@inner
def steps_in_blocks(whole, phases, most):
    """Number of steps, at most ``most``, for which there are free blocks; there are known to be enough for one."""
    free = whole[at.CAPACITY] - whole[at.USED]
    block = whole[at.BLOCK]
    round_units = whole[at.DECODING] * whole[at.FULL_UNITS] + whole[at.GROWING] * whole[at.SLIDING_UNITS]
    if -(-most // block) * round_units <= free:
        return most
    steps = min(most, free // round_units * block) if round_units > 0 else most
    left = free - steps // block * round_units
    while steps < most:
        phase = (whole[at.STEP] + steps) % block
        left -= phases[0, phase] * whole[at.FULL_UNITS] + phases[1, phase] * whole[at.SLIDING_UNITS]
        if left < 0:
            break
        steps += 1
    return max(steps, 1)
