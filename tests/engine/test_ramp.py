"""Two kinds of real engines under the controller follow a ramp up and down, with no failed request."""

from __future__ import annotations

import json
import random
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from balance_cases import small_plan
from engine_servers import NAME, SETTINGS, START_LIMIT_S, server_command, write_model
from ramp import Asked, Senders, Service, running, wait_until

from melange.deploy.operate.fleet_planner import FleetPlanner
from melange.plan.options import Options

# What a server of each type has: the cheap one is slow. Layers, and the core that it is bound to.
LAYERS, CORES = {"l4": 16, "a100": 4}, {"l4": 1, "a100": 0}
SHORT, LONG = (
    json.dumps({"model": NAME, "prompt": "abc " * words, "max_tokens": 16, "ignore_eos": True, "stream": True}).encode()
    for words in (15, 150)
)
# Requests per second at the foot and at the top of the ramp; what the plan thinks that the slow type carries.
FOOT, TOP, CARRIED = 0.7, 6.0, 2.0
# As many as two cores can start at once; each needs half a minute of one.
MOST = {"cloud/east/l4 (L4)": 3, "cloud/east/a100 (A100)": 1}
LIMIT_S = 2 * START_LIMIT_S
FLAGS = {"interval": 1, "window": 10, "start-up": 40, "drain": 20, "settle": 10, "max-changes": 999}


def service_in(folder: Path) -> Service:
    """A controller of a small fleet of two types, each started as an engine is."""
    plan = small_plan(rate=CARRIED)
    plan = replace(plan, question=replace(plan.question, options=Options(max_instances=MOST)))
    first = FleetPlanner(plan).plan_of({one.name: 1 for one in plan.replica_types}, None)
    assert first is not None
    models = {name: write_model(folder / name, layers) for name, layers in LAYERS.items()}
    return Service(
        folder=folder / "state",
        plan=first.save(folder / "plan.json"),
        start={name: shlex.join(server_command(models[name], CORES[name], "{port}")) for name in LAYERS},
        flags=[word for name, value in FLAGS.items() for word in (f"--{name}", f"{value}")],
    )


def test_real_engines_follow_a_ramp_and_no_request_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More engines as requests come more often, fewer again; one is killed at the top; every request is answered."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    asked = Asked()
    with running(service_in(tmp_path), "--window", "10", limit_s=LIMIT_S) as service:
        wait_until(lambda: service.ready() >= 2, LIMIT_S)
        begun = service.ready()
        with Senders(service.port, (LONG, *(SHORT,) * 5), asked) as senders:
            senders.rate = FOOT
            wait_until(lambda: len(asked.statuses) > 8, LIMIT_S)
            senders.rate = TOP
            wait_until(lambda: service.ready() > begun, LIMIT_S)
            top = service.ready()
            kinds = {one["replica_type"] for one in service.servers() if one["stage"] == "ready"}
            service.kill_replica(random.Random(1))
            done = len(asked.statuses)
            wait_until(lambda: len(asked.statuses) > done + 40, LIMIT_S)
            senders.rate = FOOT
            wait_until(lambda: service.ready() <= begun, LIMIT_S)
        print(f"{len(asked.statuses)} answers, {asked.retried} retries, {asked.cut} cut off, {begun} to {top} engines")
    assert set(asked.statuses) == {200}
    assert len(kinds) == len(LAYERS)
    # Only answers that the killed engine had begun break off.
    assert asked.cut <= 20
