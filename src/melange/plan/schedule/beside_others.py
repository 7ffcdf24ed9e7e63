"""What replicas carry of requests that may wait, beside others that may not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from melange.profile.profile import Profile

# Part of what a replica carries of requests that may wait which is counted on beside others. In a small fleet that was
# full to 0.99, half of its requests such that may wait, 89.5 % of the others met the SLO, and all did without them;
# counted like this all did.
_PART = 0.9


def carried_beside(profile: Profile, names: Collection[str]) -> Profile:
    """The profile with less of the classes that may wait, some of ``names``, on each replica."""
    part = np.array([_PART if name in names else 1.0 for name in profile.buckets.classes or ("",)])
    rows = np.repeat(part, len(profile.buckets.input_edges))[None, :, None]
    rates = {name: getattr(profile, name) * rows for name in ("max_request_rate", "low", "high")}
    return replace(profile, **rates)
