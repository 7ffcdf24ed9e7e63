"""Error of additive loads: the simulated rate of a mix on one replica, relative to the rate by the sum of loads.

    python bench/additive.py

The paper adds up loads: if a replica serves a size at ``rate`` requests per second, each request per second of that
size takes ``1 / rate`` of the replica, whatever else runs there. The rate of a mix with shares p is therefore
``1 / sum(p / rate)``. This script simulates the mix on one replica with Poisson arrivals, and searches for the rate at
which the mean over its requests reaches the limit. Sizes that the type cannot serve are left out of both. Above 1 the
sum of loads is conservative, below 1 it is too optimistic.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import melange
from melange.profile.percentiles import WARM_UP, lone_replica
from melange.replica.engine import Engine
from melange.replica.policy import ROUND_ROBIN
from melange.replica.simulated.cluster import play
from melange.slo import Slo
from melange.workload.arrivals import draw
from melange.workload.workload import Workload

GPUS = ("L4", "A10G", "A100-80GB", "H100-80GB")
WORKLOADS: dict[str, str | dict[str, float]] = {
    "arena": "arena",
    "arxiv-summarization": "arxiv-summarization",
    "80/20 mixed": {"arena": 0.8, "arxiv-summarization": 0.2},
    "azure-conversation": "azure-conversation",
}
SETTINGS = {"vllm-0.2": "meta-llama/Llama-2-7b-hf", "vllm-1": "meta-llama/Llama-3.1-8B-Instruct"}
LIMITS_S = (0.12, 0.04)
REQUESTS, STEPS = 6_000, 9


def simulated_rate(engine: Engine, workload: Workload, limit_s: float, start: float) -> float:
    """The highest rate at which the mean NTPOT of the mix is within the limit [1/s]."""
    low, high = start / 4, start * 4
    for _ in range(STEPS):
        rate = (low * high) ** 0.5
        low, high = (rate, high) if mean_ntpot_s(engine, workload.at_rate(rate)) <= limit_s else (low, rate)
    return (low * high) ** 0.5


def mean_ntpot_s(engine: Engine, workload: Workload) -> float:
    """Mean latency per output token of requests on one replica [s]; infinite if it falls behind."""
    arrivals = draw(workload, REQUESTS, seed=1)
    fits = arrivals.input_tokens + arrivals.output_tokens <= engine.max_context
    sizes = (arrivals.input_tokens[fits], arrivals.output_tokens[fits])
    outcome = play([engine], lone_replica(), ROUND_ROBIN, arrivals.arrival_s[fits], *sizes)
    values = outcome.ntpot_s[int(WARM_UP * len(outcome.ntpot_s)) :]
    return float(np.where(np.isfinite(values), values, np.inf).mean())


def main() -> None:
    """Print a table with a row per workload and limit, and a column per accelerator."""
    print("simulated rate of the mix on one replica / rate by the sum of loads, mean NTPOT")
    print(f"{'engine':<10}{'mix':<21}{'limit':>7}  " + "".join(f"{name:>11}" for name in GPUS))
    offers = melange.load_catalog().select(gpus=list(GPUS), markets=["on-demand"]).offers
    first = [min((o for o in offers if o.accelerator == name), key=lambda o: o.accelerators) for name in GPUS]
    every = []
    for era, name in SETTINGS.items():
        for label, source in WORKLOADS.items():
            workload = melange.dataset(source, request_rate=1.0)
            for limit_s in LIMITS_S:
                model, slo = melange.find_model(name), Slo(ntpot_s=limit_s, statistic="mean")
                profile = melange.estimate(model, first, slo, workload, engine=era, tensor_parallel=1)
                ratios = []
                for r, engine in enumerate(profile.engines):
                    able = (profile.max_request_rate[r] > 0) & (workload.request_rate > 0)
                    if engine is None or not able.any():
                        ratios.append(np.nan)
                        continue
                    served = replace(workload, request_rate=np.where(able, workload.request_rate, 0.0))
                    share = served.request_rate[able] / served.total_rate
                    added = 1.0 / float((share / profile.max_request_rate[r][able]).sum())
                    ratios.append(simulated_rate(engine, served, limit_s, added) / added)
                every += [ratio for ratio in ratios if np.isfinite(ratio)]
                shown = "".join(f"{ratio:>11.2f}" if np.isfinite(ratio) else f"{'cannot':>11}" for ratio in ratios)
                print(f"{era:<10}{label:<21}{1e3 * limit_s:>4.0f} ms  {shown}", flush=True)
    low, middle, high = np.quantile(every, [0.1, 0.5, 0.9])
    print(f"all: median {middle:.2f}, 80 % between {low:.2f} and {high:.2f}")


if __name__ == "__main__":
    main()
