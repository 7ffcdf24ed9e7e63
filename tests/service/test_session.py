"""A session: each file read once, nothing passed over that was said, and the use cases on one question."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import melange.files
import melange.service.reading
from melange.catalog.bundled import find_model
from melange.errors import InfeasibleError, InputError
from melange.plan.options import Options
from melange.profile.profile import MEASURED
from melange.service.events import TaskEvent
from melange.service.session import Session
from melange.slo import Slo
from melange.workload.workload import Buckets, Workload


@pytest.mark.parametrize(
    ("degrees", "words"),
    [
        ("tensor_parallel=[3]", "cannot be split over 3 accelerators: its 32 heads"),
        ("pipeline_parallel=[40]", "32 layers cannot be cut into 40 stages"),
    ],
)
@pytest.mark.parametrize("statistic", ["requests", "mean", "p99"])
def test_a_model_that_cannot_be_split_is_the_reason(degrees: str, words: str, statistic: str) -> None:
    """By closed form and certified, under every statistic; another SLO or a larger accelerator would not help."""
    settings = [f"profile.{degrees}"] + ([] if statistic == "requests" else [f"slo.statistic={statistic}"])
    session = Session("examples/chat.yaml", settings=settings)
    for asked in (session.plan, session.answer):
        with pytest.raises(InfeasibleError, match="no replica type can serve 36 request sizes") as error:
            asked()
        assert words in error.value.reasons[0]
        assert error.value.hint.startswith("give degrees that divide the model")


def test_everything_rests_on_one_question(service: Path) -> None:
    """Plan, explanation, suggestions and curves answer the same workload, profile and options."""
    session = Session(service, settings=["plan.headroom=0.3", "offers.max.A10G=1"])
    plan = session.plan()
    assert plan.question.workload is session.workload()
    assert plan.question.profile is session.profile()
    assert plan.options == Options(headroom=0.3, max_accelerators={"A10G": 1})
    assert session.explanation(plan).next_request_per_h > 0
    explored = session.explore(plan)
    assert explored.plan is plan
    assert {point.plan.options.headroom for point in explored.by_rate if point.plan} == {0.3}
    assert [sweep.metric for sweep in explored.by_limit] == ["tpot"]
    assert len(session.suggestions(1)) <= 1


def test_a_service_is_read_once(service: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked of it."""
    reads = []

    def counted(path: str | Path) -> str:
        reads.append(path)
        return melange.files.read_text(path)

    monkeypatch.setattr(melange.service.reading, "read_text", counted)
    session = Session(service, settings=["plan.confidence=0.8"])
    plan = session.plan()
    session.explore(plan)
    session.suggestions(1)
    assert len(reads) == 1


def test_a_session_says_what_it_does(service: Path) -> None:
    """Each task begins and ends, in the order of the stages."""
    told: list[TaskEvent] = []
    Session(service, listener=told.append).plan()
    assert [event.task for event in told if event.is_done] == [
        "reading the traffic",
        "estimating the capacity of each replica type",
        "solving for the cheapest mix",
    ]
    assert any(event.news for event in told)


@pytest.mark.parametrize("reading", [{"statistic": "p90"}, {"statistic": "requests", "attainment": 0.9}])
def test_a_rate_that_was_searched_for_counts_under_the_same_reading(
    service: Path, tmp_path: Path, reading: dict[str, object]
) -> None:
    """It stays where the other rates are simulated; found under a mean, it says nothing of requests or a percentile."""
    size = Buckets(input_edges=(500,), output_edges=(200,))
    traffic = Workload.at_upper_edges(size, np.array([[4.0]])).save(tmp_path / "traffic.json")
    searched = {"accelerator": "A10G", "input_tokens": 500, "output_tokens": 200, "max_request_rate": 1.23}
    anchors = tmp_path / "searched.json"
    settings = [f"slo.{key}={value}" for key, value in reading.items()]
    settings += [f"profile.anchors={anchors}", "profile.simulate=true", "profile.tensor_parallel=1"]
    for slo, is_used in (({"tpot_s": 0.08, **reading}, True), ({"tpot_s": 0.08, "statistic": "mean"}, False)):
        anchors.write_text(json.dumps([searched | {"slo": slo}]))
        profile = Session(service, workload=traffic, settings=settings).profile()
        of_a10g = [one.offer.accelerator == "A10G" for one in profile.replica_types]
        assert profile.slo == Slo(tpot_s=0.08, **reading)
        assert ((profile.max_request_rate[of_a10g] == 1.23) == is_used).all()
        assert ((profile.provenance[of_a10g] == MEASURED) == is_used).all()
        assert any("was found under mean TPOT" in caution.message for caution in profile.cautions) is not is_used


def test_files_alone_are_a_session_too(workload: Path, profile: Path) -> None:
    """Without a service only settings of the plan apply; one of the two files is not enough."""
    session = Session(workload=workload, profiles=[profile], settings=["plan.headroom=0.2"])
    assert session.plan().options.headroom == 0.2
    with pytest.raises(InputError, match=r"only plan\.\* applies here"):
        Session(workload=workload, profiles=[profile], settings=["slo.tpot_ms=30"]).plan()
    with pytest.raises(InputError, match=r"a service\.yaml is needed"):
        Session(workload=workload).plan()


def test_a_configuration_of_the_release_is_a_session_too() -> None:
    """With the release's own meaning: slices, and no headroom."""
    plan = Session(Path(__file__).parents[2] / "examples" / "release.json").plan()
    assert (plan.options.slices, plan.options.headroom) == (4, 0.0)


def test_flags_stand_for_sections(service: Path) -> None:
    """Traffic and limits that flags say are used in place of the service's."""
    session = Session(service, flags={"workload": {"dataset": "sharegpt", "rate": 2.0}, "slo": {"ttft_ms": 900.0}})
    assert session.workload().total_rate == pytest.approx(2.0)
    assert session.slo == Slo(ttft_s=0.9)
    assert find_model(session.service.model).name in session.profile().model if session.service else False


@pytest.mark.parametrize(
    ("settings", "kind", "reason"),
    [
        ([], "certified", ""),
        (["slo.statistic=mean"], "simulated", ""),
        (["plan.budget_per_h=3"], "simulated", ""),
        (["slo.attainment=1"], "simulated", ""),
    ],
)
def test_an_answer_says_what_it_rests_on(service: Path, settings: list[str], kind: str, reason: str) -> None:
    """Certified where the SLO is on requests, simulated once under a mean, and else the closed form with a reason."""
    answer = Session(service, settings=[*settings, "workload.rate=1", "offers.gpus=[A10G]"]).answer()
    assert answer.kind == kind
    assert reason in answer.not_simulated
    assert bool(answer.not_simulated) == bool(reason)
    assert (answer.attainment is None) == (kind == "closed form")


def test_a_budget_that_keeps_from_a_search_is_a_caution(service: Path) -> None:
    """Only where it leaves requests out, and the SLO is on requests."""
    found = {}
    for settings in (["plan.budget_per_h=2"], ["plan.budget_per_h=2", "slo.statistic=mean"], ["plan.budget_per_h=99"]):
        plan = Session(service, settings=[*settings, "workload.rate=8", "offers.gpus=[A10G]"]).plan()
        found[len(found)] = plan.served_fraction < 1, any(one.kind == "budget" for one in plan.cautions)
    assert list(found.values()) == [(True, True), (True, False), (False, False)]


@pytest.mark.heavy
def test_a_certified_plan_holds_with_the_confidence_asked_for(service: Path) -> None:
    """It is certified on slower steps, and says the chance that it holds on the true ones."""
    settings = ["workload.rate=1", "offers.gpus=[A10G]"]
    plain = Session(service, settings=settings).certified()
    cautious = Session(service, settings=[*settings, "plan.confidence=0.8"]).certified()
    assert plain.certificate
    assert cautious.certificate
    assert cautious.certificate.chance >= 0.78 > plain.certificate.chance
    assert cautious.cost_per_h >= plain.cost_per_h
    assert cautious.certificate.margin > plain.certificate.margin >= 0
    assert all(factor > 1.05 for factor in cautious.certificate.slowed_by.values())
    assert cautious.certificate.slowed_by.keys() == {name for name, count in cautious.replicas.items() if count}
    assert plain.certificate.slowed_by == {}


@pytest.mark.heavy
def test_a_certified_plan_says_that_its_traffic_was_seen_to_come_in_bursts(service: Path) -> None:
    """Poisson arrivals are what is simulated where there is no log to replay; steady traffic needs no word."""
    few = ["workload.rate=1", "offers.gpus=[A10G]", "slo.ttft_ms=3000", "slo.attainment=0.9"]

    def kinds(data: str, **how: float) -> set[str]:
        plan = Session(service, settings=[*few, f"workload.dataset={data}"]).certified(**how)
        return {caution.kind for caution in plan.cautions}

    assert "burstiness" in kinds("azure-code")
    assert "burstiness" not in kinds("azure-code", burstiness=2.0)
    assert "burstiness" not in kinds("azure-conversation")


def test_a_certified_plan_says_that_headroom_binds_its_closed_form_only(service: Path) -> None:
    """Headroom that was asked for changes no certified plan, and the plan says so; the default needs no word."""
    settings = ["workload.rate=1", "offers.gpus=[A10G]"]
    usual = Session(service, settings=settings).certified()
    asked = Session(service, settings=[*settings, "plan.headroom=0.5"]).certified()
    assert np.array_equal(asked.instances, usual.instances)
    said = {one.kind: one.message for one in asked.cautions}
    assert "plan.headroom: 0.5 applies to the closed form only" in said["headroom"]
    assert "headroom" not in {one.kind for one in usual.cautions}


def test_a_fleet_too_large_to_simulate_is_planned_by_closed_form(tmp_path: Path) -> None:
    """With the reason in its answer; what was asked to be certified is refused."""
    path = tmp_path / "service.yaml"
    path.write_text(
        "model: meta-llama/Llama-3.1-8B\nslo: {tpot_ms: 120}\nworkload: {dataset: arena, rate: 1000000}\n"
        "offers: {gpus: [L4], providers: [aws], regions: [us-east-1]}\n"
    )
    plan = Session(path).answer()
    assert plan.kind == "closed form"
    assert plan.not_simulated.endswith("replicas are needed, and at most 5,000 are simulated")
    with pytest.raises(InputError, match="cannot certify: about"):
        Session(path).certified()


def test_a_name_of_two_meanings_is_no_limit(tmp_path: Path) -> None:
    """An instance type that is called as its accelerator, and holds four of them."""
    (tmp_path / "offers.csv").write_text("instance_type,accelerator,accelerators,cost_per_h\nL4,L4,4,3\nbox,L4,1,0.9\n")
    path = tmp_path / "service.yaml"
    path.write_text(
        "model: meta-llama/Llama-3.1-8B\nslo: {tpot_ms: 120}\nworkload: {dataset: arena, rate: 4}\n"
        "offers: {file: offers.csv, max: {L4: 2}}\n"
    )
    with pytest.raises(InputError, match=r"offers\.max: 'L4' is both an accelerator and an instance type"):
        Session(path).plan()


def test_a_service_file_may_not_contradict_a_profile_s_engine(tmp_path: Path) -> None:
    """As a setting may not; both are said."""
    text = (
        "model: meta-llama/Llama-3.1-8B\nslo: {tpot_ms: 120}\nworkload: {dataset: arena, rate: 4}\n"
        "offers: {gpus: [L4], providers: [aws], regions: [us-east-1]}\n"
    )
    (tmp_path / "a.yaml").write_text(text)
    (tmp_path / "b.yaml").write_text(text + "engine: sglang\n")
    profile = Session(tmp_path / "a.yaml").profile().save(tmp_path / "profile.json")
    with pytest.raises(InputError, match=r"engine: the service asks for sglang, but .* holds vllm"):
        Session(tmp_path / "b.yaml", profiles=[profile]).plan()


def test_upper_sizes_are_also_those_of_the_log(tmp_path: Path) -> None:
    """A plan at upper edges is simulated on requests of these sizes, at the log's times."""
    (tmp_path / "log.csv").write_text("arrival_s,input_tokens,output_tokens\n0,90,7\n1,300,12\n2.5,120,3\n")
    service = tmp_path / "service.yaml"
    service.write_text(
        "model: meta-llama/Llama-3.1-8B-Instruct\nslo: {tpot_ms: 80}\n"
        "workload: {trace: log.csv, buckets: {input: [100, 400], output: [10, 50]}, size: upper}\n"
    )
    upper, own = Session(service).observed(), Session(service, settings=["workload.size=mean"]).observed()
    assert upper is not None
    assert own is not None
    assert own.input_tokens.tolist() == [90, 300, 120]
    assert (upper.input_tokens.tolist(), upper.output_tokens.tolist()) == ([100, 400, 400], [10, 50, 10])
    assert upper.arrival_s.tolist() == own.arrival_s.tolist()
