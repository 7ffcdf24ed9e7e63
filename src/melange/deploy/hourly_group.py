"""The replicas of one type in one market over the hours of a schedule, for targets that start servers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from melange.deploy.group import Group, Launcher, base_of_model, type_keys
from melange.deploy.node import node_of
from melange.deploy.schedule_options import HourlyServerOptions
from melange.errors import InputError
from melange.plan.problem import Positions
from melange.plan.schedule.schedule import Schedule
from melange.plan.server import Server, server_of
from melange.profile.profile import ReplicaType
from melange.workload.workload import Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HourlyGroup:
    """The instances of one type in one market.

    Parameters
    ----------
    group
        The replicas of the busiest hour.
    instances
        Instances in each hour (H,).
    """

    group: Group
    instances: Positions


def hourly_groups(
    schedule: Schedule, options: HourlyServerOptions, *, has_reserved: bool, is_one_process: bool = False
) -> tuple[HourlyGroup, ...]:
    """The groups of a schedule, one per type and market in use: on demand, spot, reserved.

    Parameters
    ----------
    schedule
        The schedule to deploy.
    options
        The user's options for servers.
    has_reserved
        Whether the target has reserved instances; if not, they are on-demand ones.
    is_one_process
        Whether the target starts one process per instance, which then runs all replicas of the instance.

    Raises
    ------
    InputError
        The schedule has no instances, or a server that cannot be started here.
    """
    hours = len(schedule.labels)
    held = np.tile(schedule.reserved, (hours, 1))
    by_market: Mapping[str, Array] = {
        "on-demand": schedule.on_demand + (0 if has_reserved else held),
        "spot": schedule.spot,
        **({"reserved": held} if has_reserved else {}),
    }
    used = [
        (r, market)
        for r in range(len(schedule.replica_types))
        for market, counts in by_market.items()
        if counts[:, r].any()
    ]
    if not used:
        raise InputError("schedule: no instances to start")
    keys = _keys(schedule.replica_types, used)
    base = base_of_model(options.model or schedule.model) if options.name is None else options.name
    launcher = Launcher(None, 0.0, options)
    groups = []
    for (r, market), key in zip(used, keys, strict=True):
        one, instances = schedule.replica_types[r], by_market[market][:, r].astype(np.int64)
        most = int(instances.max())
        node = node_of(replace(one, offer=replace(one.offer, market=market)), most)
        server, launch = launcher.launch(one, _server(schedule, r), node, is_one_process=is_one_process)
        group = Group(
            name=f"{base}-{key}",
            key=key,
            server=server,
            launch=launch,
            node=node,
            replicas=most * one.replicas_per_instance,
        )
        groups.append(HourlyGroup(group=group, instances=instances))
    return tuple(groups)


def _server(schedule: Schedule, r: int) -> Server:
    """Start options of a type; without limits if the file does not have them."""
    if schedule.servers:
        return schedule.servers[r]
    return server_of(schedule.replica_types[r], None, 0, schedule.model, None, 0)


def _keys(types: Sequence[ReplicaType], used: Sequence[tuple[int, str]]) -> list[str]:
    """Short, unique names: that of the type as in a plan, and the market if it is not on demand."""
    by_type = type_keys([one.name for one in types])
    keys = [by_type[r] if market == "on-demand" else f"{by_type[r]}-{market}" for r, market in used]
    if len(set(keys)) == len(keys):
        return keys
    return type_keys([f"{types[r].name} {market}" for r, market in used])
