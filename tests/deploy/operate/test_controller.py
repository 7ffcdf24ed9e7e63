"""The controller at work: what it writes down, who may act, and what is left when it is killed at any instant."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from deploy_cases import plan_of, replica_type
from operate_cases import FailingFleet, life_of, service
from typer.testing import CliRunner

from melange.cli.app import app
from melange.deploy.operate.control_loop import Controller
from melange.deploy.operate.controller_state import ControllerState
from melange.deploy.operate.decide import Brief
from melange.deploy.operate.decision_log import lines_of
from melange.deploy.operate.drivers.driver import Order
from melange.deploy.operate.drivers.dry_run import DryRun
from melange.deploy.operate.drivers.files_driver import FilesDriver
from melange.deploy.operate.fleet_planner import FleetPlanner
from melange.deploy.operate.lease import FileLease
from melange.deploy.operate.observation import TypeSeen
from melange.deploy.operate.operate_settings import OperateSettings
from melange.errors import Caution, InputError, MelangeError
from melange.plan.plan import Plan
from melange.workload.workload import Array


class PaperDriver:
    """The failing fleet as a driver."""

    def __init__(self, fleet: FailingFleet) -> None:
        self.fleet, self.is_down = fleet, False

    def look(self, now_s: float) -> dict[str, TypeSeen]:
        """What there is."""
        if self.is_down:
            raise MelangeError("the cloud does not answer")
        return self.fleet.look(now_s)

    def act(self, order: Order) -> tuple[Caution, ...]:
        """Take the steps."""
        self.fleet.take(order.steps, order.at_s)
        return ()


class Given:
    """Traffic that a test says."""

    def __init__(self, rate: Array) -> None:
        self.rate: Array | None = rate

    def read(self, now_s: float, window_s: float) -> Array | None:
        """As said."""
        return self.rate


def controller_in(folder: Path, plan: Plan, fleet: FailingFleet, clock: list[float]) -> Controller:
    """A controller on a fleet on paper, under a clock of the test's."""
    settings = OperateSettings(interval_s=60.0, window_s=300.0, start_up_s=120.0)
    first = {name: count for name, count in plan.instances_by_name.items() if count}
    brief = Brief(planner=FleetPlanner(plan), settings=settings, first=first)
    traffic = Given(np.asarray(plan.workload.request_rate))
    lease = FileLease(folder / "lease.json", settings.lease_s)
    folder.mkdir(exist_ok=True)
    return Controller(brief, plan, PaperDriver(fleet), traffic, lease, folder, clock=lambda: clock[0])


def test_a_log_is_replayed_to_the_same_decisions(tmp_path: Path) -> None:
    """Over a ramp, a lost type and a new controller, which goes on from the state; a changed log differs."""
    plan, fleet, clock = service(3), FailingFleet(), [1e9]
    file = plan.save(tmp_path / "plan.json")
    for part in range(2):
        controller = controller_in(tmp_path / "state", Plan.read(file), fleet, clock)
        for look in range(25):
            controller.traffic.rate = plan.workload.request_rate * (1 + look / 8)
            if look == 12 and not part:
                fleet.lose(max(controller.state.target, key=controller.state.target.get), clock[0] + 4_000)
            controller.look()
            clock[0] += 60.0
        controller.lease.release()
    log = tmp_path / "state" / "log.jsonl"
    with log.open("a") as stream:
        stream.write('{"kind": "look", "at_s"')  # cut off by a crash
    found = CliRunner().invoke(app, ["operate", str(file), "--replay", str(log)])
    assert found.exit_code == 0, found.output
    assert "50 decisions, 0 differ" in found.output
    assert "scale up" in found.output
    assert "replace" in found.output
    lines = [json.loads(line) for line in log.read_text().splitlines()[:-1]]
    place = next(k for k, one in enumerate(lines) if one.get("steps"))
    lines[place]["steps"][0]["instances"] += 1
    log.write_text("".join(json.dumps(one) + "\n" for one in lines))
    assert CliRunner().invoke(app, ["operate", str(file), "--replay", str(log)]).exit_code == 1


def test_one_replayed_decision_is_counted_as_one(tmp_path: Path) -> None:
    """The same, and changed."""
    plan, clock = service(3), [1e9]
    file = plan.save(tmp_path / "plan.json")
    controller_in(tmp_path / "state", plan, FailingFleet(), clock).look()
    log = tmp_path / "state" / "log.jsonl"
    found = CliRunner().invoke(app, ["operate", str(file), "--replay", str(log)])
    assert found.output.splitlines()[-1] == "1 decision, 0 differ"
    log.write_text(re.sub(r'"target": {[^}]+}, "steps"', '"target": {}, "steps"', log.read_text()))
    found = CliRunner().invoke(app, ["operate", str(file), "--replay", str(log)])
    assert found.output.splitlines()[-1] == "1 decision, 1 differs"


def test_a_log_of_another_plan_is_refused(tmp_path: Path) -> None:
    """And so is a file that is no log."""
    controller_in(tmp_path / "state", service(3), FailingFleet(), [1e9]).look()
    other = service(4).save(tmp_path / "other.json")
    log = tmp_path / "state" / "log.jsonl"
    outcome = CliRunner().invoke(app, ["operate", str(other), "--replay", str(log)])
    assert isinstance(outcome.exception, InputError)
    assert "is for the plan" in str(outcome.exception)
    outcome = CliRunner().invoke(app, ["operate", str(other), "--replay", str(other)])
    assert "not a log" in str(outcome.exception)


def test_what_cannot_be_looked_at_changes_nothing(tmp_path: Path) -> None:
    """It is noted, and the next look goes on."""
    plan, clock = service(5), [1e9]
    controller = controller_in(tmp_path / "state", plan, FailingFleet(), clock)
    stop = threading.Event()
    controller.driver.is_down = True
    controller.brief = Brief(
        planner=controller.brief.planner, settings=OperateSettings(interval_s=0.01), first=controller.brief.first
    )
    thread = threading.Thread(target=controller.run, args=(stop,))
    thread.start()
    log = tmp_path / "state" / "log.jsonl"
    end_s = time.monotonic() + 20
    while not (log.exists() and "does not answer" in log.read_text()):
        assert time.monotonic() < end_s
        time.sleep(0.01)
    stop.set()
    thread.join()
    assert {content["kind"] for _, content in lines_of(log)} <= {"begin", "note"}
    assert not (tmp_path / "state" / "lease.json").exists()


def test_two_controllers_never_act_at_once(tmp_path: Path) -> None:
    """The second waits until the first has not been heard of for the length of the lease."""
    plan, clock = service(6), [1e9]
    first = controller_in(tmp_path / "state", plan, FailingFleet(), clock)
    second = controller_in(tmp_path / "state", plan, FailingFleet(), clock)
    assert first.look() is not None
    assert second.look() is None
    clock[0] += 121.0
    assert second.look() is not None
    assert first.look() is None  # it has been slow, and finds out before it acts
    clock[0] += 121.0
    assert first.look() is not None


def test_the_lease_of_a_process_that_has_ended_is_free_at_once(tmp_path: Path) -> None:
    """On the same machine nobody waits for the dead."""
    path = tmp_path / "lease.json"
    program = f"""
from dataclasses import replace
from pathlib import Path
from melange.deploy.operate.lease import FileLease
assert FileLease(Path({str(path)!r}), 1e6).hold(1.0) == ""
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert FileLease(path, 60.0).hold(2.0) == ""
    other = FileLease(path, 60.0)
    assert other.hold(3.0)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"holder": "elsewhere 1 abc"}))
    assert other.hold(4.0) == "elsewhere 1 abc"
    assert other.hold(62.0) == ""


LOOPING = """
import sys, time
from dataclasses import replace
from pathlib import Path
from melange.deploy.operate.controller_state import ControllerState
state = ControllerState.read(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    state = type(state)(target={"t": state.decisions + 1}, decisions=state.decisions + 1)
    state.save(Path(sys.argv[1]))
"""


def test_the_state_survives_a_kill_at_any_instant(tmp_path: Path) -> None:
    """Killed in the midst of writing, the file holds a whole state, and a later one each time."""
    path, choose, before = tmp_path / "state.json", random.Random(5), -1
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", LOOPING, str(path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(choose.uniform(0.005, 0.1))
            os.kill(process.pid, signal.SIGKILL)
        state = ControllerState.read(path)
        if state.target is not None:
            assert state.target == {"t": state.decisions}
            assert state.decisions >= before
            before = state.decisions
    assert before > 0


@pytest.mark.parametrize("seed", range(3))
def test_a_state_is_the_same_after_a_file(seed: int, tmp_path: Path) -> None:
    """What a controller remembers is what it wrote."""
    life = life_of(seed)
    life.fleet.lose(next(iter(life.brief.first)), 2e9)
    for _ in range(30):
        life.look(1.5)
    life.state.save(tmp_path / "state.json")
    again = ControllerState.read(tmp_path / "state.json")
    assert again.to_json() == life.state.to_json()


def test_cautions_about_manifests_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What Terraform cannot start stands on stderr and in the log, once per change of the fleet."""
    types = [replica_type("aws/us-east-1/g6.xlarge", "L4"), replica_type("lambda/us-east-1/h100", "H100")]
    types[1] = replace(types[1], offer=replace(types[1].offer, provider="lambda"))
    plan = plan_of(np.full((2, 3, 2), 0.5), [2, 2], types)
    settings = OperateSettings(interval_s=60.0, window_s=300.0, start_up_s=120.0, floor={types[1].name: 2})
    first = dict(plan.instances_by_name)
    driver = FilesDriver(
        DryRun(first, 60, 60, tmp_path / "p.json"), tmp_path / "tf", "terraform", {}, is_committed=False
    )
    brief = Brief(planner=FleetPlanner(plan, floor=settings.floor), settings=settings, first=first)
    lease = FileLease(tmp_path / "lease.json", settings.lease_s)
    clock = [1e9]
    given = Given(np.asarray(plan.workload.request_rate))
    controller = Controller(brief, plan, driver, given, lease, tmp_path, clock=lambda: clock[0])
    for _ in range(3):
        controller.look()
        clock[0] += 60.0
    said = "left-out: 2 x lambda/us-east-1/h100: not written, since Terraform files support only instances of aws, gcp"
    notes = [content["note"] for _, content in lines_of(tmp_path / "log.jsonl") if content["kind"] == "note"]
    assert [one[: len(said)] for one in notes if one.startswith("left-out")] == [said]
    assert [one.levelname for one in caplog.records if one.getMessage().startswith(said)] == ["WARNING"]
