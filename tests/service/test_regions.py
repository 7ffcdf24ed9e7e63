"""Services with users in several places: their fleets by region, and why an origin has no region."""

from __future__ import annotations

from pathlib import Path

import pytest

from melange.catalog.round_trips import read_trips, round_trip_s
from melange.errors import InfeasibleError, InputError
from melange.plan.regions.regional_plan import RegionalPlan
from melange.service.regional_session import RegionalSession
from melange.service.session import Session

SERVICE = """\
model: meta-llama/Llama-3.1-8B-Instruct
slo: {tpot_ms: 60, ttft_ms: 400, statistic: mean}
workload: {histogram: sizes.csv, rate: 30}
offers: {gpus: [L4, L40S], providers: [aws], regions: [us-east-1, eu-central-1]}
profile: {tensor_parallel: 1}
regions:
  origins:
    america: {share: 0.6, at: us-east-1}
    europe: {share: 0.4, at: paris}
"""
SIZES = ",100,200\n500,0.5,0.2\n1000,0.1,0.2\n"


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """A service of two origins and two regions."""
    (tmp_path / "sizes.csv").write_text(SIZES)
    path = tmp_path / "service.yaml"
    path.write_text(SERVICE)
    return path


def test_fleets_of_two_regions_carry_all_origins(service: Path, tmp_path: Path) -> None:
    """Flows add up, the way is gone from the SLO, and no region alone is cheaper; the file says the same again."""
    found = RegionalSession(service).plan()
    for origin, share in (("america", 0.6), ("europe", 0.4)):
        flows = [one for one in found.flows if one.origin == origin]
        assert sum(one.flow_fraction for one in flows) == pytest.approx(1.0)
        assert sum(one.request_rate for one in flows) == pytest.approx(share * 30)
    for region, plan in found.plans.items():
        longest = max(one.round_trip_s for one in found.flows if one.region == region)
        assert plan.slo is not None
        assert plan.slo.limits["ttft"] == pytest.approx(0.4 - longest)
        assert {one.offer.region for one in plan.replica_types} == {region}
        assert plan.load.max() <= 0.9 + 1e-6
    assert found.bound_per_h <= found.cost_per_h * (1 + 1e-9)
    for region in ("us-east-1", "eu-central-1"):
        alone = RegionalSession(service, settings=[f"offers.regions=[{region}]"]).plan()
        assert found.cost_per_h <= alone.cost_per_h + 1e-9
    path = found.save(tmp_path / "regions.json")
    assert RegionalPlan.read(path).dumps() == found.dumps()


def test_data_that_must_stay_stays(service: Path) -> None:
    """Europe's requests are served in Europe, whatever it costs."""
    more = ["regions.origins.europe.allowed=[eu-central-1]", "offers.max={aws/us-east-1/g6e.xlarge: 50}"]
    found = RegionalSession(service, settings=more).plan()
    assert {one.region for one in found.flows if one.origin == "europe"} == {"eu-central-1"}
    free = RegionalSession(service).plan()
    assert free.cost_per_h <= found.cost_per_h + 1e-9


def test_what_leaves_a_region_is_paid(service: Path) -> None:
    """By the byte, and where one region's price is high enough, requests stay away from it."""
    paid = RegionalSession(service, settings=["regions.egress_usd_per_gb=0.09"]).plan()
    tokens = paid.egress_per_h / (0.09 / 1e9 * 250 * 3600 * 30)
    assert 100 <= tokens <= 200  # a request's answer
    high = ["regions.egress_usd_per_gb={us-east-1: 1000, eu-central-1: 0.05}"]
    far = RegionalSession(service, settings=high).plan()
    assert {one.region for one in far.flows} == {"eu-central-1"}


def test_an_origin_without_a_region_in_reach_says_why(service: Path) -> None:
    """Too far for the time to the first token; not allowed; or too little left for its sizes."""
    far = ["regions.origins.europe={share: 0.4, at: sydney}", "slo.ttft_ms=150"]
    with pytest.raises(InfeasibleError, match="no allowed region is close enough for europe") as error:
        RegionalSession(service, settings=far).plan()
    assert "us-east-1 is 204 ms away, but TTFT may take 150 ms" in error.value.reasons[0]
    held = ["regions.origins.europe.allowed=[us-east-1]", "slo.ttft_ms=80"]
    with pytest.raises(InfeasibleError) as error:
        RegionalSession(service, settings=held).plan()
    assert "eu-central-1 is not allowed" in error.value.reasons[0]
    with pytest.raises(InfeasibleError, match="no allowed region serves all requests of europe") as error:
        RegionalSession(service, settings=["regions.origins.europe.allowed=[us-east-1]", "slo.ttft_ms=90"]).plan()
    assert "us-east-1: 84 ms round trip" in error.value.reasons[0]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("regions.origins.europe.share=0.5", "shares must add up to 1, got 1.1"),
        ("regions.origins.europe.at=pariss", "did you mean 'paris'"),
        ("regions.origins.europe.allowed=[eu-west-9]", "no offers in 'eu-west-9'"),
        ("regions.origins={}", "at least 1"),
        (
            "regions.origins.europe={shar: 1, at: paris}",
            "regions.origins.europe: unknown key 'shar'; did you mean 'share'",
        ),
        ("regions.egress_usd_per_gb={mars: 1}", "no offers in 'mars'"),
        ("regions.egress_usd_per_gb=-1", "egress_usd_per_gb"),
        ("regions.round_trips=none.csv", "none.csv: cannot be read"),
        ("plan.spare_replicas=1", "plan.spare_replicas is for one region"),
        ("offers.providers=[runpod]", "no offer is in a region"),
    ],
)
def test_what_cannot_be_asked(service: Path, setting: str, said: str) -> None:
    """With the key and the next step."""
    with pytest.raises(InputError, match=said):
        RegionalSession(service, settings=[setting]).plan()


def test_other_questions_do_not_pass_over_regions(service: Path) -> None:
    """A plan of one fleet would say nothing of the way."""
    with pytest.raises(InputError, match="regions: is for melange plan"):
        Session(service).plan()


def test_round_trips_of_ones_own_go_before_the_bundled_ones(tmp_path: Path) -> None:
    """Both ways; a bad row names its line."""
    path = tmp_path / "own.csv"
    path.write_text("from,to,ms\nparis,us-east-1,75\noffice,us-east-1,20\n")
    own = read_trips(path)
    assert round_trip_s("us-east-1", "paris", own) == 0.075
    assert round_trip_s("office", "us-east-1", own) == 0.02
    assert round_trip_s("office", "eu-central-1", own) is None
    path.write_text("from,to,ms\nparis,us-east-1,-3\n")
    with pytest.raises(InputError, match="line 2: ms must be 0 to 10,000"):
        read_trips(path)
    path.write_text("from,to\n")
    with pytest.raises(InputError, match="column 'ms' is missing"):
        read_trips(path)
