"""Services with several classes of requests: what their files say, their traffic, and their plans by closed form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from melange.errors import InputError
from melange.plan.plan import Plan
from melange.service.regional_session import RegionalSession
from melange.service.session import Session
from melange.workload.request_classes import rate_by_class

SERVICE: dict[str, Any] = {
    "model": "meta-llama/Llama-3.1-8B-Instruct",
    "slo": {"ttft_ms": 1000, "tpot_ms": 60},
    "workload": {"histogram": "sizes.csv", "rate": 30},
    "offers": {"gpus": ["L4", "L40S"], "providers": ["aws"], "regions": ["us-east-1"]},
    "profile": {"tensor_parallel": 1},
    "classes": {"batch": {"share": 0.3, "slo": {"latency_ms": 600000, "attainment": 0.95}, "priority": 1}},
}
SIZES = ",100,200\n500,0.5,0.2\n1000,0.1,0.2\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where services and their histogram are."""
    (tmp_path / "sizes.csv").write_text(SIZES)
    return tmp_path


def session(folder: Path, **changes: Any) -> Session:
    """The service with some sections replaced; None removes one."""
    content = {name: value for name, value in (SERVICE | changes).items() if value is not None}
    path = folder / "service.yaml"
    path.write_text(yaml.safe_dump(content))
    return Session(path)


def test_classes_are_rows_with_limits_of_their_own(folder: Path) -> None:
    """Rates by class add up; a class with loose limits has the higher rates; the plan's file says the same again."""
    one = session(folder)
    assert one.workload().buckets.classes == ("default", "batch")
    assert rate_by_class(one.workload()) == pytest.approx({"default": 21.0, "batch": 9.0})
    assert [(each.name, each.priority, each.slo.attainment) for each in one.slo.classes] == [
        ("default", 0, 0.99),
        ("batch", 1, 0.95),
    ]
    profile = one.profile()
    tight, loose = np.split(profile.max_request_rate, 2, axis=1)
    assert (loose >= tight).all()
    assert (loose > tight).any()
    plan = one.plan()
    again = Plan.from_json(plan.to_json())
    assert again.slo == plan.slo
    assert again.workload.buckets == plan.workload.buckets
    assert again.fingerprint == plan.fingerprint


def test_a_class_with_the_same_limits_changes_no_cost_by_closed_form(folder: Path) -> None:
    """Whatever its share; and one with looser limits never costs more."""
    alone = session(folder, classes=None).plan()
    for share in (0.01, 0.3, 0.9):
        same = session(folder, classes={"other": {"share": share, "slo": SERVICE["slo"]}}).plan()
        assert same.cost_per_h == pytest.approx(alone.cost_per_h)
        np.testing.assert_array_equal(same.instances, alone.instances)
    assert session(folder).plan().cost_per_h <= alone.cost_per_h


def test_a_class_may_have_traffic_of_its_own(folder: Path) -> None:
    """In addition to the service's, on the same buckets."""
    (folder / "batch.csv").write_text(SIZES)
    own = {"batch": {"workload": {"histogram": "batch.csv", "rate": 4}, "slo": {"latency_ms": 60000}}}
    assert rate_by_class(session(folder, classes=own).workload()) == pytest.approx({"default": 30.0, "batch": 4.0})
    (folder / "batch.csv").write_text(",100,300\n500,0.5,0.2\n1000,0.1,0.2\n")
    with pytest.raises(InputError, match=r"classes\.batch\.workload: a histogram has its own buckets"):
        session(folder, classes=own).workload()


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        ({"batch": {"share": 0.3, "slo": {}}}, "classes.batch.slo: slo: at least one limit is needed"),
        ({"batch": {"share": 0.3}}, "classes.batch.slo is required"),
        ({"batch": {"slo": {"latency_ms": 1}}}, "classes.batch: exactly one of share"),
        (
            {"batch": {"share": 0.3, "workload": {"dataset": "arena", "rate": 1}, "slo": {"latency_ms": 1}}},
            "classes.batch: exactly one of share",
        ),
        ({"batch": {"share": 1.5, "slo": {"latency_ms": 1}}}, "classes.batch.share: input should be less than 1"),
        ({"batch": {"share": 0.001, "slo": {"latency_ms": 1}}}, "classes.batch.share: input should be greater than"),
        (
            {"a": {"share": 0.6, "slo": {"latency_ms": 1}}, "b": {"share": 0.4, "slo": {"latency_ms": 1}}},
            "classes: shares must leave at least 0.01 for the requests of no class, got 1 in total",
        ),
        ({"default": {"share": 0.3, "slo": {"latency_ms": 1}}}, "default is the name of requests of no other class"),
        ({"batch": {"share": 0.3, "slo": {"latency_ms": 1}, "prioriti": 1}}, "did you mean 'priority'"),
        ({"batch": {"share": 0.3, "slo": {"tpot_ms": 50, "statistic": "mean"}}}, "limits apply to each request"),
        ({"batch": {"share": 0.3, "slo": {"tpot_ms": 50, "attainment": 1}}}, "some may miss"),
        ({"a b": {"share": 0.3, "slo": {"latency_ms": 1}}}, "a class is named by letters"),
        (
            {"batch": {"share": 0.3, "slo": {"latency_ms": 1}, "deadline": "30m"}},
            "classes.batch.deadline: must be an hour or more, got 1800 s; for example deadline: 24h",
        ),
        (
            {"batch": {"share": 0.3, "slo": {"latency_ms": 1}, "deadline": "soon"}},
            "classes.batch.deadline: must be a duration such as 90, '90s', '5m' or '1h30m', got 'soon'",
        ),
        ({f"c{k}": {"share": 0.05, "slo": {"latency_ms": 1}} for k in range(8)}, "at most 7 classes"),
    ],
)
def test_faults_name_the_key(folder: Path, classes: dict[str, Any], told: str) -> None:
    """And what is wrong with it."""
    with pytest.raises(InputError) as error:
        session(folder, classes=classes)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"engine": "sglang"}, "classes.batch.priority: sglang serves requests first come, first served"),
        ({"engine": "vllm==0.8.5"}, "classes.batch.priority: vllm==0.8.5 serves requests"),
        ({"plan": {"budget_per_h": 5}}, "plan.budget_per_h: priorities between classes do not work under a budget"),
        ({"profile": {"simulate": True}}, "profile.simulate"),
        ({"slo": {"tpot_ms": 60, "statistic": "mean"}}, "slo: with classes, limits apply to each request"),
    ],
)
def test_settings_that_know_no_classes_are_refused(folder: Path, changes: dict[str, Any], told: str) -> None:
    """Rather than passed over."""
    with pytest.raises(InputError) as error:
        session(folder, **changes).question()
    assert told in str(error.value)


def test_without_priorities_any_engine_will_do(folder: Path) -> None:
    """Classes are then distinguished by their limits only."""
    classes = {"batch": {"share": 0.3, "slo": {"latency_ms": 600000}}}
    assert session(folder, engine="sglang", classes=classes).slo.levels == (0, 0)


def test_what_takes_no_classes_yet_says_so(folder: Path) -> None:
    """Regions, separate pools for prompts and tokens, measurements."""
    with pytest.raises(InputError, match="does not support request classes yet"):
        session(folder).subject("L4")
    origins = {"origins": {"here": {"share": 1, "at": "us-east-1"}}}
    session(folder, regions=origins)
    with pytest.raises(InputError, match="regions does not support request classes yet"):
        RegionalSession(folder / "service.yaml")


def test_a_workload_file_must_have_the_services_classes(folder: Path) -> None:
    """Its own may be given back; one without classes may not."""
    session(folder).workload().save(folder / "both.json")
    session(folder, classes=None).workload().save(folder / "one.json")
    session(folder)
    assert Session(folder / "service.yaml", workload=folder / "both.json").workload().total_rate == pytest.approx(30.0)
    with pytest.raises(InputError, match="holds no classes, but the service has classes default, batch"):
        Session(folder / "service.yaml", workload=folder / "one.json").workload()
