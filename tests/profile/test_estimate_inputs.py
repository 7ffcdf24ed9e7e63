"""The value that estimates, anchors and measurements share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from profile_cases import offer

from melange.catalog.bundled import accelerators, find_model
from melange.errors import InputError
from melange.measure.subject import service_subject
from melange.plan.options import Options
from melange.profile.anchor import anchor, anchor_from
from melange.profile.estimate import estimate, estimate_from
from melange.profile.estimate_inputs import EstimateInputs
from melange.profile.measurement import Measurement
from melange.profile.rate_cache import RateCache
from melange.replica.era import find_era
from melange.slo import Slo
from melange.workload.workload import Buckets, Workload

SLO = Slo(tpot_s=0.08, statistic="mean")
LLAMA = find_model("meta-llama/Llama-3.1-8B")
BUCKETS = Buckets(input_edges=(200, 1000), output_edges=(100, 500))
TRAFFIC = Workload(
    buckets=BUCKETS,
    request_rate=[[1.0, 2.0], [0.0, 1.0]],
    input_tokens=np.array([[150.0, 150.0], [800.0, 800.0]]),
    output_tokens=np.array([[80.0, 300.0], [80.0, 300.0]]),
)
POINTS = [
    Measurement(input_tokens=800, output_tokens=300, concurrency=8, accelerator="L4", tpot_s={"mean": 0.06}),
    Measurement(input_tokens=800, output_tokens=300, concurrency=8, accelerator="H100-80GB", tpot_s={"mean": 0.01}),
]


def inputs(**changes: object) -> EstimateInputs:
    """Two L4 in two places and a pair of H100, for the same traffic."""
    offers = [offer("L4"), offer("L4", region="there"), offer("H100-80GB", 2)]
    given: dict[str, object] = {"model": LLAMA, "offers": offers, "slo": SLO, "sizes": TRAFFIC, "tensor_parallel": 1}
    return EstimateInputs(**(given | changes))  # type: ignore[arg-type] # a mixed bag by design


def test_hardware_that_is_offered_twice_is_computed_once() -> None:
    """One hardware a replica type, in its order; the distinct ones once; and the same objects when asked again."""
    one = inputs(variants=["fp8"])
    assert [(it.accelerator, it.variant) for it in one.hardware] == [
        ("L4", ""),
        ("L4", "fp8"),
        ("L4", ""),
        ("L4", "fp8"),
        ("H100-80GB", ""),
        ("H100-80GB", "fp8"),
    ]
    assert len(one.distinct_hardware) == 4
    assert one.replica_types is one.replica_types
    assert one.replicas_on(one.distinct_hardware).kv_tokens.shape == (4, 1, 1)


def test_sizes_are_a_workload_s_own_or_upper_edges() -> None:
    """And so is how often they come: by traffic, or alike."""
    by_edge = inputs(sizes=BUCKETS)
    assert (inputs().planned_sizes.inputs[0] == TRAFFIC.input_tokens).all()
    assert (inputs().weight == TRAFFIC.request_rate).all()
    assert (by_edge.planned_sizes.outputs[0] == BUCKETS.upper_sizes()[1]).all()
    assert (by_edge.weight == 1).all()


def test_an_engine_is_a_name_or_an_era() -> None:
    """A name keeps its own; facts are the bundled ones where none are given."""
    era = find_era("sglang").with_settings(max_sequences=8)
    assert (inputs().engine_name, inputs().era.name) == ("vllm", "vllm-1")
    assert (inputs(engine=era).engine_name, inputs(engine=era).era) == ("sglang", era)
    assert inputs().facts_by_name == accelerators()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"slo": Slo(tpot_s=0.1, statistic="p99")}, "limits on the mean only, got p99"),
        ({"sizes": Buckets.ordinal(2, 2)}, "without token counts"),
        ({"engine": "vlm"}, "unknown engine 'vlm'; did you mean 'vllm'"),
        ({"step_times": "vidur"}, "unknown source of step times 'vidur'"),
    ],
)
def test_what_no_estimate_can_be_made_of_is_refused_at_once(change: dict[str, object], words: str) -> None:
    """Before any offer is looked at."""
    with pytest.raises(InputError, match=words):
        inputs(**change)


def test_the_value_and_the_keywords_say_the_same() -> None:
    """Estimates and anchors of one value are those of its fields."""
    one, offers = inputs(), inputs().offers
    given = estimate(LLAMA, offers, SLO, TRAFFIC, tensor_parallel=1)
    assert estimate_from(one).dumps() == given.dumps()
    corrected = anchor(LLAMA, offers, SLO, TRAFFIC, POINTS, tensor_parallel=1)
    assert anchor_from(one, POINTS).dumps() == corrected.dumps()
    assert corrected.dumps() != given.dumps()


def test_a_service_is_measured_with_the_estimates_that_it_is_planned_with() -> None:
    """What is known of it after some points is what they anchor, besides points of before."""
    subject = service_subject("H100-80GB", inputs(), SLO, Options(), anchors=POINTS[:1])
    profile = subject.profile_of(POINTS[1:])
    assert profile is not None
    assert subject.workload is TRAFFIC
    assert profile.dumps() == anchor_from(inputs(), POINTS).dumps()
    with pytest.raises(TypeError, match="for a workload"):
        service_subject("L4", inputs(sizes=BUCKETS), SLO, Options())


def test_a_service_on_requests_is_measured_against_rates_that_hold_for_them() -> None:
    """Types that are not measured are simulated, or the measured one would look worse than it is beside their means."""
    slo, kept = replace(SLO, statistic="requests"), RateCache()
    subject = service_subject("H100-80GB", inputs(), slo, Options(), anchors=POINTS[:1], kept=kept)
    profile = subject.profile_of(POINTS[1:])
    assert profile is not None
    assert profile.slo == slo
    by_mean = anchor_from(inputs(), POINTS).max_request_rate
    assert (profile.max_request_rate <= 1.05 * by_mean).all()
    assert (profile.max_request_rate < by_mean).any()
    again = subject.profile_of(POINTS[1:])
    assert again is not None
    assert again.dumps() == profile.dumps()
