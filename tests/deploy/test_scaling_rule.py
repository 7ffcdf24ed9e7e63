"""A schedule's rule as files of scalers: the same counts as the rule itself says."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pytest
import yaml

from melange.catalog.offer import Offer
from melange.deploy.scaling_rule import render_rule
from melange.errors import InputError
from melange.plan.schedule.plan_over_time import plan_over_time
from melange.plan.schedule.rule import ScalingRule
from melange.plan.schedule.schedule import Schedule
from melange.profile.profile import Profile, ReplicaType
from melange.workload.demand import Demand
from melange.workload.workload import Buckets


@pytest.fixture(scope="module")
def schedule() -> Schedule:
    """A week of a small service with two types, hourly windows, all on demand."""
    hour = np.arange(7 * 24)
    long = 0.25 + 0.2 * np.sin(2 * np.pi * hour / 24)
    buckets = Buckets(input_edges=(1000,), output_edges=(100, 500))
    demand = Demand(
        buckets=buckets,
        window_s=3600.0,
        rate=6 * (1 + 0.6 * np.sin(2 * np.pi * (hour - 8) / 24)),
        period=hour,
        share=np.stack([1 - long, long], axis=1)[:, None, :],
        input_tokens=np.array([[500.0, 500.0]]),
        output_tokens=np.array([[50.0, 300.0]]),
    )
    rates = np.array([[[1.0, 0.15]], [[3.4, 1.9]]])
    offers = [
        Offer(provider="p", region="r", instance_type=name, accelerator=name, accelerators=1, cost_per_h=cost)
        for name, cost in (("small", 1.0), ("large", 3.7))
    ]
    profile = Profile(
        replica_types=tuple(ReplicaType(name=one.name, offer=one) for one in offers),
        buckets=buckets,
        max_request_rate=rates,
        low=rates,
        high=rates,
        provenance=np.zeros(rates.shape, np.int8),
        reason=np.zeros(rates.shape, np.int32),
    )
    return plan_over_time(demand, profile)


def test_keda_asks_prometheus_for_what_the_rule_says(schedule: Schedule) -> None:
    """Each signal's weights stand in its recording rule, and its query scales it as the rule does."""
    assert schedule.rule is not None
    rule = replace(schedule.rule, window_s=600.0, settings=replace(schedule.rule.settings, stable_windows=3))
    made = render_rule(replace(schedule, rule=rule), "keda", {"deployment": "chat"})
    recorded = yaml.safe_load(made.files["recording-rules.yaml"])["groups"][0]["rules"]
    scaled = yaml.safe_load(made.files["scaled-object.yaml"])["spec"]
    assert len(recorded) == len(scaled["triggers"]) == len(rule.signals)
    for one, signal, trigger in zip(recorded, rule.signals, scaled["triggers"], strict=True):
        weights = [float(part.split(" * ")[0]) for part in one["expr"].split("\n+ ")]
        assert weights == pytest.approx(signal.request_weight[signal.request_weight > 0].tolist(), rel=1e-5)
        query = trigger["metadata"]["query"]
        factor = float(query.removeprefix("clamp_min(").split(" * ")[0])
        assert factor == pytest.approx((1 + rule.settings.margin) / rule.settings.target, rel=1e-5)
        assert f"- {signal.reserved_load:.6g}, 0)" in query
    down = scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] == 1800
    assert scaled["scaleTargetRef"]["name"] == "chat"


def test_keda_counts_each_class_by_itself(schedule: Schedule) -> None:
    """Rows of a rule's weights beyond the first class's are those of the next one, on the same edges."""
    assert schedule.rule is not None
    buckets = Buckets(input_edges=(1000,), output_edges=(100, 500), classes=("default", "batch"))
    weight = np.array([[0.5, 0.25], [0.0, 0.125]])
    signals = (replace(schedule.rule.signals[0], request_weight=weight),)
    rule = replace(schedule.rule, signals=signals, buckets=buckets)
    made = render_rule(replace(schedule, rule=rule), "keda", {})
    expr = yaml.safe_load(made.files["recording-rules.yaml"])["groups"][0]["rules"][0]["expr"].split("\n+ ")
    assert [float(part.split(" * ")[0]) for part in expr] == [0.5, 0.25, 0.125]
    assert [part.count('class="default"') for part in expr] == [1, 1, 0]
    assert 'input_upto="1000",output_upto="500",class="batch"' in expr[2]


def test_json_is_the_rule_again(schedule: Schedule) -> None:
    """With its sizes: what is read back wants as many instances."""
    content = json.loads(render_rule(schedule, "json", {}).files["rule.json"])
    rule, again = schedule.rule, ScalingRule.from_json(content)
    assert rule is not None
    assert again.buckets == rule.buckets
    assert rule.buckets is not None
    rates = np.random.default_rng(0).uniform(0, 3, (12, *rule.buckets.shape))
    assert again.wanted(rates) == rule.wanted(rates)


def test_says_what_is_missing(schedule: Schedule) -> None:
    """A time zone, an unknown option or target, a schedule without a rule."""
    with pytest.raises(InputError, match="their time zone is missing"):
        render_rule(schedule, "cron", {})
    with pytest.raises(InputError, match="keda: unknown option 'deploymnet'; did you mean 'deployment'"):
        render_rule(schedule, "keda", {"deploymnet": "x"})
    with pytest.raises(InputError, match="kubernetes is a target of plans: its files cannot") as caught:
        render_rule(schedule, "kubernetes", {})
    assert str(caught.value.hint).startswith("a schedule has the targets keda, cron, skypilot, terraform, json; ")
    with pytest.raises(InputError, match="unknown target of a schedule 'terrafrom'; did you mean 'terraform'"):
        render_rule(schedule, "terrafrom", {})
    with pytest.raises(InputError, match="no scaling rule"):
        render_rule(replace(schedule, rule=None), "keda", {})


@pytest.mark.parametrize("most", [0, -1, "5", 2.5, True, 2**31])
@pytest.mark.parametrize("target", ["keda", "cron"])
def test_most_is_a_whole_number(schedule: Schedule, target: str, most: object) -> None:
    """The error names the option."""
    with pytest.raises(InputError, match="most must be"):
        render_rule(schedule, target, {"most": most})


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        ("cron", {"time_zone": "Europe/Berlinn"}, "time_zone: 'Europe/Berlinn' is not a known time zone"),
        ("cron", {"namespace": "My Space", "time_zone": "UTC"}, "namespace must be lower-case"),
        ("keda", {"namespace": "a_b"}, "namespace must be lower-case"),
        ("keda", {"deployment": "Chat"}, "deployment must be lower-case"),
        ("cron", {"deployment": "a" * 60, "time_zone": "UTC"}, "deployment must be lower-case"),
        ("json", {"namespace": "a"}, "json: unknown option 'namespace'"),
    ],
)
def test_options_are_checked(schedule: Schedule, target: str, options: dict[str, object], said: str) -> None:
    """Names that Kubernetes has, and zones that exist."""
    with pytest.raises(InputError, match=said):
        render_rule(schedule, target, options)


def scaled_of(schedule: Schedule, **options: object) -> dict[str, Any]:
    """The ScaledObject of the rule."""
    scaled: dict[str, Any] = yaml.safe_load(render_rule(schedule, "keda", options).files["scaled-object.yaml"])
    return scaled


def in_halves(schedule: Schedule) -> Schedule:
    """The same schedule with instances of two accelerators, which hold two replicas."""
    types = tuple(replace(one, offer=replace(one.offer, accelerators=2)) for one in schedule.replica_types)
    return replace(schedule, replica_types=types)


def test_keda_counts_pods_and_the_rule_instances(schedule: Schedule) -> None:
    """An instance of two replicas is two pods: whole instances, twice, and twice the most."""
    one, two = scaled_of(schedule)["spec"], scaled_of(in_halves(schedule))["spec"]
    assert two["maxReplicaCount"] == 2 * one["maxReplicaCount"]
    for a, b in zip(one["triggers"], two["triggers"], strict=True):
        assert b["metadata"]["query"] == f"2 * ceil({a['metadata']['query']})"
        assert b["metadata"]["threshold"] == "1"
    assert scaled_of(in_halves(schedule), most=3)["spec"]["maxReplicaCount"] == 6


def test_keda_may_start_as_many_small_instances_as_large_ones_are_planned(schedule: Schedule) -> None:
    """The default maximum is twice the busiest hour, in instances of the scaled type at their price."""
    assert schedule.rule is not None
    place = [one.name for one in schedule.replica_types].index(schedule.rule.replica_type)
    on_demand = np.zeros_like(schedule.on_demand)
    on_demand[:, 1 - place] = 3
    prices = np.ones(2)
    prices[1 - place] = 3.7
    large = replace(schedule, on_demand=on_demand, spot=0 * on_demand, on_demand_per_h=prices)
    assert scaled_of(large)["spec"]["maxReplicaCount"] == 2 * 12
    assert large.rule is not None
    limited = replace(large, rule=replace(large.rule, most=5))
    assert scaled_of(limited)["spec"]["maxReplicaCount"] == 5
    (told,) = [one for one in render_rule(large, "keda", {"most": 11}).cautions if one.kind == "most"]
    assert "most=11 is less than the 12 instances" in told.message
    assert "most" not in {one.kind for one in render_rule(large, "keda", {"most": 12}).cautions}


def test_keda_scales_the_deployment_of_its_type(schedule: Schedule) -> None:
    """The one that the kubernetes target writes, in kubectl's own namespace."""
    assert schedule.rule is not None
    named = replace(schedule, model="meta-llama/Llama-3.1-8B-Instruct")
    key = schedule.rule.replica_type.replace("/", "-")
    metadata = scaled_of(named)["metadata"]
    assert metadata == {"name": f"llama-3-1-8b-{key}"}
    assert scaled_of(named, namespace="prod")["metadata"]["namespace"] == "prod"


def test_a_long_wait_is_in_the_query(schedule: Schedule) -> None:
    """Kubernetes waits for an hour at most; the highest value of a longer time does the same."""
    assert schedule.rule is not None
    short = replace(schedule.rule, window_s=600.0, settings=replace(schedule.rule.settings, stable_windows=6))
    long = replace(short, settings=replace(short.settings, stable_windows=9))
    for rule, waits_s in ((short, 3600), (long, 0)):
        spec = scaled_of(replace(schedule, rule=rule))["spec"]
        down = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
        assert down["stabilizationWindowSeconds"] == waits_s
        query = spec["triggers"][0]["metadata"]["query"]
        assert query.endswith("[5400s:60s])") == (waits_s == 0)


@pytest.mark.parametrize("target", ["keda", "cron"])
def test_files_say_what_they_are_from(schedule: Schedule, target: str) -> None:
    """A date, the model, what runs beside, and what the target cannot do."""
    assert schedule.rule is not None
    known = replace(
        schedule,
        model="org/chat",
        time_zone="UTC",
        rule=replace(schedule.rule, spot_share=0.25),
        spot=schedule.on_demand,
        reserved=np.ones(len(schedule.replica_types)),
    )
    made = render_rule(known, target, written=date(2026, 11, 27))
    spot = {"keda": "up to 25% of the load on spot", "cron": "instances on spot in an hour"}[target]
    assert any(spot in one.message for one in made.cautions)
    for text in made.files.values():
        lines = text.split("\n\n")[0].splitlines()
        assert all(line.startswith("#") for line in lines)
        words = " ".join(" ".join(line.lstrip("# ") for line in lines).split())
        assert words.startswith("Written by melange deploy on 2026-11-27 from a schedule over a week. Model org/chat;")
        assert f"not scaled here: 1 x {schedule.replica_types[0].name}" in words
        for caution in made.cautions:
            assert f"CAUTION: {caution}" in words
