"""Terraform or OpenTofu: the plan's instances in groups; each type has an internal address."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from melange.deploy.elsewhere import is_size_aware
from melange.deploy.group import Group, base_name, cautions_of, groups_of
from melange.deploy.heading import comments, heading_of, paragraphs
from melange.deploy.manifest import Manifest
from melange.deploy.server_options import ServerOptions
from melange.deploy.target import Target
from melange.deploy.targets.terraform import aws, gcp
from melange.deploy.targets.terraform.cloud_hours import Resizing
from melange.deploy.targets.terraform.hcl import Block, Expression, hcl_text, quoted
from melange.deploy.targets.terraform.startup import startup_script
from melange.errors import Caution, InputError
from melange.plan.plan import Plan

CLOUDS = {"aws": aws, "gcp": gcp}
ROUTING = (
    "cloud load balancers cannot route by request size: put a gateway in front of the types' addresses "
    "(melange deploy --to haproxy)"
)
_ABOUT = """\
terraform init && terraform apply (or tofu). The Hugging Face token must already exist as a secret: -var
hf_secret=NAME, in AWS Secrets Manager or Google Secret Manager.

Each replica type is a group of as many instances as planned; every instance runs its replicas in containers, on
consecutive ports, and is replaced when they fail. Each type has an address within the network. In front of them a
gateway routes requests by size, on a machine of that network: eval "melange deploy plan.json --to haproxy $(terraform
output -raw replica_flags)".
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TerraformOptions(ServerOptions):
    """The options of Terraform, the same as for all servers."""

    def __post_init__(self) -> None:
        ServerOptions.__post_init__(self)


def _render(plan: Plan, options: TerraformOptions, written: date) -> Manifest:
    everything, base = groups_of(plan, options), base_name(plan, options)
    groups = supported(everything)
    cautions = [*cautions_of(groups), *place_cautions(everything, groups), *_routing(plan)]
    heading = comments([*heading_of(plan, written, cautions), *paragraphs(_ABOUT)])
    return Manifest(target="terraform", files=files_of(groups, base, heading), cautions=tuple(cautions))


def supported(everything: Sequence[Group]) -> list[Group]:
    """The groups on clouds that these files are for.

    Raises
    ------
    InputError
        There are none.
    """
    groups = [group for group in everything if group.node.provider in CLOUDS and group.node.instance_type]
    if not groups:
        places = ", ".join(sorted({group.node.provider or "no provider" for group in everything}))
        raise InputError(
            f"terraform: instances of {places} are not supported, only {', '.join(CLOUDS)}",
            hint="plan with offers: {providers: [aws, gcp]}",
        )
    return groups


def files_of(groups: Sequence[Group], base: str, heading: str, resizing: Resizing | None = None) -> dict[str, str]:
    """All files of groups, with what a schedule adds to them."""
    resizing = resizing or Resizing()
    by_cloud = {cloud: [group for group in groups if group.node.provider == cloud] for cloud in CLOUDS}
    files = {
        "main.tf": f"{heading}\n\n{hcl_text([_versions(by_cloud), *_providers(by_cloud)])}",
        "variables.tf": hcl_text(_variables(groups)),
        "outputs.tf": hcl_text([_output(resizing.addresses(groups))]),
    }
    for cloud, some in by_cloud.items():
        if some:
            files[f"{cloud}.tf"] = hcl_text(CLOUDS[cloud].blocks(some, base, resizing))
    return files | {f"startup/{group.key}.sh": startup_script(group) for group in groups}


def place_cautions(everything: Sequence[Group], groups: Sequence[Group]) -> list[Caution]:
    """Cautions about groups that are left out, and about zones that must be named."""
    cautions = []
    if left := [group for group in everything if group not in groups]:
        told = ", ".join(f"{group.node.instances} x {group.replica_type}" for group in left)
        cautions.append(
            Caution(
                "left-out",
                f"{told}: not written, since Terraform files support only instances of {', '.join(CLOUDS)}; start "
                "them yourself, or plan without them",
            )
        )
    if attached := [group.replica_type for group in groups if group.node.provider == "gcp" and gcp.is_attached(group)]:
        cautions.append(
            Caution(
                "zones",
                f"{', '.join(attached)}: zones are chosen by the machine type, which is also offered without these "
                "accelerators: set the variable google_zones to those that have them",
            )
        )
    return cautions


def _routing(plan: Plan) -> list[Caution]:
    return [Caution("routing", ROUTING)] if is_size_aware(plan) else []


def _versions(by_cloud: Mapping[str, Sequence[Group]]) -> Block:
    sources = {"aws": ("aws", "hashicorp/aws", ">= 5.80"), "gcp": ("google", "hashicorp/google", ">= 6.0")}
    needed = {
        sources[cloud][0]: {"source": sources[cloud][1], "version": sources[cloud][2]}
        for cloud, some in by_cloud.items()
        if some
    }
    body = {"required_version": ">= 1.5", "providers": Block("required_providers", (), needed)}
    return Block("terraform", (), body)


def _providers(by_cloud: Mapping[str, Sequence[Group]]) -> list[Block]:
    return [block for cloud, some in by_cloud.items() if some for block in CLOUDS[cloud].providers(some)]


def _variables(groups: Sequence[Group]) -> list[Block]:
    """The variables that the groups need."""
    clouds = {group.node.provider for group in groups}
    is_unnamed = {group.node.provider for group in groups if not group.node.region}
    reserved = {group.node.provider for group in groups if group.node.market == "reserved"}
    # The script contains it between single quotes.
    safe = Block(
        "validation",
        (),
        {
            "condition": Expression('can(regex("^[A-Za-z0-9/_+=.@-]*$", var.hf_secret))'),
            "error_message": "The name of a secret.",
        },
    )
    secret = _variable("hf_secret", "Name of the secret with HF_TOKEN; empty: none.", default="")
    made = [Block(secret.kind, secret.labels, {**secret.body, "validation": safe})]
    if "aws" in clouds:
        made.append(_variable("aws_vpc_ids", "VPC by region; the default VPC elsewhere.", "map(string)", {}))
        about = "Subnets by replica type or region; elsewhere all of the VPC. One in each zone is used."
        made.append(_variable("aws_subnet_ids", about, "map(list(string))", {}))
    if "aws" in is_unnamed:
        made.append(_variable("aws_region", "Region of instances without one in the plan."))
    if "aws" in reserved:
        made.append(_variable("aws_capacity_reservations", "Reservation by replica type, if any.", "map(string)", {}))
    if "gcp" in clouds:
        made += [
            _variable("google_project", "Project ID."),
            _variable("google_network", "Network of the instances.", default="default"),
            _variable("google_subnetwork", "Subnetwork of the instances.", default="default"),
            _variable(
                "google_zones",
                "Zones by replica type or region; elsewhere those that offer the machine type.",
                "map(list(string))",
                {},
            ),
            _variable(
                "google_client_ranges", "Address ranges that may reach replicas.", "list(string)", ["10.0.0.0/8"]
            ),
            _variable(
                "google_image",
                "Machine image with Docker and NVIDIA's driver.",
                default="projects/deeplearning-platform-release/global/images/family/"
                "common-cu128-ubuntu-2204-nvidia-570",
            ),
        ]
    if "gcp" in is_unnamed:
        made.append(_variable("google_region", "Region of instances without one in the plan."))
    if "gcp" in reserved:
        made.append(_variable("google_reservations", "Reservation by replica type, if any.", "map(string)", {}))
    return made


def _variable(name: str, about: str, kind: str = "string", default: Any = None) -> Block:
    body: dict[str, Any] = {"description": about, "type": Expression(kind)}
    return Block("variable", (name,), body if default is None else {**body, "default": default})


def _output(addresses: Mapping[str, Sequence[Group]]) -> Block:
    """The replicas as flags of ``melange deploy --to haproxy``, for a shell."""
    flags: list[str] = []
    for address, (group, *_) in addresses.items():
        # Join two literals: the name without its closing quote, and the address without its opening quote.
        name = quoted(f"--replica {shlex.quote(group.replica_type)}=http://")[:-1]
        flags += [f"{name}{url.code[1:]}" for url in CLOUDS[group.node.provider].replica_urls(address, group)]
    return Block(
        "output",
        ("replica_flags",),
        {
            "description": "Addresses of the replicas, as flags of melange deploy --to haproxy.",
            "value": Expression(f'join(" ", [{", ".join(flags)}])'),
        },
    )


TARGET = Target(
    name="terraform",
    about="Terraform or OpenTofu for AWS and Google Cloud: one group of instances per replica type.",
    options=TerraformOptions,
    render=_render,
)
