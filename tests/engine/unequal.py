"""Two unequal engines as the user of melange has them: measured by the command, planned with, behind the proxy."""

from __future__ import annotations

import contextlib
import math
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from engine_servers import START_LIMIT_S, STOP_LIMIT_S, Server

from melange.errors import InfeasibleError
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.solve import solve
from melange.profile.join import join
from melange.profile.profile import Profile
from melange.slo import Slo
from melange.workload.workload import Buckets, Workload

MELANGE = Path(sys.executable).with_name("melange")
# The faster one costs three times as much: as much faster with short requests, less so than it is with long ones.
PRICES_PER_H = {"small": 3.0, "large": 1.0}
BUCKETS = Buckets(input_edges=(64, 512), output_edges=(16, 48))
SHARES = np.array([[0.45, 0.25], [0.3, 0.0]])
LISTENING = re.compile(r"listening on (http://127\.0\.0\.1:\d+)")
MEASURE_LIMIT_S, PLAN_LIMIT_S = 900.0, 60.0


def traffic(rate: float) -> Workload:
    """The mixed load, every size at its bucket's upper edge."""
    return Workload.at_upper_edges(BUCKETS, SHARES * rate)


def measure(server: Server, name: str, slo: Slo, folder: Path, buckets: int) -> Profile:
    """What ``melange measure`` says of a server, this many sizes measured, roughly."""
    traffic(10.0).save(folder / "workload.json")
    limits = ",".join(f"{metric}_ms={limit_s * 1e3:g}" for metric, limit_s in slo.limits.items())
    limits += f",statistic={slo.statistic}"
    command: list[str | Path] = [MELANGE, "measure", "--url", server.url, "--replica-type", name]
    command += ["--workload", "workload.json", "--slo", limits, "--cost-per-h", f"{PRICES_PER_H[name]:g}"]
    command += ["--buckets", f"{buckets}", "--requests", "20", "--precision", "0.25", "--out", f"{name}.json"]
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=MEASURE_LIMIT_S
    )
    print(f"\n{done.stderr}\n{done.stdout}")
    assert done.returncode == 0, done.stderr
    assert ("All sizes of the traffic" in " ".join(done.stdout.split())) == (buckets == np.count_nonzero(SHARES))
    return Profile.read(folder / f"{name}.json")


def plan_of_files(folder: Path, rate: float, names: list[str]) -> str:
    """What ``melange plan --json`` prints of measured profiles."""
    traffic(rate).save(folder / "planned.json")
    command: list[str | Path] = [MELANGE, "plan", "--quick", "--workload", "planned.json", "--json"]
    for name in names:
        command += ["--profile", f"{name}.json"]
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PLAN_LIMIT_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def planned(profiles: list[Profile], part: float) -> tuple[Plan, float]:
    """The plan of one replica of each type at that part of the highest rate that the two carry, and the rate [1/s]."""
    both = join(profiles, list(PRICES_PER_H))
    counts = {one.name: 1 for one in both.replica_types}
    options = Options(headroom=0.0, max_instances=counts, require=tuple(counts), gap=0.0)

    def plan_at(rate: float) -> Plan | None:
        try:
            return solve(traffic(rate), both, options)
        except InfeasibleError:
            return None

    low, high = 0.1, 1000.0
    while high > low * 1.01:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if plan_at(middle) else (low, middle)
    plan = plan_at(part * low)
    assert plan is not None
    return plan, part * low


@contextlib.contextmanager
def balancing(plan: Path, servers: dict[str, Server], policy: str) -> Iterator[str]:
    """The address of ``melange balance`` before those servers."""
    command: list[str | Path] = [MELANGE, "balance", plan, "--port", "0", "--policy", policy, "--replan-every", "0"]
    command += ["--max-fill", "1000"]  # nothing is turned away: every policy serves the same requests
    for name, server in servers.items():
        command += ["--replica", f"{name}={server.url}"]
    log = plan.with_name(f"{policy}.log")
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT) as process,
    ):
        try:
            yield _address(process, log)
        finally:
            process.terminate()
            process.wait(STOP_LIMIT_S)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        if found := LISTENING.search(log.read_text(errors="replace")):
            return found[1]
        time.sleep(0.1)
    raise RuntimeError(f"the balancer did not start:\n{log.read_text(errors='replace')}")
