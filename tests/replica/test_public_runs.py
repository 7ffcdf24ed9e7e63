"""What bench/ makes of public benchmarks: steps that are counted are those that the simulator plays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from melange.catalog.bundled import find_model
from melange.replica.era import find_era

BENCH = Path(__file__).parents[2] / "bench"
FILES = BENCH.parents[1] / "shared" / "data" / "measured"


@pytest.fixture(scope="module")
def modules() -> Iterator[tuple[ModuleType, ModuleType, ModuleType]]:
    """The modules of bench/ that read, count and judge."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        import bursts
        import public_points
        import public_runs

        yield bursts, public_runs, public_points


def run_of(points: ModuleType, engine: str, card: str, inputs: Any, outputs: Any, **given: Any) -> Any:
    """A burst of made-up sizes."""
    common = {"source": "made up", "tensor_parallel": 1, "is_pcie": False, "is_alone": False, "is_served": False}
    sizes = {"inputs": np.asarray(inputs), "outputs": np.asarray(outputs)}
    model = given.pop("model", find_model("meta-llama/Llama-3.1-8B"))
    return points.Run(engine=engine, model=model, accelerator=card, measured=1000.0, **(common | sizes | given))


@pytest.mark.parametrize("engine", ["vllm==0.7.3", "vllm==0.11.0", "sglang==0.5", "trtllm==0.10"])
@pytest.mark.parametrize("card", ["A100-80GB", "RTX4090"])
def test_counted_steps_take_as_long_as_played_ones(modules: Any, engine: str, card: str) -> None:
    """Prompts in chunks or alone, caches that run full, reservations: within 2 % of the simulator."""
    bursts, public_runs, points = modules
    random = np.random.default_rng(3)
    run = run_of(points, engine, card, random.integers(20, 3000, 80), random.integers(1, 400, 80))
    played = public_runs.judged(run)
    era, fact = find_era(engine), public_runs.accelerators()[card]
    counted = bursts.Bursts([run], era)
    time_s = float(counted.predicted_s(era.constants_on(fact))[0]) * era.slowdown(run.model, fact)
    assert time_s == pytest.approx(run.outputs.sum() / played.predicted, rel=0.02)


def test_a_lone_request_is_judged_by_its_tokens_after_the_first(modules: Any) -> None:
    """One over its time per output token; twice as slow a measurement is twice as far off."""
    _, public_runs, points = modules
    run = run_of(points, "vllm==0.7.3", "A100-80GB", [200], [101], is_alone=True)
    judged = public_runs.judged(run)
    assert 40 < judged.predicted < 120
    assert judged.ratio == pytest.approx(judged.predicted / 1000.0)


def test_runs_that_beat_the_hardware_are_told(modules: Any) -> None:
    """Weights cannot be read faster than memory is; completions then ended early."""
    _, _, points = modules
    run = run_of(points, "trtllm==0.10", "H100-80GB", [2048] * 16, [2048] * 16)
    assert points.why_left_out(run) == ""
    fast = run_of(points, "trtllm==0.10", "H100-80GB", [2048] * 16, [2048] * 16)
    object.__setattr__(fast, "measured", 38_000.0)
    assert "faster than" in points.why_left_out(fast)


def test_capped_lengths_have_the_published_mean(modules: Any) -> None:
    """And end at the cap, as many at once."""
    _, _, points = modules
    inputs, outputs = points.lengths(256, 345, 100, is_capped=True)
    assert outputs.mean() == pytest.approx(345, rel=0.01)
    assert outputs.max() == 512
    assert (outputs == 512).sum() > 20
    assert inputs.mean() == pytest.approx(256, rel=0.05)


@pytest.mark.skipif(not FILES.is_dir(), reason="no public measurements here")
def test_public_runs_are_near_what_is_predicted(modules: Any) -> None:
    """A fifth of the runs of 2024, played out: half of them within 12 %, without bias, most in their intervals."""
    _, public_runs, points = modules
    runs = [run for run in points.read_runs(FILES) if run.source == "argonne" and not points.why_left_out(run)][::5]
    found = [public_runs.judged(run) for run in runs]
    ratio = np.array([one.ratio for one in found])
    assert np.median(np.abs(ratio - 1)) < 0.12
    assert 0.9 < np.median(ratio) < 1.1
    assert np.mean([one.is_inside for one in found]) > 0.75
