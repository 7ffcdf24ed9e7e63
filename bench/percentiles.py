"""The cost of limits on percentiles, and the error of the closed form for means, by size.

For each replica type and bucket with traffic, the highest rate by the closed form under a limit on the mean is compared
with the highest simulated rate under the same limit on the mean, the median, p95 and p99. The script prints quantiles
of the ratio, and the time of the search.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np

import melange
from melange.profile.percentiles import with_simulated_rates
from melange.profile.profile import Profile
from melange.profile.rate_cache import RateCache
from melange.slo import Slo
from melange.workload.workload import Workload

GPUS = ["L4", "A10G", "L40S", "A100-80GB", "H100-80GB"]
LIMITS = {
    "TPOT <= 60 ms": Slo(tpot_s=0.06, statistic="mean"),
    "TTFT <= 500 ms": Slo(ttft_s=0.5, statistic="mean"),
    "NTPOT <= 80 ms": Slo(ntpot_s=0.08, statistic="mean"),
}
STATISTICS = ("mean", "p50", "p95", "p99")
DATASETS = ("azure-conversation", "arena")


def estimated(workload: Workload, slo: Slo) -> Profile:
    """The profile of Llama 3.1 8B on one accelerator of each kind."""
    offers = melange.load_catalog().select(gpus=GPUS, markets=["on-demand"]).offers
    first = [min((o for o in offers if o.accelerator == name), key=lambda o: o.accelerators) for name in GPUS]
    model = melange.find_model("meta-llama/Llama-3.1-8B-Instruct")
    return melange.estimate(model, first, slo, workload, tensor_parallel=(1,))


def main() -> None:
    """Print one line per workload, limit and statistic."""
    print("simulated rate / rate of the closed form under the same limit on the mean, over types and sizes")
    print(f"{'workload':<20} {'limit':<15} {'of':<5} {'cells':>5}  {'p10':>5} {'p50':>5} {'p90':>5}  {'CPU':>7}")
    for name in DATASETS:
        workload = melange.dataset(name, request_rate=16)
        for label, slo in LIMITS.items():
            profile = estimated(workload, slo)
            for statistic in STATISTICS:
                began = sum(os.times()[:4])
                found = with_simulated_rates(profile, workload, replace(slo, statistic=statistic), kept=RateCache())
                took_s = sum(os.times()[:4]) - began
                counted = (profile.max_request_rate > 0) & (workload.request_rate > 0) & (found.max_request_rate > 0)
                ratio = found.max_request_rate[counted] / profile.max_request_rate[counted]
                low, middle, high = np.quantile(ratio, [0.1, 0.5, 0.9])
                print(
                    f"{name:<20} {label:<15} {statistic:<5} {counted.sum():>5}  {low:>5.2f} {middle:>5.2f} {high:>5.2f}"
                    f"  {took_s:>5.1f} s"
                )


if __name__ == "__main__":
    main()
