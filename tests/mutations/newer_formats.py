"""Formats of regions, pools, layouts, tenants and spans; requests of the HTTP API; addresses of the page."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from newer_samples import ASKED, LAYOUTS, POOLS, REGIONS, SCHEDULED, SPANS, TENANTS, TRIPS, WAREHOUSE
from read_in_process import Command, run, schedule, show_plan
from sample_logs import FLEET
from samples import SERVICE

from melange.errors import InputError

# A name, how its file is called, a valid file, and what reads it.
Kind = tuple[str, str, bytes, tuple[Command, ...]]


def write_newer(folder: Path) -> None:
    """The valid files that commands need besides the one that is mutated."""
    from melange.deploy.operate.controller_state import ControllerState
    from melange.plan.disaggregated import DisaggregatedPlan
    from melange.service.disaggregation import in_pools
    from melange.service.fleet_session import FleetSession
    from melange.service.regional_session import RegionalSession
    from melange.service.session import Session

    for name, text in (("trips.csv", TRIPS), ("regions.yaml", REGIONS), ("pools.yaml", POOLS)):
        (folder / name).write_text(text.replace("{x}", str(folder)))
    RegionalSession(folder / "regions.yaml").plan().save(folder / "regional.json")
    (folder / "fleet.yaml").write_text(FLEET.replace("{x}", str(folder)))
    FleetSession(folder / "fleet.yaml").plan().save(folder / "joint.json")
    pools = in_pools(Session(folder / "pools.yaml"), lambda one: one.plan(), quick=True)
    assert isinstance(pools, DisaggregatedPlan)
    pools.decode.save(folder / "pools.json")
    waiting = "classes.batch={share: 0.3, slo: {latency_ms: 600000}, deadline: 4h}"
    Session(folder / "week.yaml", settings=[waiting]).schedule(quick=True).save(folder / "deferred.json")
    ControllerState().save(folder / "state.json")
    _write_log(folder / "decisions.jsonl", folder / "plan.json")


def _write_log(path: Path, plan_file: Path) -> None:
    """The log of a controller that looked once."""
    from melange.deploy.operate.controller_state import ControllerState
    from melange.deploy.operate.decide import decide
    from melange.deploy.operate.decision_log import DecisionLog
    from melange.deploy.operate.observation import Observation, TypeSeen
    from melange.deploy.operate.operate_settings import OperateSettings
    from melange.deploy.operate.operation import Operation
    from melange.plan.plan import Plan

    plan, settings, state, log = Plan.read(plan_file), OperateSettings(), ControllerState(), DecisionLog(path)
    log.begin(1e9, plan.fingerprint, settings, state)
    fleet = {name: TypeSeen(ready=count) for name, count in plan.instances_by_name.items() if count}
    seen = Observation(at_s=1e9, fleet=fleet, request_rate=plan.workload.request_rate, note="")
    log.look(seen, decide(Operation(plan=plan).brief(settings), state, seen))


def newer_formats(folder: Path) -> list[Kind]:
    """All of them; ``folder`` is that of :func:`write_newer`."""
    quick = ("plan", "{}", "--quick", "--out", "{}.out")
    week = ("schedule", "{}", "--quick", "--out", "{}.out")
    plan = (folder / "plan.json").read_text()
    found: list[Kind] = [
        ("regions", "regions.yaml", REGIONS.replace("{x}", str(folder)).encode(), (quick,)),
        (
            "round-trips",
            "trips.csv",
            TRIPS.encode(),
            (("plan", "{x}/regions.yaml", "--quick", "--set", "regions.round_trips={}", "--out", "{}.out"),),
        ),
        ("regional", "regional.json", (folder / "regional.json").read_bytes(), (regional,)),
        ("joint", "joint.json", (folder / "joint.json").read_bytes(), (joint,)),
        ("scheduled", "week.yaml", SCHEDULED.replace("{x}", str(folder)).encode(), (week,)),
        (
            "deferred",
            "schedule.json",
            (folder / "deferred.json").read_bytes(),
            (schedule, ("deploy", "{}", "--to", "keda"), ("deploy", "{}", "--to", "json")),
        ),
        ("layouts", "layouts.yaml", LAYOUTS.encode(), (quick,)),
        ("pools", "pools.yaml", POOLS.encode(), (quick,)),
        (
            "pools-plan",
            "plan.json",
            (folder / "pools.json").read_bytes(),
            (
                show_plan,
                ("validate", "{}", "--requests", "20", "--seeds", "1", "--processes", "1", "--out", "{}.out"),
            ),
        ),
        ("warehouse", "service.yaml", WAREHOUSE.encode(), (refused,)),
        ("tenants", "tenants.yaml", TENANTS.encode(), (tenants,)),
        ("state", "state.json", (folder / "state.json").read_bytes(), (controller_state,)),
        (
            "decisions",
            "log.jsonl",
            (folder / "decisions.jsonl").read_bytes(),
            (("operate", "{x}/plan.json", "--replay", "{}"),),
        ),
        ("log-spans", "spans.jsonl", SPANS.encode(), (("workload", "{}", "--out", "{}.out"),)),
        (
            "page",
            "address.pairs",
            b"rate=9\ngrowth=10\nttft_ms=4000\nattainment=99\nmix=arena:1,sharegpt:2\ngpus=L4,A10G\nmax=L4:3\n"
            b"max_types=2\nspare_replicas=1\nheadroom=10\n",
            (page(folder / "service.yaml"),),
        ),
    ]
    for verb, body in ASKED.items():
        content = {"plan": json.loads(plan)} if verb in ("validate", "deploy") else {"service": SERVICE}
        found.append((f"api-{verb}", "body.json", json.dumps(content | body).encode(), (asked(verb),)))
    return found


def regional(path: Path) -> None:
    """Read, print and write a regional plan."""
    from melange.plan.regions.regional_plan import RegionalPlan
    from melange.present.terminal import layout, regions_page

    plan = RegionalPlan.read(path)
    layout.console().print(regions_page.regions_page(plan))
    plan.dumps()


def joint(path: Path) -> None:
    """Read, print and write a joint plan."""
    from melange.plan.joint.joint_plan import JointPlan
    from melange.present.terminal import fleet_page, layout

    plan = JointPlan.read(path)
    layout.console().print(fleet_page.fleet_page(plan))
    plan.dumps()


def refused(path: Path) -> None:
    """A service with a table of a database that is never there: what it says ends at the connection at the latest."""
    try:
        run("plan", str(path), "--quick")
    except InputError as error:
        if "127.0.0.1" in str(error) and "${" not in str(error):
            raise


def tenants(path: Path) -> None:
    """Read the tenants of a balancer."""
    from melange.deploy.live.tenants import read_tenants

    read_tenants(path)


def controller_state(path: Path) -> None:
    """Read the state of a controller."""
    from melange.deploy.operate.controller_state import ControllerState

    ControllerState.read(path)


@cache
def _states(service: Path) -> object:
    from melange.ui.opened import opened
    from melange.ui.states import States

    return States(opened(service))


def page(service: Path) -> Callable[[Path], None]:
    """A file's lines as the address of the page, answered by closed form."""

    def read(path: Path) -> None:
        from melange.ui import in_workers

        lines = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")
        asked = _states(service).of(parse_qsl("&".join(lines), keep_blank_values=True))  # type: ignore[attr-defined]
        json.dumps(in_workers.answer(asked, None, None))

    return read


def _with_files(word: str, texts: dict[str, str]) -> str:
    flag, _, value = word.partition("=")
    return texts.get(word) or (f"{flag}={texts[value]}" if value in texts else word)


def asked(verb: str) -> Callable[[Path], None]:
    """The body of a request to the HTTP API, run as its job runs it: as a command in a folder of its own."""

    def read(path: Path) -> None:
        from melange.serve import asked as requests
        from melange.serve.queue import check_texts

        kinds = (requests.PlanAsked, requests.WhatIfAsked, requests.ValidateAsked, requests.DeployAsked)
        kind = next(one for one in kinds if one.verb == verb)
        try:
            one = kind.model_validate(json.loads(path.read_bytes()))  # as the server does: it answers 422 to these
        except (ValueError, RecursionError):
            return
        check_texts(one.arguments(), one.documents())
        with tempfile.TemporaryDirectory() as name:
            texts = {}
            for file, content in one.documents().items():
                (Path(name) / file).write_text(content if isinstance(content, str) else json.dumps(content))
                texts[file] = str(Path(name) / file)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("MELANGE_WITHIN", os.pathsep.join((name, str(Path.cwd()))))
                run(kind.verb, *(_with_files(word, texts) for word in one.arguments()))

    return read
