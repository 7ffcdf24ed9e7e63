"""Settings of the engine change what replicas carry, in the closed form and in simulation alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from profile_cases import offer

from melange.catalog.bundled import find_model
from melange.errors import InputError
from melange.profile.estimate import estimate_from
from melange.profile.estimate_inputs import EstimateInputs
from melange.profile.percentiles import lone_replica
from melange.profile.profile import Profile
from melange.replica.capacity import max_request_rate
from melange.replica.engine import Engine, engines_of
from melange.replica.policy import ROUND_ROBIN
from melange.replica.simulated.cluster import play
from melange.replica.speculation import Speculation
from melange.slo import Slo
from melange.workload.prefix_reuse import PrefixReuse
from melange.workload.workload import Buckets, Workload

MODEL = find_model("meta-llama/Llama-3.1-8B-Instruct")
INPUTS, OUTPUTS = 2000, 200
BUCKETS = Buckets(input_edges=(INPUTS,), output_edges=(OUTPUTS,))
LOOSE, TIGHT = Slo(latency_s=300.0, statistic="mean"), Slo(tpot_s=0.015, statistic="mean")


def profile_of(
    accelerator: str = "L40S", slo: Slo = LOOSE, reuse: PrefixReuse | None = None, rate: float = 1.0, **settings: object
) -> Profile:
    """Rates of one size on one accelerator, whose engine has such settings."""
    workload = replace(Workload.at_upper_edges(BUCKETS, [[rate]]), prefix_reuse=reuse)
    routing = {"prefix_routing": settings.pop("routing")} if "routing" in settings else {}
    inputs = EstimateInputs(
        model=MODEL,
        offers=[offer(accelerator)],
        slo=slo,
        sizes=workload,
        tensor_parallel=1,
        settings=settings,
        **routing,
    )
    return estimate_from(inputs)


def closed_form(**given: object) -> float:
    """Requests per second of one replica by the closed form."""
    return float(profile_of(**given).max_request_rate[0, 0, 0])


def simulated(reusable: int = 0, requests: int = 600, **given: object) -> float:
    """Requests per second of one replica in simulation, when all come at once."""
    (engine,) = profile_of(**given).engines
    assert engine is not None
    return throughput(engine, reusable, requests)


def throughput(engine: Engine, reusable: int, requests: int) -> float:
    """Requests per second of an engine when all come at once."""
    size = np.ones(requests, np.int64)
    cached = size * reusable
    outcome = play(
        [engine], lone_replica(), ROUND_ROBIN, np.zeros(requests), size * INPUTS, size * OUTPUTS, cached_tokens=cached
    )
    return requests / outcome.until_s


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        ({"max_sequences": 8}, {"max_sequences": 64}),
        ({"max_batched_tokens": 256}, {"max_batched_tokens": 2048}),
        ({"memory_utilization": 0.5}, {"memory_utilization": 0.95}),
        ({}, {"kv_dtype": "fp8"}),
    ],
    ids=["max_num_seqs", "max_num_batched_tokens", "gpu_memory_utilization", "kv_cache_dtype"],
)
def test_each_setting_moves_both_the_same_way(worse: dict[str, object], better: dict[str, object]) -> None:
    """More room carries more; the two agree on how much to within a fifth."""
    gain = closed_form(**better) / closed_form(**worse)
    shown = simulated(**better) / simulated(**worse)
    assert gain > 1.02
    assert shown > 1.02
    assert shown == pytest.approx(gain, rel=0.2)


def test_cached_prompts_carry_more_in_both() -> None:
    """Tokens that a prefix cache holds are not read: twice as many requests where most of a prompt is."""
    reuse = PrefixReuse.fixed([0.8], "a test")
    gain = closed_form(reuse=reuse) / closed_form()
    shown = simulated(reuse=reuse, reusable=int(0.8 * INPUTS)) / simulated()
    assert gain > 1.5
    assert shown == pytest.approx(gain, rel=0.2)


def test_the_more_is_cached_the_more_is_carried() -> None:
    """From none to nearly all; and what is switched off counts for nothing, however much prompts share."""
    rates = [closed_form(reuse=PrefixReuse.fixed([share], "")) for share in (0.0, 0.3, 0.6, 0.9)]
    assert rates == sorted(rates)
    assert rates[-1] > 1.5 * rates[0]
    off = {"reuse": PrefixReuse.fixed([0.9], ""), "is_prefix_caching": False}
    assert closed_form(**off) == rates[0] == closed_form()
    assert simulated(**off, reusable=1800) == simulated()


def test_cached_tokens_need_room_all_the_same() -> None:
    """A replica that holds few requests holds no more of them when their prompts are cached."""
    reuse = PrefixReuse.fixed([0.9], "")
    small = {"memory_utilization": 0.46, "accelerator": "L40S"}
    (plain,), (cached,) = profile_of(**small).engines, profile_of(**small, reuse=reuse).engines
    assert plain is not None
    assert cached is not None
    assert cached.kv_tokens == plain.kv_tokens


def curve(rate: float = 10.0) -> PrefixReuse:
    """Seven tenths of prompts can be found again, all of it in a cache of ten million tokens, half of it in a tenth."""
    sizes = np.array([1e4, 1e5, 1e6, 1e7])
    kept = np.array([[0.0, 0.2, 0.5, 1.0], [0.0, 0.1, 0.25, 0.5], [0.0, 0.05, 0.12, 0.25]])
    return PrefixReuse(reusable_share=np.array([0.7]), cache_tokens=sizes, kept=kept, caches=(1, 2, 4), log_rate=rate)


def test_a_larger_cache_holds_more_and_more_replicas_hold_less() -> None:
    """More memory on a replica; and requests that are spread over several of them miss what another one holds."""
    small, large = (profile_of(reuse=curve(), memory_utilization=share).engines[0] for share in (0.5, 0.95))
    assert 0 < small.prefix_kept < large.prefix_kept < 1
    kept = [profile_of(reuse=curve(), rate=rate).engines[0].prefix_kept for rate in (0.5, 20.0, 60.0)]
    assert kept[0] > kept[1] > kept[2]
    together = [
        profile_of(reuse=curve(), rate=rate, routing="affinity").engines[0].prefix_kept for rate in (20.0, 60.0)
    ]
    assert together[0] == pytest.approx(together[1], rel=0.01)
    assert together[0] > kept[1]


def test_prefix_caching_is_as_the_release_ships_it() -> None:
    """On since vLLM 0.8 where the traffic says what prompts share; a release before has to be told."""
    reuse = PrefixReuse.fixed([0.6], "")
    workload = replace(Workload.at_upper_edges(BUCKETS, [[1.0]]), prefix_reuse=reuse)
    found = {}
    for engine in ("vllm", "vllm==0.6.4", "vllm==0.8.0", "vllm-0.5", "sglang", "trtllm==0.15", "trtllm==1.1"):
        inputs = EstimateInputs(model=MODEL, offers=[offer("L40S")], slo=LOOSE, sizes=workload, engine=engine)
        found[engine] = inputs.is_prefix_caching
    assert [engine for engine, is_on in found.items() if is_on] == ["vllm", "vllm==0.8.0", "sglang", "trtllm==1.1"]
    silent = EstimateInputs(
        model=MODEL, offers=[offer("L40S")], slo=LOOSE, sizes=replace(workload, prefix_reuse=None), engine="vllm"
    )
    assert not silent.is_prefix_caching
    assert replace(silent, settings={"is_prefix_caching": True}).is_prefix_caching


DRAFTS = Speculation(draft_tokens=4, accepted_share=0.7)


def test_drafts_help_under_tight_limits() -> None:
    """At the batches of 15 ms a token steps read weights: the drafts of a request alone are nearly free."""
    fast = {"slo": TIGHT, "accelerator": "H100-80GB"}
    assert closed_form(**fast, speculation=DRAFTS) > 1.3 * closed_form(**fast)
    (engine,) = profile_of(**fast, speculation=DRAFTS).engines
    assert engine is not None
    assert engine.speculation == DRAFTS
    one = np.ones(1, np.int64)
    alone = [
        play([each], lone_replica(), ROUND_ROBIN, np.zeros(1), one * 100, one * OUTPUTS).until_s
        for each in (profile_of(**fast).engines[0], engine)
    ]
    assert alone[0] / alone[1] == pytest.approx(DRAFTS.step_tokens, rel=0.25)


def test_drafts_cost_throughput_where_arithmetic_limits() -> None:
    """Short prompts, long completions and no limit: five tokens are computed for one and a half that are kept."""
    sizes = Workload.at_upper_edges(Buckets(input_edges=(100,), output_edges=(400,)), [[1.0]])
    given = {"model": MODEL, "offers": [offer("L40S")], "slo": LOOSE, "sizes": sizes, "tensor_parallel": 1}
    inputs = EstimateInputs(**given, settings={"speculation": replace(DRAFTS, accepted_share=0.3)})
    (chosen,) = inputs.hardware
    assert not chosen.is_drafting
    hardware = [replace(chosen, is_drafting=is_on) for is_on in (False, True)]
    replicas = inputs.replicas_on(hardware)
    rate = max_request_rate(replicas, MODEL, inputs.planned_sizes, LOOSE.limits)[:, 0, 0]
    assert rate[1] < 0.8 * rate[0]
    plain, drafting = engines_of(
        replicas, [MODEL.kv_shape(1)] * 2, [inputs.residuals_on(one) for one in hardware], inputs.era, "estimated"
    )
    assert plain is not None
    assert drafting is not None
    size = np.ones(1500, np.int64)
    shown = [
        len(size) / play([one], lone_replica(), ROUND_ROBIN, np.zeros(1500), size * 100, size * 400).until_s
        for one in (plain, drafting)
    ]
    assert shown[1] / shown[0] == pytest.approx(rate[1] / rate[0], rel=0.2)


def test_drafts_of_a_model_that_needs_several_machines() -> None:
    """No plain layout holds it, and no other drafts: its rates are those without drafts."""
    rates = [
        estimate_from(
            EstimateInputs(
                model=find_model("deepseek-ai/DeepSeek-V3.1"),
                offers=[offer("H100-80GB", accelerators=4)],
                slo=LOOSE,
                sizes=Workload.at_upper_edges(BUCKETS, [[1.0]]),
                settings={"speculation": speculation},
            )
        ).max_request_rate
        for speculation in (None, DRAFTS)
    ]
    assert rates[0].max() > 0
    assert rates[0].tolist() == rates[1].tolist()


def test_a_type_drafts_only_where_that_carries_more() -> None:
    """With a poor acceptance rate and a costly draft model the plan's engine does without, and loses nothing."""
    poor = Speculation(draft_tokens=8, accepted_share=0.05, method="draft_model", model="Qwen/Qwen3-8B")
    for slo in (LOOSE, TIGHT):
        profile = profile_of(slo=slo, speculation=poor)
        assert profile.engines[0] is not None
        assert profile.engines[0].speculation is None
        assert profile.max_request_rate[0, 0, 0] == closed_form(slo=slo)


def test_better_drafts_carry_more() -> None:
    """By acceptance rate; a draft model carries less than drafts that cost nothing, and takes memory."""
    rates = [closed_form(slo=TIGHT, speculation=replace(DRAFTS, accepted_share=rate)) for rate in (0.5, 0.7, 0.9)]
    assert rates == sorted(rates)
    small = replace(DRAFTS, method="draft_model", model="Qwen/Qwen3-0.6B")
    assert closed_form(slo=TIGHT) < closed_form(slo=TIGHT, speculation=small) < rates[1]
    plain, drafting = (profile_of(slo=TIGHT, speculation=one).engines[0].kv_tokens for one in (DRAFTS, small))
    assert drafting < plain


def test_contradictions_say_what_to_do() -> None:
    """A KV cache that no accelerator on offer has kernels for; one that is set twice; an engine without it."""
    with pytest.raises(InputError, match=r"engine\.kv_cache_dtype: fp8 has no kernels on T4") as caught:
        profile_of(accelerator="T4", kv_dtype="fp8")
    assert "auto" in str(caught.value.hint)
    inputs = EstimateInputs(
        model=MODEL, offers=[offer("L40S")], slo=LOOSE, sizes=BUCKETS, variants=["fp8-kv"], settings={"kv_dtype": "fp8"}
    )
    with pytest.raises(InputError, match=r"variants: fp8-kv sets the KV cache, and so does engine\.kv_cache_dtype"):
        estimate_from(inputs)
    with pytest.raises(InputError, match=r"engine\.kv_cache_dtype: engine vllm-0\.2 does not support fp8"):
        estimate_from(replace(inputs, variants=(), engine="vllm-0.2"))


def test_all_variants_have_the_cache_that_is_set() -> None:
    """Weights are chosen, the cache is not."""
    inputs = EstimateInputs(
        model=MODEL, offers=[offer("L40S")], slo=LOOSE, sizes=BUCKETS, variants=["fp8"], settings={"kv_dtype": "fp8"}
    )
    assert [one.variant for one in inputs.replica_types] == ["fp8-kv", "fp8+fp8-kv"]
