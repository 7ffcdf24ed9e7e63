"""Two kinds of local servers behind the balancer follow a ramp up and down, with no failed request."""

from __future__ import annotations

import json
import random
import shlex
import sys
from pathlib import Path

import pytest
from balance_cases import small_plan
from ramp import Asked, Senders, Service, ask, running, wait_until

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

# How long a busy machine may take for each part [s].
LIMIT_S = 240.0


def service_in(folder: Path) -> Service:
    """A controller of a small fleet of two types: one is cheap and serves short prompts only."""
    plan = small_plan(rate=6.0)
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
        with Senders(service.port, (LARGE, BODY, BODY), asked) as senders:
            senders.rate = 2.0
            wait_until(lambda: len(asked.statuses) > 8)
            senders.rate = 24.0
            service.kill_controller()
            service.kill_replica(choose)
            wait_until(lambda: service.ready() >= 4, LIMIT_S)
            service.kill_worker()
            done = len(asked.statuses)
            wait_until(lambda: len(asked.statuses) > done + 40, LIMIT_S)
            senders.rate = 1.5
            wait_until(lambda: service.ready() <= 3, LIMIT_S)
        assert set(asked.statuses) == {200}
        # An answer that had begun on a killed process cannot be finished by another.
        print(f"{len(asked.statuses)} answers, {asked.retried} retries, {asked.cut} cut off")
        assert asked.cut + asked.retried < len(asked.statuses) / 4
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
