"""Plans with classes of requests in production: engines' flags, routes of gateways, and the live balancer."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from deploy_cases import BUCKETS, RATES, replica_type

from melange.deploy.addresses import Address
from melange.deploy.command_lines import Serving, _vllm
from melange.deploy.live.balancer import Balancer
from melange.deploy.live.completion import Completion
from melange.deploy.live.counters import Counters
from melange.deploy.live.exposition import metrics_text
from melange.deploy.live.ledger import Ledger
from melange.deploy.live.settings import BalancerSettings
from melange.deploy.live.sizing import Size
from melange.deploy.render import render
from melange.errors import InputError
from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.plan.server import servers_of
from melange.plan.without_classes import routed_by_class, without_classes
from melange.profile.profile import Profile
from melange.slo import RequestClass, Slo
from melange.workload.request_classes import of_classes
from melange.workload.workload import Workload

TIGHT, LOOSE = Slo(latency_s=2.0), Slo(latency_s=600.0)


def plan(batch_to_large: bool, priority: int = 1) -> Plan:
    """Two types, of which the large one takes batch requests only, or both share all."""
    classes = (RequestClass(name="default", slo=TIGHT), RequestClass(name="batch", slo=LOOSE, priority=priority))
    one = Workload.at_upper_edges(BUCKETS, RATES)
    both = of_classes({"default": one, "batch": one})
    shape = (2, *both.buckets.shape)
    rates = np.full(shape, 20.0)
    types = (replica_type("aws/small", "L4"), replica_type("aws/large", "A100-80GB", 3.0))
    profile = Profile(
        replica_types=types,
        buckets=both.buckets,
        max_request_rate=rates,
        low=rates,
        high=rates,
        provenance=np.zeros(shape, np.int8),
        reason=np.zeros(shape, np.int32),
        slo=replace(TIGHT, classes=classes),
        model="llama",
    )
    share = np.full(shape, 0.5)
    if batch_to_large:
        share[0, :3], share[1, :3] = 1.0, 0.0
        share[0, 3:], share[1, 3:] = 0.0, 1.0
    return Plan(
        question=Question(workload=both, profile=profile),
        instances=np.array([2, 1]),
        share=share,
        load=np.array([0.5, 0.5]),
        cost_per_h=5.0,
        bound_per_h=None,
        gap=1.0,
        single_type={},
    )


def test_engines_order_by_priority_where_the_classes_do() -> None:
    """VLLM's own flag; without priorities it stays away."""
    serving = Serving(model="llama", served_name="llama", port=8000, drain_s=30)
    for priority, is_there in ((1, True), (0, False)):
        words = _vllm(servers_of(plan(False, priority))[0], serving)
        assert ("--scheduling-policy" in words) == is_there
        assert ("priority" in words) == is_there


def test_gateways_take_a_plan_whose_routes_do_not_depend_on_the_class() -> None:
    """Shares by size are those of all classes together; other plans are refused, with what knows classes."""
    alike = plan(False)
    assert routed_by_class(alike) == ()
    found = without_classes(alike)
    assert found.workload.buckets == BUCKETS
    assert found.workload.request_rate == pytest.approx(2 * RATES)
    assert found.share == pytest.approx(0.5)
    for target in ("haproxy", "nginx", "envoy"):
        assert render(alike, target).files
        with pytest.raises(InputError, match="routes requests of one size by their class"):
            render(plan(True), target)


def test_the_balancer_routes_by_the_class_that_the_priority_says_and_judges_by_its_limits() -> None:
    """Batch requests go to their type; each is counted under its class, and meets or misses its own limits."""
    made = plan(True)
    counters = Counters(1, 2, *made.workload.buckets.shape)
    counters.supervisor("window_began")[0] = time.monotonic() - 100.0
    ledger = Ledger(counters, 0, made.workload.buckets, made.slo)
    balancer = Balancer(made, BalancerSettings(), counters, 0)
    balancer.list_replicas([Address(place=0, url="http://a"), Address(place=1, url="http://b")])
    assert balancer.class_by_priority == {0: 0, 1: 1}
    for priority, inputs in ((0, 100), (1, 100), (0, 900_000), (1, 900_000)):
        size = Size(inputs, 0, False, class_place=balancer.class_by_priority[priority])
        ledger.arrived(inputs, 0.0, size.class_place)
        ticket = balancer.place(size)
        assert ticket is not None
        assert ticket.replica.address.url == ("http://b" if priority else "http://a")
        completion = Completion(is_stream=False)
        completion.note(b'{"usage": {"completion_tokens": 40}}', 30.0)
        balancer.finish(ticket, ledger.completed(ticket, completion, 0.0))
    assert counters.total("arrived").tolist() == [1, 0, 1, 1, 0, 1]
    assert counters.total("completed")[:, 0].tolist() == [1, 0, 1, 1, 0, 1]
    assert counters.total("type_met").tolist() == [[0] * 6, [0, 0, 0, 1, 0, 1]]
    text = metrics_text(balancer, counters)
    assert 'melange_completed_requests_total{input_upto="200",class="batch",output_upto="50"} 1' in text
