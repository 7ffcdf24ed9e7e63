"""The timetable of a schedule, as KEDA reads its triggers: enough pods in every hour, also when clocks change."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import yaml
from deploy_cases import plan_of, replica_type
from forked import command
from small_schedules import schedule_of, two_regions

from melange.deploy.render import render
from melange.deploy.scaling_rule import render_rule
from melange.errors import InputError
from melange.plan.schedule.schedule import Schedule

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
WRITTEN = date(2026, 1, 1)


@dataclass(frozen=True)
class Clock:
    """Local times of a week, minute by minute."""

    since: datetime
    days: tuple[str, ...]
    minutes: np.ndarray

    def times(self, expression: str) -> np.ndarray:
        """Minutes at which a cron expression fires: where the local time is the expression's, and nowhere else."""
        minute, hour, _, _, day = expression.split()
        found = self.minutes == 60 * int(hour) + int(minute)
        return np.flatnonzero(found if day == "*" else found & (np.array(self.days) == day))


@cache
def clock_of(zone: str, since: date, days: int) -> Clock:
    """Some days in a time zone."""
    start = datetime(since.year, since.month, since.day, tzinfo=UTC)
    local = [(start + timedelta(minutes=k)).astimezone(ZoneInfo(zone)) for k in range(days * 1440)]
    return Clock(start, tuple(DAYS[one.weekday()] for one in local), np.array([60 * x.hour + x.minute for x in local]))


def active(clock: Clock, trigger: dict[str, str]) -> np.ndarray:
    """Minutes in which KEDA's cron scaler takes the trigger as active: its next end comes before its next start."""
    every = np.arange(len(clock.minutes))

    def following(expression: str) -> np.ndarray:
        times = np.append(clock.times(expression), len(every) + 10_000)
        return np.asarray(times[np.searchsorted(times, every, side="right")])

    starts, ends = following(trigger["start"]), following(trigger["end"])
    assert trigger["start"] != trigger["end"]
    return ~(starts < ends)


def pods_over(clock: Clock, text: str) -> np.ndarray:
    """Pods that a ScaledObject asks for in each minute."""
    spec = yaml.safe_load(text)["spec"]
    pods = np.full(len(clock.minutes), spec["minReplicaCount"])
    for trigger in spec["triggers"]:
        given = trigger["metadata"]
        pods = np.maximum(pods, np.where(active(clock, given), int(given["desiredReplicas"]), 0))
    return np.minimum(pods, spec["maxReplicaCount"])


def scheduled(clock: Clock, counts: np.ndarray) -> np.ndarray:
    """The count of each minute's local hour."""
    hour = clock.minutes // 60
    if len(counts) > 24:
        hour = hour + 24 * np.array([DAYS.index(day) for day in clock.days])
    return np.asarray(counts[hour])


def drawn(seed: int, hours: int) -> np.ndarray:
    """Counts of two types: steps, spikes, and hours without any."""
    random = np.random.default_rng(seed)
    shape = random.integers(0, 5, (hours, 2))
    steps = random.integers(0, 5, (hours // 4, 2)).repeat(4, axis=0)
    return np.asarray(shape if seed % 2 else steps)


# A week in winter, and those in which clocks are set forward and back.
WEEKS = [
    ("Europe/Berlin", date(2026, 1, 12)),
    ("Europe/Berlin", date(2026, 3, 23)),
    ("Europe/Berlin", date(2026, 10, 19)),
    ("America/New_York", date(2026, 3, 2)),
    ("America/New_York", date(2026, 10, 26)),
    ("America/Santiago", date(2026, 8, 31)),
]


def cases() -> Iterator[tuple[int, int, float, str, date]]:
    """Schedules of days and weeks, at usual and long start-ups."""
    for seed, (zone, since) in enumerate(WEEKS):
        for hours in (24, 168):
            yield seed + hours, hours, (300.0, 4000.0)[seed % 2], zone, since


@pytest.mark.parametrize(("seed", "hours", "start_up_s", "zone", "since"), [*cases()])
def test_every_minute_has_its_pods(seed: int, hours: int, start_up_s: float, zone: str, since: date) -> None:
    """All types are there, no minute has fewer pods than its hour, and they are ordered the start-up before."""
    counts, types = drawn(seed, hours), two_regions(2)
    made = render_rule(schedule_of(counts, types, start_up_s, zone), "cron", written=WRITTEN)
    assert len(made.files) == 2
    clock = clock_of(zone, since - timedelta(days=7), 21)
    lead = int(np.ceil(start_up_s / 60))
    for r, text in enumerate(made.files.values()):
        wanted, pods = scheduled(clock, 2 * counts[:, r]), pods_over(clock, text)
        assert yaml.safe_load(text)["spec"]["minReplicaCount"] == wanted.min()
        middle = np.arange(7 * 1440, 14 * 1440)  # what comes next is known for two weeks
        # The last minute before clocks skip an hour may belong to the next one.
        jumps = np.flatnonzero((np.diff(clock.minutes) + 720) % 1440 - 720 > 1)
        kept = middle[~np.isin(middle, jumps)]
        assert (pods[kept] >= wanted[kept]).all()
        rises = np.flatnonzero(np.diff(wanted) > 0) + 1
        for at in rises[(rises >= middle[0] + lead) & (rises <= middle[-1])]:
            ordered = kept[(kept >= at - lead) & (kept < at)]
            is_before_jump = ((jumps >= at - lead) & (jumps < at)).any()
            assert is_before_jump or (pods[ordered] >= wanted[at]).all()


@pytest.mark.parametrize("hours", [24, 168])
def test_a_stretch_of_nearly_the_cycle_stays(hours: int) -> None:
    """A start-up that is longer than the only other hour: the trigger would start just before its own end."""
    counts = np.full((hours, 1), 5)
    counts[-1] = 1
    made = render_rule(schedule_of(counts, two_regions()[:1], 4000.0, "UTC"), "cron", written=WRITTEN)
    pods = pods_over(clock_of("UTC", date(2026, 1, 5), 21), next(iter(made.files.values())))
    assert (pods[1440:-20_000] == 5).all()


@pytest.mark.parametrize("hours", [24, 168])
def test_no_more_than_the_start_up_is_added(hours: int) -> None:
    """Without changes of clocks, the pods of each minute are the most of the hours in the start-up after it."""
    counts = drawn(3, hours)
    made = render_rule(schedule_of(counts, two_regions(), 900.0, "UTC"), "cron", written=WRITTEN)
    clock = clock_of("UTC", date(2026, 1, 12), 21)
    for r, text in enumerate(made.files.values()):
        wanted, pods = scheduled(clock, counts[:, r]), pods_over(clock, text)
        most = np.max([np.roll(wanted, -k) for k in range(16)], axis=0)
        assert pods[1440:-20_000].tolist() == most[1440:-20_000].tolist()


def test_one_type_stays_until_the_other_is_up() -> None:
    """From the first type to the second at noon: both run for the five minutes that a start takes."""
    counts = np.zeros((24, 2))
    counts[:12, 0], counts[12:, 1] = 3, 2
    first, second = render_rule(schedule_of(counts, two_regions()), "cron", written=WRITTEN).files.values()
    trigger = yaml.safe_load(first)["spec"]["triggers"][0]["metadata"]
    assert (trigger["start"], trigger["end"]) == ("55 23 * * *", "0 12 * * *")
    trigger = yaml.safe_load(second)["spec"]["triggers"][0]["metadata"]
    assert (trigger["start"], trigger["end"]) == ("55 11 * * *", "0 0 * * *")
    week = np.zeros((168, 2))
    week[:12, 0] = 3
    (text,) = render_rule(schedule_of(week, two_regions()), "cron", written=WRITTEN).files.values()
    trigger = yaml.safe_load(text)["spec"]["triggers"][0]["metadata"]
    assert (trigger["start"], trigger["end"]) == ("55 23 * * sun", "0 12 * * mon")


def test_times_that_clocks_skip() -> None:
    """A start is moved before the gap, and an end has a second trigger that ends before it; not elsewhere."""
    counts = np.ones((24, 1))
    counts[3:9] = 4
    counts[20:] = counts[:2] = 2

    def times(zone: str) -> set[tuple[str, str, str]]:
        made = render_rule(schedule_of(counts, two_regions()[:1], 300.0, zone), "cron", written=WRITTEN)
        spec = yaml.safe_load(next(iter(made.files.values())))["spec"]
        each = [one["metadata"] for one in spec["triggers"]]
        return {(one["start"], one["end"], one["desiredReplicas"]) for one in each}

    berlin, utc = times("Europe/Berlin"), times("UTC")
    assert ("59 1 * * *", "0 9 * * *", "4") in berlin
    assert ("55 2 * * *", "0 9 * * *", "4") in utc
    assert berlin - utc == {("59 1 * * *", "0 9 * * *", "4"), ("55 23 * * *", "59 1 * * *", "2")}


@pytest.mark.parametrize("name", [None, "chat"])
def test_deployments_are_those_of_the_kubernetes_target(name: str | None) -> None:
    """In two regions, with and without a name of one's own; as files, ScaledObjects and what they scale."""
    types = [*two_regions(), replica_type("a-very-long/name-of-a-region/with-an-instance.8xlarge", "L4")]
    share = np.full((3, 3, 2), 1 / 3)
    plan = plan_of(share, [1, 1, 1], types)
    manifest = render(plan, "kubernetes", **({} if name is None else {"name": name}))
    objects = [one for text in manifest.files.values() for one in yaml.safe_load_all(text) if one]
    names = {one["metadata"]["name"] for one in objects if one["kind"] == "Deployment"}
    options = {} if name is None else {"deployment": name}
    made = render_rule(schedule_of(np.ones((24, 3)), types), "cron", options, written=WRITTEN)
    scaled = [yaml.safe_load(text) for text in made.files.values()]
    assert len(made.files) == 3
    assert {one["metadata"]["name"] for one in scaled} == {f"{one}" for one in names if "balancer" not in one}
    assert all(one["spec"]["scaleTargetRef"]["name"] == one["metadata"]["name"] for one in scaled)
    assert {f"scaled-object-{one['metadata']['name']}.yaml" for one in scaled} == set(made.files)


def test_the_time_zone_is_the_schedules_or_the_one_that_is_given() -> None:
    """Also after a round trip through the file; older files have none."""
    schedule = schedule_of(np.ones((24, 1)), two_regions()[:1], 300.0, "Asia/Tokyo")
    again = Schedule.from_json(schedule.to_json())
    assert again.time_zone == "Asia/Tokyo"
    (text,) = render_rule(again, "cron").files.values()
    assert "timezone: Asia/Tokyo" in text
    (text,) = render_rule(again, "cron", {"time_zone": "UTC"}).files.values()
    assert "timezone: UTC" in text
    older = schedule.to_json()
    del older["time_zone"]
    assert Schedule.from_json(older).time_zone == ""
    with pytest.raises(InputError, match="their time zone is missing"):
        render_rule(Schedule.from_json(older), "cron")


def test_a_cap_and_small_steps_are_said() -> None:
    """An hour above the cap, and a step that Kubernetes takes for no change."""
    counts = np.full((24, 1), 20)
    counts[12:] = 21
    schedule = schedule_of(counts, two_regions()[:1])
    made = render_rule(schedule, "cron", {"most": 20})
    assert [one.kind for one in made.cautions] == ["most", "tolerance"]
    assert "most=20 is less than the 21 instances" in made.cautions[0].message
    assert "from 20 to 21 pods" in made.cautions[1].message
    spec = yaml.safe_load(next(iter(made.files.values())))["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (20, 20)
    assert [one.kind for one in render_rule(schedule, "cron", {"most": 21}).cautions] == ["tolerance"]


def test_a_start_up_of_half_a_day_is_no_timetable() -> None:
    """The error says the limit."""
    with pytest.raises(InputError, match="start-up must be at most 8 h"):
        render_rule(schedule_of(np.ones((24, 1)), two_regions()[:1], 9 * 3600.0), "cron")


def test_the_command_deploys_a_schedule(tmp_path: Path) -> None:
    """Files of its targets; other targets, flags of gateways and values of another kind are errors."""
    schedule_of(np.ones((24, 2)), two_regions(), 300.0, "Asia/Tokyo").save(tmp_path / "schedule.json")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return command("deploy", "schedule.json", *arguments, cwd=tmp_path, environment=os.environ | {"TERM": "dumb"})

    done = run("--to", "cron", "--option", "most=4", "--out", "files")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "files").iterdir())) == 2
    for arguments, said in (
        (("--to", "kubernetes"), "a schedule has the targets keda, cron, skypilot, terraform, json"),
        (("--to", "cron", "--listen", "a:1"), "cron: unknown option 'listen'"),
        (("--to", "cron", "--replica", "L4=http://a:1"), "cron: unknown option 'replicas'"),
        (("--to", "cron", "--option", "most=few"), "cron: option most must be a whole number or null, got 'few'"),
        (("--to", "cron", "--option", "most=2", "--option", "most=3"), "--option most is given twice"),
    ):
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in " ".join(done.stderr.split())
