"""Plans of services drawn by a seed: models, engines, clouds, markets, limits and variants as they come."""

from __future__ import annotations

import numpy as np

from melange.catalog.bundled import find_model, offers
from melange.errors import InfeasibleError, InputError
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.solve import solve
from melange.profile.estimate import estimate
from melange.slo import Slo
from melange.workload.datasets import dataset

MODELS = (
    "meta-llama/Llama-3.1-8B-Instruct",
    "Qwen/Qwen3-32B",
    "meta-llama/Llama-3.1-70B",
    "openai/gpt-oss-120b",
    "mistralai/Mistral-7B-v0.1",
)
DATASETS = ("arena", "azure-conversation", "azure-code", "sharegpt", "arxiv-summarization")
SLOS = (
    Slo(ttft_s=2.0, tpot_s=0.1),
    Slo(ntpot_s=0.15),
    Slo(latency_s=60.0),
    Slo(tpot_s=0.08, attainment=0.95),
)


def drawn_plan(seed: int) -> Plan:
    """One plan; draws that nothing can serve are drawn again, with numbers of the same seed."""
    random = np.random.default_rng(seed)
    while True:
        every = offers()
        providers = sorted({offer.provider for offer in every})
        some = set(random.choice(providers, size=int(random.integers(1, 5)), replace=False).tolist())
        market = random.choice(["on-demand", "spot", "any"])
        chosen = [one for one in every if one.provider in some and market in {one.market, "any"}]
        model = find_model(str(random.choice(MODELS)))
        engine = str(random.choice(["vllm", "sglang"], p=[0.8, 0.2]))
        variants = [["fp8"], ["fp8", "fp8+fp8-kv"], []][int(random.integers(3))]
        workload = dataset(str(random.choice(DATASETS)), request_rate=float(random.choice([2.0, 16.0, 60.0])))
        slo = SLOS[int(random.integers(len(SLOS)))]
        spare = int(random.integers(2))
        try:
            profile = estimate(model, chosen, slo, workload, engine=engine, variants=variants)
            return solve(workload, profile, Options(spare_replicas=spare, max_types=int(random.integers(1, 5))))
        except (InfeasibleError, InputError):
            continue
