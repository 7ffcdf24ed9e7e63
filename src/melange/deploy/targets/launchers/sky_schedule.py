"""SkyPilot over the hours of a schedule: a service per type and market, and a script that updates their instances."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import numpy as np

from melange.deploy.as_yaml import yaml_text
from melange.deploy.group import cautions_of
from melange.deploy.heading import comments, heading_of_schedule, one_line
from melange.deploy.hourly_group import HourlyGroup, hourly_groups
from melange.deploy.manifest import Manifest
from melange.deploy.scaled_objects import not_deferred
from melange.deploy.schedule_options import HourlyServerOptions, ScheduleTarget
from melange.deploy.targets.launchers import follow_schedule
from melange.deploy.targets.launchers.shell import check_names, instance_cautions
from melange.deploy.targets.launchers.sky_serve import CLOUDS, service_of
from melange.deploy.timetable import lead_of, time_zone_of
from melange.errors import Caution
from melange.plan.schedule.schedule import Schedule
from melange.units import S_PER_MIN, count_of

_ABOUT = """\
A fleet for each hour of the {over} in {zone} time, whatever the traffic is: one service per replica type and market,
with a file for each number of instances that it has in some hour (services/). follow.py runs sky serve update for the
services whose number is another one now. It looks {lead} min ahead, for the start-up. Instances that stay are not
restarted; SkyPilot sends no more requests to those that leave, and ends them two minutes later.

Start: HF_TOKEN=... python3 follow.py up. Then run it once a minute on a machine that is always on, with a line of
crontab -e:

{crontab}

The machine's own time zone does not matter, and the next run makes up for one that was missed or failed. Stop: remove
the line, then sky serve down -y {names}.

In front of the services: melange deploy plan.json --to haproxy --replica NAME=http://ENDPOINT for each, with a plan of
the same types. sky serve status --endpoint prints ENDPOINT, which stays the same at any number of instances.
"""
_CRONTAB = (
    '* * * * * HF_TOKEN="$(cat "$HOME/.cache/huggingface/token")" && export HF_TOKEN && '
    "/path/to/python3 /path/to/follow.py"
)


def _render(schedule: Schedule, options: HourlyServerOptions, written: date) -> Manifest:
    zone, lead = time_zone_of(schedule, options.time_zone), lead_of(schedule)
    groups = hourly_groups(schedule, options, has_reserved=False, is_one_process=True)
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
    servers = tuple(one_line(str(server)) for server in {one.server.replica_type: one.server for one in plain}.values())
    facts = heading_of_schedule(schedule, written, cautions)
    paragraphs = [(text,) if text == _CRONTAB else " ".join(text.split()) for text in about.strip().split("\n\n")]
    heading = comments([*facts, servers, *paragraphs])
    hours = {
        "time_zone": zone,
        "hours": len(schedule.labels),
        "start_up_s": lead * int(S_PER_MIN),
        "services": {one.group.name: one.instances.tolist() for one in groups},
    }
    script = Path(follow_schedule.__file__).read_text(encoding="utf-8")
    files = {"follow.py": f"{heading}\n\n{script}", "hours.json": _lines(hours), **_services(schedule, groups, written)}
    return Manifest(target="skypilot", files=files, cautions=tuple(cautions))


def _services(schedule: Schedule, groups: tuple[HourlyGroup, ...], written: date) -> dict[str, str]:
    """A file for each number of instances that a service has in some hour."""
    files = {}
    for one in groups:
        for count in np.unique(one.instances).tolist():
            hours = int((one.instances == count).sum())
            market = "spot" if one.group.node.is_spot else "demand"
            words = (
                f"Written by melange deploy on {written.isoformat()}: {one.group.replica_type}, "
                f"{count_of(count, 'instance')} on {market}, as in {hours} of {len(schedule.labels)} hours of the "
                f"{schedule.over}; see ../follow.py."
            )
            files[f"services/{one.group.name}.{count}.yaml"] = (
                f"{comments([one_line(words)])}\n\n{yaml_text([service_of(one.group, count)])}"
            )
    return files


def _lines(hours: dict[str, object]) -> str:
    """JSON with a line for each service, and for each of its days."""
    services = hours["services"]
    assert isinstance(services, dict)
    rows = []
    for name, counts in services.items():
        days = [json.dumps(counts[k : k + 24]) for k in range(0, len(counts), 24)]
        inner = ",\n   ".join(day[1:-1] for day in days)
        rows.append(f"  {json.dumps(name)}: [\n   {inner}]")
    first = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in hours.items() if key != "services")
    return "{\n" + first + ',\n "services": {\n' + ",\n".join(rows) + "\n }\n}\n"


def _reserved(schedule: Schedule) -> list[Caution]:
    held = [f"{int(n)} x {one.name}" for one, n in zip(schedule.replica_types, schedule.reserved, strict=True) if n]
    if not held:
        return []
    words = "planned as reserved, which SkyPilot does not support: they are on-demand instances here, at all hours"
    return [
        Caution("market", f"{', '.join(held)}: {words}; a commitment that is a discount on the bill applies to them")
    ]


def _on_spot(groups: tuple[HourlyGroup, ...]) -> list[Caution]:
    spot = [one.group.replica_type for one in groups if one.group.node.is_spot]
    if not spot:
        return []
    words = "SkyPilot starts spot instances again where they are available, and no on-demand ones in their place"
    return [Caution("spot", f"{', '.join(spot)}: {words}")]


TARGET = ScheduleTarget(
    name="skypilot",
    about="A fleet for each hour on SkyPilot: a service per type and market, and a script that updates them.",
    options=HourlyServerOptions,
    render=_render,
)
