"""A schedule in Terraform files: every minute has the instances of its hours, as AWS and Google Cloud resize groups."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest
from small_schedules import schedule_of, two_regions
from test_timetable import WEEKS, Clock, clock_of, drawn, scheduled

from melange.deploy.manifest import Manifest
from melange.deploy.scaling_rule import render_rule
from melange.deploy.targets.terraform.cloud_hours import Hours, Span, Step, fitted, spans, steps
from melange.deploy.timetable import clock_gaps, clock_repeats
from melange.errors import InputError
from melange.plan.schedule.schedule import Schedule

WRITTEN = date(2026, 1, 1)
# Days by their number in cron expressions.
SUNDAY_FIRST = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


def written(schedule: Schedule, **options: object) -> Manifest:
    """Its Terraform files."""
    return render_rule(schedule, "terraform", options, written=WRITTEN)


def hours_of(counts: np.ndarray, zone: str, lead_min: int = 5) -> Hours:
    """The hours of a group."""
    cycle = 60 * len(counts)
    gaps, repeats = clock_gaps(zone, WRITTEN, cycle), clock_repeats(zone, WRITTEN, cycle)
    return Hours(instances=counts, time_zone=zone, lead_min=lead_min, gaps=gaps, repeats=repeats)


def times(clock: Clock, cron: str) -> np.ndarray:
    """Minutes at which a cron expression fires: where the local time is the expression's."""
    minute, hour, _, _, days = cron.split()
    found = clock.minutes == 60 * int(hour) + int(minute)
    named = [SUNDAY_FIRST[int(day)] for day in days.split(",")] if days != "*" else SUNDAY_FIRST
    return np.flatnonzero(found & np.isin(clock.days, named))


def on_aws(clock: Clock, every: tuple[Step, ...]) -> np.ndarray:
    """Instances in each minute: as the last action said, -1 before the first."""
    made = np.full(len(clock.minutes), -1)
    for at, count in sorted((int(at), one.count) for one in every for at in times(clock, one.cron)):
        made[at:] = count
    return made


def on_google(clock: Clock, every: tuple[Span, ...], least: int) -> np.ndarray:
    """Instances in each minute: the most of the schedules that are active."""
    made = np.full(len(clock.minutes), least)
    for one in every:
        for at in times(clock, one.cron):
            made[at : at + one.lasts_min] = np.maximum(made[at : at + one.lasts_min], one.count)
    return made


@pytest.mark.parametrize(("zone", "since"), WEEKS)
@pytest.mark.parametrize("hours", [24, 168])
@pytest.mark.parametrize("lead_min", [5, 67])
def test_every_minute_has_its_instances(zone: str, since: date, hours: int, lead_min: int) -> None:
    """On both clouds, also where clocks change, and ordered the start-up before."""
    counts = drawn(hours + lead_min, hours)[:, 0]
    asked, clock = hours_of(counts, zone, lead_min), clock_of(zone, since - timedelta(days=7), 21)
    wanted, middle = scheduled(clock, counts), np.arange(7 * 1440, 14 * 1440)
    # Clocks that are set between the order and the hour: the order comes when they are.
    jumps = np.flatnonzero(np.abs((np.diff(clock.minutes) + 720) % 1440 - 720) > 1)
    near = np.unique([k for jump in jumps for k in range(jump - 60 - lead_min, jump + 60 + lead_min)])
    kept = middle[~np.isin(middle, jumps)]
    for made in (on_aws(clock, steps(asked)), on_google(clock, spans(asked), asked.least)):
        assert (made[kept] >= wanted[kept]).all()
        ahead = np.max([np.roll(wanted, -k) for k in range(lead_min + 1)], axis=0)
        plain = middle[~np.isin(middle, near)]
        assert (made[plain] >= ahead[plain]).all()


@pytest.mark.parametrize("hours", [24, 168])
def test_no_more_than_the_start_up_is_added(hours: int) -> None:
    """Without changes of clocks, the instances of each minute are the most of the hours in the start-up after it."""
    counts = drawn(3, hours)[:, 0]
    asked, clock = hours_of(counts, "UTC", 15), clock_of("UTC", date(2026, 1, 12), 21)
    wanted = scheduled(clock, counts)
    most = np.max([np.roll(wanted, -k) for k in range(16)], axis=0)
    for made in (on_aws(clock, steps(asked)), on_google(clock, spans(asked), asked.least)):
        assert made[8 * 1440 : 15 * 1440].tolist() == most[8 * 1440 : 15 * 1440].tolist()


def test_equal_times_of_several_days_are_one_entry() -> None:
    """Office hours: two actions on AWS, one schedule on Google Cloud."""
    counts = np.ones(168, int)
    for day in range(5):
        counts[24 * day + 8 : 24 * day + 18] = 4
    asked = hours_of(counts, "Asia/Tokyo")
    assert steps(asked) == (Step(cron="55 7 * * 1,2,3,4,5", count=4), Step(cron="0 18 * * 1,2,3,4,5", count=1))
    assert spans(asked) == (Span(cron="55 7 * * 1,2,3,4,5", count=4, lasts_min=605),)


@pytest.mark.parametrize(("of", "most"), [(steps, 125), (spans, 128), (steps, 1), (spans, 0)])
def test_hours_with_too_many_changes_get_more_instances(of: object, most: int) -> None:
    """No hour has fewer, as many entries are left as are allowed, and what was added is said."""
    counts = np.random.default_rng(0).integers(0, 30, 168)
    asked = hours_of(counts, "UTC")
    assert len(of(asked)) > 128
    less, added = fitted(asked, of, most)
    assert (less.instances >= counts).all()
    assert len(of(less)) <= most
    assert added == (less.instances - counts).sum() > 0
    assert fitted(less, of, most) == (less, 0)


def test_groups_of_a_type_share_an_address() -> None:
    """Reserved ones are fixed, others follow their hours, and one without changes has no actions."""
    counts, spot = np.full((24, 2), 2), np.zeros((24, 2))
    counts[12:, 0] = 5
    spot[9:12, 0] = 1
    schedule = replace(schedule_of(counts, two_regions(2)), spot=spot, reserved=np.array([3, 0]))
    made = written(schedule)
    text, first = made.files["aws.tf"], "aws-us-east-1-g6-xlarge"
    groups = re.findall(r'resource "aws_autoscaling_group" "([^"]*)"', text)
    assert groups == [first, f"{first}-spot", f"{first}-reserved", "aws-eu-west-1-g6-xlarge"]
    assert re.findall(r'resource "aws_lb" "([^"]*)"', text) == [first, "aws-eu-west-1-g6-xlarge"]
    assert re.findall(r'resource "aws_autoscaling_schedule" "([^"]*)"', text) == [first, f"{first}-spot"]
    assert re.findall("desired_capacity += ([0-9]+)", text) == ["5", "1", "3", "2"]
    assert re.findall("min_size +=  *([0-9]+)", text) == ["2", "0", "3", "2"]
    assert text.count("ignore_changes = [min_size, desired_capacity]") == 2
    assert text.count('time_zone              = "Europe/Berlin"') == 2
    assert '"55 11 * * *" = 5' in text
    assert '"0 0 * * *"   = 2' in text
    assert text.count(f"[aws_lb_target_group.{first}-0.arn, aws_lb_target_group.{first}-1.arn]") == 3
    every = ", ".join(f"local.subnets_{name}" for name in groups[:3])
    assert f"subnets                          = values(merge({every}))" in text
    assert made.files["outputs.tf"].count("--replica ") == 4
    assert text.count('market_type = "spot"') == 1
    assert text.count("capacity_reservation_specification {") == 1
    assert [one.kind for one in made.cautions] == ["limits", "spot", "routing"]
    assert made.cautions[0].message.startswith("aws/us-east-1/g6.xlarge, aws/eu-west-1/g6.xlarge: the engine's limits")


def test_google_cloud_has_autoscalers() -> None:
    """With the schedule's own time zone or another, never by the load of processors, and without a fixed size."""
    counts = np.ones((24, 2))
    counts[12:, 0] = 5
    types = [replace(one, offer=replace(one.offer, provider="gcp")) for one in two_regions()]
    text = written(schedule_of(counts, types), time_zone="America/New_York").files["gcp.tf"]
    (scaler,) = re.findall(r'resource "google_compute_region_autoscaler" .*?\n}\n', text, re.DOTALL)
    for line in (
        "min_replicas    = 1",
        "max_replicas    = 5",
        "target = 1",
        "min_required_replicas = 5",
        'schedule              = "55 11 * * *"',
        'time_zone             = "America/New_York"',
        "duration_sec          = 43500",
    ):
        assert line in scaler
    assert re.findall("target_size += ([0-9]+)", text) == ["1"]


def test_types_that_would_share_a_name_are_an_error() -> None:
    """A type that is called like another one on spot; and clouds that are not supported."""
    first, second = two_regions()
    schedule = schedule_of(np.ones((24, 2)), [replace(first, name="g6"), replace(second, name="g6 spot")])
    with pytest.raises(InputError, match="would be the name of two groups"):
        written(replace(schedule, spot=np.tile([1, 0], (24, 1))))
    elsewhere = [replace(one, offer=replace(one.offer, provider="nebius")) for one in (first, second)]
    with pytest.raises(InputError, match="instances of nebius are not supported"):
        written(schedule_of(np.ones((24, 2)), elsewhere))
