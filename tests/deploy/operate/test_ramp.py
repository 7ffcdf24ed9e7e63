"""Two kinds of local servers behind the balancer follow a ramp up and down, with no failed request."""

from __future__ import annotations

import json
import random
import shlex
import sys
import threading
from pathlib import Path

import pytest
from balance_cases import small_plan
from ramp import Asked, Service, ask, running, send_at, wait_until

from melange.cli.app import app
from melange.deploy.operate.fleet_planner import FleetPlanner

REPLICA = Path(__file__).parents[1] / "live" / "replica.py"
BODY = json.dumps({"model": "tiny", "prompt": "abc " * 50, "max_tokens": 20, "stream": True}).encode()
LARGE = json.dumps({"model": "tiny", "prompt": "abc " * 500, "max_tokens": 20, "stream": True}).encode()
FAST = (
    "--interval",
    "0.25",
    "--window",
    "1",
    "--start-up",
    "1",
    "--drain",
    "5",
    "--settle",
    "2",
    "--max-changes",
    "999",
)


def service_in(folder: Path) -> Service:
    """A controller of a small fleet of two types: one is cheap and serves short prompts only."""
    plan = small_plan(rate=40.0)
    first = FleetPlanner(plan).plan_of({one.name: 1 for one in plan.replica_types}, None)
    assert first is not None
    command = shlex.join([sys.executable, str(REPLICA), "--fault", "slow", "--port", "{port}"])
    return Service(
        folder=folder / "state",
        plan=first.save(folder / "plan.json"),
        start={"l4": command, "a100": command},
        flags=FAST,
    )


@pytest.mark.heavy
def test_a_ramp_with_everything_killed_on_the_way_loses_no_request(tmp_path: Path) -> None:
    """The fleet grows and shrinks; controller, balancer and replica die by SIGKILL, and all answers come."""
    choose, asked = random.Random(1), Asked()
    with running(service_in(tmp_path), "--window", "1.5", "--health-every", "0.2") as service:
        wait_until(lambda: service.ready() >= 2)
        threads: list[threading.Thread] = []
        kills = {2: service.kill_controller, 3: service.kill_worker, 4: lambda: service.kill_replica(choose)}
        most = 0
        for step, rate in enumerate((5, 10, 20, 40, 60, 60, 30, 10)):
            if step in kills:
                kills[step]()
            threads += send_at(service.port, rate, 1.2, LARGE if step % 3 == 0 else BODY, asked)
            most = max(most, service.ready())
        wait_until(lambda: threads.extend(send_at(service.port, 4, 1.0, BODY, asked)) or service.ready() <= 3)
        for one in threads:
            one.join()
        assert most >= 4
        assert set(asked.statuses) == {200}
        # An answer that had begun on a killed process cannot be finished by another.
        assert asked.cut <= 12
        assert asked.retried < len(asked.statuses) / 10
        status, text = ask(service.port, "GET", "/metrics")
        assert status == 200
        assert b"melange_load{" in text
        # Long prompts were planned for, so that the type that serves them stays.
        assert {one["replica_type"] for one in service.servers()} == {one.name for one in small_plan().replica_types}
        service.end()
    log = tmp_path / "state" / "log.jsonl"
    kinds = [json.loads(line)["kind"] for line in log.read_text().splitlines()]
    assert kinds.count("begin") == 2
    replayed(tmp_path / "plan.json", log)


def replayed(plan: Path, log: Path) -> None:
    """The log decides to the same end."""
    from typer.testing import CliRunner

    outcome = CliRunner().invoke(app, ["operate", str(plan), "--replay", str(log)])
    assert outcome.exit_code == 0, outcome.output
    assert "scale up" in outcome.output
    assert " 0 differ" in outcome.output
