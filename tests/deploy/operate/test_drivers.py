"""Drivers on real processes, files and programs."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy_cases import two_types

from melange.deploy.operate.drivers.command_driver import CommandDriver
from melange.deploy.operate.drivers.driver import Order
from melange.deploy.operate.drivers.dry_run import DryRun
from melange.deploy.operate.drivers.files_driver import FilesDriver
from melange.deploy.operate.drivers.process_driver import ProcessDriver
from melange.deploy.operate.fleet_planner import FleetPlanner
from melange.deploy.operate.fleet_steps import CANCEL, DRAIN, START, STOP, Step
from melange.errors import InputError, MelangeError

# Answers 200 to everything, at once.
SERVER = """
import http.server, sys
class One(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), One).serve_forever()
"""
COMMAND = shlex.join([sys.executable, "-c", SERVER, "{port}"])


def step(verb: str, name: str = "L4", instances: int = 1) -> Step:
    """A step on a type."""
    return Step(verb=verb, replica_type=name, instances=instances)


def order(*steps: Step, at_s: float | None = None) -> Order:
    """An order of steps now."""
    return Order(at_s=time.time() if at_s is None else at_s, steps=steps, target={})


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[ProcessDriver]:
    """Servers of one type on this machine; all are ended."""
    driver = ProcessDriver({"L4": COMMAND, "bad": "/bin/false {port}"}, tmp_path / "servers", tmp_path / "replicas.txt")
    yield driver
    for path in (tmp_path / "servers").glob("*.pid"):
        with contextlib.suppress(OSError, ValueError):
            os.killpg(int(path.read_text()), signal.SIGKILL)
    for one in driver._children:
        one.wait(10)


def until(driver: ProcessDriver, **wanted: int) -> object:
    """Look until the type is so."""
    end_s = time.monotonic() + 20
    while True:
        seen = driver.look(time.time()).get("L4")
        if seen is not None and all(getattr(seen, name) == count for name, count in wanted.items()):
            return seen
        assert time.monotonic() < end_s, seen
        time.sleep(0.05)


def test_a_server_starts_drains_and_stops(processes: ProcessDriver, tmp_path: Path) -> None:
    """It is on the balancer's list while it is ready, off it before it is stopped, and gone afterwards."""
    processes.act(order(step(START, instances=2)))
    until(processes, ready=2, starting=0)
    assert len((tmp_path / "replicas.txt").read_text().splitlines()) == 2
    processes.act(order(step(DRAIN)))
    seen = until(processes, ready=1)
    assert len(seen.draining_s) == 1
    assert len((tmp_path / "replicas.txt").read_text().splitlines()) == 1
    processes.act(order(step(STOP)))
    until(processes, ready=1)
    end_s = time.monotonic() + 20
    while len(processes.servers()) > 1:
        assert time.monotonic() < end_s
        processes.look(time.time())
        time.sleep(0.05)


def test_a_new_controller_finds_what_the_old_one_started(processes: ProcessDriver, tmp_path: Path) -> None:
    """By the locks that servers hold; a record without a server is forgotten and is no failure."""
    processes.act(order(step(START)))
    until(processes, ready=1)
    again = ProcessDriver({"L4": COMMAND}, tmp_path / "servers", tmp_path / "replicas.txt")
    (record,) = again.servers()
    lost = json.loads((tmp_path / "servers" / "server-1.json").read_text()) | {"number": 7, "stage": "starting"}
    (tmp_path / "servers" / "server-7.json").write_text(json.dumps(lost))
    seen = again.look(time.time())["L4"]
    assert (seen.ready, seen.starting, seen.failures) == (1, 0, ())
    os.killpg(int((tmp_path / "servers" / f"server-{record.number}.pid").read_text()), signal.SIGKILL)
    end_s = time.monotonic() + 20
    while "L4" in again.look(time.time()):
        assert time.monotonic() < end_s
        time.sleep(0.05)
    assert (tmp_path / "replicas.txt").read_text() == ""


def test_a_server_that_ends_while_it_starts_is_a_failure(processes: ProcessDriver) -> None:
    """It is told once, and so is a type that nobody said how to start."""
    processes.act(order(step(START, "bad"), step(START, "none")))
    end_s = time.monotonic() + 20
    told: dict[str, tuple[str, ...]] = {}
    while "bad" not in told:
        assert time.monotonic() < end_s
        told |= {name: one.failures for name, one in processes.look(time.time()).items() if one.failures}
        time.sleep(0.05)
    assert "exited during startup" in told["bad"][0]
    assert "no start command" in told["none"][0]
    assert processes.look(time.time()) == {}


def test_a_start_can_be_given_up(processes: ProcessDriver) -> None:
    """A server that does not answer yet is ended."""
    processes.commands["L4"] = ["/bin/sleep", "600", "{port}"][:2]
    processes.act(order(step(START)))
    until(processes, starting=1)
    processes.act(order(step(CANCEL)))
    end_s = time.monotonic() + 20
    while processes.servers():
        assert time.monotonic() < end_s
        processes.look(time.time())
        time.sleep(0.05)


@pytest.mark.parametrize("command", ["server", 'server "{port}'])
def test_a_start_command_must_take_a_port(command: str, tmp_path: Path) -> None:
    """And must be words that a shell would take."""
    with pytest.raises(InputError, match="--start L4"):
        ProcessDriver({"L4": command}, tmp_path, tmp_path / "replicas.txt")


PROGRAM = """
import json, sys
question = json.load(sys.stdin)
print(question, file=open(sys.argv[1], "a"))
if question["do"] == "look":
    print(json.dumps({"fleet": {"L4": {"ready": 2, "starting_s": [3.5]}}}))
elif question["steps"][0]["verb"] == "start":
    print(json.dumps({"failures": {"L4": ["out of stock"]}}))
"""


def test_a_program_looks_and_acts(tmp_path: Path) -> None:
    """What it says of the fleet is seen, and what it could not do is told at the next look."""
    driver = CommandDriver([sys.executable, "-c", PROGRAM, str(tmp_path / "asked")], 20.0)
    assert driver.look(1.0)["L4"].starting_s == (3.5,)
    driver.act(order(step(START), at_s=2.0))
    assert driver.look(3.0)["L4"].failures == ("out of stock",)
    assert driver.look(4.0)["L4"].failures == ()
    driver.act(order(at_s=5.0))
    assert len((tmp_path / "asked").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("print('[]')", "must be a mapping"),
        ("print('{}')", "the key 'fleet'"),
        ('print(\'{"fleet": {"L4": {"redy": 1}}}\')', "redy"),
        ("print('{')", "JSON"),
        ("raise SystemExit('no credentials')", "exited with 1 on 'look': no credentials"),
        ("import time; time.sleep(9)", "no answer to 'look' within 1 s"),
    ],
)
def test_a_program_that_answers_wrongly_is_said(program: str, words: str) -> None:
    """With what it said and what was asked."""
    with pytest.raises(MelangeError, match=words.replace("(", r"\(")):
        CommandDriver([sys.executable, "-c", program], 1.0 if "sleep" in program else 20.0).look(1.0)


def test_manifests_are_written_into_a_checkout(tmp_path: Path) -> None:
    """A commit a change of the fleet; files of a type that is gone are removed, and nobody else's."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for words in (["init", "--quiet"], ["config", "user.name", "operate"], ["config", "user.email", "o@example.com"]):
        subprocess.run(["git", "-C", str(folder), *words], check=True)
    (folder / "README").write_text("ours")
    plan = two_types()
    both = {name: count for name, count in plan.instances_by_name.items() if count}
    driver = FilesDriver(DryRun(both, 60, 60, tmp_path / "paper.json"), folder, "kubernetes", {}, is_committed=True)
    driver.act(Order(at_s=1.0, steps=(), target=both, plan=plan))
    written = {path.name for path in (folder / "manifests").glob("*.yaml")}
    driver.act(Order(at_s=2.0, steps=(), target=both, plan=plan))
    fleets = {name: FleetPlanner(plan).plan_of({name: 4}, None) for name in both}
    name, alone = next((name, one) for name, one in fleets.items() if one is not None)
    driver.act(Order(at_s=3.0, steps=(), target={name: 4}, plan=alone))
    left = {path.name for path in (folder / "manifests").glob("*.yaml")}
    assert left < written
    assert (folder / "README").read_text() == "ours"
    log = subprocess.run(["git", "-C", str(folder), "log", "--format=%s"], capture_output=True, text=True, check=True)
    assert log.stdout.splitlines()[0] == f"Run 4 x {name}"
    assert len(log.stdout.splitlines()) == 2
    assert driver.look(4.0)


def test_committing_needs_a_checkout(tmp_path: Path) -> None:
    """A folder that is none is said at the beginning."""
    with pytest.raises(InputError, match="not in a git checkout"):
        FilesDriver(DryRun({}, 1, 1, tmp_path / "p.json"), tmp_path, "kubernetes", {}, is_committed=True)
