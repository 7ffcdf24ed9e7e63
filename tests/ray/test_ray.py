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

import ray
from melange.errors import InputError
from melange.processes import each_of, on_cluster

ROOT = Path(__file__).resolve().parents[2]
MELANGE, RAY = (Path(sys.executable).with_name(name) for name in ("melange", "ray"))
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64, "TERM": "dumb"}
START_LIMIT_S = 90.0


def validate(*options: str) -> subprocess.CompletedProcess[str]:
    """``melange validate`` of the example, two runs of it, under every policy."""
    return melange("validate", "chat.yaml", "--quick", "--seeds", "2", "--requests", "2000", "--json", *options)


def melange(verb: str, example: str, *options: str, timeout_s: float = 600.0) -> subprocess.CompletedProcess[str]:
    """A command of an example."""
    command = [MELANGE, verb, ROOT / "examples" / example, *options]
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
    done = validate("--policy", "all", "--on", cluster)
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


# A plan that is certified within seconds, curves of it, and the hours of a week under three commitments.
SEARCHES = {
    "plan": (
        "chat.yaml",
        "--set",
        "workload.rate=2",
        "--set",
        "slo.attainment=0.9",
        "--set",
        "offers.gpus=[L4, A100-80GB]",
    ),
    "profile": ("chat.yaml", "--set", "slo={tpot_ms: 80, statistic: p90}", "--set", "offers.gpus=[L4]"),
    "schedule": ("week.yaml", "--quick"),
}


@pytest.mark.parametrize("verb", SEARCHES)
def test_a_search_has_the_same_answer(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by two workers or in this process; nothing but the time that it took may differ."""
    found = []
    for options in ((), ("--on", "local")):
        monkeypatch.setenv("MELANGE_CACHE", str(tmp_path / str(len(found))))  # nothing is known from before
        done = melange(verb, *SEARCHES[verb], "--json", *options)
        assert done.returncode == 0, done.stderr
        found.append(without_times(json.loads(done.stdout)))
    assert found[0] == found[1]


def without_times(content: Any) -> Any:
    """A document without how long it took."""
    if isinstance(content, dict):
        return {key: without_times(value) for key, value in content.items() if key != "solve_s"}
    return [without_times(one) for one in content] if isinstance(content, list) else content


LOST_RACE = (
    "Initialization failure from server:\nTraceback:\n\npsutil.ZombieProcess: PID still exists but it's a zombie"
)


@pytest.mark.parametrize("failures", [1, 4])
def test_a_ray_that_fails_to_start_is_tried_again(failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to four times; then an error of one line with what Ray said last."""
    left = [Exception(LOST_RACE)] * failures
    start = ray.init

    def init(**options: Any) -> Any:
        if left:
            raise left.pop()
        return start(**options)

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setattr(ray, "init", init)
    if failures < 4:
        with on_cluster("local"):
            assert list(each_of(abs, [-1, 2], 1)) == [1, 2]
        return
    with pytest.raises(InputError) as error, on_cluster("local"):
        pass
    assert error.value.args[0].startswith("--on local: Ray failed to start 4 times: psutil.ZombieProcess: PID still")


@pytest.fixture(scope="module")
def two_workers() -> Iterator[None]:
    """A Ray of two workers, started by this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        with on_cluster("local"):
            yield


@pytest.mark.usefixtures("two_workers")
def test_a_job_whose_worker_dies_is_run_again(tmp_path: Path) -> None:
    """Each job kills its worker the first time."""

    def killed_once(place: int) -> int:
        mark = tmp_path / str(place)
        if not mark.exists():
            mark.touch()
            os._exit(1)
        return 2 * place

    assert list(each_of(killed_once, range(4), 1)) == [0, 2, 4, 6]


@pytest.mark.usefixtures("two_workers")
def test_a_job_that_kills_every_worker_is_told() -> None:
    """Not retried forever, and an error of one line."""

    def killed(place: int) -> int:
        os._exit(1)

    with pytest.raises(InputError, match="--on local: a job failed 4 times with its worker") as error:
        list(each_of(killed, [1], 1))
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("two_workers")
def test_an_error_of_a_job_is_raised_as_it_is() -> None:
    """With its own kind and words."""

    def refused(place: int) -> int:
        raise InputError(f"job {place} is refused", hint="ask for another")

    with pytest.raises(InputError, match=r"^job 1 is refused") as error:
        list(each_of(refused, [1, 2], 1))
    assert error.value.hint == "ask for another"


@pytest.mark.usefixtures("two_workers")
def test_workers_start_no_processes_of_their_own() -> None:
    """A job that asks for many processes gets its own."""

    def processes(place: int) -> list[int]:
        return list(each_of(own_process, list(range(4)), 1, processes=4))

    def own_process(place: int) -> int:
        return os.getpid()

    assert [len(set(found)) for found in each_of(processes, [1, 2], 1)] == [1, 1]
