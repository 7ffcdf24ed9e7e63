"""Estimates corrected by what a balancer has learned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from melange.errors import InputError
from melange.files import write_document
from melange.profile.observed import StepFactor, read_factors
from melange.profile.profile import ANCHORED, ESTIMATED, Profile
from melange.service.session import Session

SERVICE = """\
model: meta-llama/Llama-3.1-8B-Instruct
slo: {ttft_ms: 1000, tpot_ms: 80}
workload: {dataset: azure-conversation, rate: 8}
offers: {providers: [aws], regions: [us-east-1], gpus: [L4, L40S]}
"""
L40S = "aws/us-east-1/g6e.xlarge"


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """A service in a folder of its own."""
    (tmp_path / "service.yaml").write_text(SERVICE)
    return tmp_path / "service.yaml"


def stored(folder: Path, *factors: StepFactor) -> Path:
    """The file that a balancer hands over."""
    content = {"factors": [one.to_json() for one in factors], "state": "enough", "message": ""}
    return write_document(folder / "factors.json", "factors", content)


def rates_of(profile: Profile, name: str) -> np.ndarray:
    """Rates of a replica type (I, O) [1/s]."""
    return profile.max_request_rate[[one.name for one in profile.replica_types].index(name)]


def test_slower_steps_lower_the_rates_of_their_hardware_and_a_part_of_the_others(service: Path) -> None:
    """With an interval as narrow as the factor's; other types move by what a source's errors have in common."""
    file = stored(service.parent, StepFactor(replica_type=L40S, factor=1.3, low=1.25, high=1.35, requests=5000))
    plain, found = Session(service).profile(), Session(service, factors=file).profile()
    names = [one.name for one in plain.replica_types]
    r = names.index(L40S)
    before, after = rates_of(plain, L40S), rates_of(found, L40S)
    assert (after[before > 0] < before[before > 0] / 1.15).all()
    assert set(found.provenance[r].ravel()) == {ANCHORED}
    width = [(one.high[r] / np.maximum(one.low[r], 1e-9))[before > 0].min() for one in (plain, found)]
    assert width[1] < 0.8 * width[0]
    others = [r for r, one in enumerate(plain.replica_types) if one.offer.accelerator != "L40S"]
    assert (found.provenance[others] == ESTIMATED).all()
    moved = [found.engines[one].cost.weights_s / plain.engines[one].cost.weights_s for one in (r, others[0])]
    assert moved[0] == pytest.approx(1.3)
    assert 1.05 < moved[1] < 1.25
    assert found.engines[others[0]].source == "estimated"
    assert found.engines[others[0]].slow < plain.engines[others[0]].slow
    assert found.engines[r].slow < plain.engines[r].slow


def test_a_factor_without_traffic_changes_nothing(service: Path) -> None:
    """Nor one of a type that is not offered, which is said."""
    file = stored(
        service.parent,
        StepFactor(replica_type=L40S, factor=1.0, low=0.7, high=1.5, requests=3),
        StepFactor(replica_type="gone", factor=1.5, low=1.4, high=1.6, requests=3000),
    )
    plain, found = Session(service).profile(), Session(service, factors=file).profile()
    assert found.max_request_rate == pytest.approx(plain.max_request_rate)
    assert "gone is not among the offers" in " ".join(caution.message for caution in found.cautions)


def test_anchors_come_first(service: Path) -> None:
    """A type that was measured stays as it was measured."""
    point = {"accelerator": "L40S", "input_tokens": 1000, "output_tokens": 200, "concurrency": 40, "tpot_s": 0.05}
    (service.parent / "L40S.json").write_text(json.dumps([point]))
    file = stored(service.parent, StepFactor(replica_type=L40S, factor=1.3, low=1.25, high=1.35, requests=5000))
    anchors = [str(service.parent / "L40S.json")]
    one, both = Session(service, anchors=anchors).profile(), Session(service, anchors=anchors, factors=file).profile()
    assert rates_of(both, L40S) == pytest.approx(rates_of(one, L40S))


def test_a_key_of_the_service_does_the_same(service: Path) -> None:
    """Relative to its folder."""
    stored(service.parent, StepFactor(replica_type=L40S, factor=1.3, low=1.25, high=1.35, requests=5000))
    service.write_text(SERVICE + "profile: {observed: factors.json}\n")
    assert "live traffic" in Session(service).profile().source


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"factor": -1.0}, "must be 0 < low"),
        ({"low": 1.4}, "must be 0 < low"),
        ({"factor": "fast"}, "factor"),
        ({"replica": "x"}, "replica"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, changes: dict[str, object], what: str) -> None:
    """With the file and the field."""
    one = StepFactor(replica_type=L40S, factor=1.3, low=1.25, high=1.35, requests=5000).to_json()
    file = write_document(tmp_path / "factors.json", "factors", {"factors": [one | changes]})
    with pytest.raises(InputError, match=what) as caught:
        read_factors(file)
    assert "factors.json" in str(caught.value)
