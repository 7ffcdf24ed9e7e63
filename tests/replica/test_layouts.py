"""Expert and pipeline parallelism: coefficients and memory by hand, and the closed form beside the simulator."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from melange.catalog.bundled import accelerators, find_model
from melange.catalog.offer import Offer
from melange.errors import InputError
from melange.profile.estimate import estimate_from
from melange.profile.estimate_inputs import EstimateInputs
from melange.profile.profile import ReplicaType
from melange.replica.era import find_era
from melange.replica.hardware import Hardware, era_cost, replicas_of
from melange.replica.layout_cost import EXPERT_IMBALANCE, NETWORK_BYTES_PER_S, unsplittable, weight_bytes_on
from melange.replica.parallelism import Layout
from melange.replica.reasons import obstacle
from melange.replica.step import StepCost, stalled_tokens, step_time_s
from melange.slo import Slo
from melange.workload.workload import Buckets, Workload

FACTS, ERA = accelerators(), find_era("vllm")
LLAMA, QWEN = find_model("meta-llama/Llama-3.1-405B-Instruct"), find_model("Qwen/Qwen3-235B-A22B")
DEEPSEEK = find_model("deepseek-ai/DeepSeek-V3")


def eight(accelerator: str, cost_per_h: float = 50.0) -> Offer:
    """A machine of eight."""
    where = {"provider": "cloud", "region": "", "instance_type": f"8-{accelerator}"}
    return Offer(**where, accelerator=accelerator, accelerators=8, cost_per_h=cost_per_h)


def inputs(model: object, *offers: Offer, **settings: object) -> EstimateInputs:
    """One size, on those machines."""
    traffic = Workload.at_upper_edges(Buckets(input_edges=(1000,), output_edges=(300,)), [[1.0]])
    slo = settings.pop("slo", Slo(tpot_s=0.1, statistic="mean"))
    return EstimateInputs(model=model, offers=offers, slo=slo, sizes=traffic, **settings)


def test_a_layout_has_a_name_and_counts() -> None:
    """Ranks of attention, accelerators, and what cannot be."""
    experts, stages = Layout(tensor_parallel=2, expert_parallel=8), Layout(tensor_parallel=4, pipeline_parallel=3)
    assert (experts.data_parallel, experts.ranks, experts.accelerators, experts.suffix) == (4, 4, 8, "tp2 ep8")
    assert (stages.data_parallel, stages.ranks, stages.accelerators, stages.suffix) == (1, 3, 12, "tp4 pp3")
    assert Layout(tensor_parallel=8).is_plain
    for wrong in ({"tensor_parallel": 0}, {"tensor_parallel": 4, "expert_parallel": 6}):
        with pytest.raises(InputError):
            Layout(**wrong)
    with pytest.raises(InputError, match="together"):
        Layout(expert_parallel=8, pipeline_parallel=2)


def test_a_replica_over_machines_is_rented_whole() -> None:
    """Two machines cost twice as much, hold sixteen, and count as one instance."""
    one = ReplicaType(name="x", offer=eight("A100-80GB"), tensor_parallel=8, pipeline_parallel=2)
    assert (one.machines, one.accelerators, one.replicas_per_instance, one.cost_per_h) == (2, 16, 1, 100.0)
    inside = ReplicaType(name="x", offer=eight("L40S"), tensor_parallel=2, pipeline_parallel=2)
    assert (inside.machines, inside.replicas_per_instance) == (1, 2)
    with pytest.raises(InputError, match="does not fill"):
        ReplicaType(name="x", offer=eight("L40S"), tensor_parallel=4, pipeline_parallel=3)


def test_memory_by_hand() -> None:
    """Experts are shared out and attention is copied; stages hold half of the layers and one end."""
    routed = DEEPSEEK.routed_bytes()
    whole = DEEPSEEK.weight_bytes()
    assert weight_bytes_on(DEEPSEEK, Layout(expert_parallel=8)) == pytest.approx(whole - routed * 7 / 8)
    assert weight_bytes_on(DEEPSEEK, Layout(tensor_parallel=8)) == DEEPSEEK.weight_bytes_on(8)
    ends = 2 * LLAMA.vocabulary_size * LLAMA.hidden_size
    half = (LLAMA.weight_bytes() - 2 * ends) / 2 + ends
    assert weight_bytes_on(LLAMA, Layout(tensor_parallel=8, pipeline_parallel=2)) == pytest.approx(half / 8)
    # 126 layers in 4 stages: the longest has 32.
    quarter = (LLAMA.weight_bytes() - 2 * ends) * 32 / 126 + ends
    assert weight_bytes_on(LLAMA, Layout(pipeline_parallel=4)) == pytest.approx(quarter)
    assert "has no experts" in unsplittable(LLAMA, Layout(expert_parallel=8))
    assert "cannot be spread evenly" in unsplittable(QWEN, Layout(expert_parallel=3))
    assert "does not fit" in obstacle(LLAMA, FACTS["A100-80GB"], 8, ERA.settings)
    assert not obstacle(LLAMA, FACTS["A100-80GB"], Layout(tensor_parallel=8, pipeline_parallel=2), ERA.settings)


def test_steps_of_stages_by_hand() -> None:
    """A step is what half of the batch takes through all layers, and one hop to the other machine."""
    plain = Hardware(accelerator="A100-80GB", tensor_parallel=8)
    cost = era_cost(LLAMA, FACTS["A100-80GB"], plain, ERA)
    staged = replace(plain, pipeline_parallel=2, is_networked=True)
    spread = era_cost(LLAMA, FACTS["A100-80GB"], staged, ERA)
    whole = step_time_s(cost, batch=32.0, context_tokens=32 * 500.0)
    half = step_time_s(spread, batch=64.0, context_tokens=64 * 500.0)
    slowdown = ERA.slowdown(LLAMA, FACTS["A100-80GB"])
    constants = ERA.constants_on(FACTS["A100-80GB"])
    hop_s = 50e-6 + 32 * 2 * LLAMA.hidden_size / (8 * NETWORK_BYTES_PER_S) + constants.t_step_s
    assert float(half) == pytest.approx(float(whole) + slowdown * hop_s, rel=1e-9)
    # One prompt travels by itself: it takes as long as on the accelerators of one stage.
    alone = step_time_s(spread, batch=0.0, context_tokens=0.0, prefill_tokens=4000.0, position=2000.0)
    before = step_time_s(cost, batch=0.0, context_tokens=0.0, prefill_tokens=4000.0, position=2000.0)
    assert float(alone) == pytest.approx(float(before), rel=0.08)
    both = step_time_s(spread, batch=0.0, context_tokens=0.0, prefill_tokens=8000.0, position=2000.0, longest=4000.0)
    assert float(both) == pytest.approx(float(alone), rel=1e-9)


def test_steps_of_experts_by_hand() -> None:
    """Every rank reads attention whole, an eighth of the experts, and its part of the KV cache."""
    plain, spread = (
        era_cost(DEEPSEEK, FACTS["H200"], Hardware(accelerator="H200", expert_parallel=degree), ERA)
        for degree in (1, 8)
    )
    assert spread.weights_s == plain.weights_s
    assert spread.experts_s == pytest.approx(plain.experts_s / 8 * EXPERT_IMBALANCE)
    assert spread.context_s == pytest.approx(plain.context_s / 8)
    assert (spread.ranks, plain.ranks) == (8.0, 0.0)
    assert spread.one_shot_token_s > plain.one_shot_token_s == 0.0
    tensor = era_cost(DEEPSEEK, FACTS["H200"], Hardware(accelerator="H200", tensor_parallel=8), ERA)
    # The latent cache is whole on every accelerator under tensor parallelism: that is what ranks of attention save.
    assert spread.context_s == pytest.approx(tensor.context_s / 8, rel=0.01)


def test_one_prompt_makes_the_other_ranks_wait() -> None:
    """Spread evenly, tokens cost an eighth; one prompt alone costs all of it; several share."""
    cost = StepCost(**{one.name: 0.0 for one in fields(StepCost)} | {"ranks": 8.0})
    assert float(stalled_tokens(cost, 100.0, None)) == 700.0
    assert float(stalled_tokens(cost, 800.0, 100.0)) == 0.0
    assert float(stalled_tokens(cost, 400.0, 100.0)) == 400.0
    assert stalled_tokens(replace(cost, ranks=0.0), 100.0, None) == 0.0


def test_ranks_have_limits_and_caches_of_their_own() -> None:
    """Eight times the sequences and tokens of a rank; a request must fit into one of eight caches."""
    hardware = [
        Hardware(accelerator="H200", expert_parallel=degree, tensor_parallel=tp) for degree, tp in ((1, 8), (8, 1))
    ]
    replicas = replicas_of(DEEPSEEK, hardware, FACTS, ERA)
    assert (replicas.max_sequences[1] / replicas.max_sequences[0]).item() == 8
    assert (replicas.max_batched_tokens[1] / replicas.max_batched_tokens[0]).item() == 8
    assert np.asarray(replicas.kv_parts).ravel().tolist() == [1.0, 8.0]
    assert (replicas.kv_tokens[1] / replicas.kv_tokens[0]).item() > 4


@pytest.mark.parametrize(
    ("model", "accelerator", "machines"),
    [(LLAMA, "A100-80GB", 2), (LLAMA, "H100-80GB", 2), (DEEPSEEK, "H100-80GB", 2), (LLAMA, "A100-40GB", 3)],
)
def test_what_fits_no_machine_gets_several(model: object, accelerator: str, machines: int) -> None:
    """The fewest, with a wide interval and a word that nothing measured it."""
    found = estimate_from(inputs(model, eight(accelerator), slo=Slo(tpot_s=0.2, statistic="mean")))
    (one,) = found.replica_types
    assert (one.machines, one.tensor_parallel, one.pipeline_parallel) == (machines, 8, machines)
    assert one.name == f"cloud/8-{accelerator} tp8 pp{machines}"
    rate, low, high = (float(ends[0, 0, 0]) for ends in (found.max_request_rate, found.low, found.high))
    assert rate > 0
    assert low < 0.8 * rate < 1.25 * rate < high
    assert any(one.kind == "measure-first" and "they were not measured" in one.message for one in found.cautions)
    alone = estimate_from(inputs(model, eight(accelerator), pipeline_parallel=[1]))
    assert not alone.max_request_rate.any()


def test_layouts_are_told_and_checked() -> None:
    """Every degree that fits is a replica type; what cannot be is an error with the key."""
    told = inputs(QWEN, eight("H100-80GB"), expert_parallel=[1, 8], pipeline_parallel=[1, 2], tensor_parallel=[4, 8])
    names = [one.name.partition(" ")[2] for one in told.replica_types]
    assert names == ["tp4", "tp4 pp2", "tp4 ep8", "tp8", "tp8 pp2", "tp8 ep8"]
    for model, settings, message in (
        (LLAMA, {"expert_parallel": [8]}, "profile.expert_parallel: .* has no experts"),
        (QWEN, {"expert_parallel": [16]}, "no offer holds 16"),
        (QWEN, {"expert_parallel": [8], "engine": "vllm-0.2"}, "splits layers only"),
        (QWEN, {"pipeline_parallel": [0]}, "pipeline_parallel must be one or more degrees"),
    ):
        with pytest.raises(InputError, match=message):
            _ = inputs(model, eight("H100-80GB"), **settings).replica_types
