"""A schedule's rule as files of scalers: the same counts as the rule itself says."""

from __future__ import annotations

import json
from dataclasses import replace

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
    rule = schedule.rule
    assert rule is not None
    made = render_rule(schedule, "keda", {"deployment": "chat"})
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
    assert down["stabilizationWindowSeconds"] == rule.settings.stable_windows * rule.window_s
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


def test_cron_covers_every_hour_with_its_count(schedule: Schedule) -> None:
    """Each hour of the week has the trigger of its own count, or the fewest where it has none."""
    made = render_rule(schedule, "cron", {"time_zone": "Europe/Berlin"})
    counts = (schedule.on_demand + schedule.spot).astype(int)
    days = {name: k for k, name in enumerate(("mon", "tue", "wed", "thu", "fri", "sat", "sun"))}

    def hour(text: str) -> int:
        _, at, _, _, day = text.split()
        return 24 * days[day] + int(at)

    wanted = [r for r in range(counts.shape[1]) if counts[:, r].any()]
    assert len(made.files) == len(wanted)
    for text, r in zip(made.files.values(), wanted, strict=True):
        spec = yaml.safe_load(text)["spec"]
        found = np.full(len(counts), spec["minReplicaCount"])
        for trigger in spec["triggers"]:
            given = trigger["metadata"]
            begin, end = hour(given["start"]), hour(given["end"]) or len(counts)
            assert given["timezone"] == "Europe/Berlin"
            found[begin:end] = np.maximum(found[begin:end], int(given["desiredReplicas"]))
        assert found.tolist() == counts[:, r].tolist()


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
    with pytest.raises(InputError, match="option of keda"):
        render_rule(schedule, "keda", {"deploymnet": "x"})
    with pytest.raises(InputError, match="target of a schedule"):
        render_rule(schedule, "kedda", {})
    with pytest.raises(InputError, match="no scaling rule"):
        render_rule(replace(schedule, rule=None), "keda", {})
