"""The verb: replica types, names, reasons, intervals, cautions, and the figures that the paper gives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from profile_cases import offer

import melange
from melange.catalog.accelerator import Accelerator
from melange.catalog.bundled import find_model
from melange.catalog.catalog import load_catalog
from melange.catalog.model import Model
from melange.errors import InputError
from melange.profile.estimate import estimate
from melange.profile.profile import ESTIMATED, Profile
from melange.profile.replica_types import Degrees, replica_types_of
from melange.replica.era import find_era
from melange.slo import Slo
from melange.workload.workload import Buckets, Workload

FIGURE_9 = Buckets(input_edges=(1000,), output_edges=(500,))
CHAT = Buckets(input_edges=(100, 1000, 3000), output_edges=(100, 500))


def reason(profile: Profile, r: int = 0, i: int = 0, o: int = 0) -> str:
    """Why a cell is 0."""
    return profile.why(r, i, o)


def test_figure_9_of_the_paper(llama: Model) -> None:
    """Size [1000, 500] at NTPOT 120 ms under vLLM 0.2: 0.37 req/s on an A10G and 2.0 on an A100 within a quarter."""
    offers = [offer("A10G"), offer("A100-80GB")]
    profile = estimate(llama, offers, Slo(ntpot_s=0.12), FIGURE_9, engine="vllm-0.2")
    assert profile.max_request_rate[:, 0, 0] == pytest.approx([0.37, 2.0], rel=0.25)


def test_an_l4_at_40_ms_says_why_not(llama: Model) -> None:
    """Reading 13.2 GB of weights takes an L4 longer than the limit: exactly 0, and the reason has both figures."""
    profile = estimate(llama, [offer("L4")], Slo(tpot_s=0.04), CHAT, engine="vllm-0.2")
    assert (profile.max_request_rate == 0).all()
    words = reason(profile, 0, 1, 0)
    assert words.startswith("a single request takes 5")
    assert words.endswith("ms per output token; the limit is 40 ms")


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ({"ttft_s": 0.001}, "for its first token; the limit is 1 ms"),
        ({"ntpot_s": 0.001}, "per output token, first one included; the limit is 1 ms"),
        ({"latency_s": 0.1}, "; the limit is 100 ms"),
    ],
)
def test_every_limit_has_its_reason(llama: Model, limit: dict[str, float], words: str) -> None:
    """A limit that not even one request alone can hold is named with both figures."""
    profile = estimate(llama, [offer("H100-80GB")], Slo(**limit), CHAT)
    assert words in reason(profile, 0, 2, 1)
    assert (profile.max_request_rate == 0).all()


def test_the_tightest_of_several_limits_is_the_reason(llama: Model) -> None:
    """TPOT at 1 ms is further off than TTFT at 50 ms."""
    profile = estimate(llama, [offer("L4")], Slo(tpot_s=0.001, ttft_s=0.05), CHAT)
    assert "per output token" in reason(profile)


def test_weights_that_do_not_fit() -> None:
    """70 billion weights in bf16 on one 80 GB card: GiB needed and GiB usable; on four they do fit."""
    llama = find_model("meta-llama/Llama-3.1-70B")
    profile = estimate(llama, [offer("H100-80GB", 4)], Slo(tpot_s=0.1), CHAT)
    names = [one.name for one in profile.replica_types]
    assert names == [f"cloud/here/h100-80gbx4 tp{degree}" for degree in (1, 2, 4)]
    assert reason(profile, 0).startswith("the model in bf16 does not fit: 13")
    assert "GiB usable" in reason(profile, 0)
    assert (profile.max_request_rate[2] > 0).all()


def test_context_and_cache_limits_have_their_reasons(llama: Model) -> None:
    """Past 4,096 tokens Llama 2 ends; with a longer context an L4's cache does."""
    long = Buckets(input_edges=(100, 30_000), output_edges=(100,))
    slo = Slo(tpot_s=1.0)
    profile = estimate(llama, [offer("L4")], slo, long)
    assert profile.max_request_rate[0, 0, 0] > 0
    assert reason(profile, 0, 1) == "a request of 30,100 tokens exceeds the context limit of 4,096"
    stretched = estimate(llama, [offer("L4")], slo, long, engine=find_era("vllm").with_settings(max_context=40_000))
    assert "one request of 30,100 tokens needs 2.1 times the available KV cache" in reason(stretched, 0, 1)


def test_a_degree_that_does_not_divide_the_heads() -> None:
    """Asked for by name, a degree of 8 for 28 heads stays in the profile and says so; by itself it is not tried."""
    qwen = find_model("Qwen/Qwen2.5-7B-Instruct")
    asked = estimate(qwen, [offer("L4", 8)], Slo(tpot_s=0.1), CHAT, tensor_parallel=8)
    assert (asked.max_request_rate == 0).all()
    assert "28 heads" in reason(asked)
    tried = estimate(qwen, [offer("L4", 8)], Slo(tpot_s=0.1), CHAT)
    assert [one.tensor_parallel for one in tried.replica_types] == [1, 2, 4]


def test_names_are_readable_and_unique(llama: Model) -> None:
    """Degree where the instance holds several, engine where it is not the default, accelerator where names repeat."""
    spot = offer("L4", market="spot")
    assert [one.name for one in replica_types_of(llama, [offer("L4"), spot], "vllm")] == [
        "cloud/here/l4x1",
        "cloud/here/l4x1 (spot)",
    ]
    assert [one.name for one in replica_types_of(llama, [offer("L4", 2)], "sglang", Degrees(tensor=(2,)))] == [
        "cloud/here/l4x2 tp2 sglang"
    ]
    twins = [offer("L4", instance_type="vm"), offer("A10G", instance_type="vm"), offer("A10G", instance_type="vm")]
    assert [one.name for one in replica_types_of(llama, twins, "vllm")] == [
        "cloud/here/vm L4",
        "cloud/here/vm A10G",
        "cloud/here/vm A10G #2",
    ]


def test_the_same_hardware_has_the_same_rates(llama: Model) -> None:
    """Price and place do not matter to speed; PCIe does, to a pair."""
    offers = [
        offer("A100-80GB", 2, interconnect="nvlink"),
        offer("A100-80GB", 2, region="there", cost_per_h=9.0, interconnect="nvlink"),
        offer("A100-80GB", 2, region="far", interconnect="pcie"),
    ]
    rates = estimate(llama, offers, Slo(tpot_s=0.05), CHAT, tensor_parallel=2).max_request_rate
    assert (rates[0] == rates[1]).all()
    assert (rates[2] < rates[0]).all()


def test_a_workload_is_estimated_at_its_mean_sizes(llama: Model) -> None:
    """Mean sizes below the upper edges give higher rates; at the upper edges both give the same."""
    workload = Workload(
        buckets=FIGURE_9,
        request_rate=np.ones((1, 1)),
        input_tokens=np.full((1, 1), 600.0),
        output_tokens=np.full((1, 1), 300.0),
    )
    slo, offers = Slo(tpot_s=0.1), [offer("A10G")]
    by_mean = estimate(llama, offers, slo, workload).max_request_rate[0, 0, 0]
    by_edge = estimate(llama, offers, slo, workload.with_upper_sizes()).max_request_rate[0, 0, 0]
    assert by_mean > 1.5 * by_edge
    assert by_edge == estimate(llama, offers, slo, FIGURE_9).max_request_rate[0, 0, 0]


def test_intervals_hold_the_rate_and_widen_near_the_limit(llama: Model) -> None:
    """Residuals move the rate by their own size where the limit is loose, and by far more where it is tight."""
    era = find_era("vllm-0.2")
    loose, tight = (
        estimate(llama, [offer("A10G")], Slo(tpot_s=limit_s), FIGURE_9, engine=era) for limit_s in (10.0, 0.034)
    )
    for profile in (loose, tight):
        assert (profile.low <= profile.max_request_rate).all()
        assert (profile.max_request_rate <= profile.high).all()
        assert (profile.provenance == ESTIMATED).all()
    relative = [float((one.high - one.low)[0, 0, 0] / one.max_request_rate[0, 0, 0]) for one in (loose, tight)]
    residuals = era.residuals_of(llama, "A10G")
    assert relative[0] == pytest.approx(1 / residuals.low - 1 / residuals.high)
    assert relative[1] > 3 * relative[0]


def test_an_slo_on_requests_is_estimated_by_its_means(llama: Model) -> None:
    """The same rates as on the mean, under the SLO that was asked for; the source says what they hold."""
    by_slo = {slo: estimate(llama, [offer("L4")], slo, CHAT) for slo in (Slo(tpot_s=0.1), Slo(tpot_s=0.1).on_mean())}
    (on_requests, by_requests), (_, by_mean) = by_slo.items()
    assert (by_requests.max_request_rate == by_mean.max_request_rate).all()
    assert by_requests.slo == on_requests
    assert by_requests.source == f"{by_mean.source}; rates at which the mean meets the limits"


def test_a_percentile_is_not_guessed(llama: Model) -> None:
    """Only means are held in closed form: anything else is an error with a way out."""
    with pytest.raises(InputError, match=r"limits on the mean only, got p99") as caught:
        estimate(llama, [offer("L4")], Slo(tpot_s=0.1, statistic="p99"), CHAT)
    assert "melange.with_simulated_rates" in caught.value.hint
    assert callable(melange.with_simulated_rates)


def test_cautions_come_once_a_kind(llama: Model, cards: dict[str, Accelerator]) -> None:
    """Extrapolation to cards, PCIe pairs and unchecked figures: one sentence each, with a few names."""
    names = ["L4", "A10", "A40", "L40", "T4", "H100-80GB"]
    facts = cards | {"T4": replace(cards["T4"], checked=None)}
    profile = estimate(llama, [offer(name, 2) for name in names], Slo(tpot_s=0.1), CHAT, accelerators=facts)
    by_kind = {caution.kind: caution.message for caution in profile.cautions}
    assert len(by_kind) == len(profile.cautions)
    assert "A10, A40, L4, L40 and 1 more" in by_kind["extrapolated"]
    assert "over PCIe" in by_kind["pcie"]
    assert "figures of T4" in by_kind["unverified"]


def test_what_was_fitted_is_not_extrapolated(llama: Model) -> None:
    """Llama-2-7b on an A10G under vLLM 0.2 is what that era's constants come from."""
    assert estimate(llama, [offer("A10G")], Slo(tpot_s=0.1), CHAT, engine="vllm-0.2").cautions == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"offers": []}, "no offers left"),
        ({"offers": [offer("L44")]}, r"unknown accelerator 'L44'; did you mean"),
        ({"tensor_parallel": 16}, "no offer holds 16 accelerators; the largest holds 1"),
        ({"sizes": Buckets.ordinal(2, 2)}, "without token counts"),
        ({"engine": "vlm"}, r"unknown engine 'vlm'; did you mean 'vllm'"),
    ],
)
def test_bad_input(llama: Model, change: dict[str, object], words: str) -> None:
    """Each with a message that says what was found."""
    arguments = {"model": llama, "offers": [offer("L4")], "slo": Slo(tpot_s=0.1), "sizes": CHAT} | change
    with pytest.raises(InputError, match=words):
        estimate(**arguments)  # type: ignore[arg-type] # a mixed bag by design


def test_a_profile_survives_its_file(llama: Model, tmp_path: object) -> None:
    """Saved and read again it is the same, cell by cell."""
    profile = estimate(llama, [offer("L4"), offer("H100-80GB", 2)], Slo(tpot_s=0.05), CHAT)
    again = Profile.read(profile.save(f"{tmp_path}/profile.json"))
    for name in ("max_request_rate", "low", "high", "provenance", "reason"):
        assert (getattr(again, name) == getattr(profile, name)).all()
    assert (again.replica_types, again.reasons, again.slo) == (profile.replica_types, profile.reasons, profile.slo)


@pytest.mark.parametrize(
    "name", ["mistralai/Mixtral-8x7B-v0.1", "deepseek-ai/DeepSeek-V3", "google/gemma-3-27b-it", "openai/gpt-oss-120b"]
)
def test_every_kind_of_model_on_a_large_instance(name: str) -> None:
    """MoE, latent attention, sliding windows, four-bit weights: eight H200 serve chat, and longer requests slower."""
    profile = estimate(find_model(name), [offer("H200", 8)], Slo(tpot_s=0.1), CHAT, tensor_parallel=8)
    rates = profile.max_request_rate[0]
    assert (rates > 0.1).all()
    assert (np.diff(rates, axis=0) < 0).all()
    assert (np.diff(rates, axis=1) < 0).all()


def test_a_profile_carries_the_engines_that_it_was_estimated_with(tmp_path: Path) -> None:
    """Steps, KV cache and limits travel through the file, equal ones once, and None where a model does not fit."""
    model = find_model("meta-llama/Llama-3.1-70B")
    catalog = load_catalog().select(gpus=["L4", "H100-80GB"], providers=["aws"], markets=["on-demand"])
    profile = estimate(model, catalog.offers, Slo(tpot_s=0.06), Buckets(input_edges=(1000,), output_edges=(500,)))
    assert any(one is None for one in profile.engines)
    assert any(one is not None for one in profile.engines)
    stored = profile.save(tmp_path / "profile.json")
    assert Profile.read(stored).engines == profile.engines
    assert len(json.loads(stored.read_text())["engines"]) == len({one for one in profile.engines if one})
