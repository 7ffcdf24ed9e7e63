"""Terraform over the hours of a schedule: groups per type and market, resized by schedules of the clouds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date

from melange.deploy.group import Group, cautions_of
from melange.deploy.heading import comments, heading_of_schedule, one_line, paragraphs
from melange.deploy.hourly_group import HourlyGroup, base_of_schedule, hourly_groups
from melange.deploy.manifest import Manifest
from melange.deploy.scaled_objects import not_deferred
from melange.deploy.schedule_options import HourlyServerOptions, ScheduleTarget
from melange.deploy.targets.terraform.cloud_hours import Hours, Resizing
from melange.deploy.targets.terraform.terraform import CLOUDS, ROUTING, files_of, place_cautions, supported
from melange.deploy.timetable import clock_gaps, clock_repeats, lead_of, time_zone_of
from melange.errors import Caution, InputError
from melange.plan.problem import Positions
from melange.plan.schedule.schedule import Schedule
from melange.units import MIN_PER_H

_ABOUT = """\
A fleet for each hour of the {over} in {zone} time, whatever the traffic is. Each replica type has a group in each
market, on AWS with scheduled actions, on Google Cloud with scaling schedules. They order instances {lead} min before
their hours, for the start-up. A new group on AWS has the instances of its busiest hour until its first action.

terraform init && terraform apply (or tofu). The Hugging Face token must already exist as a secret: -var
hf_secret=NAME, in AWS Secrets Manager or Google Secret Manager.

The groups of a type have one address within the network, which does not change with the number of instances. In front
of the types a gateway routes requests by size, on a machine of that network: eval "melange deploy plan.json --to
haproxy $(terraform output -raw replica_flags)", with a plan of the same types.
"""


def _render(schedule: Schedule, options: HourlyServerOptions, written: date) -> Manifest:
    every = [pair for one in hourly_groups(schedule, options) for pair in _by_market(one)]
    _check_keys([group.key for group, _, _ in every])
    groups = supported([group for group, _, _ in every])
    zone, lead, cycle = time_zone_of(schedule, options.time_zone), lead_of(schedule), len(schedule.labels) * MIN_PER_H
    gaps, repeats = clock_gaps(zone, written, cycle), clock_repeats(zone, written, cycle)
    hours, said = dict[str, Hours](), list[Caution]()
    for group, instances, _ in every:
        if group in groups and instances.min() < instances.max():
            asked = Hours(instances=instances, time_zone=zone, lead_min=lead, gaps=gaps, repeats=repeats)
            hours[group.key], added = CLOUDS[group.node.provider].fitted_hours(asked)
            said += _rounded(group, added, schedule.over)
    resizing = Resizing(hours=hours, address_by_key={group.key: address for group, _, address in every})
    cautions = [
        *cautions_of([*{group.replica_type: group for group in groups}.values()]),
        *place_cautions([group for group, _, _ in every], groups),
        *said,
        *_on_spot(groups),
        Caution("routing", ROUTING),
        *not_deferred(schedule),
    ]
    about = _ABOUT.format(over=schedule.over, zone=zone, lead=lead)
    servers = {one.server.replica_type: one_line(str(one.server)) for one in groups}
    heading = comments([*heading_of_schedule(schedule, written, cautions), tuple(servers.values()), *paragraphs(about)])
    files = files_of(groups, base_of_schedule(schedule, options), heading, resizing)
    return Manifest(target="terraform", files=files, cautions=tuple(cautions))


def _by_market(one: HourlyGroup) -> list[tuple[Group, Positions, str]]:
    """A group for each market of a type that has instances, with its hours and the key of the type's address."""
    made = []
    for market, instances in (("on-demand", one.on_demand), ("spot", one.spot), ("reserved", one.reserved)):
        if not (most := int(instances.max())):
            continue
        end = "" if market == "on-demand" else f"-{market}"
        node = replace(one.group.node, market=market, instances=most)
        group = replace(
            one.group,
            name=f"{one.group.name}{end}",
            key=f"{one.group.key}{end}",
            node=node,
            replicas=most * one.group.replicas_per_node,
        )
        made.append((group, instances, one.group.key))
    return made


def _check_keys(keys: Sequence[str]) -> None:
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise InputError(
            f"terraform: {', '.join(twice)} would be the name of two groups: a replica type is called like another one "
            "in a market",
            hint="give the type another name in the price list, and plan again",
        )


def _rounded(group: Group, added: int, over: str) -> list[Caution]:
    """A caution where the cloud has too few entries for all changes."""
    if not added:
        return []
    words = (
        f"more changes than {group.node.provider} allows for a group, so some hours have more instances than planned"
    )
    return [Caution("hours", f"{group.name}: {words}, {added} instance-hours a {over} in all")]


def _on_spot(groups: Sequence[Group]) -> list[Caution]:
    spot = [one.name for one in groups if one.node.is_spot]
    if not spot:
        return []
    words = "spot instances are started again where they are available, and no on-demand ones in their place"
    return [Caution("spot", f"{', '.join(spot)}: {words}")]


TARGET = ScheduleTarget(
    name="terraform",
    about="A fleet for each hour on AWS or Google Cloud: groups resized by schedules of the clouds.",
    options=HourlyServerOptions,
    render=_render,
)
