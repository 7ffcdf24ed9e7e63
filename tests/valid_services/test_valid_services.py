"""Random valid services: an answer that agrees with itself, with the file and with physics, or an error of ours.

``bench/valid_services.py`` tries hundreds of them, with simulations and the whole catalog.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from draw_valid import service
from run_valid import check

from melange.service.schema import Service

# Keys that need what a draw does not have: other logs and databases, load tests, a fleet in use, another package.
_NOT_DRAWN = {
    *("workload.table", "workload.connection", "workload.metrics", "workload.file", "workload.where", "workload.model"),
    *("workload.columns", "workload.format", "workload.from", "workload.to", "workload.time_zone"),
    *("workload.empty_windows", "profile.source", "profile.anchors", "profile.observed", "profile.doubtful_anchors"),
    *("profile.step_times", "plan.shares", "schedule.drain", "regions.round_trips", "regions.bytes_per_token"),
    "switching",
    "folder",
}


# Draws that take about a second each; the others of the first two dozen take up to a minute.
_QUICK = (1, 2, 3, 4, 5, 6, 8, 9)
_NUMBERS = [number if number in _QUICK else pytest.param(number, marks=pytest.mark.heavy) for number in range(1, 25)]


@pytest.mark.parametrize("number", _NUMBERS)
def test_a_valid_service_is_answered(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By closed form, with a plan's file, its text, a deployment, and questions with one change."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("MELANGE_CACHE", str(tmp_path / "cache"))
    drawn = service(7, number, is_small=True)
    assert check(drawn, tmp_path / "service", is_small=True).findings == [], drawn.text


def test_every_setting_is_drawn() -> None:
    """A new key of the schema is drawn, or listed above with the reason."""
    drawn = [service(1, number).sections for number in range(1, 600)]
    missing = set()
    for key, field in Service.model_fields.items():
        section = field.annotation
        found = {name for one in drawn if isinstance(one.get(key), dict) for name in one[key]}
        names = {
            inner.alias or name
            for part in (section, *getattr(section, "__args__", ()))
            for name, inner in getattr(part, "model_fields", {}).items()
        }
        missing |= {f"{key}.{name}" for name in names - found}
        if not any(key in one for one in drawn):
            missing |= {key}
    left = {key for key in missing if key.partition(".")[0] not in {*_NOT_DRAWN, "classes"}}
    assert left == {key for key in _NOT_DRAWN if "." in key}
