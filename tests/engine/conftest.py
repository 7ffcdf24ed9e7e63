"""Servers that the tests with a real engine share; where vLLM is not installed none of them is collected."""

import contextlib
import os
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from engine_servers import Server, serving

collect_ignore_glob = [] if find_spec("vllm") else ["test_*.py"]


@pytest.fixture(scope="session", autouse=True)
def _steady() -> None:
    """Clients and balancers have the last core; they and the servers go before other work, where that is allowed."""
    os.sched_setaffinity(0, {min(1, (os.cpu_count() or 1) - 1)})
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -5)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A model of 4 layers on the first core."""
    with serving(tmp_path_factory.mktemp("small"), 4, core=0) as server:
        yield server


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A model of 16 layers on the second core, which clients and balancers use too, though little of it."""
    with serving(tmp_path_factory.mktemp("large"), 16, core=1) as server:
        yield server
