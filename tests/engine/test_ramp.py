"""Two kinds of real vLLM servers under the controller follow a ramp up and down, with no failed request."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from balance_cases import small_plan
from engine_servers import NAME, SETTINGS, server_command, write_model
from ramp import Asked, Senders, Service, running, wait_until

from melange.deploy.operate.fleet_planner import FleetPlanner

# A start takes 20 to 120 s, by how busy the machine is.
FLAGS = ("--interval", "1", "--window", "5", "--start-up", "30", "--drain", "30", "--settle", "5", "--patience", "420",
         "--exclude", "30", "--max-changes", "999")  # fmt: skip
LIMIT_S = 420.0
LAYERS = {"l4": 4, "a100": 8}


def test_real_servers_follow_a_ramp_and_no_request_fails(tmp_path: Path) -> None:
    """One of each kind at first, more under the ramp, and two again after it; what drains finishes its streams."""
    plan = small_plan(rate=2.0)
    names = [one.name for one in plan.replica_types]
    first = FleetPlanner(plan).plan_of(dict.fromkeys(names, 1), None)
    assert first is not None
    settings = [f"{name}={value}" for name, value in SETTINGS.items()]
    start = {}
    for core, (name, layers) in enumerate(LAYERS.items()):
        model = write_model(tmp_path / f"llama-{layers}", layers)
        words = server_command(model, core % 2, "{port}")
        start[name] = shlex.join(["env", *settings, *words]).replace("'{port}'", "{port}")
    service = Service(folder=tmp_path / "state", plan=first.save(tmp_path / "plan.json"), start=start, flags=FLAGS)
    body = {"model": NAME, "prompt": "abc " * 50, "max_tokens": 20, "stream": True, "ignore_eos": True}
    bodies = [json.dumps(body | {"prompt": "abc " * words}).encode() for words in (500, 50, 50)]
    asked, sizes = Asked(), list[int]()
    with running(service, "--window", "6", "--health-every", "1", limit_s=LIMIT_S):
        wait_until(lambda: service.ready() >= 2, LIMIT_S)
        with Senders(service.port, bodies, asked) as senders:
            for rate, is_there in (
                (0.5, lambda: len(asked.statuses) >= 4),
                (5.0, lambda: service.ready() >= 3),
                (0.4, lambda: service.ready() <= 2 and len(service.servers()) <= 2),
            ):
                senders.rate = rate
                wait_until(is_there, LIMIT_S)
                sizes.append(service.ready())
            done = len(asked.statuses)
            wait_until(lambda: len(asked.statuses) > done + 2, LIMIT_S)
    assert set(asked.statuses) == {200}
    assert (asked.cut, asked.retried) == (0, 0)
    assert sizes[0] == 2 < sizes[1] > sizes[2]
    print(f"{len(asked.statuses)} answers; servers that served: {sizes}")
