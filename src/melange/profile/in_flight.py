"""Running and in-flight requests at a given rate: Little's law with the steps of the closed form."""

from __future__ import annotations

import math

import numpy as np

from melange.catalog.model import Model
from melange.profile.estimate_inputs import bundled_accelerators, planned_sizes
from melange.profile.profile import Profile
from melange.replica.capacity import (
    BISECTIONS,
    IDLE_BATCH,
    Replicas,
    Sizes,
    largest_batch,
    mean_step_s,
    prompt_times_s,
)
from melange.replica.era import DEFAULT_ENGINE, Era, find_era
from melange.replica.hardware import hardware_of, replicas_of
from melange.workload.workload import Array, Buckets, Workload


def in_flight(
    model: Model, profile: Profile, sizes: Workload | Buckets, *, engine: str | Era = DEFAULT_ENGINE
) -> Array:
    """Requests that each replica has in flight at its maximum rate (R, I, O): ``rate (prompt + o step)``, Little's law.

    If a profile has a rate of 0 but a positive ``high``, the latter is used. Steps are those of the uncorrected model.
    """
    era = engine if isinstance(engine, Era) else find_era(engine)
    facts = bundled_accelerators()
    hardware = [hardware_of(one.offer, one.layout, facts, one.variant) for one in profile.replica_types]
    requests = planned_sizes(sizes)
    replicas = replicas_of(model, hardware, facts, era)
    rate = np.where(profile.max_request_rate > 0, profile.max_request_rate, profile.high)
    batch = batch_at(replicas, model, requests, rate)
    own_s, _ = prompt_times_s(replicas, requests, batch)
    return np.asarray(rate * own_s + batch)


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
