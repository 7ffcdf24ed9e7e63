"""Step times from the real package; skipped where it is not installed (``make test-aiconfigurator`` installs it)."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from melange.catalog.bundled import accelerators, find_model
from melange.catalog.offer import Offer
from melange.profile.aiconfigurator import StepTimes, is_installed, step_times
from melange.profile.anchor import anchor
from melange.profile.estimate import estimate
from melange.profile.measurement import Measurement
from melange.profile.profile import ANCHORED, ESTIMATED
from melange.replica.era import find_era
from melange.replica.hardware import Hardware, replicas_of
from melange.replica.step import StepCost, step_cost, step_time_s
from melange.slo import Slo
from melange.workload.workload import Buckets

if not is_installed():
    pytest.skip(
        "aiconfigurator-core is not installed; make test-aiconfigurator installs it and runs these",
        allow_module_level=True,
    )

LLAMA = find_model("meta-llama/Llama-3.1-8B")
VLLM = find_era("vllm")
H100 = Hardware(accelerator="H100-80GB")
BUCKETS = Buckets(input_edges=(100, 1000, 8000), output_edges=(50, 500))
SLO = Slo(tpot_s=0.04)


def offer(accelerator: str, count: int = 1) -> Offer:
    """An offer of this many accelerators."""
    return Offer(
        provider="cloud",
        region="here",
        instance_type=f"{accelerator.lower()}x{count}",
        accelerator=accelerator,
        accelerators=count,
        cost_per_h=1.0,
    )


def times_of(*hardware: Hardware, model: str = LLAMA.name, engine: str = "vllm") -> StepTimes:
    """What it knows of a model on some hardware."""
    return step_times(find_model(model), hardware, accelerators(), find_era(engine))


@pytest.fixture(scope="module")
def h100() -> StepCost:
    """Llama-3.1-8B on one H100 under vLLM."""
    return times_of(H100).cost_by_hardware[H100]


def test_steps_are_positive_and_grow_with_batch_context_and_prompt(h100: StepCost) -> None:
    """More work never takes less time, and no step takes none."""
    batch, context, chunk = np.meshgrid([1.0, 8.0, 64.0, 256.0], [100.0, 1000.0, 8000.0], [0.0, 512.0, 4096.0])
    step_s = np.asarray(
        step_time_s(h100, batch=batch, context_tokens=batch * context, prefill_tokens=chunk, position=context / 2)
    )
    assert (step_s > 0).all()
    for axis in range(3):
        assert (np.diff(step_s, axis=axis) >= 0).all()


def test_one_request_takes_about_as_long_as_reading_the_weights(h100: StepCost) -> None:
    """16 GB at 3.35 TB/s are 4.8 ms."""
    assert 0.0048 < float(step_time_s(h100, batch=1.0, context_tokens=1000.0)) < 0.010


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize(("accelerator", "degree"), [("A100-80GB", 1), ("H100-80GB", 4), ("H200", 1), ("B200", 2)])
def test_fitted_coefficients_follow_its_steps(engine: str, accelerator: str, degree: int) -> None:
    """A dozen coefficients reproduce dozens of its step times to 15 % in the mean square."""
    one = Hardware(accelerator=accelerator, tensor_parallel=degree)
    assert times_of(one, engine=engine).misfit_by_hardware[one] < 0.15


def test_its_steps_are_within_a_factor_of_two_of_ours(h100: StepCost) -> None:
    """Two models of the same machine agree in the rough."""
    ours = step_cost(LLAMA, accelerators()["H100-80GB"], constants=VLLM.constants)
    batch = np.array([1.0, 8.0, 64.0, 256.0])
    ratio = np.asarray(step_time_s(h100, batch=batch, context_tokens=500 * batch)) / np.asarray(
        step_time_s(ours, batch=batch, context_tokens=500 * batch)
    )
    assert (ratio > 0.5).all()
    assert (ratio < 2.0).all()


def test_the_closed_form_on_them_is_within_a_factor_of_two_of_ours() -> None:
    """Rates are positive, estimated, say where their step times come from, and lie in their interval."""
    own = estimate(LLAMA, [offer("H100-80GB")], SLO, BUCKETS)
    its = estimate(LLAMA, [offer("H100-80GB")], SLO, BUCKETS, step_times="aiconfigurator")
    ratio = its.max_request_rate / own.max_request_rate
    assert (ratio > 0.5).all()
    assert (ratio < 2.0).all()
    assert not np.array_equal(its.max_request_rate, own.max_request_rate)
    assert (its.low <= its.max_request_rate).all()
    assert (its.max_request_rate <= its.high).all()
    assert (its.provenance == ESTIMATED).all()
    assert "aiconfigurator-core 0.12" in its.source
    assert "h100_sxm/vllm" in its.source


def test_types_without_measured_operators_keep_our_rates_and_are_listed() -> None:
    """One caution names them with the reason; the others have its step times."""
    offers = [offer("H100-80GB"), offer("L4"), offer("A10G"), offer("L40S", 2)]
    own = estimate(LLAMA, offers, SLO, BUCKETS, tensor_parallel=[1, 2])
    its = estimate(LLAMA, offers, SLO, BUCKETS, tensor_parallel=[1, 2], step_times="aiconfigurator")
    names = [f"{one.offer.accelerator} x {one.tensor_parallel}" for one in its.replica_types]
    is_same = {
        name: np.array_equal(*pair)
        for name, *pair in zip(names, own.max_request_rate, its.max_request_rate, strict=True)
    }
    assert is_same == {"H100-80GB x 1": False, "L4 x 1": True, "A10G x 1": True, "L40S x 1": False, "L40S x 2": True}
    [caution] = [one.message for one in its.cautions if one.kind == "step-times"]
    assert "L4 (only a specification" in caution
    assert "A10G (no tables" in caution
    assert "L40S x 2 (tensor parallelism over PCIe" in caution
    assert "H100" not in caution


@pytest.mark.parametrize(
    ("hardware", "engine", "model", "reason"),
    [
        (Hardware(accelerator="L4"), "vllm", LLAMA.name, "only a specification"),
        (Hardware(accelerator="MI300X"), "vllm", LLAMA.name, "no tables of this accelerator"),
        (Hardware(accelerator="L40S", tensor_parallel=2, is_pcie=True), "vllm", LLAMA.name, "PCIe"),
        (H100, "vllm-0.2", LLAMA.name, "no tables of vllm-0.2"),
        (H100, "vllm", "google/gemma-3-27b-it", "sliding windows"),
        (Hardware(accelerator="H200", tensor_parallel=8), "vllm", "deepseek-ai/DeepSeek-V3", "latent attention"),
        (H100, "vllm", "meta-llama/Llama-3.1-70B", "does not fit"),
        (Hardware(accelerator="H100-80GB", variant="int4"), "vllm", LLAMA.name, "int4_wo"),
    ],
)
def test_what_has_no_measured_operators_has_a_reason(hardware: Hardware, engine: str, model: str, reason: str) -> None:
    """Neither extrapolated tables nor a failure of the package reach the user."""
    found = times_of(hardware, model=model, engine=engine)
    assert not found.cost_by_hardware
    assert reason in found.reason_by_hardware[hardware]


def test_fp8_reads_less_than_bf16() -> None:
    """A variant is asked for in its own data types."""
    fp8 = Hardware(accelerator="H100-80GB", variant="fp8")
    found = times_of(H100, fp8)
    step_s = {
        one: float(step_time_s(cost, batch=1.0, context_tokens=500.0)) for one, cost in found.cost_by_hardware.items()
    }
    assert 0.4 < step_s[fp8] / step_s[H100] < 0.95


@pytest.mark.parametrize("model", ["openai/gpt-oss-120b", "Qwen/Qwen3-30B-A3B"])
def test_mixtures_of_experts_have_step_times(model: str) -> None:
    """Its shape is told in the words of an architecture that it knows."""
    one = Hardware(accelerator="H200", tensor_parallel=2)
    found = times_of(one, model=model)
    assert found.cost_by_hardware, found.reason_by_hardware
    assert 0.001 < float(step_time_s(found.cost_by_hardware[one], batch=16.0, context_tokens=16000.0)) < 0.05


def test_anchors_correct_its_step_times() -> None:
    """A point 20 % slower than its own step slows the rates."""
    settings = {"step_times": "aiconfigurator"}
    base = estimate(LLAMA, [offer("H100-80GB")], SLO, BUCKETS, **settings)
    tables = times_of(H100)
    replicas = replicas_of(LLAMA, [H100], accelerators(), VLLM, tables.cost_by_hardware)
    step_s = float(np.asarray(step_time_s(replicas.cost, batch=32.0, context_tokens=32 * 1250.0)))
    point = Measurement(
        accelerator="H100-80GB", input_tokens=1000, output_tokens=500, concurrency=32, tpot_s={"mean": 1.5 * step_s}
    )
    anchored = anchor(LLAMA, [offer("H100-80GB")], SLO, BUCKETS, [point], **settings)
    assert (anchored.provenance == ANCHORED).all()
    assert (anchored.max_request_rate < base.max_request_rate).all()


def test_the_command_line_plans_on_them(tmp_path: Path) -> None:
    """``profile: {step_times: aiconfigurator}`` reaches the profile."""
    (tmp_path / "service.yaml").write_text(
        "model: meta-llama/Llama-3.1-8B\nslo: {tpot_ms: 40}\nworkload: {dataset: arena, rate: 8}\n"
        "offers: {gpus: [H100-80GB, L4], providers: [aws]}\n"
    )
    melange = Path(sys.executable).with_name("melange")
    done = subprocess.run(
        [melange, "profile", "service.yaml", "--set", "profile.step_times=aiconfigurator", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    profile = json.loads(done.stdout)
    assert "aiconfigurator-core" in profile["source"]
    assert "L4" in next(one["message"] for one in profile["warnings"] if one["kind"] == "step-times")
    assert "low-fidelity" not in done.stderr
