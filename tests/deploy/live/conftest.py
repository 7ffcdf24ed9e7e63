"""Servers that the tests of the balancer share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from balance_cases import Balancer, Replica, small_plan


@pytest.fixture(scope="session")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small plan, saved."""
    return small_plan(rate=1e4).save(tmp_path_factory.mktemp("plan") / "plan.json")


@pytest.fixture(scope="session")
def two_replicas() -> Iterator[tuple[Replica, Replica]]:
    """A replica of each type of the small plan."""
    with Replica() as first, Replica() as second:
        yield first, second


@pytest.fixture(scope="session")
def shared_balancer(plan_file: Path, two_replicas: tuple[Replica, Replica]) -> Iterator[Balancer]:
    """A balancer before them that tests use one after the other."""
    first, second = two_replicas
    options = ("--replica", f"L4={first.url}", "--replica", f"A100={second.url}", "--health-every", "0.2")
    limits = ("--max-body-mib", "0.25", "--idle-timeout", "1", "--body-timeout", "0.5", "--max-failures", "1000000")
    with Balancer(plan_file, *options, *limits) as balancer:
        yield balancer


@pytest.fixture
def balancer(shared_balancer: Balancer, two_replicas: tuple[Replica, Replica]) -> Iterator[Balancer]:
    """The shared balancer, before two replicas that are well."""
    for replica in two_replicas:
        replica.be("")
    yield shared_balancer
    for replica in two_replicas:
        replica.be("")
