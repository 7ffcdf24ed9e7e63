"""Google Cloud: an instance template, a managed group and an internal load balancer for each replica type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from melange.deploy.group import Group
from melange.deploy.targets.terraform.cloud_hours import Hours, Resizing, fitted, spans
from melange.deploy.targets.terraform.hcl import Block, Expression, identifier, quoted
from melange.units import S_PER_MIN

# Source addresses of Google's health checks (cloud.google.com/load-balancing/docs/health-check-concepts).
_CHECKERS = ["35.191.0.0/16", "130.211.0.0/22"]
# Accelerators that are attached to a machine; newer machine types include theirs.
_GUEST = {"T4": "nvidia-tesla-t4", "V100-16GB": "nvidia-tesla-v100", "P100": "nvidia-tesla-p100"}

# Scaling schedules that a group may have.
_MOST_SCHEDULES = 128


def providers(groups: Sequence[Group]) -> list[Block]:
    """One provider: regions are named where they are used."""
    return [Block("provider", ("google",), {"project": Expression("var.google_project")})] if groups else []


def blocks(groups: Sequence[Group], base: str, resizing: Resizing) -> list[Block]:
    """All blocks of the groups on Google Cloud."""
    made = _access(groups, base)
    for group in {_region(group): group for group in groups}.values():
        made.append(Block("data", ("google_compute_zones", _region(group)), {"region": _place(group)}))
    for key, some in resizing.addresses(groups).items():
        made += [block for group in some for block in _group(group, key, base, resizing.hours.get(group.key))]
        made += _balancer(key, f"{base}-{key}", some)
    return made


def replica_urls(address: str, group: Group) -> list[Expression]:
    """Addresses of replicas: ``host:port``."""
    name = identifier(address)
    return [
        Expression(f'"${{google_compute_forwarding_rule.{name}.ip_address}}:{group.launch.port + k}"')
        for k in range(group.replicas_per_node)
    ]


def is_attached(group: Group) -> bool:
    """Whether the accelerators are attached to a machine that is also offered without them."""
    return group.node.accelerator in _GUEST and group.node.instance_type.startswith("n1-")


def _region(group: Group) -> str:
    return identifier(group.node.region) if group.node.region else "unnamed"


def _place(group: Group) -> Any:
    return group.node.region or Expression("var.google_region")


def _access(groups: Sequence[Group], base: str) -> list[Block]:
    """Permissions of instances (reading one secret, if one is named), and access rules for replicas."""
    first = min(group.launch.port for group in groups)
    last = max(group.launch.port + group.replicas_per_node - 1 for group in groups)
    return [
        Block("resource", ("google_service_account", "replica"), {"account_id": f"{base}-replica"}),
        Block(
            "resource",
            ("google_secret_manager_secret_iam_member", "replica"),
            {
                "count": Expression('var.hf_secret == "" ? 0 : 1'),
                "secret_id": Expression("var.hf_secret"),
                "role": "roles/secretmanager.secretAccessor",
                "member": Expression('"serviceAccount:${google_service_account.replica.email}"'),
            },
        ),
        Block(
            "resource",
            ("google_compute_firewall", "replica"),
            {
                "name": f"{base}-replica",
                "network": Expression("var.google_network"),
                "source_ranges": Expression(f"concat({_list(_CHECKERS)}, var.google_client_ranges)"),
                "target_tags": [base],
                "allow": Block("allow", (), {"protocol": "tcp", "ports": [f"{first}-{last}"]}),
            },
        ),
    ]


def _list(texts: Sequence[str]) -> str:
    return f"[{', '.join(map(quoted, texts))}]"


def _zones(group: Group, name: str) -> list[Block]:
    """The zones of the region that offer the machine type: a group without zones would take any three."""
    offered = {
        "for_each": Expression(f"toset(data.google_compute_zones.{_region(group)}.names)"),
        "zone": Expression("each.key"),
        "filter": f'name = "{group.node.instance_type}"',
    }
    found = f"[for zone, one in data.google_compute_machine_types.{name} : zone if length(one.machine_types) > 0]"
    chosen = f'lookup(var.google_zones, "{group.key}", lookup(var.google_zones, "{_region(group)}", {found}))'
    return [
        Block("data", ("google_compute_machine_types", name), offered),
        Block("locals", (), {f"zones_{name}": Expression(chosen)}),
    ]


def fitted_hours(hours: Hours) -> tuple[Hours, int]:
    """The hours with as many schedules as a group may have, and the instance-hours that were added for that."""
    return fitted(hours, spans, _MOST_SCHEDULES)


def _autoscaler(group: Group, name: str, hours: Hours) -> Block:
    """The numbers of instances by the times in which they apply; the highest one counts."""
    every = [
        Block(
            "scaling_schedules",
            (),
            {
                "name": f"s{k}",
                "min_required_replicas": one.count,
                "schedule": one.cron,
                "time_zone": hours.time_zone,
                "duration_sec": one.lasts_min * int(S_PER_MIN),
            },
        )
        for k, one in enumerate(spans(hours))
    ]
    policy = {
        "min_replicas": hours.least,
        "max_replicas": hours.most,
        "cooldown_period": min(group.launch.startup_s, 3600),
        # Without a signal it would be 0.6, and busy processors would add instances.
        "cpu": Block("cpu_utilization", (), {"target": 1}),
        "schedules": every,
    }
    body = {
        "name": group.name,
        "region": _place(group),
        "target": Expression(f"google_compute_region_instance_group_manager.{name}.id"),
        "policy": Block("autoscaling_policy", (), policy),
    }
    return Block("resource", ("google_compute_region_autoscaler", name), body)


def _group(group: Group, address: str, base: str, hours: Hours | None) -> list[Block]:
    name, region = identifier(group.key), _place(group)
    needed = {
        "condition": Expression(f"length(local.zones_{name}) > 0"),
        "error_message": f"No zone of the region offers {group.node.instance_type}.",
    }
    return [
        *_zones(group, name),
        *([] if hours is None else [_autoscaler(group, name, hours)]),
        Block("resource", ("google_compute_instance_template", name), _template(group, base)),
        Block(
            "resource",
            ("google_compute_region_instance_group_manager", name),
            {
                "name": group.name,
                "region": region,
                "base_instance_name": group.name,
                **({"target_size": group.node.instances} if hours is None else {}),
                # Use any of these zones that has such machines at the moment.
                "distribution_policy_zones": Expression(f"local.zones_{name}"),
                "distribution_policy_target_shape": "ANY",
                "version": Block(
                    "version",
                    (),
                    {"instance_template": Expression(f"google_compute_instance_template.{name}.self_link_unique")},
                ),
                "healing": Block(
                    "auto_healing_policies",
                    (),
                    {
                        "health_check": Expression(f"google_compute_health_check.{identifier(address)}.id"),
                        "initial_delay_sec": min(group.launch.startup_s, 3600),
                    },
                ),
                "update": Block(
                    "update_policy",
                    (),
                    {
                        "type": "PROACTIVE",
                        "minimal_action": "REPLACE",
                        "instance_redistribution_type": "NONE",
                        "max_unavailable_fixed": 0,
                        # The least that is allowed.
                        "max_surge_fixed": Expression(f"length(local.zones_{name})"),
                    },
                ),
                "lifecycle": Block("lifecycle", (), {"precondition": Block("precondition", (), needed)}),
            },
        ),
    ]


def _balancer(address: str, full_name: str, groups: Sequence[Group]) -> list[Block]:
    """The health check and the internal address of a type's groups."""
    group, name, region = groups[0], identifier(address), _place(groups[0])
    backends = [
        Block(
            "backend",
            (),
            {
                "group": Expression(
                    f"google_compute_region_instance_group_manager.{identifier(one.key)}.instance_group"
                ),
                "balancing_mode": "CONNECTION",
            },
        )
        for one in groups
    ]
    return [
        Block(
            "resource",
            ("google_compute_health_check", name),
            {
                "name": full_name,
                "check_interval_sec": 10,
                "timeout_sec": 5,
                "unhealthy_threshold": 6,
                "check": Block("http_health_check", (), {"port": group.launch.port, "request_path": "/health"}),
            },
        ),
        Block(
            "resource",
            ("google_compute_region_backend_service", name),
            {
                "name": full_name,
                "region": region,
                "protocol": "TCP",
                "load_balancing_scheme": "INTERNAL",
                "connection_draining_timeout_sec": min(group.launch.drain_s, 3600),
                "health_checks": [Expression(f"google_compute_health_check.{name}.id")],
                "backends": backends,
            },
        ),
        Block(
            "resource",
            ("google_compute_forwarding_rule", name),
            {
                "name": full_name,
                "region": region,
                "load_balancing_scheme": "INTERNAL",
                "all_ports": True,
                # A gateway may be in another region.
                "allow_global_access": True,
                "network": Expression("var.google_network"),
                "subnetwork": Expression("var.google_subnetwork"),
                "backend_service": Expression(f"google_compute_region_backend_service.{name}.id"),
            },
        ),
    ]


def _template(group: Group, base: str) -> dict[str, Any]:
    node = group.node
    script = f'${{file("${{path.module}}/startup/{group.key}.sh")}}'
    guest = _GUEST[node.accelerator] if is_attached(group) else None
    body: dict[str, Any] = {
        # A template cannot be changed, so the next one gets another name.
        "name_prefix": f"{group.key[:30].rstrip('-')}-",
        "region": _place(group),
        "machine_type": node.instance_type,
        "tags": [base],
        "metadata_startup_script": Expression(f"\"#!/bin/sh\\nHF_SECRET='${{var.hf_secret}}'\\n{script}\""),
        "lifecycle": Block("lifecycle", (), {"create_before_destroy": True}),
        "disk": Block(
            "disk",
            (),
            {"source_image": Expression("var.google_image"), "disk_size_gb": group.launch.disk_gb, "boot": True},
        ),
        "network": Block(
            "network_interface",
            (),
            {"network": Expression("var.google_network"), "subnetwork": Expression("var.google_subnetwork")},
        ),
        "account": Block(
            "service_account",
            (),
            {"email": Expression("google_service_account.replica.email"), "scopes": ["cloud-platform"]},
        ),
        "scheduling": Block("scheduling", (), _scheduling(group)),
    }
    if guest:
        body["accelerator"] = Block("guest_accelerator", (), {"type": guest, "count": node.accelerators})
    if node.market == "reserved":
        body["reservation"] = _reservation(group)
    return body


def _scheduling(group: Group) -> dict[str, Any]:
    """Machines with accelerators cannot be migrated; spot machines are not restarted after an interruption."""
    if group.node.is_spot:
        return {
            "on_host_maintenance": "TERMINATE",
            "automatic_restart": False,
            "preemptible": True,
            "provisioning_model": "SPOT",
            "instance_termination_action": "STOP",
        }
    return {"on_host_maintenance": "TERMINATE", "automatic_restart": True}


def _reservation(group: Group) -> Block:
    """The named reservation, or else any matching one."""
    chosen = f'lookup(var.google_reservations, "{group.key}", "")'
    specific = {"key": "compute.googleapis.com/reservation-name", "values": Expression("[specific_reservation.value]")}
    dynamic = {"for_each": Expression(f"compact([{chosen}])"), "content": Block("content", (), specific)}
    return Block(
        "reservation_affinity",
        (),
        {
            "type": Expression(f'{chosen} == "" ? "ANY_RESERVATION" : "SPECIFIC_RESERVATION"'),
            "specific": Block("dynamic", ("specific_reservation",), dynamic),
        },
    )
