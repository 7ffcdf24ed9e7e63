"""Servers and proxies under test, each in a separate process, with their CPU time and memory."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from melange.catalog.offer import Offer
from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.profile.profile import Profile, ReplicaType
from melange.slo import Slo
from melange.workload.workload import Buckets, Workload

BENCH = Path(__file__).resolve().parents[1]
MELANGE = str(Path(sys.executable).with_name("melange"))


def free_port() -> int:
    """A free port."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Server:
    """A process that listens on a port, and its children."""

    def __init__(self, command: list[str], port: int, **environment: str) -> None:
        self.command, self.port, self.environment = command, port, environment
        self.start()

    def start(self) -> None:
        """Start the process, and wait until it accepts connections."""
        self.process = subprocess.Popen(
            self.command,
            cwd=BENCH,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | self.environment,
        )
        end_s = time.monotonic() + 90
        while time.monotonic() < end_s:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise SystemExit(f"does not serve: {' '.join(self.command)}")

    @property
    def pids(self) -> list[int]:
        """The process and its children."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [self.process.pid, *map(int, children)]

    def cpu_s(self) -> float:
        """CPU time so far of its threads and its children's, by the scheduler's clock rather than by ticks [s]."""
        total_ns = 0
        for pid in self.pids:
            for task in Path(f"/proc/{pid}/task").iterdir():
                total_ns += int((task / "schedstat").read_text().split()[0])
        return total_ns / 1e9

    def memory_bytes(self, *, peak: bool = False) -> int:
        """Resident memory of its largest child, or of the process itself if it has no children [bytes]."""
        name, most = "VmHWM:" if peak else "VmRSS:", 0
        for pid in self.pids[1:] or self.pids:
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith(name):
                    most = max(most, int(line.split()[1]) * 1024)
        return most

    def files(self) -> int:
        """Open files of all its processes."""
        return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in self.pids)

    def end(self, number: int = signal.SIGTERM) -> None:
        """End the process."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def running(*servers: Server) -> Iterator[None]:
    """End the servers on exit, also after an error."""
    try:
        yield
    finally:
        for one in servers:
            one.end()


def upstream(*options: str, port: int = 0) -> Server:
    """A replica that needs very little CPU."""
    port = port or free_port()
    return Server([sys.executable, "-m", "balancing.upstream", str(port), *options], port)


def bare(target: Server) -> Server:
    """The minimal proxy on aiohttp."""
    port = free_port()
    return Server([sys.executable, "-m", "balancing.bare", f"http://127.0.0.1:{target.port}", str(port)], port)


def bare_httptools(target: Server) -> Server:
    """The minimal proxy on uvloop and httptools."""
    port = free_port()
    return Server([sys.executable, "-m", "balancing.bare_httptools", str(target.port), str(port)], port)


def melange(plan: Path, replicas: list[tuple[str, Server]], *options: str, source: Path | None = None) -> Server:
    """Melange's balancer; with ``source``, the version in that folder."""
    port = free_port()
    environment = {} if source is None else {"PYTHONPATH": str(source.absolute())}
    given = [f"--replica={name}=http://127.0.0.1:{one.port}" for name, one in replicas]
    return Server([MELANGE, "balance", str(plan), "--port", str(port), *given, *options], port, **environment)


def haproxy(target: Server, folder: Path) -> Server:
    """HAProxy with one thread, configured for streams."""
    port = free_port()
    path = folder / f"haproxy-{port}.cfg"
    path.write_text(
        f"""global
  nbthread 1
  maxconn 4000
  tune.bufsize 65536
defaults
  mode http
  option http-no-delay
  option http-buffer-request
  http-reuse always
  timeout client 60s
  timeout server 60s
  timeout connect 2s
frontend in
  bind 127.0.0.1:{port}
  default_backend out
backend out
  server one 127.0.0.1:{target.port}
"""
    )
    return Server(["haproxy", "-db", "-f", str(path)], port)


def litellm(target: Server, folder: Path, binary: Path) -> Server:
    """LiteLLM's proxy with one worker, without logs."""
    port = free_port()
    path = folder / "litellm.yaml"
    path.write_text(
        f"""model_list:
  - model_name: tiny
    litellm_params:
      model: text-completion-openai/tiny
      api_base: http://127.0.0.1:{target.port}/v1
      api_key: none
"""
    )
    return Server(
        [str(binary), "--config", str(path), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"],
        port,
        LITELLM_LOG="ERROR",
        LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY="true",  # on loopback only, during the benchmark
        LITELLM_LOCAL_MODEL_COST_MAP="True",
    )


def two_types(folder: Path) -> Path:
    """A plan of two types that share all sizes three to one, with enough capacity for any traffic."""
    types = tuple(
        ReplicaType(
            name=name,
            offer=Offer(provider="", region="", instance_type=name, accelerator=name, accelerators=1, cost_per_h=1.0),
        )
        for name in ("A", "B")
    )
    buckets = Buckets(input_edges=(100, 1000, 8000), output_edges=(25, 100, 1000))
    share = np.stack([np.full((3, 3), 0.75), np.full((3, 3), 0.25)])
    rates = np.full((2, 3, 3), 1e6)
    profile = Profile(
        replica_types=types,
        buckets=buckets,
        max_request_rate=rates,
        low=rates,
        high=rates,
        provenance=np.zeros(rates.shape, np.int8),
        reason=np.zeros(rates.shape, np.int32),
        slo=Slo(ttft_s=1.0, tpot_s=0.1),
    )
    plan = Plan(
        question=Question(workload=Workload.at_upper_edges(buckets, np.ones((3, 3))), profile=profile),
        instances=np.array([1, 1]),
        share=share,
        load=np.array([0.5, 0.5]),
        cost_per_h=2.0,
        bound_per_h=2.0,
        gap=0.0,
        single_type={},
    )
    return plan.save(folder / "two-types.json")


def seen(replica: Server) -> int:
    """Number of completions that a replica has begun."""
    with urllib.request.urlopen(f"http://127.0.0.1:{replica.port}/count") as answer:
        return int(answer.read())
