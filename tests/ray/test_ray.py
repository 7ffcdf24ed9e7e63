"""Simulations on a real Ray cluster of this machine give the very report that they give without."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
MELANGE, RAY = (Path(sys.executable).with_name(name) for name in ("melange", "ray"))
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64, "TERM": "dumb"}
START_LIMIT_S = 90.0
# Ray forks a server for each client beside threads that call gRPC, and now and then that one does not come up.
ATTEMPTS = 3


def validate(*options: str, timeout_s: float = 240.0) -> subprocess.CompletedProcess[str]:
    """``melange validate`` of the example, two runs of it, under every policy."""
    command = [
        MELANGE,
        "validate",
        ROOT / "examples" / "chat.yaml",
        "--quick",
        "--seeds",
        "2",
        "--requests",
        "2000",
        "--json",
        *options,
    ]
    return subprocess.run(command, env=os.environ | QUIET, capture_output=True, text=True, timeout=timeout_s)


@pytest.fixture(scope="module")
def here() -> dict[str, Any]:
    """The report of this process alone."""
    done = validate("--policy", "all")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """A head of Ray on the loopback, and the address of its server for clients."""
    ports = []
    for _ in range(3):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    command = [RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--include-dashboard=false"]
    command += ["--num-cpus=2", f"--port={ports[0]}", f"--ray-client-server-port={ports[1]}", "--disable-usage-stats"]
    # Without one Ray 2.60 tells its server for clients a port of 0, and that waits for an agent that is not there.
    command += [f"--runtime-env-agent-port={ports[2]}"]
    log = tmp_path / "ray.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=os.environ | QUIET, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", ports[1])) == 0:
                    break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield f"ray://127.0.0.1:{ports[1]}"
    finally:
        process.terminate()
        process.wait(60)


def test_a_local_ray_gives_the_same_report(here: dict[str, Any]) -> None:
    """Every figure, policies and all."""
    done = validate("--policy", "all", "--on", "local")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == here


def test_a_cluster_over_the_network_gives_the_same_report(here: dict[str, Any], cluster: str) -> None:
    """The same through Ray's own client."""
    for _ in range(ATTEMPTS):
        done = validate("--policy", "all", "--on", cluster)
        if "Starting Ray client server failed" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == here


def test_no_cluster_at_an_address_is_said() -> None:
    """An error of one line with what to do, and no report."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"ray://127.0.0.1:{probe.getsockname()[1]}"
        done = validate("--on", address)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"error: --on {address}: no Ray cluster at this address" in done.stderr
    assert "ray start --head" in done.stderr
