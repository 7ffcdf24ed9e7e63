"""Small plans that the tests of the simulation share."""

from __future__ import annotations

from functools import cache

from melange.catalog.bundled import find_model
from melange.catalog.offer import Offer
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.solve import solve
from melange.profile.estimate import estimate
from melange.profile.profile import Profile
from melange.slo import Slo
from melange.workload.datasets import dataset
from melange.workload.workload import Workload

PRICES = {"L4": 0.70, "A10G": 1.01, "A100-80GB": 3.67}


def offers(*accelerators: str) -> list[Offer]:
    """One instance of each type at the paper's price."""
    return [
        Offer(
            provider="paper", region="", instance_type=name, accelerator=name, accelerators=1, cost_per_h=PRICES[name]
        )
        for name in accelerators
    ]


@cache
def inputs(
    rate: float = 12.0, mix: str = "azure-conversation", slo: Slo | None = None, engine: str = "vllm-1"
) -> tuple[Workload, Profile]:
    """A workload and what L4, A10G and A100 carry of it."""
    workload = dataset(mix, request_rate=rate)
    limits = slo or Slo(tpot_s=0.08, ttft_s=2.0)
    model = find_model("meta-llama/Llama-3.1-8B")
    return workload, estimate(model, offers(*PRICES), limits, workload, engine=engine)


@cache
def plan(rate: float = 12.0, least_replicas: int = 4) -> Plan:
    """A plan of two types and several replicas."""
    workload, profile = inputs(rate)
    return solve(workload, profile, Options(min_total_replicas=least_replicas, require=("L4", "A100-80GB")))
