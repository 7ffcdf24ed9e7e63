"""Running and in-flight requests at a given rate: Little's law with the steps of the closed form."""

from __future__ import annotations

import math

import numpy as np

from melange.catalog.model import Model
from melange.profile.profile import Profile
from melange.replica.capacity import BISECTIONS, IDLE_BATCH, Replicas, Sizes, largest_batch, mean_step_s
from melange.replica.engine import Engine
from melange.replica.occupancy import running_at, sizes_of
from melange.workload.workload import Array, Workload


def in_flight(profile: Profile, workload: Workload) -> Array | None:
    """Requests that each replica has in flight at its maximum rate (R, I, O): ``rate (prompt + o step)``, Little's law.

    If a profile has a rate of 0 but a positive ``high``, the latter is used. Steps, prefix cache and drafts are those
    of the types' engines. None if a type with rates has no engine.
    """
    rate = np.where(profile.max_request_rate > 0, profile.max_request_rate, profile.high)
    found = np.zeros(rate.shape)
    known: dict[tuple[Engine, bytes], Array] = {}
    sizes: Sizes | None = None
    for r, engine in enumerate(profile.engines or (None,) * len(rate)):
        if not rate[r].any():
            continue
        if engine is None:
            return None
        key = (engine, rate[r].tobytes())  # thousands of types share a few engines
        if key not in known:
            sizes = sizes or sizes_of(workload)
            known[key] = running_at(engine, sizes.kept(engine.prefix_kept), rate[r][None])[0]
        found[r] = known[key]
    return found


def batch_at(replicas: Replicas, model: Model, sizes: Sizes, rate: Array) -> Array:
    """Running requests at an arrival rate (R, I, O): ``B = rate o step(B)``, by bisection on log B."""
    high = np.log(np.maximum(largest_batch(replicas, model, sizes), IDLE_BATCH))
    low = np.full_like(high, math.log(IDLE_BATCH))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        batch = np.exp(middle)
        is_enough = batch / (sizes.outputs * mean_step_s(replicas, sizes, batch)) >= rate
        low, high = np.where(is_enough, low, middle), np.where(is_enough, middle, high)
    batch = np.exp(high)
    return np.asarray(batch)
