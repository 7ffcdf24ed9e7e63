"""What certainty costs: plans before and after certifying, on the paper's workloads, prices and limits.

    python bench/certify.py                          # 4 requests/s (about 2 minutes)
    python bench/certify.py --rate 32

Attainment after is that of requests that no certificate has seen. Seconds are CPU and wall-clock time of `certify`, the
medians of as many repeats as asked for; the simulator is compiled before.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from melange.catalog.bundled import find_model
from melange.errors import InfeasibleError
from melange.plan.plan import Plan
from melange.profile.estimate import estimate
from melange.profile.profile import Profile
from melange.slo import Slo
from melange.validate.attainment import attainment, counted, met
from melange.validate.certify.certify import certify
from melange.validate.simulate import draw_for, simulate
from melange.workload.datasets import dataset
from melange.workload.workload import Workload
from reproduction import setting

MIXES = {
    "arena": "arena",
    "arxiv-summarization": "arxiv-summarization",
    "80/20 mixed": {"arena": 0.8, "arxiv-summarization": 0.2},
}
LIMITS_MS = (120, 40)
ERAS = {"vllm-0.2": "Llama-2-7b, vLLM 0.2", "vllm-1": "Llama-3.1-8B, vLLM 1"}
TARGET, MOST_COST, MOST_S = 0.995, 0.10, 10.0
FRESH, FRESH_SEEDS = 1_000_000, 10  # seeds that no certificate draws from, and how many


@dataclass(frozen=True)
class Row:
    """One plan, certified."""

    mix: str
    era: str
    limit_ms: int
    plan: Plan
    fresh: float
    cpu_s: float
    wall_s: float

    @property
    def price(self) -> float:
        """What certainty costs, as a share."""
        assert self.plan.certificate is not None
        return self.plan.certificate.price(self.plan.cost_per_h)


def profile_of(era: str, workload: Workload, limit_ms: float) -> Profile:
    """The paper's model and engine, or today's, at the paper's prices."""
    slo = Slo(ntpot_s=limit_ms / 1e3, statistic="mean", attainment=TARGET)
    if era == setting.ERA:
        return estimate(find_model(setting.MODEL), setting.offers(), slo, workload, engine=setting.era())
    return estimate(find_model("meta-llama/Llama-3.1-8B"), setting.offers(), slo, workload)


def rows(rate: float, requests: int, repeats: int, eras: tuple[str, ...]) -> Iterator[Row]:
    """Every mix and limit, certified."""
    for era in eras:
        for mix, what in MIXES.items():
            for limit_ms in LIMITS_MS:
                workload = dataset(what, request_rate=rate)
                profile = profile_of(era, workload, limit_ms)
                cpu_s, wall_s = [], []
                for _ in range(repeats):
                    began = time.process_time(), time.perf_counter()
                    plan = certify(workload, profile)
                    cpu_s.append(time.process_time() - began[0])
                    wall_s.append(time.perf_counter() - began[1])
                fresh = attainment_of(plan, requests)
                yield Row(mix, era, limit_ms, plan, fresh, statistics.median(cpu_s), statistics.median(wall_s))


def attainment_of(plan: Plan, requests: int) -> float:
    """Share of requests that meet the SLO, among such that no certificate has seen."""
    samples = []
    for seed in range(FRESH, FRESH + FRESH_SEEDS):
        outcome = simulate(plan, draw_for(plan, requests, seed=seed), seed=seed).outcome
        assert plan.slo is not None
        samples.append(met(outcome, plan.slo)[counted(outcome)])
    return attainment(samples).value


def hopeless() -> tuple[str, float]:
    """What certifying says of a limit that prefill alone exceeds, and how long it takes to say so [s]."""
    workload = dataset("arxiv-summarization", request_rate=4.0)
    loose = estimate(
        find_model("meta-llama/Llama-3.1-8B"), setting.offers(), Slo(tpot_s=0.12, statistic="mean"), workload
    )
    began = time.process_time()
    try:
        certify(workload, replace(loose, slo=Slo(ttft_s=0.001, tpot_s=0.12, statistic="mean", attainment=TARGET)))
    except InfeasibleError as error:
        return f"{error}: {error.reasons[0]}", time.process_time() - began
    raise AssertionError("a limit below the time of a prompt was certified")


def main() -> None:
    """Print the table and the bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=4.0, help="requests per second")
    parser.add_argument("--requests", type=int, default=20_000, help="fresh requests of one run")
    parser.add_argument("--repeats", type=int, default=3, help="certificates whose median time is taken")
    parser.add_argument("--eras", nargs="+", default=list(ERAS), help="vllm-0.2, vllm-1")
    given = parser.parse_args()
    simulate(plan := certify(*_smallest()), draw_for(plan, 100))  # compiled
    found = []
    print(f"{'mix':20} {'engine':9} {'limit':>6} {'before':>7} {'after':>7} {'':>7} {'met before':>10} {'after':>8} "
          f"{'low':>8} {'fresh':>8} {'plans':>5} {'CPU s':>6} {'wall s':>6}  fleet (headroom)")  # fmt: skip
    for row in rows(given.rate, given.requests, given.repeats, tuple(given.eras)):
        found.append(row)
        print(line(row), flush=True)
    print(f"\nworst fresh attainment {min(row.fresh for row in found):.2%} (bar {TARGET:.1%}), "
          f"longest {max(row.cpu_s for row in found):.1f} s of CPU (bar {MOST_S:g} s)")  # fmt: skip
    costly = [f"{row.mix}, {row.era}, {row.limit_ms} ms: {row.price:+.1%}" for row in found if row.price > MOST_COST]
    print(f"more than {MOST_COST:.0%} over the uncertified plan: {'; '.join(costly) or 'none'}")
    words, cpu_s = hopeless()
    print(f"TTFT limit of 1 ms, below what prompts take: {cpu_s:.1f} s of CPU until: {words}")


def line(row: Row) -> str:
    """One row of the table."""
    plan, proof = row.plan, row.plan.certificate
    assert proof is not None
    counts = {one.name: plan.replicas[one.name] for one in plan.replica_types if plan.replicas[one.name]}
    fleet = ", ".join(f"{n} x {short(name)} ({proof.headroom[name]:.0%})" for name, n in counts.items())
    return (
        f"{row.mix:20} {row.era:9} {row.limit_ms:>4}ms {proof.cost_before_per_h:>7.2f} {plan.cost_per_h:>7.2f} "
        f"{row.price:>+7.1%} {proof.attainment_before:>10.2%} {proof.attainment:>8.2%} {proof.low:>8.2%} "
        f"{row.fresh:>8.2%} {proof.plans:>5} {row.cpu_s:>6.1f} {row.wall_s:>6.1f}  {fleet}"
    )


def short(name: str) -> str:
    """The accelerator's name alone."""
    return name.split()[0].removeprefix("paper/")


def _smallest() -> tuple[Workload, Profile]:
    workload = dataset("arena", request_rate=1.0)
    return workload, profile_of("vllm-1", workload, 120)


if __name__ == "__main__":
    main()
