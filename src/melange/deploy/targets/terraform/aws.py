"""AWS: a launch template, an autoscaling group and an internal load balancer for each replica type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from melange.deploy.group import Group
from melange.deploy.targets.terraform.cloud_hours import Hours, Resizing, fitted, steps
from melange.deploy.targets.terraform.hcl import Block, Expression, identifier

# The parameter with the name of Amazon's latest machine image with NVIDIA's driver and Docker.
_IMAGE = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"

# Scheduled actions that a group may have.
_MOST_ACTIONS = 125
# What they change.
_BY_ACTIONS = Expression("[min_size, desired_capacity]")


def providers(groups: Sequence[Group]) -> list[Block]:
    """One provider for each region."""
    return [
        Block("provider", ("aws",), {"alias": region, "region": value}) for region, value in _regions(groups).items()
    ]


def blocks(groups: Sequence[Group], base: str, resizing: Resizing) -> list[Block]:
    """All blocks of the groups on AWS."""
    made = _access(base, _region(groups[0]))
    for region in _regions(groups):
        made += _network(region, base, groups)
    for key, some in resizing.addresses(groups).items():
        made += [block for group in some for block in _subnets(group)]
        made += _balancer(key, some)
        made += [block for group in some for block in _group(group, key, base, resizing.hours.get(group.key))]
    return made


def replica_urls(address: str, group: Group) -> list[Expression]:
    """Addresses of replicas: ``host:port``."""
    name = identifier(address)
    return [
        Expression(f'"${{aws_lb.{name}.dns_name}}:{group.launch.port + k}"') for k in range(group.replicas_per_node)
    ]


def _regions(groups: Sequence[Group]) -> dict[str, Any]:
    """Value of each region, by its name in providers and data sources; a variable if the plan names no region."""
    return {_region(group): group.node.region or Expression("var.aws_region") for group in groups}


def _region(group: Group) -> str:
    return identifier(group.node.region) if group.node.region else "unnamed"


def _access(base: str, region: str) -> list[Block]:
    """Permissions of instances in all regions: reading one secret, if one is named."""
    here = {"provider": Expression(f"aws.{region}")}
    trust = Expression(
        'jsonencode({ Version = "2012-10-17", Statement = [{ Effect = "Allow", Action = "sts:AssumeRole", '
        'Principal = { Service = "ec2.amazonaws.com" } }] })'
    )
    read = Expression(
        'jsonencode({ Version = "2012-10-17", Statement = [{ Effect = "Allow", '
        'Action = "secretsmanager:GetSecretValue", '
        'Resource = "arn:*:secretsmanager:*:*:secret:${var.hf_secret}-*" }] })'
    )
    return [
        Block(
            "resource", ("aws_iam_role", "replica"), {**here, "name_prefix": f"{base}-", "assume_role_policy": trust}
        ),
        Block(
            "resource",
            ("aws_iam_role_policy", "secret"),
            {
                **here,
                "count": Expression('var.hf_secret == "" ? 0 : 1'),
                "role": Expression("aws_iam_role.replica.id"),
                "policy": read,
            },
        ),
        Block(
            "resource",
            ("aws_iam_instance_profile", "replica"),
            {**here, "name_prefix": f"{base}-", "role": Expression("aws_iam_role.replica.name")},
        ),
    ]


def _network(region: str, base: str, groups: Sequence[Group]) -> list[Block]:
    """The network of a region, its machine image, and access rules for replicas."""
    here = {"provider": Expression(f"aws.{region}")}
    vpc = f'lookup(var.aws_vpc_ids, "{region}", null)'
    some = [group for group in groups if _region(group) == region]
    first = min(group.launch.port for group in some)
    last = max(group.launch.port + group.replicas_per_node - 1 for group in some)
    return [
        Block(
            "data",
            ("aws_vpc", region),
            {**here, "id": Expression(vpc), "default": Expression(f"{vpc} == null ? true : null")},
        ),
        Block("data", ("aws_ssm_parameter", region), {**here, "name": _IMAGE}),
        Block(
            "resource",
            ("aws_security_group", region),
            {
                **here,
                "name_prefix": f"{base}-",
                "vpc_id": Expression(f"data.aws_vpc.{region}.id"),
                "ingress": Block(
                    "ingress",
                    (),
                    {
                        "description": "requests and health checks from within the network",
                        "from_port": first,
                        "to_port": last,
                        "protocol": "tcp",
                        "cidr_blocks": [Expression(f"data.aws_vpc.{region}.cidr_block")],
                    },
                ),
                "egress": Block(
                    "egress",
                    (),
                    {
                        "description": "images and weights",
                        "from_port": 0,
                        "to_port": 0,
                        "protocol": "-1",
                        "cidr_blocks": ["0.0.0.0/0"],
                    },
                ),
            },
        ),
    ]


def _subnets(group: Group) -> list[Block]:
    """One subnet in each zone that offers the instance type: a load balancer accepts no two in a zone."""
    name, region = identifier(group.key), _region(group)
    here = {"provider": Expression(f"aws.{region}")}
    given = f'lookup(var.aws_subnet_ids, "{group.key}", lookup(var.aws_subnet_ids, "{region}", ["*"]))'
    filters = {
        "vpc-id": [Expression(f"data.aws_vpc.{region}.id")],
        "availability-zone": [Expression("each.key")],
        "subnet-id": Expression(given),
    }
    offered = {
        **here,
        "location_type": "availability-zone",
        "filter": Block("filter", (), {"name": "instance-type", "values": [group.node.instance_type]}),
    }
    found = {
        **here,
        "for_each": Expression(f"toset(data.aws_ec2_instance_type_offerings.{name}.locations)"),
        "filters": [Block("filter", (), {"name": key, "values": values}) for key, values in filters.items()],
    }
    chosen = f"{{ for zone, found in data.aws_subnets.{name} : zone => sort(found.ids)[0] if length(found.ids) > 0 }}"
    return [
        Block("data", ("aws_ec2_instance_type_offerings", name), offered),
        Block("data", ("aws_subnets", name), found),
        Block("locals", (), {f"subnets_{name}": Expression(chosen)}),
    ]


def fitted_hours(hours: Hours) -> tuple[Hours, int]:
    """The hours with as many changes as a group may have, and the instance-hours that were added for that."""
    return fitted(hours, steps, _MOST_ACTIONS)


def _actions(name: str, region: str, hours: Hours) -> list[Block]:
    """The numbers of instances by the time from which they apply."""
    every = {one.cron: one.count for one in steps(hours)}
    action = {
        "provider": Expression(f"aws.{region}"),
        "for_each": Expression(f"local.actions_{name}"),
        "autoscaling_group_name": Expression(f"aws_autoscaling_group.{name}.name"),
        "scheduled_action_name": Expression('replace(replace(each.key, " ", "-"), "*", "x")'),
        "recurrence": Expression("each.key"),
        "time_zone": hours.time_zone,
        "min_size": Expression("each.value"),
        "desired_capacity": Expression("each.value"),
        # Unchanged.
        "max_size": -1,
    }
    return [
        Block("locals", (), {f"actions_{name}": every}),
        Block("resource", ("aws_autoscaling_schedule", name), action),
    ]


def _group(group: Group, address: str, base: str, hours: Hours | None) -> list[Block]:
    name, region, target = identifier(group.key), _region(group), identifier(address)
    here = {"provider": Expression(f"aws.{region}")}
    template: dict[str, Any] = {
        **here,
        "name_prefix": f"{group.key}-",
        "image_id": Expression(f"data.aws_ssm_parameter.{region}.value"),
        "instance_type": group.node.instance_type,
        "vpc_security_group_ids": [Expression(f"aws_security_group.{region}.id")],
        "user_data": _user_data(group),
        "update_default_version": True,
        "profile": Block("iam_instance_profile", (), {"arn": Expression("aws_iam_instance_profile.replica.arn")}),
        "metadata": Block("metadata_options", (), {"http_tokens": "required"}),
        "disk": Block(
            "block_device_mappings",
            (),
            {
                "device_name": "/dev/sda1",
                "ebs": Block("ebs", (), {"volume_size": group.launch.disk_gb, "volume_type": "gp3"}),
            },
        ),
        **_market(group),
    }
    return [
        Block("resource", ("aws_launch_template", name), template),
        Block(
            "resource",
            ("aws_autoscaling_group", name),
            {
                **here,
                "name_prefix": f"{group.key}-",
                "min_size": group.node.instances if hours is None else hours.least,
                "desired_capacity": group.node.instances,
                # One additional instance while a new one replaces an old one.
                "max_size": group.node.instances + 1,
                "vpc_zone_identifier": Expression(f"values(local.subnets_{name})"),
                "target_group_arns": [
                    Expression(f"aws_lb_target_group.{target}-{k}.arn") for k in range(group.replicas_per_node)
                ],
                "health_check_type": "ELB",
                "health_check_grace_period": group.launch.startup_s,
                "default_instance_warmup": group.launch.startup_s,
                "capacity_rebalance": group.node.is_spot,
                "template": Block(
                    "launch_template",
                    (),
                    {
                        "id": Expression(f"aws_launch_template.{name}.id"),
                        "version": Expression(f"aws_launch_template.{name}.latest_version"),
                    },
                ),
                "refresh": Block(
                    "instance_refresh",
                    (),
                    {
                        "strategy": "Rolling",
                        "preferences": Block(
                            "preferences", (), {"min_healthy_percentage": 100, "max_healthy_percentage": 110}
                        ),
                    },
                ),
                "tags": [
                    Block("tag", (), {"key": key, "value": value, "propagate_at_launch": True})
                    for key, value in {"Name": group.name, "melange-service": base}.items()
                ],
                **({} if hours is None else {"lifecycle": Block("lifecycle", (), {"ignore_changes": _BY_ACTIONS})}),
            },
        ),
        *([] if hours is None else _actions(name, region, hours)),
    ]


def _balancer(address: str, groups: Sequence[Group]) -> list[Block]:
    """An internal address of a type's groups, with one port for each replica of an instance."""
    group, name, region = groups[0], identifier(address), _region(groups[0])
    here = {"provider": Expression(f"aws.{region}")}
    every = ", ".join(f"local.subnets_{identifier(one.key)}" for one in groups)
    subnets = f"values(merge({every}))" if len(groups) > 1 else f"values({every})"
    needed = {
        "condition": Expression(f"length({subnets}) > 0"),
        "error_message": f"No subnet of the VPC is in a zone that offers {group.node.instance_type}.",
    }
    made = [
        Block(
            "resource",
            ("aws_lb", name),
            {
                **here,
                "internal": True,
                "load_balancer_type": "network",
                "enable_cross_zone_load_balancing": True,
                "subnets": Expression(subnets),
                "lifecycle": Block("lifecycle", (), {"precondition": Block("precondition", (), needed)}),
            },
        )
    ]
    for k in range(group.replicas_per_node):
        port = group.launch.port + k
        made += [
            Block(
                "resource",
                ("aws_lb_target_group", f"{name}-{k}"),
                {
                    **here,
                    "port": port,
                    "protocol": "TCP",
                    "vpc_id": Expression(f"data.aws_vpc.{region}.id"),
                    "deregistration_delay": group.launch.drain_s,
                    "health": Block("health_check", (), {"protocol": "HTTP", "path": "/health", "interval": 10}),
                },
            ),
            Block(
                "resource",
                ("aws_lb_listener", f"{name}-{k}"),
                {
                    **here,
                    "load_balancer_arn": Expression(f"aws_lb.{name}.arn"),
                    "port": port,
                    "protocol": "TCP",
                    "action": Block(
                        "default_action",
                        (),
                        {
                            "type": "forward",
                            "target_group_arn": Expression(f"aws_lb_target_group.{name}-{k}.arn"),
                        },
                    ),
                },
            ),
        ]
    return made


def _user_data(group: Group) -> Expression:
    """The script of the type, after lines with values that only Terraform knows."""
    region = f"${{data.aws_ssm_parameter.{_region(group)}.arn}}"
    before = f"#!/bin/sh\\nHF_SECRET='${{var.hf_secret}}'\\nHF_REGION=$(echo '{region}' | cut -d: -f4)\\n"
    script = f'${{file("${{path.module}}/startup/{group.key}.sh")}}'
    return Expression(f'base64encode("{before}{script}")')


def _market(group: Group) -> dict[str, Any]:
    if group.node.market == "spot":
        return {"market": Block("instance_market_options", (), {"market_type": "spot"})}
    if group.node.market == "reserved":
        # Use the named reservation, or else any matching open one.
        chosen = f'lookup(var.aws_capacity_reservations, "{group.key}", "")'
        target = {"capacity_reservation_id": Expression("capacity_reservation_target.value")}
        dynamic = {"for_each": Expression(f"compact([{chosen}])"), "content": Block("content", (), target)}
        reservation = {
            "capacity_reservation_preference": Expression(f'{chosen} == "" ? "open" : null'),
            "target": Block("dynamic", ("capacity_reservation_target",), dynamic),
        }
        return {"market": Block("capacity_reservation_specification", (), reservation)}
    return {}
