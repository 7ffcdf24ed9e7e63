"""Time of the closed form on 60 buckets x 100 replica types, compared with a plain loop over all batch sizes.

    python bench/estimate.py

The 100 replica types have different hardware, so that no result is shared between them; the time is the median of 7
runs. The loop, in plain Python floats (``plain_estimate.py``), evaluates the same formula: for every replica type and
bucket it checks the limits at every integer batch size up to the largest. It runs on every 10th replica type, and its
time is scaled up.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from melange.catalog.accelerator import Accelerator
from melange.catalog.bundled import accelerators, find_model
from melange.catalog.model import Model
from melange.catalog.offer import Offer
from melange.profile.estimate import estimate
from melange.replica.era import find_era
from melange.slo import Slo
from melange.workload.workload import PAPER_INPUT_EDGES, PAPER_OUTPUT_EDGES, Buckets
from plain_estimate import PlainReplica

Array = npt.NDArray[np.float64]

TYPES = 100
DEGREE = 2
EVERY = 10
TARGET_S = 0.05
RUNS = 7
LOOP_RUNS = 1
BUCKETS = Buckets(input_edges=PAPER_INPUT_EDGES, output_edges=PAPER_OUTPUT_EDGES)
MODEL = "meta-llama/Llama-3.1-8B-Instruct"
SLOS = {
    "mean TPOT 40 ms": Slo(tpot_s=0.04, statistic="mean"),
    "mean NTPOT 120 ms": Slo(ntpot_s=0.12, statistic="mean"),
    "mean TTFT 1 s and TPOT 50 ms": Slo(ttft_s=1.0, tpot_s=0.05, statistic="mean"),
}


def cards() -> dict[str, Accelerator]:
    """TYPES different accelerators: the bundled GPUs, and the same GPUs with ever lower bandwidth."""
    known = [fact for fact in accelerators().values() if fact.vendor in {"nvidia", "amd"}]
    found = {}
    for n in range(TYPES):
        fact, factor = known[n % len(known)], 0.97 ** (n // len(known))
        name = f"{fact.name} x {factor:.3f}"
        found[name] = replace(fact, name=name, bandwidth_bytes_per_s=fact.bandwidth_bytes_per_s * factor)
    return found


def offers(facts: Mapping[str, Accelerator]) -> list[Offer]:
    """An offer of DEGREE accelerators of each kind."""
    return [
        Offer(
            provider="bench",
            region="",
            instance_type=name,
            accelerator=name,
            accelerators=DEGREE,
            cost_per_h=1.0,
            interconnect="nvlink",
        )
        for name in facts
    ]


def by_loop(model: Model, slo: Slo, card: Accelerator) -> Array:
    """The highest rate over all integer batch sizes (I, O) [1/s], in plain Python, one bucket after the other."""
    replica = PlainReplica(model, card, DEGREE, find_era("vllm"))
    return np.array(
        [
            [replica.max_request_rate(inputs, outputs, slo.limits) for outputs in BUCKETS.output_edges]
            for inputs in BUCKETS.input_edges
        ]
    )


def main() -> None:
    """Print times, the ratio to the loop, and the difference between the two results."""
    model, facts = find_model(MODEL), cards()
    rented = offers(facts)
    sampled = range(0, TYPES, EVERY)
    sampled_cards = list(facts.values())[::EVERY]
    for title, slo in SLOS.items():
        times_s, loop_s = [], []
        for run in range(RUNS):
            start_s = time.perf_counter()
            profile = estimate(model, rented, slo, BUCKETS, tensor_parallel=DEGREE, accelerators=facts)
            times_s.append(time.perf_counter() - start_s)
            if run < LOOP_RUNS:
                start_s = time.perf_counter()
                looped = np.stack([by_loop(model, slo, card) for card in sampled_cards])
                loop_s.append((time.perf_counter() - start_s) * TYPES / len(sampled))
        estimated = profile.max_request_rate[list(sampled)]
        both = looped > 0
        apart = np.median(estimated[both] / looped[both]) - 1
        median_s, baseline_s = statistics.median(times_s), statistics.median(loop_s)
        print(
            f"{title}: {TYPES} replica types x {BUCKETS.shape[0] * BUCKETS.shape[1]} buckets with intervals in "
            f"{median_s * 1e3:.1f} ms (median of {RUNS}; target {TARGET_S * 1e3:.0f} ms: "
            f"{'met' if median_s < TARGET_S else 'NOT MET'}); {baseline_s / median_s:,.0f} times faster than "
            f"the loop ({baseline_s:,.1f} s, without intervals); median excess over integer batches {apart:.2%}"
        )


if __name__ == "__main__":
    main()
