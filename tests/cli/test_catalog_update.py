"""``melange catalog update`` as a user types it, against a loopback server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from price_server import serving
from typer.testing import CliRunner

from melange.cli.app import app
from melange.errors import InputError

AWS = (
    "InstanceType,vCPUs,MemoryGiB,AcceleratorName,AcceleratorCount,GpuInfo,Price,SpotPrice,Region,AvailabilityZone\n"
    "g6.xlarge,4,16,L4,1,L4,0.79,0.29,us-east-1,a\ng5.12xlarge,48,192,A10G,4,A10G,0.5,,us-east-1,a\n"
)


def run(*arguments: str) -> str:
    """What it prints; an error of ours is raised."""
    result = CliRunner(env={"COLUMNS": "160", "TERM": "dumb", "NO_COLOR": "1"}).invoke(app, ["catalog", *arguments])
    if isinstance(result.exception, InputError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_what_changed_is_shown_and_offers_are_listed_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old, new and percent; what was held back; and the next list has the new price."""
    monkeypatch.setenv("MELANGE_DATA", str(tmp_path))
    with serving() as site:
        site.put("aws/vms.csv", AWS)
        text = run("update", "--from", "skypilot", "--mirror", site.url, "--provider", "aws")
        content = json.loads(run("update", "--from", f"{site.url}/aws/vms.csv", "--json"))
    assert "Changed: 1, new: 1, rejected: 1" in text
    assert "aws/us-east-1/g6.xlarge  1 x L4             0.80       0.79   -1.8%" in text
    assert "5.672 USD/h before, 0.5 now" in text
    assert str(tmp_path / "prices.csv") in text
    assert (content["unchanged"], content["held"][0]["new_cost_per_h"]) == (2, 0.5)
    listed = json.loads(run("offers", "--provider", "aws", "--region", "us-east-1", "--gpu", "L4", "--json"))
    assert {(one["market"], one["cost_per_h"]) for one in listed if one["accelerators"] == 1} == {
        ("on-demand", 0.79),
        ("spot", 0.29),
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("update", "--gpu", "L4"), "--gpu does not apply here"),
        (("offers", "--from", "skypilot"), "--from does not apply here"),
        (("models", "--accept-jumps"), "--accept-jumps does not apply here"),
    ],
)
def test_flags_that_would_be_passed_over_are_refused(arguments: tuple[str, ...], message: str) -> None:
    """Each subject has its own."""
    with pytest.raises(InputError, match=message):
        run(*arguments)
