"""A service planned over time: its section, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from melange.errors import InputError
from melange.service.session import Session

SERVICE = """\
model: meta-llama/Llama-3.1-8B-Instruct
slo: {tpot_ms: 80, ttft_ms: 2000}
workload: {rates: rates.csv, sizes: sizes.csv, over: day}
offers: {gpus: [L4, L40S], providers: [aws], regions: [us-east-1]}
profile: {tensor_parallel: 1}
schedule: {reserved: [{term_years: 1, discount: 0.4}], horizon_years: 2}
"""


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """A day of a small service in hours, as tables."""
    hours = range(48)
    rates = [f"{3600 * k},{2 + 1.5 * np.sin(k / 4):.3f}" for k in hours]
    (tmp_path / "rates.csv").write_text("\n".join(["start,rate", *rates]) + "\n")
    sizes = "start,input_tokens_upto,output_tokens_upto,share\n0,1000,200,0.7\n0,4000,200,0.3\n"
    (tmp_path / "sizes.csv").write_text(sizes)
    path = tmp_path / "service.yaml"
    path.write_text(SERVICE)
    return path


def test_a_service_is_planned_over_time(service: Path) -> None:
    """With its commitment, within its own limits."""
    found = Session(service, settings=["offers.max={L40S: 6}"]).schedule(quick=True)
    assert found.over == "day"
    assert len(found.labels) == 24
    assert {one.name for one in found.commitments} == {"", "1 year, nothing upfront"}
    assert found.played == ()
    assert {"upper-edges", "stated-discount", "stale-price"} >= {one.kind for one in found.cautions} - {
        "extrapolated", "no-offer", "short",
    }  # fmt: skip


def test_reserved_offers_of_a_price_list_have_terms(service: Path) -> None:
    """The price for one year counts for a commitment of one year, and for no other."""
    header = "provider,region,instance_type,accelerator,accelerators,cost_per_h,market,term_years,upfront_fraction"
    rows = ["a,,g6e,L40S,1,2.0,on-demand,,", "a,,g6e,L40S,1,1.1,reserved,1,0", "a,,g6e,L40S,1,0.7,reserved,3,0"]
    service.with_name("offers.csv").write_text("\n".join([header, *rows]) + "\n")
    own = ["offers={file: offers.csv}", "schedule.reserved=[{term_years: 1}]"]
    found = Session(service, settings=own).schedule(quick=True)
    held = next(one for one in found.commitments if one.name)
    assert held.break_even_fraction == pytest.approx(0.55)
    with pytest.raises(InputError, match="no reserved offer has the same machine"):
        Session(service, settings=[own[0], "schedule.reserved=[{term_years: 2}]"]).schedule(quick=True)


BATCH = "classes.batch={share: 0.3, slo: {latency_ms: 600000}, priority: 1, deadline: 24h}"


def test_a_class_with_a_deadline_is_sent_when_there_is_room(service: Path) -> None:
    """Its share of the requests; between what the hours cost without it and with all as it arrives."""
    found = Session(service, settings=[BATCH]).schedule(quick=True)
    deferred = found.deferred
    assert deferred is not None
    (batch,) = deferred.classes
    assert (batch.name, batch.deadline_s) == ("batch", 24 * 3600.0)
    whole = Session(service).demand()
    assert batch.arrival_rate.mean() == pytest.approx(0.3 * whole.mean_rate, rel=1e-6)
    assert batch.sending_rate.mean() == pytest.approx(batch.arrival_rate.mean())
    assert deferred.at_once_per_h is not None
    assert deferred.without_per_h - 1e-9 <= found.planned_per_h <= deferred.at_once_per_h + 1e-9
    assert found.rule is None or found.rule.buckets is None or found.rule.buckets.classes == ("default", "batch")
    assert "priority" not in {one.kind for one in found.cautions}


def test_a_class_without_a_deadline_is_served_as_it_arrives(service: Path) -> None:
    """With limits of its own; a class with the service's own limits changes nothing."""
    alone = Session(service).schedule(quick=True)
    same = "classes.other={share: 0.3, slo: {tpot_ms: 80, ttft_ms: 2000}}"
    found = Session(service, settings=[same]).schedule(quick=True)
    assert found.deferred is None
    assert found.planned_per_h == pytest.approx(alone.planned_per_h)
    loose = "classes.other={share: 0.3, slo: {latency_ms: 600000}}"
    assert Session(service, settings=[loose]).schedule(quick=True).planned_per_h <= alone.planned_per_h + 1e-9


def test_a_class_may_have_traffic_of_its_own(service: Path) -> None:
    """Steady where it has one rate, over time where it says so; and equal priorities are told."""
    (service.parent / "sizes1.csv").write_text(",200\n1000,0.5\n4000,0.5\n")
    steady = "classes.batch={workload: {histogram: sizes1.csv, rate: 0.5}, slo: {latency_ms: 600000}, deadline: 12h}"
    found = Session(service, settings=[steady]).schedule(quick=True)
    assert found.deferred is not None
    np.testing.assert_allclose(found.deferred.classes[0].arrival_rate, 0.5)
    assert any("set classes.batch.priority: 1" in str(one) for one in found.cautions if one.kind == "priority")
    hours = [f"{3600 * k},{1.0 if k % 24 < 6 else 0.0}" for k in range(48)]
    (service.parent / "night.csv").write_text("\n".join(["start,rate", *hours]) + "\n")
    own = "{rates: night.csv, sizes: sizes.csv, over: day, empty_windows: zero}"
    night = f"classes.batch={{workload: {own}, slo: {{latency_ms: 600000}}, deadline: 12h}}"
    found = Session(service, settings=[night]).schedule(quick=True)
    assert found.deferred is not None
    assert found.deferred.classes[0].arrival_rate.tolist() == pytest.approx([1.0] * 6 + [0.0] * 18)
    assert found.deferred.classes[0].sending_rate.sum() == pytest.approx(6.0)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("workload={dataset: arena, rate: 4}", "workload.dataset has no traffic over time"),
        ("workload={rates: rates.csv, sizes: sizes.csv}", "workload.over is needed"),
        ("workload={rates: rates.csv, over: day}", "workload.rates needs workload.sizes"),
        ("workload.over=week", "at least a week"),
        ("workload.over=month", "workload.over"),
        ("workload.rate=3", "one rate, but a schedule has one for every window"),
        ("workload.time_zone=Europe/Berlin", "needs dates"),
        ("classes.batch={share: 0.3, slo: {latency_ms: 1000}, deadline: 10m}", "deadline: must be an hour or more"),
        ("classes.batch={workload: {dataset: arena, rate: 1}, slo: {latency_ms: 1}, deadline: 3}", "an hour or more"),
        ("schedule.horizon_years=0.5", "lasts longer than the service is sure to run"),
        ("schedule.spot={discount: 60}", "discount must be in"),
        ("schedule.spot={}", "no spot offer has the same machine as an on-demand offer"),
        ("schedule.reserve=[]", "did you mean 'reserved'"),
        ("plan.max_types=1", "plan.max_types applies to a plan"),
        ("offers.market=[spot]", "no offer matches"),
    ],
)
def test_what_a_service_cannot_ask(service: Path, setting: str, said: str) -> None:
    """With the key and the next step."""
    with pytest.raises(InputError, match=said):
        Session(service, settings=[setting]).schedule(quick=True)


def test_a_plan_of_such_a_service_is_of_its_mean_or_of_a_statistic(service: Path) -> None:
    """One workload, as melange plan needs it."""
    mean = Session(service).workload().total_rate
    peak = Session(service, settings=["workload.rate=max"]).workload().total_rate
    assert mean == pytest.approx(2.0, abs=0.2)
    assert peak == pytest.approx(3.5, abs=0.01)
    assert Session(service).demand().peak_rate == pytest.approx(3.5, abs=0.01)
