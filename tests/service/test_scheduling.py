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
    with pytest.raises(InputError, match="no reserved offer is of a machine"):
        Session(service, settings=[own[0], "schedule.reserved=[{term_years: 2}]"]).schedule(quick=True)


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
        ("schedule.horizon_years=0.5", "lasts longer than the service is sure to run"),
        ("schedule.spot={discount: 60}", "discount must be in"),
        ("schedule.spot={}", "no spot offer is of a machine"),
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
