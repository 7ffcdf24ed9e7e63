"""Engine eras: files, limits, names."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from melange.catalog.bundled import accelerators, find_model
from melange.errors import InputError
from melange.replica.era import eras, find_era, kind_of


@pytest.mark.parametrize("name", eras())
def test_every_era_is_physical(name: str) -> None:
    """Shares of peak are shares, times are not negative, the interval holds the prediction, the source is named."""
    era = find_era(name)
    constants = era.constants
    counts = ("expert_padding",)
    shares = [value for name, value in asdict(constants).items() if not name.endswith("_s") and name not in counts]
    assert all(0 < share <= 1 for share in shares)
    assert all(value >= 0 for name, value in asdict(constants).items() if name.endswith("_s"))
    for residuals in (era.residuals, *era.residuals_by_kind.values()):
        assert 0.5 < residuals.low < 1 < residuals.high < 2
        assert residuals.points > 0
    assert era.source
    assert era.date
    assert set(era.accelerators) <= set(accelerators())


def test_vllm_means_its_newest_era() -> None:
    """A service that says vllm gets vllm-1."""
    assert find_era("vllm") == find_era("vllm-1")


def test_unknown_engines_get_the_nearest_names() -> None:
    """A misspelt engine is an error with a suggestion."""
    with pytest.raises(InputError, match=r"unknown engine 'sglan'; did you mean 'sglang'"):
        find_era("sglan")


def test_vllm_has_larger_defaults_on_larger_cards() -> None:
    """VLLM 1 runs 1024 requests on an H100 and 256 on an L4 and on an A100, unless told otherwise."""
    era = find_era("vllm")
    limits = {name: era.settings.limits_on(accelerators()[name]) for name in ("H100-80GB", "A100-80GB", "L4")}
    assert limits == {"H100-80GB": (1024, 8192), "A100-80GB": (256, 2048), "L4": (256, 2048)}
    told = era.with_settings(max_sequences=64).settings
    assert told.limits_on(accelerators()["H100-80GB"]) == (64, 8192)


def test_no_more_requests_run_than_a_step_has_tokens() -> None:
    """With only one of the two limits set, an engine with chunked prompts would not start or not fill its seats."""
    card = accelerators()["H100-80GB"]
    assert find_era("vllm").with_settings(max_batched_tokens=300).settings.limits_on(card) == (300, 300)
    assert find_era("vllm").with_settings(max_sequences=9000).settings.limits_on(card) == (8192, 8192)
    assert find_era("vllm-0.2").with_settings(max_batched_tokens=200).settings.limits_on(card) == (256, 200)


def test_who_reads_prompts_by_themselves() -> None:
    """Prompts share steps with running requests since vLLM 1; SGLang reads them first unless told otherwise."""
    is_apart = [name for name in eras() if not find_era(name).settings.is_chunked]
    assert is_apart == ["sglang", "vllm-0.2", "vllm-0.5", "vllm-0.7"]


def test_each_kind_of_model_has_its_own_residuals() -> None:
    """Dense models are predicted better than mixtures; a kind that was not fitted on gets those of all, and wider."""
    era = find_era("vllm")
    dense, mixture = find_model("Qwen/Qwen3-32B"), find_model("Qwen/Qwen3-30B-A3B")
    assert (kind_of(dense), kind_of(mixture)) == ("dense", "moe")
    assert era.residuals_of(dense, "H200").median_error < era.residuals_of(mixture, "H200").median_error
    old, card = find_era("vllm-0.2"), accelerators()["A10G"]
    assert old.known_of(mixture, card) == old.residuals


def test_unseen_accelerators_are_less_sure() -> None:
    """The interval on an L4, on which vLLM 1 was not fitted, holds that on an H200, on which it was."""
    era, model = find_era("vllm"), find_model("Qwen/Qwen3-32B")
    seen, unseen = era.residuals_of(model, "H200"), era.residuals_of(model, "L4")
    assert unseen.low < seen.low < seen.high < unseen.high
