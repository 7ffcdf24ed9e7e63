"""A small plan with known shares, servers that replay it, and a client, shared by the tests of the balancer."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from melange.catalog.offer import Offer
from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.profile.profile import Profile, ReplicaType
from melange.slo import Slo
from melange.workload.workload import Buckets, Workload

QUEUE_SERVER = Path(__file__).parents[2] / "measure" / "queue_server.py"
BUCKETS = Buckets(input_edges=(100, 1000), output_edges=(50, 400))


def small_plan(share_of_first: float = 0.25, rate: float = 100.0, **details: Any) -> Plan:
    """Two types, L4 and A100: a share of every small prompt goes to the first, large ones to the second only."""
    names, prices = ("cloud/east/l4 (L4)", "cloud/east/a100 (A100)"), (0.8, 4.0)
    types = tuple(
        ReplicaType(
            name=name,
            offer=Offer(
                provider="cloud", region="east", instance_type=name.split("/")[-1], accelerator=accelerator,
                accelerators=1, cost_per_h=price,
            ),
        )
        for name, accelerator, price in zip(names, ("L4", "A100-80GB"), prices, strict=True)
    )  # fmt: skip
    share = np.empty((2, 2, 2))
    share[0], share[1] = [[share_of_first] * 2, [0.0, 0.0]], [[1 - share_of_first] * 2, [1.0, 1.0]]
    rates = np.array([[[rate, rate / 4], [rate / 8, 0.0]], [[4 * rate, rate], [rate / 2, rate / 4]]])
    profile = Profile(
        replica_types=types,
        buckets=BUCKETS,
        max_request_rate=rates,
        low=rates,
        high=rates,
        provenance=np.zeros(rates.shape),
        reason=np.zeros(rates.shape),
        slo=Slo(ttft_s=5.0, tpot_s=1.0),
        model="queue",
    )
    workload = Workload.at_upper_edges(BUCKETS, [[rate / 2, rate / 8], [rate / 16, rate / 32]])
    given = {
        "question": Question(workload=workload, profile=profile),
        "instances": np.array([2, 1]),
        "share": share,
        "load": np.array([0.5, 0.5]),
        "cost_per_h": 5.6,
        "bound_per_h": 5.6,
        "gap": 0.0,
        "single_type": {},
    }
    return Plan(**(given | details))


@dataclass
class Answer:
    """What a server said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)


def ask(
    port: int,
    path: str,
    body: bytes | dict[str, Any] | None = None,
    *,
    method: str = "",
    tls: Any = None,
    **headers: str,
) -> Answer:
    """One request on a connection of its own."""
    connection = (
        http.client.HTTPSConnection("localhost", port, timeout=30, context=tls)
        if tls
        else http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    )
    with contextlib.closing(connection):
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method or ("GET" if data is None else "POST"), path, data, given)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


def complete(port: int, words: int = 10, **fields: Any) -> Answer:
    """A completion of a prompt of this many tokens."""
    return ask(port, "/v1/completions", {"model": "tiny", "prompt": "abc " * words, "max_tokens": 8} | fields)


def eventually(condition: Callable[[], Any], limit_s: float = 20.0) -> None:
    """Wait until something is so."""
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, "it has not come so"
        time.sleep(0.02)


def send_raw(port: int, data: bytes, *, patience_s: float = 10.0) -> bytes:
    """Send bytes and read until the server closes or has answered; one that says nothing is told that no more comes."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), patience_s) as client, contextlib.suppress(ConnectionError):
        client.sendall(data)
        while True:
            try:
                piece = client.recv(65536)
            except TimeoutError:
                client.shutdown(socket.SHUT_WR)
                client.settimeout(10.0)
                continue
            received += piece
            if not piece or _is_whole(received):
                break
    return received


def _is_whole(received: bytes) -> bool:
    head, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return bool(length) and len(body) >= int(length[1])


class Process:
    """A server in a process of its own; what it prints is kept."""

    def __init__(self, command: list[str], **environment: str) -> None:
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | environment
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    def await_line(self, part: str, count: int = 1) -> str:
        """The first line with this in it, or a later one."""
        eventually(lambda: self.process.poll() is not None or sum(part in line for line in tuple(self.lines)) >= count)
        found = [line for line in tuple(self.lines) if part in line]
        assert len(found) >= count, self.lines
        return found[count - 1]

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(timeout=30)
        self._reader.join(timeout=30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class Replica(Process):
    """A replica with faults (replica.py)."""

    def __init__(self, fault: str = "", port: int = 0) -> None:
        script = Path(__file__).parent / "replica.py"
        super().__init__([sys.executable, str(script), "--fault", fault, "--port", str(port)])
        self.port = int(self.await_line(""))
        self.url = f"http://127.0.0.1:{self.port}"

    def be(self, fault: str) -> None:
        """Misbehave in this way from now on, or not at all; whatever waits goes on."""
        assert ask(self.port, "/fault", fault.encode()).status == 200

    @property
    def seen(self) -> dict[str, Any]:
        """How many requests it has seen, how many of their clients went, and the last of them."""
        return ask(self.port, "/seen").json


class Balancer(Process):
    """melange balance, ready to take requests."""

    def __init__(self, plan: Path, *options: str, tls: Any = None, **environment: str) -> None:
        command = [str(Path(sys.executable).parent / "melange"), "balance", str(plan), "--port", "0", *options]
        super().__init__(command, **environment)
        self.port, self.tls = int(self.await_line("listening on").rpartition(":")[2]), tls
        eventually(self.is_open)

    def is_open(self) -> bool:
        """Whether it takes connections."""
        with contextlib.suppress(OSError):
            return ask(self.port, "/health", tls=self.tls).status in {200, 503}
        return False

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over all series that have these labels."""
        total, pairs = 0.0, [f'{key}="{text}' for key, text in labels.items()]
        for line in ask(self.port, "/metrics", tls=self.tls).body.decode().splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == f"melange_{name}" and all(pair in series for pair in pairs):
                total += float(value)
        return total
