"""Small plans that the tests of the deploy stage share."""

from __future__ import annotations

import numpy as np

from melange.catalog.offer import Offer
from melange.deploy.render import TARGETS
from melange.deploy.targets.gateways.gateway_options import GatewayOptions
from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.profile.profile import Profile, ReplicaType
from melange.slo import Slo
from melange.workload.workload import Buckets, Workload

GATEWAYS = tuple(name for name, target in TARGETS.items() if target.options is GatewayOptions)
BUCKETS = Buckets(input_edges=(200, 1000, 4000), output_edges=(50, 400))
# Shares of the small type by bucket: all, a split that depends on the output, a split that does not.
SMALL_SHARE = np.array([[1.0, 1.0], [0.65, 0.2], [0.03, 0.03]])
RATES = np.array([[2.0, 1.0], [1.0, 2.0], [3.0, 1.0]])


def replica_type(name: str, accelerator: str, cost_per_h: float = 1.0) -> ReplicaType:
    """A type of one accelerator."""
    offer = Offer(
        provider="aws",
        region="us-east-1",
        instance_type=name.rpartition("/")[2],
        accelerator=accelerator,
        accelerators=1,
        cost_per_h=cost_per_h,
    )
    return ReplicaType(name=name, offer=offer, engine="vllm")


def plan_of(
    shares: np.ndarray,
    counts: list[int],
    types: list[ReplicaType],
    *,
    buckets: Buckets = BUCKETS,
    rates: np.ndarray = RATES,
) -> Plan:
    """A plan with these shares (R, I, O) and instances (R,)."""
    workload = Workload.at_upper_edges(buckets, rates, source="by hand")
    rates = np.where(shares > 0, 4.0, 2.0)
    profile = Profile(
        replica_types=tuple(types),
        buckets=buckets,
        max_request_rate=rates,
        low=rates,
        high=rates,
        provenance=np.zeros(rates.shape),
        reason=np.zeros(rates.shape),
        slo=Slo(ttft_s=1.0, tpot_s=0.08),
        model="meta-llama/Llama-3.1-8B-Instruct",
    )
    return Plan(
        question=Question(workload=workload, profile=profile),
        instances=np.array(counts),
        share=shares,
        load=np.full(len(types), 0.5),
        cost_per_h=float(sum(n * one.cost_per_h for n, one in zip(counts, types, strict=True))),
        bound_per_h=None,
        gap=0.0,
        single_type={},
    )


def two_types() -> Plan:
    """Two A10G and one A100; a third type was looked at and is not used."""
    shares = np.stack([SMALL_SHARE, np.zeros((3, 2)), 1.0 - SMALL_SHARE])
    types = [
        replica_type("aws/us-east-1/g5.xlarge", "A10G", 1.01),
        replica_type("aws/us-east-1/g6.xlarge", "L4", 0.80),
        replica_type("aws/us-east-1/p4d", "A100-80GB", 3.67),
    ]
    return plan_of(shares, [2, 0, 1], types)


def three_types() -> Plan:
    """Three types, each with a part of everything."""
    shares = np.stack([np.full((3, 2), part) for part in (0.2, 0.3, 0.5)])
    return plan_of(shares, [1, 1, 2], [replica_type(f"aws/{name}", name) for name in ("L4", "A10G", "H100")])
