"""Docker Compose: one file for a plan on one machine, otherwise one file per type's machines and for the balancer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from melange.deploy.as_yaml import yaml_text
from melange.deploy.group import Group, base_name, cautions_of, groups_of
from melange.deploy.heading import comments, heading_of, paragraphs
from melange.deploy.launch import Launch
from melange.deploy.manifest import Manifest
from melange.deploy.plan_in_use import plan_text
from melange.deploy.pools import pools_of
from melange.deploy.target import Target
from melange.deploy.targets.compose.compose_options import ComposeOptions
from melange.deploy.targets.gateways.routes import routes_of
from melange.deploy.tellable import check_tellable
from melange.errors import Caution
from melange.plan.plan import Plan

_ONE_MACHINE = """\
Start: docker compose up -d (needs the NVIDIA container toolkit, or AMD's); the OpenAI API is on {listen}. The Hugging
Face token comes from the environment: export HF_TOKEN=... first, or put it in .env.

Each replica has its own accelerators, by number. The balancer starts when all replicas have loaded the model; it routes
requests by size with the simulated policy. To build its image: docker build -t {image} . in Melange's repository.
"""
_MACHINES = """\
On {machines} of {name}: docker compose -f {file} up -d, with HF_TOKEN in the environment or in .env.
{ports} of the machine: only the balancer should be able to reach {them}.
"""
_BALANCER = """\
On one machine that can reach all others: docker compose -f balancer/compose.yaml up -d; the OpenAI API is on {listen}.
balancer/config/replicas.txt lists the replicas' addresses and is reloaded when it changes. To build the balancer's
image: docker build -t {image} . in Melange's repository.
"""

_Service = dict[str, Any]


def _render(plan: Plan, options: ComposeOptions, written: date) -> Manifest:
    routes_of(plan)  # raises an error for a plan without sizes
    groups, base = groups_of(plan, options), base_name(plan, options)
    check_tellable(group.replica_type for group in groups)
    cautions = list(cautions_of(groups))
    heading = list(heading_of(plan, written, cautions))
    if len(groups) == 1 and groups[0].node.instances == 1:
        files = _one_machine(plan, groups[0], base, options, heading)
        return Manifest(target="docker-compose", files=files, cautions=tuple(cautions))
    pools, about_replicas = pools_of(plan, options.replicas)
    cautions += [*_spread(groups), *about_replicas]
    heading = list(heading_of(plan, written, cautions))
    files = {}
    for group in groups:
        name = f"{group.key}/compose.yaml"
        about = _about(group, name, options.port)
        content = {
            "name": f"{base}-{group.key}",
            "services": _replicas(group, is_published=True),
            "volumes": {"weights": {}},
        }
        files[name] = _file(heading, about, content)
    lines = [f"{pool.replica_type}=http://{one}" for pool in pools for one in pool.replicas]
    balancer = _balancer(options, max(group.launch.drain_s for group in groups))
    content = {"name": f"{base}-balancer", "services": {"balancer": balancer}}
    about = _BALANCER.format(listen=options.listen, image=options.balancer_image)
    files["balancer/compose.yaml"] = _file(heading, about, content)
    files["balancer/config/plan.json"] = plan_text(plan)
    files["balancer/config/replicas.txt"] = "\n".join([*lines, ""])
    return Manifest(target="docker-compose", files=files, cautions=tuple(cautions))


def _one_machine(plan: Plan, group: Group, base: str, options: ComposeOptions, heading: list[Any]) -> dict[str, str]:
    """All services in one file."""
    replicas = _replicas(group, is_published=False)
    balancer = _balancer(options, group.launch.drain_s)
    balancer["depends_on"] = {name: {"condition": "service_healthy"} for name in replicas}
    lines = [f"{group.replica_type}=http://{name}:{group.launch.port}" for name in replicas]
    about = _ONE_MACHINE.format(listen=options.listen, image=options.balancer_image)
    content = {"name": base, "services": {**replicas, "balancer": balancer}, "volumes": {"weights": {}}}
    return {
        "compose.yaml": _file(heading, about, content),
        "config/plan.json": plan_text(plan),
        "config/replicas.txt": "\n".join([*lines, ""]),
    }


def _about(group: Group, file: str, port: int) -> str:
    """How to start the replicas of a type's machines, and their ports."""
    machines, replicas = group.node.instances, group.replicas_per_node
    return _MACHINES.format(
        machines="the machine" if machines == 1 else f"each of the {machines} machines",
        name=group.replica_type,
        file=file,
        ports=f"The replica listens on port {port}"
        if replicas == 1
        else f"Replicas listen on ports {port} to {port + replicas - 1}",
        them="it" if replicas == 1 else "them",
    )


def _file(heading: Sequence[Any], about: str, content: Mapping[str, Any]) -> str:
    return f"{comments([*heading, *paragraphs(about)])}\n\n{yaml_text([content])}"


def _replicas(group: Group, *, is_published: bool) -> dict[str, _Service]:
    """The replicas of one machine, each with its own accelerators; published on consecutive ports."""
    per_replica = group.server.layout.accelerators
    services = {}
    for k in range(group.replicas_per_node):
        devices = [str(number) for number in range(k * per_replica, (k + 1) * per_replica)]
        service = _engine(group.launch, group.node.vendor, devices)
        if is_published:
            service["ports"] = [f"{group.launch.port + k}:{group.launch.port}"]
        services[f"replica-{k}"] = service
    return services


def _engine(launch: Launch, vendor: str, devices: Sequence[str]) -> _Service:
    looks_s = 10
    service: _Service = {
        "image": literal(launch.image),
        "entrypoint": [literal(word) for word in launch.command[:1]],
        "command": [literal(word) for word in launch.command[1:]],
        # From the environment of docker compose, so no token is in the file.
        "environment": {"HF_TOKEN": "${HF_TOKEN:-}"},
        "ipc": "host",
        "restart": "unless-stopped",
        "stop_grace_period": f"{launch.drain_s + 30}s",
        "volumes": ["weights:/root/.cache/huggingface"],
        "healthcheck": {
            "test": ["CMD", "curl", "-sf", f"http://127.0.0.1:{launch.port}/health"],
            "interval": f"{looks_s}s",
            "timeout": "5s",
            "retries": 6,
            "start_period": f"{launch.startup_s}s",
            "start_interval": "5s",
        },
    }
    return service | _devices(vendor, devices)


def _devices(vendor: str, devices: Sequence[str]) -> _Service:
    """The accelerators of a replica, by index."""
    if vendor == "amd":
        return {
            "devices": ["/dev/kfd", "/dev/dri"],
            "group_add": ["video"],
            "environment": {"HF_TOKEN": "${HF_TOKEN:-}", "HIP_VISIBLE_DEVICES": ",".join(devices)},
        }
    reserved = {"driver": "nvidia", "device_ids": list(devices), "capabilities": ["gpu"]}
    return {"deploy": {"resources": {"reservations": {"devices": [reserved]}}}}


def _balancer(options: ComposeOptions, drain_s: int) -> _Service:
    return {
        "image": literal(options.balancer_image),
        "command": [
            *("melange", "balance", "/etc/melange/plan.json", "--replicas", "/etc/melange/replicas.txt"),
            *("--host", "0.0.0.0", "--port", "8080", "--drain", str(drain_s)),
        ],
        "environment": {"MELANGE_BALANCE_KEYS": "${MELANGE_BALANCE_KEYS:-}"},
        "ports": [f"{options.listen}:8080"],
        "restart": "unless-stopped",
        "stop_grace_period": f"{drain_s + 30}s",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "tmpfs": ["/tmp"],
        # Mount a folder: a mounted file would not follow when the file is replaced.
        "volumes": ["./config:/etc/melange:ro"],
    }


def literal(text: str) -> str:
    """Escape a value: compose would substitute variables for ``$NAME``."""
    return text.replace("$", "$$")


def _spread(groups: Sequence[Group]) -> list[Caution]:
    machines = sum(group.node.instances for group in groups)
    return [
        Caution(
            "machines",
            f"Docker Compose handles one machine, but the plan has {machines}: a file per type's machines, and "
            "one for the balancer",
        )
    ]


TARGET = Target(
    name="docker-compose",
    about="Docker Compose: one machine with several accelerators and the balancer, or one file per type's machines.",
    options=ComposeOptions,
    render=_render,
)
