"""Plans for logs, certified on Poisson arrivals and on the log's own arrivals, tested by a replay of the log.

    python bench/logs.py DATA                        # the folder with the logs (see docs/proof.md)

Both plans are certified for 99 % of requests. The whole log is replayed, as in `melange validate --trace`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from melange.plan.plan import Plan
from melange.service.session import Session
from melange.validate.attainment import Interval
from melange.validate.observe import report
from melange.validate.replay import peak_of, whole_log
from melange.validate.simulate import planned_workload, simulate
from melange.workload.arrivals import Arrivals

LOGS = {
    "Azure conversation": "azure_2023_conv.parquet",
    "Azure code": "azure_2023_code.parquet",
    "Mooncake conversation": "mooncake_conversation.parquet",
    "Arena": "arena_vtc_sample.parquet",
}
# Limits for all logs except Mooncake, whose prompts have 12,000 tokens on average, and up to 126,000.
LIMITS = {
    "Llama-3.1-8B-Instruct": "ttft_ms: 1000, tpot_ms: 80",
    "Llama-3.1-70B-Instruct": "ttft_ms: 3000, tpot_ms: 100",
}
SLOWER = "ttft_ms: 10000, tpot_ms: 100"
SERVICE = """
model: {model}
workload: {{trace: {trace}}}
slo: {{{limits}}}
offers: {{gpus: [L4, A100-80GB, H100-80GB], providers: [lambda, runpod, gcp]}}
"""


@dataclass(frozen=True)
class Certified:
    """A plan, the share of the replayed log that meets the SLO, and the CPU time of the certification."""

    plan: Plan
    replayed: Interval
    cpu_s: float


def certified(session: Session, log: Arrivals, burstiness: float | None) -> Certified:
    """The plan certified on arrivals with this burstiness (None: the log's own), with the log replayed on it."""
    began = time.process_time()
    plan = session.certified(burstiness=burstiness)
    cpu_s = time.process_time() - began
    carried = log.within(plan.workload.buckets, planned_workload(plan).request_rate > 0)
    shown = report([simulate(plan, whole_log(carried))]).attainment
    assert shown is not None
    return Certified(plan=plan, replayed=shown, cpu_s=cpu_s)


def session_of(data: Path, model: str, name: str, folder: Path) -> Session:
    """The service whose workload is a log."""
    limits = SLOWER if name.startswith("Mooncake") else LIMITS[model]
    source = folder / "service.yaml"
    source.write_text(SERVICE.format(model=model, trace=data / LOGS[name], limits=limits), encoding="utf-8")
    return Session(source)


def log_of(session: Session) -> Arrivals:
    """The requests of a service's log."""
    log = session.observed()
    assert log is not None
    return log


def line(name: str, model: str, poisson: Certified, own: Certified, target: float) -> str:
    """One row of the table."""
    cells = [
        f"{one.plan.cost_per_h:>8.2f} {one.replayed.value:>8.2%}{' ' if one.replayed.value >= target else '*'}"
        f"{one.plan.attainment or 0:>8.2%} {one.cpu_s:>6.1f}"
        for one in (poisson, own)
    ]
    return f"{name:22} {model.split('-')[2]:>4} {cells[0]}   {cells[1]}"


def main() -> None:
    """Print the table, and the peaks of each log."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the logs")
    data = parser.parse_args().data
    if not data.is_dir():
        print(f"skipped: no folder {data}")
        return
    print(f"{'':27} {'certified on Poisson arrivals':>33}   {'certified on the log':>33}")
    head = f"{'USD/h':>8} {'replayed':>8} {'promised':>8} {'CPU s':>6}"
    print(f"{'log':22} {'':>4} {head}   {head}")
    peaks = []
    for name in LOGS:
        for model in LIMITS:
            with tempfile.TemporaryDirectory() as folder:
                session = session_of(data, model, name, Path(folder))
                log = log_of(session)
                poisson, own = certified(session, log, 1.0), certified(session, log, None)
            assert own.plan.certificate is not None
            print(line(name, model, poisson, own, own.plan.certificate.target), flush=True)
        peaks.append(f"{name}: {len(log):,} requests; {peak_of(log) or 'evenly spread'}")
    print("* below the certified target\n" + "\n".join(peaks))


if __name__ == "__main__":
    main()
