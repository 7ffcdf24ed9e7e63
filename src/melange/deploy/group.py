"""The replicas of one type, as rendered by every target that starts servers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from melange.catalog.bundled import is_local
from melange.deploy.launch import Launch, Start, launch_of
from melange.deploy.node import Node, node_of
from melange.deploy.server_options import ServerOptions
from melange.errors import Caution, InputError
from melange.plan.load_points import in_flight_on
from melange.plan.plan import Plan
from melange.plan.server import Server, servers_of
from melange.profile.profile import ReplicaType
from melange.slo import Slo

# Most letters in the parts of a name: with its base and KServe's suffix (20), it stays within the 63 letters of DNS.
_BASE_LETTERS, _TYPE_LETTERS, _DIGEST = 16, 26, 5
# Least number of requests in flight per replica for scaling.
_LEAST_IN_FLIGHT = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The replicas of one type, as a target starts them.

    Parameters
    ----------
    name
        Name of the group: a DNS label, unique in the plan, at most 43 letters.
    key
        The part of the name that identifies the type: lower-case letters, digits and dashes.
    server
        The plan's assumptions about a replica.
    launch
        How to start a replica.
    node
        The instances that replicas run on.
    replicas
        Number of replicas in the plan; in a schedule, the most of any hour.
    """

    name: str
    key: str
    server: Server
    launch: Launch
    node: Node
    replicas: int

    @property
    def replica_type(self) -> str:
        """Name of the plan's replica type."""
        return self.server.replica_type

    @property
    def replicas_per_node(self) -> int:
        """Number of replicas per instance."""
        return self.node.accelerators // self.server.layout.accelerators

    @property
    def replica_cost_per_h(self) -> float:
        """A replica's part of the instance's price [USD/h]."""
        return self.node.cost_per_h / self.replicas_per_node

    @property
    def most_replicas(self) -> int:
        """Upper end of scaling: twice the planned number, limited by availability."""
        most = 2 * self.replicas
        if self.node.most_instances is not None:
            most = min(most, self.node.most_instances * self.replicas_per_node)
        return max(most, self.replicas)

    def least_replicas(self, given: int | None) -> int:
        """Lower end of scaling: the given number, or the planned one if none is given."""
        return self.replicas if given is None else min(given, self.most_replicas)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedGroup(Group):
    """A group with its part of the planned traffic.

    Parameters
    ----------
    request_rate
        Request rate of one replica at the planned traffic [1/s].
    in_flight
        Requests in flight on one replica at the planned traffic, for scaling.
    """

    request_rate: float
    in_flight: float


def base_name(plan: Plan, options: ServerOptions) -> str:
    """The base name of all objects of a plan: the user's name, or one from the model's name.

    It consists of lower-case letters, digits and dashes, and starts with a letter.
    """
    return base_of_model(options.model or plan.model) if options.name is None else options.name


def base_of_model(model: str) -> str:
    """The base name of the objects of a service without a name of its own: from its model's name.

    >>> base_of_model("meta-llama/Llama-3.1-8B-Instruct")
    'llama-3-1-8b'
    """
    last = model.rstrip("/").rpartition("/")[2]
    slug = _slug(last)
    if len(slug) > _BASE_LETTERS:
        slug = slug[: _BASE_LETTERS + 1].rpartition("-")[0] or slug[:_BASE_LETTERS]
    return slug if slug[:1].isalpha() else f"llm-{slug}".rstrip("-")[:_BASE_LETTERS].rstrip("-")


def type_keys(names: Sequence[str]) -> list[str]:
    """Short, unique names of replica types: long or ambiguous ones end in a digest of the whole name."""
    plain = [_slug(name) or "replicas" for name in names]
    return [
        slug
        if len(slug) <= _TYPE_LETTERS and plain.count(slug) == 1
        else f"{slug[: _TYPE_LETTERS - _DIGEST - 1].strip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]}"
        for name, slug in zip(names, plain, strict=True)
    ]


def groups_of(
    plan: Plan, options: ServerOptions, *, is_one_process: bool = False, start: Start | None = None
) -> tuple[LoadedGroup, ...]:
    """The groups of a plan, one per used replica type, in the plan's order.

    Parameters
    ----------
    plan
        The plan to deploy.
    options
        The user's options for servers.
    is_one_process
        Whether the target starts one process per instance, which then runs all replicas of the instance.
    start
        Other decisions of the target about starting servers.

    Raises
    ------
    InputError
        The plan has no replicas, or a server that cannot be started here.
    """
    servers = {server.replica_type: server for server in servers_of(plan)}
    if not servers:
        raise InputError("plan: no replicas to start")
    used = [r for r, one in enumerate(plan.replica_types) if one.name in servers]
    keys, base = type_keys([plan.replica_types[r].name for r in used]), base_name(plan, options)
    launcher = Launcher(plan.slo, 0.0 if plan.workload.buckets.is_ordinal else _longest_answer(plan), options, start)
    groups = []
    for r, key in zip(used, keys, strict=True):
        one, replicas = plan.replica_types[r], plan.replicas[plan.replica_types[r].name]
        node = node_of(one, int(plan.instances[r]))
        server, launch = launcher.launch(one, servers[one.name], node, is_one_process=is_one_process)
        served = (plan.share[r] * plan.workload.request_rate).sum()
        groups.append(
            LoadedGroup(
                name=f"{base}-{key}",
                key=key,
                server=server,
                launch=launch,
                node=node,
                replicas=replicas,
                request_rate=float(served / replicas),
                in_flight=max(in_flight_on(plan, r, replicas), _LEAST_IN_FLIGHT),
            )
        )
    return tuple(groups)


@dataclass(frozen=True, slots=True)
class Launcher:
    """How to start the servers of a plan or a schedule.

    Parameters
    ----------
    slo, longest_answer
        The SLO and the longest completion [tokens], which determine the drain time; None: unknown.
    options
        The user's options for servers.
    start
        Other decisions of the target about starting servers.
    """

    slo: Slo | None
    longest_answer: float
    options: ServerOptions
    start: Start | None = None

    def launch(
        self, one: ReplicaType, server: Server, node: Node, *, is_one_process: bool = False
    ) -> tuple[Server, Launch]:
        """The server of a type with its engine, and how to start it.

        Raises
        ------
        InputError
            A replica on several machines, or a server that cannot be started here.
        """
        server = _with_engine(server, self.options)
        if one.machines > 1:
            raise self._across(one, server, node)
        how = replace(self.start or Start(), copies=one.replicas_per_instance if is_one_process else 1)
        return server, launch_of(server, node.facts, self.slo, self.longest_answer, self.options, how)

    def _across(self, one: ReplicaType, server: Server, node: Node) -> InputError:
        """The error for a replica on several machines, with the commands to start it by hand."""
        command = launch_of(server, node.facts, self.slo, self.longest_answer, self.options).shell
        return InputError(
            f"{one.name}: one replica spans {one.machines} machines, which melange deploy does not start",
            hint=f"join {one.machines} x {node.instance_type or one.offer.name} in a Ray cluster (ray start --head, "
            f"then ray start --address=HEAD:6379 on the others) and run on the first: {command} "
            "--distributed-executor-backend ray; then melange deploy --to haproxy --replica NAME=URL, or melange "
            "balance, routes to it",
        )


def cautions_of(groups: Sequence[Group]) -> tuple[Caution, ...]:
    """Cautions about the servers, for every target."""
    cautions = []
    if groups and groups[0].launch.model == groups[0].server.model and is_local(groups[0].server.model):
        name = groups[0].server.model
        cautions.append(
            Caution(
                "local-model",
                f"{name} was read from a local folder, and is no name on the Hugging Face hub: --option model=org/name "
                "names the weights, or a path that servers have",
            )
        )
    if measured := [group.replica_type for group in groups if group.server.source == "measured"]:
        cautions.append(
            Caution(
                "measured",
                f"{', '.join(measured)}: planned on measured rates; limits that the server did not report are assumed: "
                "compare the flags with those used for the measurement",
            )
        )
    if unknown := [group.replica_type for group in groups if group.server.max_sequences is None]:
        cautions.append(
            Caution(
                "limits",
                f"{', '.join(unknown)}: the engine's limits are not in the plan, so the engine's own defaults "
                "apply; they are right if the rates were measured with them",
            )
        )
    strange = sorted({group.node.accelerator for group in groups if group.node.facts is None})
    if strange:
        cautions.append(
            Caution("accelerator", f"{', '.join(strange)}: not in the table of accelerators; assumed to be NVIDIA's")
        )
    return tuple(cautions)


def _with_engine(server: Server, options: ServerOptions) -> Server:
    """The server with the user's engine if the plan names none."""
    return server if server.engine or options.engine is None else replace(server, engine=options.engine)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.casefold().encode("ascii", "ignore").decode()).strip("-")


def _longest_answer(plan: Plan) -> float:
    """Longest completion of the plan's traffic [tokens]."""
    last = np.flatnonzero(plan.workload.request_rate.sum(axis=0))[-1]
    return float(plan.workload.buckets.output_edges[last])
