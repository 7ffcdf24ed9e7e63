"""A small service, and its own profile and traffic, as files."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_text import SERVICE

from melange.service.session import Session


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """A small service in a file."""
    path = tmp_path / "service.yaml"
    path.write_text(SERVICE)
    return path


@pytest.fixture
def profile(service: Path, tmp_path: Path) -> Path:
    """The service's own profile, as a file."""
    return Session(service).profile().save(tmp_path / "profile.json")


@pytest.fixture
def workload(service: Path, tmp_path: Path) -> Path:
    """The service's own traffic, as a file."""
    return Session(service).workload().save(tmp_path / "workload.json")
