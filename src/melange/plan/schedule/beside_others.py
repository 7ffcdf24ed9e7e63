"""Capacity of replicas for requests that may wait, if other requests share the replicas."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from melange.profile.profile import Profile

# Share of a replica's capacity for requests that may wait that a plan counts on if other requests share the replica.
# In a small fleet with a load of 0.99, where half of the requests could wait, 89.5 % of the other requests met the SLO.
# Without the requests that may wait all of them did, and with this share all did too.
_PART = 0.9


def carried_beside(profile: Profile, names: Collection[str]) -> Profile:
    """The profile with a lower capacity of each replica for the classes in ``names``, which may wait."""
    part = np.array([_PART if name in names else 1.0 for name in profile.buckets.classes or ("",)])
    rows = np.repeat(part, len(profile.buckets.input_edges))[None, :, None]
    rates = {name: getattr(profile, name) * rows for name in ("max_request_rate", "low", "high")}
    return replace(profile, **rates)
