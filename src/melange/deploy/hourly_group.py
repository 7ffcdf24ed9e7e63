"""The replicas of one type over the hours of a schedule, for targets that start servers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from melange.deploy.group import Group, Launcher, base_of_model, type_keys
from melange.deploy.node import node_of
from melange.deploy.schedule_options import HourlyServerOptions
from melange.errors import InputError
from melange.plan.problem import Positions
from melange.plan.schedule.schedule import Schedule
from melange.plan.server import Server, server_of

# Fields of a server that follow from its replica type.
_OF_TYPE = ("model", "variant", "engine", "tensor_parallel", "expert_parallel", "pipeline_parallel", "pool")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HourlyGroup:
    """The instances of one type.

    Parameters
    ----------
    group
        The replicas of the busiest hour, on demand.
    reserved, on_demand, spot
        Instances of each market in each hour (H,).
    """

    group: Group
    reserved: Positions
    on_demand: Positions
    spot: Positions


def hourly_groups(
    schedule: Schedule, options: HourlyServerOptions, *, is_one_process: bool = False
) -> tuple[HourlyGroup, ...]:
    """The groups of a schedule, one per type that has instances.

    Parameters
    ----------
    schedule
        The schedule to deploy.
    options
        The user's options for servers.
    is_one_process
        Whether the target starts one process per instance, which then runs all replicas of the instance.

    Raises
    ------
    InputError
        The schedule has no instances, or a server that cannot be started here.
    """
    reserved, on_demand, spot = (
        np.broadcast_to(counts, schedule.spot.shape).astype(np.int64)
        for counts in (schedule.reserved, schedule.on_demand, schedule.spot)
    )
    most = (reserved + on_demand + spot).max(axis=0)
    used = np.flatnonzero(most).tolist()
    if not used:
        raise InputError("schedule: no instances to start")
    keys = type_keys([schedule.replica_types[r].name for r in used])
    base, launcher = base_of_schedule(schedule, options), Launcher(None, 0.0, options)
    groups = []
    for r, key in zip(used, keys, strict=True):
        one = schedule.replica_types[r]
        node = node_of(one, int(most[r]))
        server, launch = launcher.launch(one, _server(schedule, r), node, is_one_process=is_one_process)
        group = Group(
            name=f"{base}-{key}",
            key=key,
            server=server,
            launch=launch,
            node=node,
            replicas=int(most[r]) * one.replicas_per_instance,
        )
        groups.append(HourlyGroup(group=group, reserved=reserved[:, r], on_demand=on_demand[:, r], spot=spot[:, r]))
    return tuple(groups)


def base_of_schedule(schedule: Schedule, options: HourlyServerOptions) -> str:
    """The base name of all objects of a schedule: the user's name, or one from the model's name."""
    return base_of_model(options.model or schedule.model) if options.name is None else options.name


def _server(schedule: Schedule, r: int) -> Server:
    """Start options of a type; without limits if the file does not have them."""
    plain = server_of(schedule.replica_types[r], None, 0, schedule.model, None, 0)
    if not schedule.servers:
        return plain
    # What the type says counts, should a file have been edited.
    own = {name: getattr(plain, name) for name in _OF_TYPE}
    return replace(schedule.servers[r], **own)
