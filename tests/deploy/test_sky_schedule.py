"""A schedule on SkyPilot: every minute has the instances of its hours, and a run makes up for one that failed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import yaml
from small_schedules import schedule_of, two_regions

import melange
from melange.deploy.manifest import Manifest
from melange.deploy.scaling_rule import render_rule
from melange.deploy.targets.launchers.follow_schedule import wanted
from melange.errors import InputError
from melange.plan.schedule.schedule import Schedule
from melange.plan.server import Server

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FIRST, SECOND = "llama-3-1-8b-aws-us-east-1-g6-xlarge", "llama-3-1-8b-aws-eu-west-1-g6-xlarge"


def written(schedule: Schedule, **options: object) -> Manifest:
    """Its files for SkyPilot."""
    return render_rule(schedule, "skypilot", options, written=date(2026, 1, 1))


def drawn(hours: int) -> np.ndarray:
    """Counts of two types, other ones in each hour."""
    return np.random.default_rng(hours).integers(0, 6, (hours, 2))


@pytest.mark.parametrize("hours", [24, 168])
@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("Europe/Berlin", datetime(2026, 3, 28, tzinfo=UTC)),
        ("Europe/Berlin", datetime(2026, 10, 24, tzinfo=UTC)),
        ("Australia/Lord_Howe", datetime(2026, 10, 2, tzinfo=UTC)),
        ("Asia/Kolkata", datetime(2026, 1, 4, tzinfo=UTC)),
    ],
)
@pytest.mark.parametrize("start_up_s", [250.0, 7300.0])
def test_every_minute_has_the_most_of_its_hours(hours: int, zone: str, day: datetime, start_up_s: float) -> None:
    """In local time, from each minute to the end of a start-up, over days on which clocks change."""
    counts = drawn(hours)
    files = written(schedule_of(counts, two_regions(), start_up_s, zone)).files
    made = json.loads(files["hours.json"])
    assert made["start_up_s"] == 60 * np.ceil(start_up_s / 60)
    assert list(made["services"]) == [FIRST, SECOND]
    place = ZoneInfo(zone)
    local = [datetime.fromtimestamp(day.timestamp() + 60 * minute, place) for minute in range(3 * 1440)]
    hour = np.array([(24 * one.weekday() + one.hour) % hours for one in local])
    lead = made["start_up_s"] // 60
    for minute in range(0, 2 * 1440, 7):
        most = counts[hour[minute : minute + lead + 1]].max(axis=0)
        fleet = wanted(made, day.timestamp() + 60 * minute)
        assert list(fleet.values()) == [(count, 0) for count in most.tolist()]
        assert all(f"services/{name}.{count}.0.yaml" in files for name, (count, _) in fleet.items())


def test_each_fleet_has_a_file() -> None:
    """On demand with the reserved ones, spot beside them, and both where one replaces the other, with the limits."""
    counts, spot = np.zeros((24, 2)), np.zeros((24, 2))
    counts[8:20, 0] = 3
    counts[12:, 1] = 2
    spot[9:12, 1] = 1
    schedule = schedule_of(counts, two_regions(2))
    servers = tuple(
        Server(replica_type=one.name, replicas=6, model=schedule.model, engine="vllm", max_sequences=77)
        for one in schedule.replica_types
    )
    made = written(replace(schedule, spot=spot, reserved=np.array([1, 0]), servers=servers), drain_s=120)
    services = {name: yaml.safe_load(text) for name, text in made.files.items() if name.startswith("services/")}
    names = [f"{FIRST}.1.0", f"{FIRST}.4.0", f"{SECOND}.0.0", f"{SECOND}.0.1", f"{SECOND}.2.0", f"{SECOND}.2.1"]
    assert list(services) == [f"services/{name}.yaml" for name in names]
    assert [one["service"].get("replicas") for one in services.values()] == [1, 4, None, None, None, None]
    policies = [one["service"]["replica_policy"] for one in services.values() if one["resources"]["use_spot"]]
    assert [one["base_ondemand_fallback_replicas"] for one in policies] == [0, 0, 2, 2]
    assert [one["min_replicas"] for one in policies] == [0, 1, 2, 3]
    assert all(one["max_replicas"] == one["min_replicas"] for one in policies)
    assert all("--max-num-seqs 77" in one["run"] for one in services.values())
    # Only the service differs, so that SkyPilot keeps the instances that stay.
    for name in (FIRST, SECOND):
        some = [{**one, "service": None} for one in services.values() if one["name"] == name]
        assert all(one == some[0] for one in some)
    hours = json.loads(made.files["hours.json"])["services"]
    assert hours[FIRST] == [[1, 0]] * 8 + [[4, 0]] * 12 + [[1, 0]] * 4
    assert hours[SECOND] == [[0, 0]] * 9 + [[0, 1]] * 3 + [[2, 0]] * 12
    assert [one.kind for one in made.cautions] == ["replicas", "market", "spot", "routing"]
    assert made.cautions[1].message.startswith("1 x aws/us-east-1/g6.xlarge: planned as reserved")
    assert "CAUTION: market: 1 x aws/us-east-1/g6.xlarge" in made.files["follow.py"]


def test_a_planned_schedule_keeps_the_limits_of_its_engines(tmp_path: Path) -> None:
    """Those that the rates were computed with, and the most replicas of an hour, also in the file."""
    session = melange.Session(EXAMPLES / "week.yaml", settings=["workload.over=day"])
    schedule, profile = session.schedule(quick=True), session.profile()
    engines = dict(zip([one.name for one in profile.replica_types], profile.engines, strict=True))
    most = (schedule.reserved + schedule.on_demand + schedule.spot).max(axis=0)
    for one, server, count in zip(schedule.replica_types, schedule.servers, most, strict=True):
        engine = engines[one.name]
        assert engine is not None
        assert (server.max_sequences, server.max_batched_tokens) == (engine.max_sequences, engine.max_batched_tokens)
        assert server.is_prefix_caching is engine.is_prefix_caching
        assert 16_000 <= int(server.max_context or 0) <= engine.max_context
        assert server.replicas == count * one.replicas_per_instance
    again = Schedule.read(schedule.save(tmp_path / "schedule.json"))
    assert again.servers == schedule.servers
    edited = replace(again, servers=tuple(replace(one, tensor_parallel=8) for one in again.servers))
    assert dict(written(edited).files) == dict(written(schedule).files)


def test_a_file_without_start_options_starts_servers_with_their_own_limits() -> None:
    """As older schedules do, with a caution; of servers for other types, an error."""
    schedule = schedule_of(drawn(24), two_regions())
    assert "limits" in [one.kind for one in written(schedule).cautions]
    with pytest.raises(InputError, match="must be those of the replica types"):
        replace(schedule, servers=(Server(replica_type="other", replicas=1, model="m"),) * 2)


def test_reserved_instances_alone_are_started_too() -> None:
    """Without a rule and other instances there is a service of one size; without any, nothing to start."""
    schedule = replace(schedule_of(np.zeros((24, 2)), two_regions()), reserved=np.array([2, 0]), rule=None)
    assert [name for name in written(schedule).files if name.startswith("services/")] == [f"services/{FIRST}.2.0.yaml"]
    with pytest.raises(InputError, match="no instances to start"):
        written(replace(schedule, reserved=np.zeros(2)))
    with pytest.raises(InputError, match="has no scaling rule"):
        render_rule(schedule, "keda")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of a schedule with one and two instances at all hours, and a sky that writes down how it is called."""
    written(schedule_of(np.tile([1, 2], (24, 1)), two_regions())).write(tmp_path / "files")
    sky = tmp_path / "bin" / "sky"
    sky.parent.mkdir()
    sky.write_text('#!/bin/sh\necho "$@" >> "$CALLS"\n[ ! -e "$CALLS.broken" ]\n')
    sky.chmod(0o755)
    return tmp_path


def run(folder: Path, *arguments: str, token: str | None = "secret") -> tuple[int, str, list[str]]:
    """Exit status and output of a run, and its calls of sky, without the folder."""
    calls = folder / "calls"
    calls.unlink(missing_ok=True)
    environment = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "CALLS": str(calls)}
    environment |= {} if token is None else {"HF_TOKEN": token}
    command = [sys.executable, str(folder / "files" / "follow.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    lines = calls.read_text().replace(f"{folder}/files/services/", "").splitlines() if calls.exists() else []
    return done.returncode, done.stdout + done.stderr, lines


def test_the_script_applies_changes_until_they_are_taken(folder: Path) -> None:
    """Starts all services once, and updates those whose instances or commands have changed, again where that failed."""
    ups = [f"serve up -y -n {FIRST} {FIRST}.1.0.yaml", f"serve up -y -n {SECOND} {SECOND}.2.0.yaml"]
    assert run(folder, "up")[2] == [f"{one} --secret HF_TOKEN" for one in ups]
    assert run(folder) == run(folder, "up") == (0, "", [])
    # Another number of instances of one, another drain time of both.
    written(schedule_of(np.tile([4, 2], (24, 1)), two_regions()), drain_s=77).write(folder / "files")
    (folder / "calls.broken").touch()
    calls = [f"serve update -y {FIRST} {FIRST}.4.0.yaml", f"serve update -y {SECOND} {SECOND}.2.0.yaml"]
    status, said, made = run(folder)
    assert (status, made) == (1, [f"{one} --secret HF_TOKEN" for one in calls])
    assert f"{FIRST}: 4 on-demand and 0 spot instances: failed" in said
    (folder / "calls.broken").unlink()
    said = f"{FIRST}: 4 on-demand and 0 spot instances\n{SECOND}: 2 on-demand and 0 spot instances\n"
    assert run(folder) == (0, said, made)
    later = render_rule(
        schedule_of(np.tile([4, 2], (24, 1)), two_regions()), "skypilot", {"drain_s": 77}, written=date(2026, 2, 2)
    )
    later.write(folder / "files")
    assert run(folder) == (0, "", [])


def test_services_that_were_stopped_can_be_started_again(folder: Path) -> None:
    """As the heading says: up leaves alone what is in the record, so that has to go with the services."""
    ups = run(folder, "up")[2]
    assert "delete applied.json" in " ".join((folder / "files" / "follow.py").read_text().replace("#", "").split())
    (folder / "files" / "applied.json").unlink()
    assert run(folder, "up")[2] == ups


def test_the_script_names_services_that_left_the_schedule(folder: Path) -> None:
    """Once, with the command that stops them: nothing else ends what is paid for."""
    run(folder, "up")
    written(schedule_of(np.ones((24, 1)), two_regions()[:1])).write(folder / "files")
    said = f"{SECOND}: no longer in the schedule; stop it: sky serve down {SECOND}\n"
    assert run(folder) == (0, said, [])
    assert run(folder) == (0, "", [])


def test_the_script_refuses_other_arguments_and_a_missing_token(folder: Path) -> None:
    """With what it needs; a lost record is made again by updates."""
    assert run(folder, "down")[:2] == (2, "usage: python3 follow.py [up]\n")
    assert run(folder, token=None) == (2, "HF_TOKEN must be in the environment; empty if the model needs none\n", [])
    assert [one.split()[1] for one in run(folder)[2]] == ["update", "update"]
