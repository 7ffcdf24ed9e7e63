"""A profile or a workload beside a service: whatever contradicts it is refused, in whatever form it is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_text import SERVICE

from melange.errors import InputError
from melange.service.session import Session
from melange.slo import Slo


@pytest.mark.parametrize(
    ("setting", "both"),
    [
        ("slo.tpot_ms=30", ("TPOT <= 30 ms", "TPOT <= 80 ms")),
        ("slo.statistic=p99", ("p99 TPOT", "TPOT <= 80 ms for 99% of requests")),
        ("slo.statistic=mean", ("mean TPOT", "TPOT <= 80 ms for 99% of requests")),
        ("slo.attainment=0.995", ("99.5% of requests", "99% of requests")),
        ("slo.ttft_ms=500", ("TTFT <= 500 ms", "holds TPOT <= 80 ms for 99% of requests")),
        ("model=meta-llama/Llama-3.1-70B-Instruct", ("70B-Instruct", "8B-Instruct")),
        ("engine=sglang", ("sglang", "vllm")),
        ("offers.gpus=[L4]", ("offers.gpus=[L4]", "A10G")),
        ("offers.providers=gcp", ("gcp", "aws")),
        ("offers.regions=[us-west-2]", ("us-west-2", "us-east-1")),
        ("offers.market=spot", ("spot", "on-demand")),
        ("offers.file=prices.csv", ("prices.csv", "profile.json")),
        ("variants=[fp8]", ("[fp8]", "the model as published")),
        ("profile.tensor_parallel=2", ("2", "profile.json")),
        ("profile.simulate=true", ("simulate=true", "profile.json")),
        ("offers.market=[on-demand, spot]", ("--set offers.market=[on-demand, spot]", "holds on-demand")),
        ("offers.gpus=[L4, A10G, H100]", ("--set offers.gpus=[L4, A10G, H100]", "A10G, L4")),
        ("offers={gpus: [L4, A10G], providers: [aws]}", ("--set offers.regions=null", "us-east-1")),
        ("offers.prices.A10G=-90%", ("--set offers.prices={A10G: -90%}", "aws/us-east-1/g5.xlarge at 1.006 USD/h")),
        ("offers.prices={H100: -90%}", ("--set offers.prices={H100: -90%}", "no H100")),
        (
            "offers={gpus: [L4, A10G], providers: [aws], regions: [us-east-1], prices: {A10G: 0.5}}",
            ("--set offers.prices={A10G: 0.5}", "contradicts", "profile.json"),
        ),
        ("engine={name: vllm, max_num_seqs: 4}", ("--set engine.max_num_seqs=4", "engine.max_num_seqs 256")),
        ("engine.enable_prefix_caching=true", ("caching=true contradicts", "holds engine.enable_prefix_caching false")),
        ("workload={dataset: arena, rate: 4, prefix_hit_rate: 0.9}", ("--set workload.prefix_hit_rate=0.9", "profile")),
        ("workload={dataset: arena, rate: 4, size: upper}", ("--set workload.size=upper", "profile.json")),
        ("plan={carbon_price_per_kg: 1}", ("--set plan.carbon_price_per_kg=1.0", "0 USD/h for emissions")),
    ],
)
def test_settings_that_contradict_a_given_profile_are_refused(
    service: Path, profile: Path, setting: str, both: tuple[str, str]
) -> None:
    """With the value that was set and what the profile holds."""
    with pytest.raises(InputError) as error:
        Session(service, profiles=[profile], settings=[setting]).question()
    assert all(part in str(error.value) for part in both)


@pytest.mark.parametrize("setting", ["schedule.start_up=10 min", "schedule={min_up: 1 h}"])
def test_settings_of_the_schedule_are_refused_where_nothing_is_scheduled(service: Path, setting: str) -> None:
    """A plan for one rate would be the same with and without them."""
    with pytest.raises(InputError, match=r"--set schedule\.(start_up|min_up)=.*: only melange schedule uses it"):
        Session(service, settings=[setting]).question()


@pytest.mark.parametrize(
    "setting",
    [
        "slo.tpot_ms=80",
        "slo={tpot_ms: 80}",
        "model=Llama-3.1-8B-Instruct",
        "engine=vllm",
        "engine={name: vllm}",
        "offers.gpus=[l4, a10g]",
        "offers={gpus: [l4, a10g], providers: AWS, regions: us-east-1, market: on-demand, prices: {}}",
        "offers.max.L4=2",
        "workload={dataset: arena, rate: 5}",
        "profile={tensor_parallel: null, simulate: false}",
    ],
)
def test_settings_that_agree_with_a_given_profile_are_fine(service: Path, profile: Path, setting: str) -> None:
    """Saying a thing twice is no contradiction, by whatever name; and what is available concerns the plan."""
    assert Session(service, profiles=[profile], settings=[setting]).plan().cost_per_h > 0


@pytest.mark.parametrize(
    ("setting", "other"),
    [
        ("offers.prices={A10G: -50%, g6.xlarge: 0.5}", "offers.prices={A10G: -40%, g6.xlarge: 0.5}"),
        ("engine={max_num_seqs: 4}", "engine.max_num_seqs=5"),
        ("profile.tensor_parallel=1", "profile={tensor_parallel: [1, 2]}"),
    ],
)
def test_a_profile_that_was_made_with_a_setting_agrees_with_it(
    service: Path, tmp_path: Path, setting: str, other: str
) -> None:
    """The same setting may be given to both commands, and another one may not."""
    profile = Session(service, settings=[setting]).profile().save(tmp_path / "profile.json")
    assert Session(service, profiles=[profile], settings=[setting]).plan().cost_per_h > 0
    with pytest.raises(InputError, match=r"^--set .* contradicts .*profile\.json, which holds "):
        Session(service, profiles=[profile], settings=[other]).profile()


def test_prices_of_a_service_hold_for_a_given_profile(service: Path, profile: Path) -> None:
    """A profile holds its prices, so that one made without the service's is refused, also among the file's sources."""
    service.write_text(SERVICE.replace("us-east-1]}", "us-east-1], prices: {A10G: -50%, V100: -10%}}"))
    said = r"^offers\.prices={A10G: -50%, V100: -10%} contradicts .*profile\.json, which holds aws/.* at 1\.006 USD/h$"
    with pytest.raises(InputError, match=said):
        Session(service, profiles=[profile]).profile()
    with pytest.raises(InputError, match=said):
        Session(service, settings=[f"profile.source={profile}"]).profile()
    assert Session(service, profiles=[profile], settings=["offers.prices={}"]).plan().cost_per_h > 0


def test_anchors_beside_a_given_profile_are_refused(service: Path, profile: Path, tmp_path: Path) -> None:
    """They correct estimates, and a given profile has none."""
    anchors = tmp_path / "anchors.json"
    anchors.write_text("[]")
    with pytest.raises(InputError, match=r"^--anchor \[.*anchors.json\] contradicts .*profile\.json"):
        Session(service, profiles=[profile], anchors=[str(anchors)]).profile()


def test_a_service_that_contradicts_a_given_profile_is_refused(service: Path, profile: Path) -> None:
    """Also where the file says it and no setting."""
    service.write_text(SERVICE.replace("80", "40"))
    with pytest.raises(
        InputError, match=r"slo: the service asks for TPOT <= 40 ms for 99% of requests, but .*profile.json holds"
    ):
        Session(service, profiles=[profile]).profile()


def test_a_profile_that_the_service_names_must_agree_too(service: Path, profile: Path) -> None:
    """Measured for another limit, it says nothing of this one."""
    service.write_text(SERVICE.replace("80", "40") + f"profile: {{source: [{profile}, estimate]}}\n")
    with pytest.raises(
        InputError, match=r"slo: the service asks for TPOT <= 40 ms for 99% of requests, but .*profile.json holds"
    ):
        Session(service).profile()


@pytest.mark.parametrize(
    ("setting", "both"),
    [
        ("offers.gpus=[L4]", ("offers.gpus=[L4]", "A10G")),
        ("offers.regions=[us-west-2]", ("us-west-2", "us-east-1")),
        ("offers.file=prices.csv", ("offers.file", "names none")),
        ("variants=[fp8]", ("variants are estimated", "names no estimate")),
        ("profile.tensor_parallel=2", ("profile.tensor_parallel", "names none")),
    ],
)
def test_settings_that_a_named_profile_cannot_follow_are_refused(
    service: Path, profile: Path, setting: str, both: tuple[str, str]
) -> None:
    """A file that the service names answers as one of the command line does."""
    with pytest.raises(InputError) as error:
        Session(service, settings=[f"profile.source={profile}", setting]).question()
    assert all(part in str(error.value) for part in both)


def test_offers_of_a_service_hold_for_a_given_profile(service: Path, profile: Path) -> None:
    """Also where the file says them and no setting."""
    service.write_text(SERVICE.replace("[L4, A10G]", "[L4]"))
    with pytest.raises(InputError, match=r"^offers.gpus=\[L4\] contradicts .*profile.json, which holds A10G"):
        Session(service, profiles=[profile]).profile()


def test_a_given_profile_takes_the_service_s_attainment(service: Path, tmp_path: Path) -> None:
    """A share of requests is what a plan under a statistic is certified for, and a profile need not name it."""
    on_mean = Session(service, settings=["slo.statistic=mean"]).profile().save(tmp_path / "profile.json")
    session = Session(service, profiles=[on_mean], settings=["slo.statistic=mean", "slo.attainment=0.95"])
    assert session.profile().slo == Slo(tpot_s=0.08, statistic="mean", attainment=0.95)


def test_a_profile_on_the_mean_is_no_answer_for_requests(service: Path, tmp_path: Path) -> None:
    """The error says both readings, and how to plan by the profile's."""
    on_mean = Session(service, settings=["slo.statistic=mean"]).profile().save(tmp_path / "profile.json")
    with pytest.raises(
        InputError, match=r"TPOT <= 80 ms for 99% of requests, but .* holds mean TPOT <= 80 ms"
    ) as found:
        Session(service, profiles=[on_mean]).plan()
    assert "slo.statistic=mean plans on what the profile holds" in found.value.hint
    assert Session(service, profiles=[on_mean], settings=["slo.statistic=mean"]).plan().cost_per_h > 0


@pytest.mark.parametrize(
    ("setting", "both"),
    [
        ("workload.rate=64", ("workload.rate=64", "4 requests/s")),
        ("workload.dataset=sharegpt", ("sharegpt", "arena")),
        ("workload.size=upper", ("upper", "workload.json")),
        ("workload={rate: 64}", ("--set workload.rate=64", "4 requests/s")),
        ("workload={dataset: arena, buckets: {input: [500]}}", ("--set workload.dataset=arena", "workload.json")),
    ],
)
def test_settings_that_contradict_a_given_workload_are_refused(
    service: Path, workload: Path, setting: str, both: tuple[str, str]
) -> None:
    """With the value that was set and what the file holds; the file's own rate may be said again."""
    with pytest.raises(InputError) as error:
        Session(service, workload=workload, settings=[setting]).workload()
    assert all(part in str(error.value) for part in both)
    for same in ("workload.rate=4", "workload={rate: 4}"):
        assert Session(service, workload=workload, settings=[same]).workload().total_rate == pytest.approx(4.0)


def test_shares_of_classes_that_contradict_a_given_workload_are_refused(service: Path, tmp_path: Path) -> None:
    """The file holds the requests of each class; limits and priorities are no traffic."""
    service.write_text(SERVICE + "classes: {batch: {share: 0.5, slo: {latency_ms: 60000}}}\n")
    workload = Session(service).workload().save(tmp_path / "workload.json")
    for setting in ("classes.batch.share=0.25", "classes={batch: {share: 0.25, slo: {latency_ms: 60000}}}"):
        with pytest.raises(InputError, match=r"^--set classes\.batch\.share=0\.25 contradicts .*workload\.json"):
            Session(service, workload=workload, settings=[setting]).workload()
    assert Session(service, workload=workload, settings=["classes.batch.priority=1"]).workload().total_rate > 0


@pytest.mark.parametrize(
    ("more", "both"),
    [
        ("engine: {max_num_seqs: 4}", ("engine.max_num_seqs=4", "engine.max_num_seqs 256")),
        ("profile: {max_context: 40000}", ("profile.max_context=40000", "profile.max_context 131072")),
        ("profile: {tensor_parallel: [2]}", ("profile.tensor_parallel=[2]", "profile.tensor_parallel 1")),
        ("variants: [fp8]", ("variants=[fp8]", "the model as published")),
        ("plan: {carbon_price_per_kg: 1}", ("plan.carbon_price_per_kg=1", "prices without emissions")),
    ],
)
def test_a_file_that_contradicts_what_a_profile_states_is_refused(
    service: Path, profile: Path, tmp_path: Path, more: str, both: tuple[str, str]
) -> None:
    """The service's own profile agrees with it, and one that was made before the key was added does not."""
    service.write_text(f"{SERVICE}{more}\n")
    own = Session(service).profile().save(tmp_path / "own.json")
    assert Session(service, profiles=[own]).profile().replica_types
    with pytest.raises(InputError) as error:
        Session(service, profiles=[profile]).profile()
    assert all(part in str(error.value) for part in both)


def test_a_price_list_of_a_service_holds_for_a_given_profile(service: Path, tmp_path: Path) -> None:
    """If the list has another price of the same offer, the profile's is not used."""
    service.write_text(SERVICE.replace("us-east-1]}", "us-east-1], file: offers.csv}"))
    row = "provider,region,instance_type,accelerator,cost_per_h\naws,us-east-1,g6.xlarge,L4,{}\n"
    (tmp_path / "offers.csv").write_text(row.format(0.5))
    own = Session(service).profile().save(tmp_path / "own.json")
    assert Session(service, profiles=[own]).plan().cost_per_h > 0
    (tmp_path / "offers.csv").write_text(row.format(0.4))
    said = r"^offers\.file=offers\.csv \(aws/.*/g6\.xlarge at 0\.4 USD/h\) contradicts .*own\.json, .* 0\.5 USD/h$"
    with pytest.raises(InputError, match=said):
        Session(service, profiles=[own]).profile()
