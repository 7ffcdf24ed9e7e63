"""A service of real processes under the controller, and clients that ask it more and more, then less and less."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

MELANGE = Path(sys.executable).with_name("melange")
STOP_LIMIT_S = 40.0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Service:
    """A controller, its servers and a balancer, each a process.

    Parameters
    ----------
    folder
        Of the controller's state.
    plan
        The file to begin with.
    start
        How servers are started, by replica type.
    flags
        More of the controller's.
    """

    folder: Path
    plan: Path
    start: Mapping[str, str]
    flags: Sequence[str]
    port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start_controller(self) -> None:
        """Start the controller, or start it again."""
        given = [word for name, command in self.start.items() for word in ("--start", f"{name}={command}")]
        url = f"http://127.0.0.1:{self.port}"
        self._start("operate", str(self.plan), "--driver", "process", "--balancer", url, "--state", str(self.folder),
                    *given, *self.flags)  # fmt: skip

    def start_balancer(self, *flags: str, limit_s: float = 200.0) -> None:
        """Start the balancer once there is something to serve by."""
        replicas = self.folder / "replicas.txt"
        wait_until(lambda: replicas.exists() and replicas.read_text() and (self.folder / "plan.json").exists(), limit_s)
        self._start("balance", str(self.folder / "plan.json"), "--replicas", str(replicas), "--port", str(self.port),
                    "--replan-every", "0", *flags)  # fmt: skip
        wait_until(lambda: self._is_up())

    def _start(self, command: str, *words: str) -> None:
        with (self.folder.parent / f"{command}.log").open("ab") as log:
            self.processes[command] = subprocess.Popen([MELANGE, command, *words], stdout=log, stderr=subprocess.STDOUT)

    def _is_up(self) -> bool:
        with contextlib.suppress(OSError):
            return ask(self.port, "GET", "/health")[0] == 200
        return False

    def kill_controller(self) -> None:
        """End it as a machine that fails would, and start another."""
        self.processes["operate"].kill()
        self.processes["operate"].wait()
        self.start_controller()

    def kill_worker(self) -> None:
        """End the balancer's process that serves; its supervisor starts another."""
        number = self.processes["balance"].pid
        children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)

    def kill_replica(self, choose: random.Random) -> None:
        """End a server that serves."""
        ready = [one for one in self.servers() if one["stage"] == "ready"]
        number = choose.choice(ready)["number"]
        os.killpg(int((self.folder / "servers" / f"server-{number}.pid").read_text()), signal.SIGKILL)

    def servers(self) -> list[dict[str, object]]:
        """The records of the servers."""
        found = []
        for path in (self.folder / "servers").glob("server-*.json"):
            with contextlib.suppress(OSError, ValueError):
                found.append(json.loads(path.read_text()))
        return found

    def ready(self) -> int:
        """Servers that serve."""
        return sum(one["stage"] == "ready" for one in self.servers())

    def end(self) -> None:
        """End everything."""
        for name in ("operate", "balance"):
            if name in self.processes:
                self.processes[name].terminate()
                try:
                    self.processes[name].wait(STOP_LIMIT_S)
                except subprocess.TimeoutExpired:
                    self.processes[name].kill()
                    self.processes[name].wait()
        for path in (self.folder / "servers").glob("server-*.pid"):
            with contextlib.suppress(OSError, ValueError):
                os.killpg(int(path.read_text()), signal.SIGKILL)


@contextlib.contextmanager
def running(service: Service, *balancer_flags: str, limit_s: float = 200.0) -> Iterator[Service]:
    """A service, ended at the end; its first server may take so long."""
    try:
        service.start_controller()
        service.start_balancer(*balancer_flags, limit_s=limit_s)
        yield service
    finally:
        service.end()


def wait_until(condition: Callable[[], object], limit_s: float = 60.0) -> None:
    """Wait until something is so."""
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, "it has not come so"
        time.sleep(0.05)


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """A request on a connection of its own: its status and its whole answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    with contextlib.closing(connection):
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()


@dataclass
class Asked:
    """What became of requests.

    Parameters
    ----------
    statuses
        Of answers that came whole.
    retried
        Requests that were sent again, for no byte of an answer had come before their connection broke.
    cut
        Answers that broke off.
    """

    statuses: list[int] = field(default_factory=list)
    retried: int = 0
    cut: int = 0

    def send(self, port: int, body: bytes) -> None:
        """One request, sent again as clients of the field do where no byte has come."""
        for _ in range(20):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            with contextlib.closing(connection):
                try:
                    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
                    answer = connection.getresponse()
                except OSError:
                    self.retried += 1
                    time.sleep(0.1)
                    continue
                try:
                    answer.read()
                except (OSError, http.client.HTTPException):
                    self.cut += 1
                    return
                self.statuses.append(answer.status)
                return
        self.statuses.append(0)


class Senders:
    """Requests that keep coming at a rate, each by a thread of its own.

    Parameters
    ----------
    port
        Of the balancer.
    bodies
        What is asked, in turn.
    asked
        What becomes of them.
    """

    def __init__(self, port: int, bodies: Sequence[bytes], asked: Asked) -> None:
        self.port, self.bodies, self.asked, self.rate = port, bodies, asked, 1.0
        self._stop, self._threads = threading.Event(), list[threading.Thread]()
        self._sender = threading.Thread(target=self._send)

    def _send(self) -> None:
        for body in itertools.cycle(self.bodies):
            if self._stop.wait(1 / self.rate):
                return
            self._threads.append(threading.Thread(target=self.asked.send, args=(self.port, body)))
            self._threads[-1].start()

    def __enter__(self) -> Self:
        self._sender.start()
        return self

    def __exit__(self, *_: object) -> None:
        """No more; those that wait come to their end."""
        self._stop.set()
        self._sender.join()
        for one in self._threads:
            one.join()
