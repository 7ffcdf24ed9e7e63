"""Step times learned from live traffic: with servers that are really slower, and with counts alone."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from balance_cases import QUEUE_SERVER, Balancer, ask, eventually, small_plan

from melange.deploy.live.counters import STEP_BINS, Counters
from melange.deploy.live.generation import Generation
from melange.deploy.live.ledger import bin_of
from melange.deploy.live.step_factors import (
    Standing,
    expected_step_s,
    live_factors,
    routed_plan,
    verdict,
)
from melange.deploy.operate.fleet_planner import FleetPlanner
from melange.plan.plan import Plan
from melange.profile.observed import observed_factor, read_factors
from melange.replica.capacity import Sizes
from melange.replica.engine import Engine
from melange.replica.step import StepCost

# Steps of the queue server: so much, and so much for each running request.
FIXED_S, EACH_S = 0.012, 0.001
L4, A100 = "cloud/east/l4 (L4)", "cloud/east/a100 (A100)"


def engine() -> Engine:
    """The engine of such a server, as a plan has it."""
    zero = dict.fromkeys(StepCost.__dataclass_fields__, 0.0)
    step = StepCost(
        **(
            zero
            | {"window": math.inf, "least_batch": 1.0, "most_batch": math.inf, "host_s": FIXED_S, "sequence_s": EACH_S}
        )
    )
    return Engine(
        cost=step, kv_tokens=1e6, full_layers=1, max_sequences=1000, max_batched_tokens=10**6, fast=0.6, slow=1.6
    )


def plan() -> Plan:
    """A plan of two types with such engines."""
    base = small_plan(0.5, rate=40.0)
    profile = replace(base.question.profile, engines=(engine(), engine()))
    return replace(base, question=replace(base.question, profile=profile))


@contextmanager
def server(slower: float) -> Iterator[str]:
    """The address of a server whose steps take this many times as long."""
    command = [sys.executable, str(QUEUE_SERVER), "--fixed-ms", f"{FIXED_S * slower * 1e3}"]
    command += ["--each-ms", f"{EACH_S * slower * 1e3}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


@pytest.mark.heavy
def test_the_step_times_of_slower_servers_are_recovered(tmp_path: Path) -> None:
    """L4 that take 1.5 times as long, and an A100 that takes 0.8: each within a tenth, in a file for the next plan."""
    file = plan().save(tmp_path / "plan.json")
    with ExitStack() as stack:
        urls = [(L4, stack.enter_context(server(1.5))) for _ in range(2)]
        urls += [(A100, stack.enter_context(server(0.8)))]
        options = [f"--replica={name}={url}" for name, url in urls]
        # The window is long, so that all counts stay; it is looked at often.
        balancer = stack.enter_context(Balancer(file, *options, "--health-path", "/v1/models", "--window", "16"))
        stop = threading.Event()

        def run() -> None:
            while not stop.is_set():
                body = {"model": "queue", "prompt": "abc " * 20, "max_tokens": 24, "stream": True}
                ask(balancer.port, "/v1/completions", body)

        threads = [threading.Thread(target=run) for _ in range(12)]
        for one in threads:
            one.start()
        try:
            eventually(lambda: balancer.metric("step_factor", type=L4) not in (0.0, 1.0), 40.0)
            eventually(lambda: balancer.metric("step_factor", type=A100) not in (0.0, 1.0), 40.0)
            time.sleep(2.0)
            content = ask(balancer.port, "/factors.json").json
        finally:
            stop.set()
            for one in threads:
                one.join()
    (tmp_path / "factors.json").write_text(json.dumps(content))
    found = {one.replica_type: one for one in read_factors(tmp_path / "factors.json")}
    assert found[L4].factor == pytest.approx(1.5, rel=0.1)
    assert found[A100].factor == pytest.approx(0.8, rel=0.1)
    for one in found.values():
        assert one.low < one.factor < one.high
    assert content["state"] in {"short", "enough", "surplus"}
    assert set(content["needed"]) == {L4, A100}


def counted(requests: int, slower: float, in_flight: float = 6.0) -> Counters:
    """Counters after some requests of both types on servers that take this many times as long."""
    counters = Counters(1, 2, 2, 2)
    size = Sizes(inputs=np.full((1, 1, 1), 60.0), outputs=np.full((1, 1, 1), 30.0))
    log_s = math.log(expected_step_s(engine(), size, in_flight) * slower)
    steps = counters.table[0, counters.at("steps") : counters.at("steps") + 2 * STEP_BINS * 4].reshape(2, STEP_BINS, 4)
    sizes = counters.table[0, counters.at("step_sizes") : counters.at("step_sizes") + 6].reshape(2, 3)
    steps[:, bin_of(in_flight)] = requests * np.array([1.0, math.log(in_flight), log_s, log_s**2])
    sizes[:] = requests * np.array([1.0, 60.0, 30.0])
    return counters


@pytest.mark.parametrize("slower", [0.7, 1.0, 1.3, 2.0])
def test_many_requests_say_the_factor_and_few_say_nothing(slower: float) -> None:
    """With little traffic it stays 1, as uncertain as the estimate."""
    many = live_factors(plan(), counted(5000, slower))[0]
    assert many.factor == pytest.approx(slower, rel=0.1)
    assert many.low <= slower * 1.02
    assert many.high >= slower / 1.02
    few = live_factors(plan(), counted(20, slower))[0]
    assert (few.factor, few.low, few.high) == (1.0, 0.6, 1.6)


def test_more_requests_narrow_the_interval_and_other_loads_widen_it() -> None:
    """As many requests as run together count as one; what was seen far from the planned load says less."""
    given = {"log_ratio": 0.3, "log_variance": 0.04, "planned_in_flight": 32.0}
    widths = [
        observed_factor("t", (0.7, 1.5), requests=requests, in_flight=in_flight, **given)
        for requests, in_flight in ((60, 32.0), (600, 32.0), (60_000, 32.0), (60_000, 1.0))
    ]
    ratio = [one.high / one.low for one in widths]
    assert ratio[0] > ratio[1] > ratio[2] < ratio[3]
    assert widths[0].factor < widths[2].factor == pytest.approx(widths[3].factor, rel=1e-3)


def test_requests_follow_the_measured_capacity() -> None:
    """A type that is twice as slow gets about half of what both could serve; none, and shares stay as planned."""
    base = plan()
    same = routed_plan(base, {}, base.replicas)
    assert (same.share == base.share).all()
    slow = routed_plan(base, {L4: 2.0}, base.replicas)
    assert slow.share.sum(axis=0) == pytest.approx(base.share.sum(axis=0))
    before, after = (np.sum(one.share[0] * base.workload.request_rate) for one in (base, slow))
    assert after < 0.8 * before
    assert (slow.max_request_rate[0] <= base.max_request_rate[0]).all()


def test_what_is_missing_or_left_over_is_said() -> None:
    """Over all types, by what replicas cost."""
    prices = {"a": 1.0, "b": 4.0}

    def state(a: float, b: float) -> str:
        found = (
            Standing(replica_type="a", replicas=4, needed=a),
            Standing(replica_type="b", replicas=2, needed=b),
        )
        return verdict(found, prices)[0]

    assert state(4.0, 2.0) == "enough"
    assert state(6.0, 2.0) == "short"
    assert state(2.5, 1.9) == "surplus"


def reloaded(after: Plan, slower: float) -> dict[str, float]:
    """Factors by type under another plan, which has just taken over from one with some traffic."""
    before, following = Generation.of(plan(), (), 1), Generation.of(after, (), 1)
    before.counters.table[:] = counted(5000, slower).table
    following.counters.follow(before.counters)
    following.take_over(before)
    return {one.replica_type: one.factor for one in live_factors(after, following.counters)}


def test_factors_are_known_at_once_under_another_plan() -> None:
    """What was counted goes on: the same factor with the same engines, 1 where the plan has it already, by type."""
    assert reloaded(plan(), 1.4) == pytest.approx({L4: 1.4, A100: 1.4}, rel=0.1)
    base = plan()
    step = engine().cost
    knows = replace(engine(), cost=replace(step, host_s=step.host_s * 1.4, sequence_s=step.sequence_s * 1.4))
    profile = replace(base.question.profile, engines=(knows, engine()))
    corrected = replace(base, question=replace(base.question, profile=profile))
    assert reloaded(corrected, 1.4) == pytest.approx({L4: 1.0, A100: 1.4}, rel=0.1)
    only = replace(base, instances=np.array([0, 1]), share=np.stack([np.zeros((2, 2)), np.ones((2, 2))]))
    assert reloaded(only, 1.4)[A100] == pytest.approx(1.4, rel=0.1)


@pytest.mark.heavy
def test_a_reloaded_plan_is_routed_by_what_was_learned_from_its_first_request(tmp_path: Path) -> None:
    """On a server that is slower: the metric has the factor as soon as the other plan serves, and it stays right."""
    file = plan().save(tmp_path / "plan.json")
    with server(1.5) as slow, server(1.0) as sound:
        given = (f"--replica={L4}={slow}", f"--replica={A100}={sound}", "--health-path", "/v1/models", "--window", "60")
        with Balancer(file, *given) as balancer:
            stop = threading.Event()

            def run() -> None:
                while not stop.is_set():
                    body = {"model": "queue", "prompt": "abc " * 20, "max_tokens": 16, "stream": True}
                    ask(balancer.port, "/v1/completions", body)

            threads = [threading.Thread(target=run) for _ in range(8)]
            for one in threads:
                one.start()
            try:
                eventually(lambda: balancer.metric("step_factor", type=L4) > 1.3, 60.0)
                other = FleetPlanner(plan()).plan_of({L4: 3, A100: 1}, None)
                assert other is not None
                other.save(file)
                balancer.await_line("another plan")
                eventually(lambda: balancer.metric("planned_replicas", type=L4) == 3, 20.0)
                assert balancer.metric("step_factor", type=L4) == pytest.approx(1.5, rel=0.15)
                assert balancer.metric("step_factor", type=A100) == pytest.approx(1.0, rel=0.15)
            finally:
                stop.set()
                for one in threads:
                    one.join()
