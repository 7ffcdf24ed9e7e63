from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from balance_cases import small_plan

from melange.deploy.addresses import Address
from melange.deploy.live.balancer import Balancer
from melange.deploy.live.completion import Completion
from melange.deploy.live.counters import Counters
from melange.deploy.live.drift import CHEAPER, SHORT, STEADY, UNKNOWN, find_drift
from melange.deploy.live.exposition import load
from melange.deploy.live.ledger import Ledger
from melange.deploy.live.live_workload import live_workload
from melange.deploy.live.settings import BalancerSettings
from melange.deploy.live.sizing import Size
from melange.errors import InputError
from melange.plan.solve import solve
from melange.slo import Slo

PLAN = small_plan(rate=100.0)


def books(processes: int = 1, slo: Slo | None = None) -> tuple[Counters, list[Ledger], list[Balancer]]:
    """Counters of this many processes and what writes them."""
    counters = Counters(processes, 2, 2, 2)
    counters.supervisor("window_began")[0] = time.monotonic() - 100.0
    ledgers = [Ledger(counters, process, PLAN.workload.buckets, slo or PLAN.slo) for process in range(processes)]
    balancers = [
        Balancer(PLAN, BalancerSettings(processes=processes), counters, process) for process in range(processes)
    ]
    for one in balancers:
        one.list_replicas([Address(place=0, url="http://a"), Address(place=1, url="http://b")])
    return counters, ledgers, balancers


def serve(ledger: Ledger, balancer: Balancer, inputs: int, outputs: int, *, took_s: float = 1.0) -> None:
    """One request from its arrival to its end."""
    ticket = balancer.place(Size(inputs, 0, False))
    assert ticket is not None
    completion = Completion(is_stream=False)
    completion.note(f'{{"usage": {{"completion_tokens": {outputs}}}}}'.encode(), took_s)
    balancer.finish(ticket, ledger.completed(ticket, completion, 0.0))


def test_a_prompt_is_unread_until_its_first_token_comes_back() -> None:
    """Of streams only: of other answers it is not known when; and what ends before gives it back."""
    _, _, (balancer,) = books()
    balancer.list_replicas([Address(place=0, url="http://a"), Address(place=0, url="http://b")])
    first, second, whole = (balancer.place(Size(40, 20, is_stream)) for is_stream in (True, True, False))
    assert first is not None
    assert second is not None
    assert whole is not None
    assert balancer.fleet.unread == [40.0, 40.0]
    balancer.read(first)
    balancer.read(first)
    assert sorted(balancer.fleet.unread) == [0.0, 40.0]
    balancer.list_replicas([one.address for one in balancer.replicas])
    assert sorted(balancer.fleet.unread) == [0.0, 40.0]
    for ticket in (first, second, whole):
        balancer.give_back(ticket)
    assert balancer.fleet.unread == [0.0, 0.0]


def test_rates_are_arrivals_and_sizes_those_of_completions() -> None:
    """Two processes, 100 s: what was rejected counts as it would have been served, what was refused not at all."""
    counters, ledgers, balancers = books(processes=2)
    for index in range(60):
        ledgers[index % 2].arrived(50, index * 0.5)
        serve(ledgers[index % 2], balancers[index % 2], 40 if index < 45 else 400, 20)
    for _ in range(30):
        ledgers[0].arrived(50, 30.0)
        ledgers[0].unserved("busy")
    for _ in range(10):
        ledgers[1].arrived(50, 30.0)
        ledgers[1].unserved("refused", is_arrived=False)
    live = live_workload(counters, PLAN.workload)
    assert live.total_rate == pytest.approx(90 / 100, rel=0.01)
    assert live.request_rate[0, 0] / live.total_rate == pytest.approx(45 / 60)
    assert (live.input_tokens[0, 0], live.input_tokens[1, 0], live.output_tokens[0, 0]) == (40, 400, 20)
    assert (live.requests, live.failed_requests) == (60, 30)
    assert any(caution.kind == "thin-data" for caution in live.cautions)


def test_burstiness_is_seen_across_processes() -> None:
    """Arrivals at even times are no bursts, random ones are Poisson, whichever process takes them."""
    for gaps, expected in ((np.full(2000, 0.1), 0.0), (np.random.default_rng(1).exponential(0.1, 2000), 1.0)):
        counters, ledgers, balancers = books(processes=2)
        for index, moment_s in enumerate(np.cumsum(gaps)):
            ledgers[index % 2].arrived(50, float(moment_s))
        serve(ledgers[0], balancers[0], 50, 20)
        assert live_workload(counters, PLAN.workload).burstiness == pytest.approx(expected, abs=0.06)


def test_a_rate_that_changes_over_the_day_is_no_burst() -> None:
    """Gaps are held against the mean of their own hour, as those of a log are."""
    random = np.random.default_rng(5)
    drawn_s = np.sort(random.uniform(0.0, 86_400.0, 40_000))
    kept = random.random(len(drawn_s)) < (1 + 0.95 * np.sin(2 * np.pi * drawn_s / 86_400.0)) / 1.95
    counters, (ledger,), (balancer,) = books()
    for moment_s in drawn_s[kept]:
        ledger.arrived(50, float(moment_s) + 1.0)
    serve(ledger, balancer, 50, 20)
    assert live_workload(counters, PLAN.workload).burstiness == pytest.approx(1.0, abs=0.05)
    gaps = np.diff(drawn_s[kept])
    assert gaps.std() / gaps.mean() > 1.5


def test_requests_beyond_the_last_bucket_are_spoken_of() -> None:
    """They count as the last bucket's, and the reader is told."""
    counters, (ledger,), (balancer,) = books()
    ledger.arrived(5000, 1.0)
    serve(ledger, balancer, 5000, 20)
    live = live_workload(counters, PLAN.workload)
    assert live.request_rate[1, 0] > 0
    assert any("1 request was larger" in caution.message for caution in live.cautions)


def test_no_traffic_is_no_workload() -> None:
    """Nothing is made up before something was completed."""
    counters, (ledger,), _ = books()
    ledger.arrived(50, 1.0)
    with pytest.raises(InputError, match="no request has been completed yet"):
        live_workload(counters, PLAN.workload)


@pytest.mark.parametrize(
    ("slo", "took_s", "is_met"),
    [
        (Slo(latency_s=1.0), 0.9, True),
        (Slo(latency_s=1.0), 1.1, False),
        (Slo(ntpot_s=0.1), 0.9, True),
        (Slo(ntpot_s=0.1), 1.1, False),
        (Slo(ttft_s=0.5, tpot_s=0.1), 1.3, True),  # 0.5 + 9 x 0.1 s
        (Slo(ttft_s=0.5, tpot_s=0.1), 1.5, False),
        (Slo(ttft_s=0.5), 9.0, True),  # when its first token was there is not known
    ],
)
def test_whole_completions_are_judged_by_their_latency(slo: Slo, took_s: float, is_met: bool) -> None:
    """A completion of ten tokens that comes at once, against each limit; a rejected request has missed all."""
    counters, (ledger,), (balancer,) = books(slo=slo)
    serve(ledger, balancer, 50, 10, took_s=took_s)
    assert (counters.total("judged")[-1], counters.total("met")[-1]) == (1, is_met)
    ledger.unserved("busy")
    assert (counters.total("judged")[-1], counters.total("met")[-1]) == (2, is_met)


def test_drift_is_cheaper_steady_short_or_unknown() -> None:
    """The plan's own traffic is steady, a tenth of it cheaper, twice of it short; few requests say nothing."""
    plan = solve(PLAN.workload.at_rate(2000.0), PLAN.question.profile)
    seen = replace(plan.workload, requests=10_000)
    assert find_drift(plan, seen, 0.05).state == STEADY
    assert find_drift(plan, seen.at_rate(0.1 * seen.total_rate), 0.05).state == CHEAPER
    short = find_drift(plan, seen.at_rate(2 * seen.total_rate), 0.05)
    assert short.state == SHORT
    assert short.new_cost_per_h > plan.cost_per_h
    assert find_drift(plan, plan.workload, 0.05).state == UNKNOWN


def test_replicas_that_stay_keep_what_they_hold_and_what_was_learned() -> None:
    """A list that changes under load: tickets of old and new replicas are given back, and nothing is left over."""
    counters, _, (balancer,) = books()
    first, second, third = (
        Address(place=place, url=url) for place, url in ((0, "http://a"), (1, "http://b"), (1, "http://c"))
    )
    tickets = [balancer.place(Size(50, 0, False)) for _ in range(40)]
    for ticket in tickets[:8]:
        assert ticket is not None
        balancer.finish(ticket, 30)
    learned = list(balancer.fleet.completions)
    balancer.list_replicas([second, third])
    assert balancer.fleet.completions == learned
    held = sum(ticket is not None and ticket.is_held and ticket.replica.address == second for ticket in tickets)
    assert balancer.fleet.outstanding == [held, 0]
    balancer.list_replicas([first, second, third])
    for ticket in tickets:
        assert ticket is not None
        balancer.give_back(ticket)
        balancer.give_back(ticket)
    assert balancer.fleet.outstanding == [0, 0, 0]
    assert balancer.fleet.fill == [0.0, 0.0, 0.0]
    assert counters.total("replica_outstanding").sum() == 0


def test_load_is_told_in_replicas_of_the_plan() -> None:
    """Two processes send 400 requests in 100 s to a type that carries 100/s or 25/s: those of a mix, over a replica."""
    counters, _, balancers = books(processes=2)
    began_s = float(counters.supervisor("window_began")[0])
    for one in balancers:
        # Small prompts whose completions were short three times of four.
        one.fleet.completions[:] = [300.0, 100.0, 1.0, 0.0]
        for _ in range(200):
            ticket = one.place(Size(50, 0, False))
            assert ticket is not None
            one.give_back(ticket)
    sent = counters.total("sent")
    assert sent.sum() == 400
    found = load(balancers[0], counters, began_s + 100.0)
    # The L4 takes 1/100 s and 1/25 s of a replica for a request, the A100 1/400 s and 1/100 s.
    expected = sent[:, 0] / 100.0 * np.array([0.75 / 100 + 0.25 / 25, 0.75 / 400 + 0.25 / 100])
    assert found == pytest.approx(expected)
    assert load(balancers[1], counters, began_s + 200.0) == pytest.approx(expected / 2)
