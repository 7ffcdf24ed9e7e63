"""Real gateways before real servers, for the tests and for bench/gateways.py."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from melange.deploy.render import render
from melange.plan.plan import Plan

ROOT = Path(__file__).resolve().parents[2]
SERVER = Path(__file__).with_name("replica_server.py")
START_LIMIT_S, STOP_LIMIT_S = 30.0, 10.0
PLACES = {
    "haproxy": ("/usr/sbin/haproxy", "/usr/local/sbin/haproxy"),
    "nginx": ("/usr/sbin/nginx", "/usr/local/sbin/nginx"),
    "envoy": (str(ROOT / ".venv-gateways/bin/envoy"),),
}
FILES = {"haproxy": "haproxy.cfg", "nginx": "nginx.conf", "envoy": "envoy.yaml"}
# Debian's package puts it there.
LUA_MODULE = Path("/usr/lib/nginx/modules/ngx_http_lua_module.so")


def why_not(target: str) -> str:
    """Why a gateway cannot be run here; empty where it can."""
    if binary(target) is None:
        return f"{target} is not installed (make test-gateways says how)"
    if target == "nginx" and not LUA_MODULE.exists():
        return "nginx has no Lua module here (Debian: libnginx-mod-http-lua)"
    return ""


def binary(target: str) -> str | None:
    """Path of a gateway's program."""
    return shutil.which(target) or next((place for place in PLACES[target] if Path(place).exists()), None)


def check(target: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What the gateway itself says of its configuration."""
    program, file = str(binary(target)), str(folder / FILES[target])
    command = {
        "haproxy": [program, "-c", "-f", file],
        "nginx": [program, "-t", "-c", file, "-g", f"pid {folder}/nginx.pid;"],
        "envoy": [program, "--mode", "validate", "-c", file],
    }[target]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """A replica that answers, in a process of its own.

    Parameters
    ----------
    name
        Who it says that it is.
    """

    name: str
    port: int = 0
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, at the port that it had before if it had one."""
        command = [sys.executable, str(SERVER), self.name, "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it, by SIGKILL as a machine that fails would."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(STOP_LIMIT_S)
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None


@dataclass
class Gateway:
    """A gateway that runs, and what is behind it.

    Parameters
    ----------
    target
        Which one.
    url
        Where it listens.
    servers
        Its replicas by type.
    folder
        Where its files are.
    process
        Its process.
    """

    target: str
    url: str
    servers: dict[str, list[Server]]
    folder: Path
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def serving(counts: dict[str, int]) -> Iterator[dict[str, list[Server]]]:
    """As many servers of each type as are counted."""
    servers = {kind: [Server(f"{kind}-{k}") for k in range(count)] for kind, count in counts.items()}
    try:
        for server in [one for some in servers.values() for one in some]:
            server.start()
        yield servers
    finally:
        for server in [one for some in servers.values() for one in some]:
            server.end(signal.SIGKILL)


@contextlib.contextmanager
def running(
    target: str, plan: Plan, servers: dict[str, list[Server]], folder: Path, *, threads: int = 2, **settings: Any
) -> Iterator[Gateway]:
    """A gateway before these servers, with the files that melange writes."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    replicas = {kind: [server.url for server in some] for kind, some in servers.items()}
    manifest = render(plan, target, replicas=replicas, listen=f"127.0.0.1:{port}", **settings)
    manifest.write(folder)
    program, file = str(binary(target)), str(folder / FILES[target])
    command = {
        "haproxy": [program, "-db", "-f", file],
        "nginx": [program, "-c", file, "-g", f"daemon off; pid {folder}/nginx.pid; error_log stderr warn;"],
        "envoy": [program, "-c", file, "--concurrency", str(threads), "--disable-hot-restart", "-l", "warning"],
    }[target]
    if target == "haproxy":  # what its page says to do to change weights live
        path = Path(file)
        line = "#stats socket /run/haproxy/admin.sock mode 660 level admin"
        path.write_text(path.read_text().replace(line, f"stats socket {folder}/admin.sock mode 600 level admin"))
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=folder)
    gateway = Gateway(target, f"http://127.0.0.1:{port}", servers, folder, process)
    try:
        _wait_for(gateway, log)
        yield gateway
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(gateway: Gateway, log: Path) -> None:
    """Until the gateway passes on what a replica answers."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and gateway.process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{gateway.url}/health", timeout=2):
            return
        time.sleep(0.05)
    raise RuntimeError(f"{gateway.target} did not start:\n{log.read_text(errors='replace')[-3000:]}")


def body_of(input_tokens: int, **fields: Any) -> bytes:
    """A body that counts as this many prompt tokens: 100 bytes, and 4 for each token."""
    empty = json.dumps({"prompt": "", **fields})
    return json.dumps({"prompt": "a" * (100 + 4 * input_tokens - len(empty)), **fields}).encode()


async def replicas_of(url: str, bodies: Sequence[bytes], clients: int = 8, *, is_reusing: bool = True) -> list[str]:
    """Which replica answered each body; the status in place of its name where the answer is none.

    Connections are used again, or (``is_reusing``) a new one is made for each.
    """
    answered = [""] * len(bodies)
    places = iter(range(len(bodies)))
    timeout = aiohttp.ClientTimeout(total=60)
    connector = aiohttp.TCPConnector(limit=0, force_close=not is_reusing)

    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:

        async def client() -> None:
            for k in places:
                async with session.post(f"{url}/v1/completions", data=io.BytesIO(bodies[k])) as response:
                    await response.read()
                    answered[k] = response.headers.get("X-Replica", str(response.status))

        await asyncio.gather(*(client() for _ in range(clients)))
    return answered


def split(answered: Sequence[str]) -> Counter[str]:
    """Answers by type: the replica's name without its number."""
    return Counter(name.rpartition("-")[0] or name for name in answered)


async def read_stream(url: str, body: bytes) -> list[float]:
    """Moments at which parts of a stream came, from when it was asked for [s]."""
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession() as session:
        start = loop.time()
        async with session.post(f"{url}/v1/completions", data=body) as response:
            assert response.status == 200
            return [loop.time() - start async for _ in response.content.iter_any()]
