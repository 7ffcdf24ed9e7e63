"""Where step times come from; the package itself is tested in tests/aiconfigurator."""

import subprocess
import sys
from pathlib import Path

import pytest
from profile_cases import offer

from melange.catalog.bundled import find_model
from melange.errors import InputError
from melange.profile.aiconfigurator import is_installed
from melange.profile.estimate import estimate
from melange.slo import Slo
from melange.workload.workload import Buckets

BUCKETS = Buckets(input_edges=(1000,), output_edges=(500,))


def test_an_unknown_source_of_step_times_is_refused() -> None:
    """With the ones that are known."""
    with pytest.raises(InputError, match="did you mean 'aiconfigurator'"):
        estimate(find_model("meta-llama/Llama-3.1-8B"), [offer("L4")], Slo(tpot_s=0.1), BUCKETS, step_times="aiconfig")


@pytest.mark.skipif(is_installed(), reason="aiconfigurator-core is installed")
def test_without_the_package_the_error_says_how_to_get_it() -> None:
    """And how to do without."""
    with pytest.raises(InputError, match="aiconfigurator-core, which is not installed") as caught:
        estimate(
            find_model("meta-llama/Llama-3.1-8B"), [offer("L4")], Slo(tpot_s=0.1), BUCKETS, step_times="aiconfigurator"
        )
    assert "pip install '.[aiconfigurator]'" in caught.value.hint
    assert "step_times: own" in caught.value.hint


def profile_with(tmp_path: Path, section: str) -> str:
    """What ``melange profile`` says about a service with such a section, which it refuses."""
    (tmp_path / "service.yaml").write_text(
        "model: meta-llama/Llama-3.1-8B\nslo: {tpot_ms: 60}\nworkload: {dataset: arena, rate: 8}\n" + section
    )
    melange = Path(sys.executable).with_name("melange")
    done = subprocess.run(
        [melange, "profile", "service.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    return done.stderr


@pytest.mark.skipif(is_installed(), reason="aiconfigurator-core is installed")
def test_a_service_that_asks_for_the_missing_package_is_told(tmp_path: Path) -> None:
    """On one line, with a hint."""
    said = profile_with(tmp_path, "profile: {step_times: aiconfigurator}\n")
    assert said.startswith("error: profile.step_times: aiconfigurator needs the package aiconfigurator-core")
    assert "pip install '.[aiconfigurator]'" in said


def test_measured_profiles_have_no_use_for_step_times(tmp_path: Path) -> None:
    """Rather than passing over the setting."""
    said = profile_with(tmp_path, "profile: {source: measured.json, step_times: aiconfigurator}\n")
    assert "profile.step_times are for estimates, but profile.source names none" in said


def test_other_sources_are_refused_with_their_place(tmp_path: Path) -> None:
    """As every value of the file."""
    said = profile_with(tmp_path, "profile: {step_times: vidur}\n")
    assert "service.yaml:4: profile.step_times: input should be 'own' or 'aiconfigurator'" in said
