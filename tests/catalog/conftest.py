"""A loopback server of prices, and a user's data folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from price_server import Site, serving


@pytest.fixture
def site() -> Iterator[Site]:
    """The server."""
    with serving() as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's data folder, empty."""
    monkeypatch.setenv("MELANGE_DATA", str(tmp_path / "data"))
    return tmp_path / "data"
