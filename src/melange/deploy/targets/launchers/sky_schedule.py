"""SkyPilot over the hours of a schedule: a service per type, and a script that updates their instances."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from melange.deploy.as_yaml import yaml_text
from melange.deploy.group import cautions_of
from melange.deploy.heading import comments, heading_of_schedule, one_line, paragraphs
from melange.deploy.hourly_group import HourlyGroup, hourly_groups
from melange.deploy.manifest import Manifest
from melange.deploy.scaled_objects import not_deferred
from melange.deploy.schedule_options import HourlyServerOptions, ScheduleTarget
from melange.deploy.targets.launchers import follow_schedule
from melange.deploy.targets.launchers.follow_schedule import wanted
from melange.deploy.targets.launchers.shell import check_names, instance_cautions
from melange.deploy.targets.launchers.sky_serve import CLOUDS, service_of
from melange.deploy.timetable import clock_changes, lead_of, time_zone_of
from melange.errors import Caution
from melange.plan.problem import Positions
from melange.plan.schedule.schedule import Schedule
from melange.units import H_PER_DAY, MIN_PER_DAY, MIN_PER_H, S_PER_MIN, count_of

_ABOUT = """\
A fleet for each hour of the {over} in {zone} time, whatever the traffic is: one service per replica type, with a file
for each number of on-demand and spot instances that it has at some time (services/NAME.ON-DEMAND.SPOT.yaml). follow.py
runs sky serve update for the services whose numbers are others now. It looks {lead} min ahead, for the start-up.
Instances that stay are not restarted; SkyPilot sends no more requests to those that leave, and ends them two minutes
later.

Start: HF_TOKEN=... python3 follow.py up. Then run it once a minute on a machine that is always on, with a line of
crontab -e:

{crontab}

The machine's own time zone does not matter, and the next run makes up for one that was missed or failed. With the files
of a new schedule in this folder, run follow.py up once more.

Stop: remove the line, sky serve down -y {names}, and delete applied.json: follow.py up leaves alone what is in it.

In front of the services: melange deploy plan.json --to haproxy --replica NAME=http://ENDPOINT for each, with a plan of
the same types. sky serve status --endpoint prints ENDPOINT, which stays the same at any number of instances.
"""
_CRONTAB = (
    '* * * * * HF_TOKEN="$(cat "$HOME/.cache/huggingface/token")" && export HF_TOKEN && '
    "/path/to/python3 /path/to/follow.py"
)


def _render(schedule: Schedule, options: HourlyServerOptions, written: date) -> Manifest:
    zone, lead = time_zone_of(schedule, options.time_zone), lead_of(schedule)
    groups = hourly_groups(schedule, options, is_one_process=True)
    plain = [one.group for one in groups]
    check_names(plain, "SkyPilot")
    cautions = [
        *cautions_of(plain),
        *instance_cautions(plain, "SkyPilot", CLOUDS),
        *_reserved(schedule),
        *_on_spot(groups),
        Caution("routing", "SkyPilot cannot route by request size: put a gateway in front of its services"),
        *not_deferred(schedule),
    ]
    about = _ABOUT.format(
        over=schedule.over, zone=zone, lead=lead, crontab=_CRONTAB, names=" ".join(one.name for one in plain)
    )
    servers = {one.server.replica_type: one_line(str(one.server)) for one in plain}
    facts = heading_of_schedule(schedule, written, cautions)
    blocks = [(text,) if text == _CRONTAB else text for text in paragraphs(about)]
    heading = comments([*facts, *servers.values(), *blocks])
    hours = {
        "time_zone": zone,
        "hours": len(schedule.labels),
        "start_up_s": lead * int(S_PER_MIN),
        "services": {
            one.group.name: [[k, s] for k, s in zip(_on_demand(one).tolist(), one.spot.tolist(), strict=True)]
            for one in groups
        },
    }
    script = Path(follow_schedule.__file__).read_text(encoding="utf-8")
    files = {
        "follow.py": f"{heading}\n\n{script}",
        "hours.json": _lines(hours),
        **_services(schedule, groups, hours, written),
    }
    return Manifest(target="skypilot", files=files, cautions=tuple(cautions))


def _on_demand(one: HourlyGroup) -> Positions:
    """On-demand instances in each hour, with the reserved ones (H,)."""
    return one.reserved + one.on_demand


def _services(
    schedule: Schedule, groups: Sequence[HourlyGroup], hours: dict[str, Any], written: date
) -> dict[str, str]:
    """A file for each fleet that a service has at some minute of the next years."""
    files, has_spot = {}, {one.group.name: bool(one.spot.any()) for one in groups}
    every = _fleets(hours, written)
    for one in groups:
        name = one.group.name
        for on_demand, spot in sorted({fleet[name] for fleet in every}):
            instances = _instances(on_demand, spot) if has_spot[name] else {"replicas": on_demand}
            words = (
                f"Written by melange deploy on {written.isoformat()} from a schedule over a {schedule.over}: "
                f"{one.group.replica_type}, {count_of(on_demand, 'on-demand instance')} and "
                f"{count_of(spot, 'spot instance')}; see ../follow.py."
            )
            task = service_of(one.group, instances, has_spot=has_spot[name])
            file = f"services/{name}.{on_demand}.{spot}.yaml"
            files[file] = f"{comments([one_line(words)])}\n\n{yaml_text([task])}"
    return files


def _instances(on_demand: int, spot: int) -> dict[str, Any]:
    """On-demand and spot instances in one service; on-demand ones also replace spot ones that are not ready."""
    return {
        "replica_policy": {
            "min_replicas": on_demand + spot,
            "max_replicas": on_demand + spot,
            "base_ondemand_fallback_replicas": on_demand,
            "dynamic_ondemand_fallback": True,
        }
    }


def _fleets(hours: dict[str, Any], written: date) -> list[dict[str, tuple[int, int]]]:
    """All fleets that the script wants at some minute: in a usual week, and where clocks change in the next years."""
    monday = datetime.combine(written - timedelta(days=written.weekday()), time(), UTC).timestamp()
    lead = hours["start_up_s"] // int(S_PER_MIN)
    minutes = {*range(8 * MIN_PER_DAY)}
    for at, before, after in clock_changes(hours["time_zone"], written):
        around = lead + abs(after - before) + MIN_PER_H
        minutes |= {*range(at - around, at + around)}
    return [wanted(hours, monday + minute * S_PER_MIN) for minute in sorted(minutes)]


def _lines(hours: dict[str, Any]) -> str:
    """JSON with a line for each day of a service: on-demand and spot instances of its hours."""
    rows = []
    for name, counts in hours["services"].items():
        days = [json.dumps(counts[k : k + H_PER_DAY])[1:-1] for k in range(0, len(counts), H_PER_DAY)]
        inner = ",\n   ".join(days)
        rows.append(f"  {json.dumps(name)}: [\n   {inner}]")
    first = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in hours.items() if key != "services")
    return "{\n" + first + ',\n "services": {\n' + ",\n".join(rows) + "\n }\n}\n"


def _reserved(schedule: Schedule) -> list[Caution]:
    held = [f"{int(n)} x {one.name}" for one, n in zip(schedule.replica_types, schedule.reserved, strict=True) if n]
    if not held:
        return []
    words = "planned as reserved, which SkyPilot does not support: they are on-demand instances here, at all hours"
    return [Caution("market", f"{', '.join(held)}: {words}; a discount on the bill still applies to them")]


def _on_spot(groups: Sequence[HourlyGroup]) -> list[Caution]:
    spot = [one.group.replica_type for one in groups if one.spot.any()]
    if not spot:
        return []
    words = "until a spot instance is ready, SkyPilot also pays for an on-demand one in its place, at every start"
    return [Caution("spot", f"{', '.join(spot)}: {words}")]


TARGET = ScheduleTarget(
    name="skypilot",
    about="A fleet for each hour on SkyPilot: a service per type, and a script that updates them.",
    options=HourlyServerOptions,
    render=_render,
)
