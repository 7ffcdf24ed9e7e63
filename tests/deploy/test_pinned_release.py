"""Types of a pinned engine release have ``==`` in their names: they are deployed, and named in ``NAME=URL``."""

from __future__ import annotations

from pathlib import Path

import pytest

from melange.deploy.addresses import read_addresses
from melange.deploy.live.discover import resolved
from melange.deploy.pools import parse_replicas
from melange.deploy.render import render
from melange.plan.plan import Plan
from melange.service.session import Session

SERVICE = """\
model: meta-llama/Llama-3.1-8B-Instruct
engine: vllm==0.11.0
slo: {ttft_ms: 2000, tpot_ms: 80}
workload: {dataset: azure-conversation, rate: 8}
offers: {providers: [aws], regions: [us-east-1], gpus: [L40S]}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Of one type, by closed form."""
    (tmp_path / "service.yaml").write_text(SERVICE)
    return Session(tmp_path / "service.yaml").plan()


@pytest.mark.parametrize("target", ["kubernetes", "kserve", "llm-d", "docker-compose"])
def test_it_is_deployed(plan: Plan, target: str) -> None:
    """With the image of the release."""
    assert any("v0.11.0" in text for text in render(plan, target).files.values())


def test_it_is_named_with_its_release(plan: Plan, tmp_path: Path) -> None:
    """In the lines that a balancer reads, those that are written for it, and the flag of gateways."""
    (name,) = [one for one, count in plan.replicas.items() if count]
    assert name.endswith(" vllm==0.11.0")
    assert resolved([f"{name}=http://127.0.0.1:8000"]) == [f"{name}=http://127.0.0.1:8000"]
    assert parse_replicas([f"{name}=http://a:8000"]) == {name: ["http://a:8000"]}
    (tmp_path / "replicas.txt").write_text(f"{name}=http://a:8000\n")
    (found,) = read_addresses(tmp_path / "replicas.txt", plan)
    assert (plan.replica_types[found.place].name, found.url) == (name, "http://a:8000")
