import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_cases import offer

from melange.catalog.bundled import accelerators, find_model
from melange.catalog.model import Model
from melange.errors import InputError
from melange.profile.anchor import anchor, anchor_from
from melange.profile.comparison import compare
from melange.profile.correction import INTERVAL, SHARES, Sample, correction, prior_variance
from melange.profile.estimate import estimate
from melange.profile.estimate_inputs import EstimateInputs
from melange.profile.measurement import Measurement
from melange.profile.profile import ANCHORED, ESTIMATED, MEASURED
from melange.replica.capacity import Sizes, max_request_rate, mean_step_s, prompt_times_s
from melange.replica.era import Era, find_era
from melange.replica.hardware import Hardware, replicas_of
from melange.replica.spread import spread
from melange.slo import Slo
from melange.workload.workload import Buckets

SLO = Slo(tpot_s=0.05)
BUCKETS = Buckets(input_edges=(200, 1000, 3000), output_edges=(100, 500))
OFFERS = [offer("A100-80GB"), offer("L40S")]


def cell(value: float) -> np.ndarray:
    """One replica, one size."""
    return np.full((1, 1, 1), float(value))


def truth(era: Era, factor: float) -> Era:
    """An engine whose memory reads are that much slower than the bundled constants have them."""
    constants = replace(era.constants, mbu=era.constants.mbu / factor, mba=era.constants.mba / factor)
    return replace(era, constants=constants)


def measured(model: Model, card: str, era: Era, inputs: float, outputs: float, concurrency: float) -> Measurement:
    """What a closed loop of this many requests would show on that engine."""
    replicas = replicas_of(model, [Hardware(accelerator=card)], accelerators(), era)
    sizes = Sizes(inputs=cell(inputs), outputs=cell(outputs))
    batch = concurrency
    for _ in range(20):
        step_s = float(mean_step_s(replicas, sizes, cell(batch))[0, 0, 0])
        own_s = float(prompt_times_s(replicas, sizes, cell(batch))[0][0, 0, 0])
        batch = concurrency / (1 + own_s / (outputs * step_s))
    return Measurement(
        input_tokens=inputs,
        output_tokens=outputs,
        concurrency=concurrency,
        accelerator=card,
        tpot_s={"mean": step_s},
        source="made up",
    )


def test_correction_by_hand() -> None:
    """One point at the reference batch: its own size moves by (type + size) / 1 of what was seen, and is that sure."""
    seen = math.log(1.3)
    found = correction(
        [Sample(inputs=1000, outputs=500, batch=24, log_ratio=seen)], *np.array([[[1000.0]], [[500.0]]]), 0.08
    )
    known = SHARES.type_ + SHARES.size
    assert found.level[0, 0] == pytest.approx(known * seen)
    assert found.slope[0, 0] == 0.0
    assert found.spread(cell(24))[0, 0, 0] ** 2 == pytest.approx(0.08 * (1 - known**2))
    assert (found.least_batch, found.most_batch) == (24, 24)


def test_two_points_of_a_size_tell_its_slope() -> None:
    """A ratio that grows with the batch is found to grow, and unlike sizes learn less of it than like ones."""
    points = [Sample(inputs=1000, outputs=500, batch=4), Sample(inputs=1000, outputs=500, batch=64, log_ratio=0.3)]
    found = correction(points, np.array([[1000.0], [100_000.0]]), np.array([[500.0], [500.0]]), 0.08)
    at_64 = found.level + found.slope * math.log(64 / 24)
    assert at_64[0, 0] == pytest.approx(0.3, abs=0.05)
    assert abs(found.level[0, 0] + found.slope[0, 0] * math.log(4 / 24)) < 0.05
    assert found.slope[0, 0] > 3 * found.slope[1, 0] > 0


def test_more_points_leave_less_doubt() -> None:
    """Each further point narrows the interval, everywhere, and none widens it."""
    sizes = np.array([[200.0, 1000.0, 3000.0]]), np.array([[100.0, 500.0, 500.0]])
    points = [Sample(inputs=1000, outputs=500, batch=b) for b in (24, 4, 100)]
    spreads = [correction(points[:n], *sizes, 0.08).spread(np.full((1, 3), 24.0)) for n in (1, 2, 3)]
    assert (spreads[0] < math.sqrt(0.08)).all()
    assert (spreads[1] < spreads[0]).all()
    assert (spreads[2] < spreads[1]).all()


def test_prior_is_the_eras_residuals() -> None:
    """A factor of 1.4 either way is the 80 % interval of a normal with sd log(1.4) / 1.2816."""
    residuals = replace(find_era("vllm").residuals, low=1 / 1.4, high=1.4)
    assert math.sqrt(prior_variance(residuals)) == pytest.approx(math.log(1.4) / 1.2816)


@pytest.mark.parametrize("factor", [0.7, 1.35])
def test_two_points_bring_rates_near_the_truth(llama: Model, factor: float) -> None:
    """Reads a third slower or 1.4 times as fast: after two points rates are within 12 %, most in their intervals."""
    era = find_era("vllm")
    true = estimate(llama, OFFERS[:1], SLO, BUCKETS, engine=truth(era, factor)).max_request_rate
    points = [measured(llama, "A100-80GB", truth(era, factor), 1000, 500, c) for c in (8, 48)]
    before = estimate(llama, OFFERS[:1], SLO, BUCKETS)
    after = anchor(llama, OFFERS[:1], SLO, BUCKETS, points)
    error_before = np.abs(before.max_request_rate / true - 1)
    error_after = np.abs(after.max_request_rate / true - 1)
    assert np.median(error_before) > 0.12
    assert np.median(error_after) < 0.4 * np.median(error_before)
    assert error_after.max() < 0.12
    assert ((after.low <= true) & (true <= after.high)).mean() >= 0.8
    assert (np.log(after.high / after.low) < np.log(before.high / before.low)).all()


def test_a_point_that_agrees_changes_nothing_but_doubt(llama: Model) -> None:
    """Measured as predicted: the same rates, narrower intervals, and the cells are anchored."""
    era = find_era("vllm")
    before = estimate(llama, OFFERS, SLO, BUCKETS)
    after = anchor(llama, OFFERS, SLO, BUCKETS, [measured(llama, "L40S", era, 1000, 500, 16)])
    assert after.max_request_rate == pytest.approx(before.max_request_rate, rel=2e-3)
    assert (after.provenance[0] == ESTIMATED).all()
    assert (after.provenance[1] == ANCHORED).all()
    assert (after.high[1] / after.low[1] < before.high[1] / before.low[1]).all()
    assert "1 measured point" in after.source


def test_a_searched_maximum_is_measured(llama: Model) -> None:
    """Found under the same SLO at the planned size: that cell is the measurement; under another SLO it is not."""
    point = Measurement(
        input_tokens=1000, output_tokens=500, accelerator="L40S", max_request_rate=1.23, slo=SLO, source="searched"
    )
    found = anchor(llama, OFFERS, SLO, BUCKETS, [point])
    assert found.max_request_rate[1, 1, 1] == found.low[1, 1, 1] == found.high[1, 1, 1] == 1.23
    assert found.provenance[1, 1, 1] == MEASURED
    assert (found.provenance != ESTIMATED).sum() == 1
    sure = anchor(llama, OFFERS, SLO, BUCKETS, [replace(point, max_request_rate_low=1.1, max_request_rate_high=1.3)])
    assert (sure.low[1, 1, 1], sure.max_request_rate[1, 1, 1], sure.high[1, 1, 1]) == (1.1, 1.23, 1.3)
    other = anchor(llama, OFFERS, SLO, BUCKETS, [replace(point, slo=Slo(tpot_s=0.1))])
    assert (other.provenance == ESTIMATED).all()
    assert "was found under TPOT <= 100 ms for 99% of requests" in str(other.cautions[-1])
    odd = anchor(llama, OFFERS, SLO, BUCKETS, [replace(point, input_tokens=800)])
    assert "matches no bucket (nearest: 1,000 in and 500 out)" in str(odd.cautions[-1])


@pytest.mark.parametrize("rate", [0.01, 1e6])
def test_a_search_that_its_client_ended_leaves_the_high_end_to_the_estimate(llama: Model, rate: float) -> None:
    """The server may carry more than was found, as far as its steps are thought to let it."""
    before = anchor(llama, OFFERS, SLO, BUCKETS, [])
    point = Measurement(
        input_tokens=1000,
        output_tokens=500,
        accelerator="L40S",
        max_request_rate=rate,
        max_request_rate_low=rate / 2,
        max_request_rate_high=math.inf,
        slo=SLO,
    )
    found = anchor(llama, OFFERS, SLO, BUCKETS, [Measurement.from_json(point.to_json())])
    assert found.low[1, 1, 1] == rate / 2
    assert found.high[1, 1, 1] == max(rate, before.high[1, 1, 1])


def test_a_wild_point_is_told(llama: Model) -> None:
    """Ten times slower than predicted was hardly measured on this; it is said so."""
    point = measured(llama, "L40S", find_era("vllm"), 1000, 500, 16)
    wild = replace(point, tpot_s={"mean": 10 * point.tpot_s["mean"]})
    said = [
        caution.message for caution in anchor(llama, OFFERS, SLO, BUCKETS, [wild]).cautions if caution.kind == "anchor"
    ]
    assert len(said) == 1
    assert "measured" in said[0]
    assert "predicted" in said[0]


def test_other_engines_and_models_are_left_out(llama: Model) -> None:
    """With a word; an unknown name may be what the server calls the model."""
    point = measured(llama, "L40S", find_era("vllm"), 1000, 500, 16)
    points = [replace(point, engine="sglang"), replace(point, model="Qwen/Qwen3-32B"), replace(point, model="my-llama")]
    found = anchor(llama, OFFERS, SLO, BUCKETS, points)
    assert [caution.message.partition(";")[2].strip() for caution in found.cautions if caution.kind == "anchor"] == [
        "skipped",
        "skipped",
    ]
    assert "1 measured point" in found.source


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"accelerator": ""}, "does not name the replica that was measured"),
        ({"accelerator": "L40Z"}, "unknown replica type or accelerator 'L40Z'; did you mean"),
        ({"accelerator": "T4"}, "T4 is not among the offers"),
        ({"tensor_parallel": 4}, "L40S is offered split over 1, not over 4"),
    ],
)
def test_points_of_what_is_not_there_are_refused(llama: Model, change: dict[str, object], complaint: str) -> None:
    """Each with what is offered."""
    point = Measurement(input_tokens=9, output_tokens=9, accelerator="L40S", tpot_s={"mean": 0.02}, source="m.json")
    with pytest.raises(InputError, match=complaint):
        anchor(llama, OFFERS, SLO, BUCKETS, [replace(point, **change)])  # type: ignore[arg-type] # a mixed bag


TELLING: dict[str, Callable[[float, float], dict[str, object]]] = {
    "gaps": lambda step_s, own_s: {"itl_s": {"mean": step_s}},
    "latency after the first token": lambda step_s, own_s: {
        "latency_s": {"mean": 0.5 + 499 * step_s},
        "ttft_s": {"mean": 0.5},
    },
    "latency": lambda step_s, own_s: {"latency_s": {"mean": own_s + 500 * step_s}},
    "normalized": lambda step_s, own_s: {"ntpot_s": {"mean": own_s / 500 + step_s}},
    "rate": lambda step_s, own_s: {"achieved_rate": 16 / (own_s + 500 * step_s)},
}


@pytest.mark.parametrize("kind", TELLING)
def test_whatever_was_measured_tells_the_same(llama: Model, kind: str) -> None:
    """Gaps, latency or a rate of the model's own making: measured over predicted is 1, at about 16 running requests."""
    replicas = replicas_of(llama, [Hardware(accelerator="L40S")], accelerators(), find_era("vllm"))
    base = measured(llama, "L40S", find_era("vllm"), 1000, 500, 16)
    batch, step_s, _ = compare(replicas, llama, base)
    own_s = float(prompt_times_s(replicas, Sizes(inputs=cell(1000), outputs=cell(500)), cell(batch))[0][0, 0, 0])
    point = replace(base, tpot_s={}, **TELLING[kind](step_s, own_s))  # type: ignore[arg-type] # a mixed bag
    running, found_s, predicted_s = compare(replicas, llama, point)
    assert found_s == pytest.approx(predicted_s, rel=5e-3)
    assert running == pytest.approx(batch, rel=1e-3)


def test_paced_requests_run_as_littles_law_says(llama: Model) -> None:
    """Sent at 0.5 a second with 20 ms a token and 500 tokens: 5 of them at a time, whatever the cap was."""
    replicas = replicas_of(llama, [Hardware(accelerator="L40S")], accelerators(), find_era("vllm"))
    point = Measurement(
        input_tokens=1000,
        output_tokens=500,
        offered_rate=0.5,
        achieved_rate=0.5,
        concurrency=100,
        tpot_s={"mean": 0.02},
    )
    assert compare(replicas, llama, point)[0] == pytest.approx(5.0)


def test_corrected_rates_hold_corrected_steps(llama: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an interval of nothing the low end is the middle: the same closed form with the same steps."""
    surely = replace(find_era("vllm").residuals, low=0.999, high=1.001)
    era = replace(find_era("vllm"), residuals=surely, residuals_by_kind={}, residuals_elsewhere=None)
    nothing = replace(spread(), source=0.0, architecture=0.0, kind=0.0, release=0.0, alone=0.0)
    monkeypatch.setattr("melange.replica.era.spread", lambda: nothing)
    point = measured(llama, "A100-80GB", find_era("vllm"), 1000, 500, 16)
    found = anchor(llama, OFFERS[:1], SLO, BUCKETS, [point], engine=era)
    plain = max_request_rate(
        replicas_of(llama, [Hardware(accelerator="A100-80GB")], accelerators(), era),
        llama,
        Sizes(inputs=BUCKETS.upper_sizes()[0][None], outputs=BUCKETS.upper_sizes()[1][None]),
        SLO.limits,
    )
    assert found.max_request_rate == pytest.approx(plain, rel=2e-3)
    assert found.low == pytest.approx(found.max_request_rate, rel=1e-2)
    assert INTERVAL > 1


POINTS = st.lists(st.tuples(st.sampled_from([2, 16, 80]), st.floats(0.5, 2.0)), min_size=1, max_size=4)


@settings(max_examples=20, deadline=None)
@given(ratios=POINTS, limit_s=st.floats(0.01, 0.2))
def test_whatever_is_measured_low_and_high_embrace_the_rate(ratios: list[tuple[int, float]], limit_s: float) -> None:
    """Any few points: low <= rate <= high, and slower points never raise a rate."""
    llama, era, slo = find_model("meta-llama/Llama-2-7b-hf"), find_era("vllm"), Slo(tpot_s=limit_s)
    points = [measured(llama, "A100-80GB", era, 1000, 500, concurrency) for concurrency, _ in ratios]
    seen = [
        replace(point, tpot_s={"mean": ratio * point.tpot_s["mean"]})
        for point, (_, ratio) in zip(points, ratios, strict=True)
    ]
    slower = [replace(point, tpot_s={"mean": 1.2 * point.tpot_s["mean"]}) for point in seen]
    inputs = EstimateInputs(model=llama, offers=OFFERS[:1], slo=slo, sizes=BUCKETS)
    first, second = (anchor_from(inputs, some, doubtful=True) for some in (seen, slower))
    assert (first.low <= first.max_request_rate).all()
    assert (first.max_request_rate <= first.high).all()
    assert (second.max_request_rate <= first.max_request_rate * (1 + 2e-3)).all()
