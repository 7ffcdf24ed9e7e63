"""The driver that starts and stops servers on this machine: for small machines, and for tests.

Each server has a number, a record of what it is, and a lock that it holds as long as it lives: after a controller was
killed at any instant, the next one finds what runs by the locks, and what was only about to run by their absence.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import shlex
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from melange.deploy.operate.drivers.driver import Order
from melange.deploy.operate.drivers.pretend_fleet import DRAINING, READY, STARTING
from melange.deploy.operate.fleet_steps import CANCEL, DRAIN, START
from melange.deploy.operate.observation import TypeSeen
from melange.errors import Caution, InputError, MelangeError
from melange.files import read_as, write_document, write_text
from melange.records import record

STOPPING = "stopping"
# The balancer looks at its list this often, and needs as long again to be rid of what it has just placed [s].
_LEAVE_S = 1.5
# From SIGTERM to SIGKILL [s]: a server that was drained has nothing left to finish.
_KILL_S = 10.0
_HEALTH_S = 2.0
# Last words of a server that has died, in its failure [characters].
_LAST_WORDS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalServer:
    """A server on this machine.

    Parameters
    ----------
    number
        Its own, never used again.
    replica_type
        Name of its type.
    port
        Where it listens.
    stage
        ``starting``, ``ready``, ``draining`` or ``stopping``.
    since_s
        When that stage began (Unix time) [s].
    """

    number: int
    replica_type: str
    port: int
    stage: str
    since_s: float

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"


class ProcessDriver:
    """Servers on this machine, and the list of them that a balancer follows.

    Parameters
    ----------
    commands
        How a server of each type is started, by replica type name; ``{port}`` is where it is to listen.
    folder
        Where records, locks and logs are.
    replicas_file
        The list for the balancer, ``NAME=URL`` a line.
    health_path
        Answers 200 once a server serves.
    outstanding
        Requests that the balancer has on a URL; None where that is not known.
    """

    def __init__(
        self,
        commands: Mapping[str, str],
        folder: Path,
        replicas_file: Path,
        health_path: str = "/health",
        outstanding: Callable[[str], float | None] | None = None,
    ) -> None:
        self.commands = {name: _words(name, text) for name, text in commands.items()}
        self.folder, self.replicas_file, self.health_path = folder, replicas_file, health_path
        self.outstanding = outstanding or (lambda _: None)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._children: list[subprocess.Popen[bytes]] = []
        self._failures: dict[str, list[str]] = {}

    # -- looking

    def look(self, now_s: float) -> Mapping[str, TypeSeen]:
        """The servers by type; those that died are failures while they start, and are gone afterwards."""
        self._children = [one for one in self._children if one.poll() is None]
        servers = [after for one in self.servers() if (after := self._looked_at(one, now_s)) is not None]
        self._list(servers)
        failures, self._failures = self._failures, {}
        names = dict.fromkeys((*(one.replica_type for one in servers), *failures))
        return {name: self._seen(name, servers, tuple(failures.get(name, ())), now_s) for name in names}

    def servers(self) -> list[LocalServer]:
        """What is on record, by number."""
        found = [read_as(path, "operate-server", _server_from) for path in self.folder.glob("server-*.json")]
        return sorted(found, key=lambda one: one.number)

    def _seen(self, name: str, servers: Sequence[LocalServer], failures: tuple[str, ...], now_s: float) -> TypeSeen:
        own = [one for one in servers if one.replica_type == name]
        draining = [one for one in own if one.stage == DRAINING]
        return TypeSeen(
            ready=sum(one.stage == READY for one in own),
            starting_s=tuple(now_s - one.since_s for one in own if one.stage == STARTING),
            draining_s=tuple(now_s - one.since_s for one in draining),
            drained=sum(self._is_drained(one, now_s) for one in draining),
            failures=failures,
        )

    def _looked_at(self, server: LocalServer, now_s: float) -> LocalServer | None:
        """A server as it is now; None where it is gone."""
        if not self._is_alive(server):
            if server.stage == STARTING and self._path(server, "pid").exists():
                words = self._path(server, "log").read_text(errors="replace").strip()[-_LAST_WORDS:]
                said = " ".join(words.split()) or "no output"
                self._failures.setdefault(server.replica_type, []).append(f"exited during startup: {said}")
            self._forget(server)
            return None
        if server.stage == STARTING and self._is_well(server):
            return self._record(replace(server, stage=READY, since_s=now_s))
        if server.stage == STOPPING and now_s - server.since_s > _KILL_S:
            self._signal(server, signal.SIGKILL)
        return server

    def _is_alive(self, server: LocalServer) -> bool:
        with self._path(server, "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def _is_well(self, server: LocalServer) -> bool:
        try:
            with urllib.request.urlopen(f"{server.url}{self.health_path}", timeout=_HEALTH_S) as answer:
                return bool(answer.status == 200)
        except (OSError, ValueError, http.client.HTTPException):
            return False

    def _is_drained(self, server: LocalServer, now_s: float) -> bool:
        return now_s - server.since_s >= _LEAVE_S and self.outstanding(server.url) == 0

    # -- acting

    def act(self, order: Order) -> Sequence[Caution]:
        """Start, drain and stop."""
        for step in order.steps:
            if step.verb == START:
                for _ in range(step.instances):
                    self._start(step.replica_type, order.at_s)
                continue
            stage, after = {CANCEL: (STARTING, STOPPING), DRAIN: (READY, DRAINING)}.get(step.verb, (DRAINING, STOPPING))
            able = [one for one in self.servers() if one.replica_type == step.replica_type and one.stage == stage]
            able.sort(key=lambda one: (not self._is_drained(one, order.at_s), one.since_s))
            for one in able[: step.instances]:
                self._record(replace(one, stage=after, since_s=order.at_s))
                if after == STOPPING:
                    self._signal(one, signal.SIGTERM)
        self._list(self.servers())
        return ()

    def _start(self, name: str, now_s: float) -> None:
        if name not in self.commands:
            self._failures.setdefault(name, []).append("it has no start command (--start)")
            return
        numbers = [one.number for one in self.servers()]
        used = [int(path.stem.rpartition("-")[2]) for path in self.folder.glob("server-*.log")]
        port = _free_port()
        number = max((*numbers, *used, 0)) + 1
        server = LocalServer(number=number, replica_type=name, port=port, stage=STARTING, since_s=now_s)
        self._record(server)
        words = [word.replace("{port}", str(port)) for word in self.commands[name]]
        # The shell becomes the server, so that it is known under its own number before it does anything.
        shell = ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self._path(server, "pid")), *words]
        with self._path(server, "lock").open("a") as lock, self._path(server, "log").open("ab") as log:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._children.append(
                subprocess.Popen(
                    shell,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(lock.fileno(),),
                    start_new_session=True,
                )
            )

    def _signal(self, server: LocalServer, number: signal.Signals) -> None:
        """Signal a server's group, if it lives: its lock says that the process id is still its own."""
        with contextlib.suppress(OSError, ValueError):
            if self._is_alive(server):
                os.killpg(int(self._path(server, "pid").read_text()), number)

    def _list(self, servers: Sequence[LocalServer]) -> None:
        """Write the balancer's list, where it has changed."""
        lines = [f"{one.replica_type}={one.url}" for one in servers if one.stage == READY]
        content = "".join(f"{line}\n" for line in sorted(lines))
        if not self.replicas_file.exists() or self.replicas_file.read_text(encoding="utf-8") != content:
            write_text(self.replicas_file, content)

    def _record(self, server: LocalServer) -> LocalServer:
        write_document(self._path(server, "json"), "operate-server", asdict(server))
        return server

    def _forget(self, server: LocalServer) -> None:
        """Remove all but the log."""
        for ending in ("json", "pid", "lock"):
            self._path(server, ending).unlink(missing_ok=True)

    def _path(self, server: LocalServer, ending: str) -> Path:
        return self.folder / f"server-{server.number}.{ending}"


def _server_from(content: Mapping[str, object]) -> LocalServer:
    return record(LocalServer, {name: value for name, value in content.items() if name != "melange"})


def _words(name: str, text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as fault:
        raise InputError(f"--start {name}: {fault}") from fault
    if not any("{port}" in word for word in words):
        hint = f'--start "{name}=server --port {{port}}"'
        raise InputError(f"--start {name}: the command must contain {{port}}", hint=hint)
    return words


def _free_port() -> int:
    """A port that nobody listens on."""
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])
    except OSError as fault:
        raise MelangeError(f"no free port: {fault}") from fault
