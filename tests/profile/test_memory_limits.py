"""What a model's context and a replica's memory allow, said at once and with the setting that changes it."""

from dataclasses import replace

import numpy as np
import pytest

from melange.catalog.bundled import find_model
from melange.catalog.layers import LayerKind, Weights
from melange.catalog.offer import Offer
from melange.errors import InfeasibleError
from melange.profile.estimate import estimate, estimate_from
from melange.profile.estimate_inputs import EstimateInputs
from melange.slo import Slo
from melange.workload.workload import Buckets, Workload

LLAMA = find_model("meta-llama/Llama-2-7b-hf")
BUCKETS = Buckets(input_edges=(1000, 6000), output_edges=(200,))


def offer(accelerator: str, count: int = 1) -> Offer:
    """An instance of that accelerator."""
    return Offer(
        provider="cloud", region="", instance_type=f"{count}x{accelerator}", accelerator=accelerator,
        accelerators=count, cost_per_h=1.0, market="on-demand", interconnect="nvlink" if count > 1 else "",
    )  # fmt: skip


def workload(long_rate: float) -> Workload:
    """One request a second of 1,000 tokens, and this many of 6,000."""
    inputs, outputs = BUCKETS.upper_sizes()
    rate = np.array([[1.0], [long_rate]])
    return Workload(buckets=BUCKETS, request_rate=rate, input_tokens=inputs, output_tokens=outputs)


def inputs(**settings: object) -> EstimateInputs:
    """A Llama of 4,096 tokens of context, asked for 6,200 too."""
    given = {
        "model": LLAMA,
        "offers": [offer("H100-80GB"), offer("T4")],
        "slo": Slo(tpot_s=0.1),
        "sizes": workload(0.25),
    }
    return EstimateInputs(**(given | settings))  # type: ignore[arg-type]


def test_requests_longer_than_the_context_are_said_once() -> None:
    """Before anything is solved: how many, how long, and the setting."""
    with pytest.raises(InfeasibleError) as caught:
        inputs().check_context()
    assert str(caught.value).startswith(
        "requests of up to 6,200 tokens (20.00% of all) are longer than the context of meta-llama/Llama-2-7b-hf, 4,096"
    )
    assert "profile: {max_context: 131072}" in str(caught.value.hint)
    inputs(max_context=8192).check_context()
    inputs(sizes=workload(0.0)).check_context()
    inputs(sizes=BUCKETS).check_context()


def test_a_longer_context_can_be_set() -> None:
    """Where the engine is started with one, the same sizes have rates."""
    assert estimate_from(inputs()).max_request_rate[0, 1, 0] == 0
    assert estimate_from(inputs(max_context=8192)).max_request_rate[0, 1, 0] > 0


def test_the_context_comes_before_the_memory_of_one_type() -> None:
    """No accelerator changes it, so it is every type's reason."""
    profile = estimate_from(inputs())
    sentences = {profile.reasons[profile.reason[r, 1, 0]] for r in range(2)}
    assert sentences == {"a request of 6,200 tokens exceeds the context limit of 4,096"}


def test_a_replica_must_hold_the_tokens_that_are_asked_for() -> None:
    """An H100 holds about 110,000 tokens of this model beside its weights."""
    wanted = inputs(min_kv_tokens=100_000, sizes=workload(0.0))
    assert estimate_from(wanted).max_request_rate[0, 0, 0] > 0
    profile = estimate_from(inputs(min_kv_tokens=200_000, sizes=workload(0.0)))
    assert profile.max_request_rate[0, 0, 0] == 0
    sentence = profile.reasons[profile.reason[0, 0, 0]]
    assert "profile.min_kv_tokens asks for 200,000" in sentence
    assert sentence.startswith("its KV cache holds 1")


def test_a_thin_cache_has_a_caution() -> None:
    """A model that leaves less than a twentieth of its own memory."""
    wide = replace(LLAMA, layers=182)  # 69 GiB of weights
    profile = estimate(wide, [offer("H100-80GB")], Slo(tpot_s=1.0), BUCKETS)
    (caution,) = [one for one in profile.cautions if one.kind == "thin-cache"]
    assert "1 x H100-80GB" in caution.message
    assert "profile.min_kv_tokens" in caution.message
    plain = estimate(LLAMA, [offer("H100-80GB")], Slo(tpot_s=1.0), BUCKETS)
    assert not [one for one in plain.cautions if one.kind == "thin-cache"]


def test_a_state_takes_room_of_every_request() -> None:
    """Layers that keep 160 MB of a request let fewer of them run, however short they are."""
    kinds = LLAMA.kinds
    mixer = (Weights(parameters=kinds[0].mixer[0].parameters),)
    states = LayerKind(
        count=16, mixer=mixer, feed_forward=kinds[0].feed_forward, other_parameters=8192, state_values=2_500_000,
        state_bytes=10_000_000.0,
    )  # fmt: skip
    hybrid = replace(LLAMA, layer_kinds=(replace(kinds[0], count=16), states))
    light = replace(hybrid, layer_kinds=(replace(kinds[0], count=16), replace(states, state_bytes=0.0, state_values=0)))
    limits = Slo(tpot_s=1.0)
    few, many = (estimate(one, [offer("L4")], limits, BUCKETS) for one in (hybrid, light))
    assert few.engines[0] is not None
    assert few.engines[0].state_units == -(-160_000_000 // (4 * 32 * 128))
    assert few.max_request_rate[0, 0, 0] < many.max_request_rate[0, 0, 0]
