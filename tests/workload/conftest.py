"""Small request logs in the shapes in which they are published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from melange.workload.workload import Buckets

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a text file and return its path."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def toy_buckets() -> Buckets:
    """Two input buckets (1-500, 501-1000) and two output buckets (1-50, 51-200)."""
    return Buckets(input_edges=(500, 1000), output_edges=(50, 200))


@pytest.fixture
def rows(write: Write) -> Callable[..., Path]:
    """Write ``(arrival_s, input_tokens, output_tokens)`` rows as ``trace.csv``."""

    def rows(*values: tuple[object, object, object]) -> Path:
        lines = [",".join(map(str, row)) for row in values]
        return write("trace.csv", "\n".join(["arrival_s,input_tokens,output_tokens", *lines, ""]))

    return rows
