"""The dashboard in the published schema of Grafana's dashboards, as its own SDK reads and writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

DASHBOARD = Path(__file__).parents[2] / "examples" / "deploy" / "grafana" / "dashboard.json"


def lost(given: Any, found: Any, place: str = "") -> list[str]:
    """What of a document is not in another, by place."""
    if isinstance(given, dict):
        own = found if isinstance(found, dict) else {}
        return [one for key, value in given.items() for one in lost(value, own.get(key, KeyError), f"{place}.{key}")]
    if isinstance(given, list):
        if not isinstance(found, list) or len(found) != len(given):
            return [place]
        return [one for k, value in enumerate(given) for one in lost(value, found[k], f"{place}[{k}]")]
    return [] if given == found else [place]


def read_and_written(content: dict[str, Any]) -> Any:
    """The dashboard after a turn through the SDK's own classes, which know no other keys."""
    encoder = pytest.importorskip("grafana_foundation_sdk.cog.encoder")
    models = pytest.importorskip("grafana_foundation_sdk.models.dashboard")
    return json.loads(encoder.JSONEncoder().encode(models.Dashboard.from_json(content)))


def test_the_dashboard_is_what_grafana_knows() -> None:
    """Every key and value comes back; in a spoilt copy, the key that it does not know is missing."""
    content = json.loads(DASHBOARD.read_text())
    assert lost(content, read_and_written(content)) == []
    spoilt = content | {"refreshes": "1m"}
    assert lost(spoilt, read_and_written(spoilt)) == [".refreshes"]
