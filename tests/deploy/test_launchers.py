"""What the files of Compose, SkyPilot, dstack and Terraform say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml
from deploy_cases import SMALL_SHARE, plan_of, replica_type, two_types
from plan_cases import answering
from starters import in_market

from melange.deploy.render import render
from melange.errors import InputError


def test_compose_on_one_machine_runs_everything() -> None:
    """Each replica with its own accelerators; the balancer when they are ready; no other file is needed."""
    one = replica_type("aws/p4d tp2", "A100-40GB")
    one = replace(one, tensor_parallel=2, offer=replace(one.offer, accelerators=8, instance_type="p4d.24xlarge"))
    manifest = render(plan_of(np.ones((1, 3, 2)), [1], [one]), "docker-compose", listen="0.0.0.0:80")
    assert list(manifest.files) == ["compose.yaml", "config/plan.json", "config/replicas.txt"]
    services = yaml.safe_load(manifest.files["compose.yaml"])["services"]
    devices = [
        service["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]
        for name, service in services.items()
        if name != "balancer"
    ]
    assert devices == [["0", "1"], ["2", "3"], ["4", "5"], ["6", "7"]]
    assert services["balancer"]["ports"] == ["0.0.0.0:80:8080"]
    assert set(services["balancer"]["depends_on"]) == {f"replica-{k}" for k in range(4)}
    assert manifest.files["config/replicas.txt"].splitlines()[0] == "aws/p4d tp2=http://replica-0:8000"


def test_compose_on_several_machines_has_a_file_for_each_kind() -> None:
    """And one for the balancer, which is told where replicas are."""
    urls = {"A10G": ["http://10.0.0.1:8000", "http://10.0.0.2:8000"], "A100-80GB": ["http://10.0.0.3:8000"]}
    manifest = render(two_types(), "docker-compose", replicas=urls)
    assert [name for name in manifest.files if name.endswith("compose.yaml")] == [
        "aws-us-east-1-g5-xlarge/compose.yaml",
        "aws-us-east-1-p4d/compose.yaml",
        "balancer/compose.yaml",
    ]
    assert manifest.files["balancer/config/replicas.txt"].splitlines()[-1] == "aws/us-east-1/p4d=http://10.0.0.3:8000"
    assert [caution.kind for caution in manifest.cautions] == ["limits", "machines"]


@pytest.mark.parametrize(
    ("instances", "accelerators", "where", "said"),
    [
        (
            1,
            1,
            "On the machine of",
            "The replica listens on port 8100 of the machine: only the balancer should be able to reach it.",
        ),
        (
            3,
            4,
            "On each of the 3 machines of",
            "Replicas listen on ports 8100 to 8103 of the machine: only the balancer",
        ),
    ],
)
def test_compose_says_where_replicas_listen(instances: int, accelerators: int, where: str, said: str) -> None:
    """One port or a range, on one machine or several."""
    one = replica_type("aws/x", "L4")
    types = [replace(one, offer=replace(one.offer, accelerators=accelerators)), replica_type("aws/y", "A10G")]
    plan = plan_of(np.full((2, 3, 2), 0.5), [instances, 1], types)
    text = render(plan, "docker-compose", port=8100).files["aws-x/compose.yaml"]
    words = " ".join(text.replace("\n# ", " ").split())
    assert f"{where} aws/x: docker compose -f aws-x/compose.yaml up -d" in words
    assert said in words


def test_a_sky_service_has_the_planned_instances() -> None:
    """Each on its own instance type; in one service the rates that each carries, which is not a count."""
    manifest = render(in_market("spot"), "skypilot")
    task = yaml.safe_load(manifest.files["aws-us-east-1-g5-xlarge.yaml"])
    assert task["service"]["replicas"] == 2
    assert task["resources"]["infra"] == "aws/us-east-1"
    assert task["resources"]["use_spot"] is True
    assert task["secrets"] == {"HF_TOKEN": None}
    types = [replica_type("aws/us-east-1/g5.xlarge", "A10G"), replica_type("aws/us-east-1/g6e.xlarge", "L40S")]
    plan = plan_of(np.stack([SMALL_SHARE, 1.0 - SMALL_SHARE]), [2, 1], types)
    manifest = render(plan, "skypilot", layout="one-service")
    policy = yaml.safe_load(manifest.files["service.yaml"])["service"]["replica_policy"]
    assert policy["target_qps_per_replica"] == {"A10G:1": pytest.approx(2.085), "L40S:1": pytest.approx(5.83)}
    assert [caution.kind for caution in manifest.cautions] == ["limits", "counts", "routing"]
    with pytest.raises(InputError, match="accepts no rate"):
        render(two_types(), "skypilot", layout="one-service")


def test_a_dstack_service_has_a_group_a_type() -> None:
    """With counts, markets and the instances that are allowed."""
    service = yaml.safe_load(render(in_market("spot"), "dstack").files["service.dstack.yml"])
    assert [(one["count"], one["spot_policy"]) for one in service["replicas"]] == [(2, "spot"), (1, "spot")]
    assert service["instance_types"] == ["g5.xlarge", "p4d"]
    assert service["replicas"][1]["resources"]["gpu"] == "A100:80GB:1"
    scaled = yaml.safe_load(render(two_types(), "dstack", scaling="rps").files["service.dstack.yml"])["replicas"][0]
    assert (scaled["count"], scaled["scaling"]) == ("2..4", {"metric": "rps", "target": pytest.approx(2.085)})


def test_terraform_has_a_group_a_type() -> None:
    """As many instances as planned, by market; other clouds are left out with a word, or refused if nothing is left."""
    files = render(in_market("spot"), "terraform").files
    assert 'instance_type          = "g5.xlarge"' in files["aws.tf"]
    assert "desired_capacity          = 2" in files["aws.tf"]
    assert 'market_type = "spot"' in files["aws.tf"]
    assert "capacity_reservation_specification" in render(in_market("reserved"), "terraform").files["aws.tf"]
    files = render(in_market("reserved", "gcp"), "terraform").files
    assert "SPECIFIC_RESERVATION" in files["gcp.tf"]
    assert "start 0 0" in files["startup/aws-us-east-1-g5-xlarge.sh"]
    with pytest.raises(InputError, match="instances of nebius"):
        render(in_market("on-demand", "nebius"), "terraform")
    plan = two_types()
    first, *others = plan.replica_types
    mixed = answering(plan, replica_types=(replace(first, offer=replace(first.offer, provider="nebius")), *others))
    (left,) = (one for one in render(mixed, "terraform").cautions if one.kind == "left-out")
    assert left.message.startswith("2 x aws/us-east-1/g5.xlarge: not written")


def test_terraform_uses_one_subnet_in_each_zone_that_offers_the_instances() -> None:
    """The balancer and the group of a type get the same subnets: one of each zone with its instance type."""
    files = render(in_market("spot"), "terraform").files
    blocks = files["aws.tf"].split("\n\n")
    for key, instance_type in (("aws-us-east-1-g5-xlarge", "g5.xlarge"), ("aws-us-east-1-p4d", "p4d")):
        (text,) = (one for one in files["aws.tf"].split("\n}\n") if f'"aws_ec2_instance_type_offerings" "{key}"' in one)
        assert 'location_type = "availability-zone"' in text
        assert f'values = ["{instance_type}"]' in text
        assert f"for_each = toset(data.aws_ec2_instance_type_offerings.{key}.locations)" in files["aws.tf"]
        chosen = f"for zone, found in data.aws_subnets.{key} : zone => sort(found.ids)[0] if length(found.ids) > 0"
        assert f"subnets_{key} = {{ {chosen} }}" in files["aws.tf"]
        lines = [line for line in files["aws.tf"].splitlines() if line.endswith(f"= values(local.subnets_{key})")]
        used = [line.split("=")[0].strip() for line in lines]
        assert used == ["subnets", "vpc_zone_identifier"]
    assert sum('name   = "availability-zone"\n    values = [each.key]' in one for one in blocks) == 2
    assert files["aws.tf"].count('["*"]') == 2
    assert 'variable "aws_subnet_ids"' in files["variables.tf"]


def test_terraform_names_the_zones_of_a_group_on_google_cloud() -> None:
    """Those that offer the machine type, with at most as many new instances as zones; T4s are said to be elsewhere."""
    manifest = render(in_market("on-demand", "gcp"), "terraform")
    text, key = manifest.files["gcp.tf"], "aws-us-east-1-g5-xlarge"
    assert text.count('data "google_compute_zones" "us-east-1"') == 1
    assert 'filter   = "name = \\"g5.xlarge\\""' in text
    assert f"distribution_policy_zones        = local.zones_{key}" in text
    assert f"max_surge_fixed              = length(local.zones_{key})" in text
    assert not [one for one in manifest.cautions if one.kind == "zones"]
    plan = in_market("on-demand", "gcp", accelerator="T4", instance_type="n1-standard-8")
    (zones,) = (one for one in render(plan, "terraform").cautions if one.kind == "zones")
    assert "set the variable google_zones" in zones.message


@pytest.mark.parametrize(
    ("model", "variant", "disk_gb"),
    [
        ("meta-llama/Llama-3.1-8B", "", 300),
        ("meta-llama/Llama-3.3-70B-Instruct", "", 300),  # 141.1 GB: 1.2 times plus 100 GB are 269 GB
        ("meta-llama/Llama-3.1-405B-Instruct", "", 1100),  # 811.7 GB
        ("meta-llama/Llama-3.1-405B-Instruct", "fp8", 1100),  # the engine reads the published weights
        ("meta-llama/Llama-3.1-405B-Instruct", "int4", 400),  # a checkpoint of 217 GB
        ("deepseek-ai/DeepSeek-V3", "", 950),  # 673.0 GB
        ("our-own", "", 950),  # unknown: at most the memory of eight accelerators of 80 GiB, 687 GB
    ],
)
def test_disks_hold_the_weights(model: str, variant: str, disk_gb: int) -> None:
    """At least 300 GB, or 1.2 times the weights and 100 GB, rounded up to 50 GB; the same in every target."""
    one = replica_type("aws/p5 tp8", "H100-80GB")
    offer = replace(one.offer, accelerators=8, instance_type="p5.48xlarge")
    one = replace(one, tensor_parallel=8, offer=offer, variant=variant)
    plan = answering(plan_of(np.ones((1, 3, 2)), [1], [one]), replica_types=(one,))
    plan = answering(plan, model=model)
    options = {"checkpoints": {"int4": "org/int4"}}
    assert f"volume_size = {disk_gb}\n" in render(plan, "terraform", **options).files["aws.tf"]
    on_gcp = answering(plan, replica_types=(replace(one, offer=replace(offer, provider="gcp")),))
    assert f"disk_size_gb = {disk_gb}\n" in render(on_gcp, "terraform", **options).files["gcp.tf"]
    (task,) = render(plan, "skypilot", **options).files.values()
    assert yaml.safe_load(task)["resources"]["disk_size"] == disk_gb
    (group,) = yaml.safe_load(render(plan, "dstack", **options).files["service.dstack.yml"])["replicas"]
    assert group["resources"]["disk"] == {"size": f"{disk_gb}GB.."}
