"""Builders of tiny profiles, and a name that nobody should have."""

from __future__ import annotations

import numpy as np

from melange.catalog.offer import Offer
from melange.profile.profile import Profile, ReplicaType
from melange.slo import Slo
from melange.workload.workload import Array, Buckets

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>'


def replica_type(name: str, cost_per_h: float, *, accelerators: int = 1, accelerator: str = "") -> ReplicaType:
    """A type whose instance holds one replica for each accelerator."""
    offer = Offer(
        provider="",
        region="",
        instance_type="",
        accelerator=accelerator or name,
        accelerators=accelerators,
        cost_per_h=cost_per_h,
    )
    return ReplicaType(name=name, offer=offer)


def profile_of(types: list[ReplicaType], rates: object, buckets: Buckets, slo: Slo | None = None) -> Profile:
    """A measured profile."""
    rate: Array = np.array(rates, float)
    zero = np.zeros(rate.shape)
    return Profile(
        replica_types=tuple(types),
        buckets=buckets,
        max_request_rate=rate,
        low=rate,
        high=rate,
        provenance=zero.astype(np.int8),
        reason=zero.astype(np.int32),
        slo=slo,
    )
