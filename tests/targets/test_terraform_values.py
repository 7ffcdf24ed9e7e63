"""What Terraform makes of its files, where it is installed: the subnets, zones and actions that it computes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from deploy_cases import two_types
from parsers import PLUGINS
from plan_cases import answering
from small_schedules import schedule_of, two_regions

from melange.deploy.render import render
from melange.deploy.scaling_rule import render_rule

MOCKED = """\
mock_provider "aws" {{
  alias = "{region}"
  mock_data "aws_vpc" {{
    defaults = {{ id = "vpc-1", cidr_block = "10.0.0.0/16" }}
  }}
  mock_data "aws_ec2_instance_type_offerings" {{
    defaults = {{ locations = ["a", "c", "f"] }}
  }}
  mock_data "aws_subnets" {{
    defaults = {{ ids = {subnets} }}
  }}
  mock_data "aws_ssm_parameter" {{
    defaults = {{ value = "ami-1", arn = "arn:aws:ssm:{region}::parameter/x" }}
  }}
{overrides}
}}
"""
OVERRIDE = """\
  override_data {{
    target = data.aws_subnets.{key}["{zone}"]
    values = {{ ids = {ids} }}
  }}"""
ASSERTS = """\
run "plan" {{
  command = plan
  assert {{
    condition     = toset(aws_lb.{lb}.subnets) == toset(["subnet-1", "subnet-3"])
    error_message = "balancer"
  }}
  assert {{
    condition     = toset(aws_autoscaling_group.{key}.vpc_zone_identifier) == toset(["subnet-1", "subnet-3"])
    error_message = "group"
  }}
  assert {{
    condition     = aws_autoscaling_schedule.{key}["55 7 * * *"].desired_capacity == 4
    error_message = "actions"
  }}
}}
"""


def mocked(regions: list[str], key: str, subnets: str) -> str:
    """Providers that answer with these subnets, and with some of the zones' own for a group."""
    given = {"a": '["subnet-2", "subnet-1"]', "c": '["subnet-3"]', "f": "[]"}
    overrides = "\n".join(OVERRIDE.format(key=key, zone=zone, ids=ids) for zone, ids in given.items())
    return "".join(
        MOCKED.format(region=region, subnets=subnets, overrides=overrides if region == regions[0] else "")
        for region in regions
    )


@pytest.mark.skipif(not shutil.which("terraform"), reason="terraform is not here")
@pytest.mark.parametrize(
    ("cloud", "given", "chosen"),
    [
        ("aws", {"a": {"ids": ["subnet-2", "subnet-1"]}, "b": {"ids": []}, "c": {"ids": ["subnet-3"]}}, ["1", "3"]),
        ("gcp", {"1": {"machine_types": [{"name": "g2"}]}, "2": {"machine_types": []}}, ["1"]),
    ],
)
def test_terraform_chooses_places(
    cloud: str, given: dict[str, dict[str, list[object]]], chosen: list[str], tmp_path: Path
) -> None:
    """As Terraform computes them: the first subnet of each zone that has one, and zones that offer the machine."""
    plan = two_types()
    types = tuple(replace(one, offer=replace(one.offer, provider=cloud)) for one in plan.replica_types)
    text = render(answering(plan, replica_types=types), "terraform").files[f"{cloud}.tf"]
    kind, name = {"aws": ("aws_subnets", "subnets"), "gcp": ("google_compute_machine_types", "zones")}[cloud]
    key = "aws-us-east-1-g5-xlarge"
    (expression,) = re.findall(f"{name}_{key} = (.*)", text)
    local = expression.replace(f"data.{kind}.{key}", f"jsondecode({json.dumps(json.dumps(given))})")
    (tmp_path / "main.tf").write_text(
        f'variable "google_zones" {{\n  default = {{}}\n}}\nlocals {{\n  it = {local}\n}}\n'
    )
    done = subprocess.run(
        ["terraform", f"-chdir={tmp_path}", "console"], input="jsonencode(local.it)", capture_output=True, text=True
    )
    made = json.loads(json.loads(done.stdout))
    places = list(made.values()) if isinstance(made, dict) else made
    assert [one.removeprefix("subnet-") for one in places] == chosen, done.stderr


@pytest.mark.skipif(not (shutil.which("terraform") and PLUGINS), reason="terraform and its AWS provider are not here")
@pytest.mark.parametrize(
    ("subnets", "said"), [('["subnet-9"]', ""), ("[]", "No subnet of the VPC is in a zone that offers g6.xlarge")]
)
def test_terraform_plans_a_schedule(subnets: str, said: str, tmp_path: Path) -> None:
    """With a mocked AWS: one subnet of each zone for the balancer and its groups, actions, and an error without any."""
    first, second = two_regions()
    types = [first, replace(second, offer=replace(second.offer, region="eu-west-1"))]
    counts = np.ones((24, 2))
    counts[8:18, 0] = 4
    render_rule(schedule_of(counts, types), "terraform").write(tmp_path)
    key = "aws-us-east-1-g6-xlarge"
    test = mocked(["us-east-1", "eu-west-1"], key, subnets) + ASSERTS.format(lb=key, key=key)
    (tmp_path / "plan.tftest.hcl").write_text(test)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        words = ["terraform", f"-chdir={tmp_path}", *command]
        return subprocess.run(words, capture_output=True, text=True, env=environment, check=False)

    assert run("init", "-input=false", f"-plugin-dir={PLUGINS}").returncode == 0
    done = run("test", "-no-color")
    assert (done.returncode == 0) is (said == ""), done.stdout + done.stderr
    assert said in done.stderr
