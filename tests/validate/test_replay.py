"""Logs as they came: played again whole, in stretches, and as what a plan is certified on."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from planned import inputs

import melange.validate.certify.requests
from melange.errors import InputError
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.service.caution_words import with_word_on_arrivals
from melange.slo import Slo
from melange.validate.attainment import attainment, counted, met, warm_up
from melange.validate.certify.certify import certify
from melange.validate.certify.requests import replays_of
from melange.validate.evidence import with_simulation
from melange.validate.replay import peak_of, stretch, whole_log, words_of
from melange.validate.simulate import simulate
from melange.workload.arrivals import Arrivals, draw

pytestmark = pytest.mark.heavy

SLO = Slo(tpot_s=0.08, ttft_s=2.0)
# Four times as many requests in a tenth of the time.
BUSY = ((0.0, 1.0), (0.5, 1.0), (0.5, 4.0), (0.6, 4.0), (0.6, 1.0), (1.0, 1.0))


def log(requests: int = 6000) -> Arrivals:
    """A log with a busy period, of 12 requests a second in the mean."""
    drawn = draw(inputs(12.0, slo=SLO)[0], requests, seed=7).shaped(BUSY).at_rate(12.0)
    return replace(drawn, is_shuffled=False, source=f"{requests:,} requests of log.csv as recorded")


@cache
def certified(burstiness: float | None = None) -> Plan:
    """The plan for the log, or for arrivals drawn in its place."""
    return certify(*inputs(12.0, slo=SLO), observed=log(), burstiness=burstiness)


def replayed(plan: Plan, requests: Arrivals) -> float:
    """Share of a log's requests that meet the SLO."""
    outcome = simulate(plan, whole_log(requests)).outcome
    return attainment([met(outcome, SLO)[counted(len(outcome.arrival_s), has_end=False)]]).value


def test_a_stretch_goes_round_the_log() -> None:
    """After the last request comes the first, a mean gap later, and gaps stay as they were."""
    three = Arrivals(
        arrival_s=np.array([0.0, 1.0, 4.0]), input_tokens=np.array([1, 2, 3]), output_tokens=np.array([4, 5, 6])
    )
    found = stretch(three, 1, 6)
    assert found.input_tokens.tolist() == [2, 3, 1, 2, 3, 1]
    assert found.output_tokens.tolist() == [5, 6, 4, 5, 6, 4]
    assert found.arrival_s == pytest.approx([0.0, 3.0, 5.0, 6.0, 9.0, 11.0])
    before = stretch(three, -2, 3)
    assert before.input_tokens.tolist() == [2, 3, 1]
    assert before.arrival_s == pytest.approx([0.0, 3.0, 5.0])


def test_a_log_of_one_moment_has_no_pace() -> None:
    """It can be sent at once, and not again and again."""
    once = Arrivals(arrival_s=np.zeros(3), input_tokens=np.ones(3), output_tokens=np.ones(3))
    with pytest.raises(InputError, match="at once"):
        stretch(once, 0, 3)


@pytest.mark.parametrize("requests", [2, 9, 10, 11, 999, 1000, 6000])
def test_every_request_of_a_whole_log_counts_once(requests: int) -> None:
    """What came last comes before, and is the part that does not count."""
    numbered = replace(log(requests), input_tokens=np.arange(requests))
    played = whole_log(numbered)
    assert played.input_tokens[warm_up(len(played)) :].tolist() == list(range(requests))


def test_a_plan_certified_on_a_log_holds_when_it_is_replayed_where_one_on_poisson_arrivals_does_not() -> None:
    """The share that is certified is the share on replay, and the plan says what it was certified on."""
    own, poisson = certified(), certified(1.0)
    assert own.certificate is not None
    assert poisson.certificate is not None
    assert replayed(poisson, log()) < 0.99 <= own.certificate.low
    assert replayed(own, log()) == own.attainment
    assert own.cost_per_h > poisson.cost_per_h
    assert (own.certificate.seeds, own.certificate.requests) == (1, 6000)
    assert own.certificate.arrivals.startswith("6,000 requests of log.csv as recorded; the busiest minute brings ")
    assert poisson.certificate.arrivals == "sizes drawn from 6,000 requests of log.csv, Poisson arrivals"
    assert own.certificate.rate == pytest.approx(12.0)


def test_a_certificate_on_a_log_is_always_the_same_and_survives_its_file() -> None:
    """Nothing is drawn, and nothing is lost."""
    again = certify(*inputs(12.0, slo=SLO), observed=log())
    first, second = ({**one.to_json(), "solve_s": 0} for one in (certified(), again))
    assert first == second
    assert Plan.from_json(certified().to_json()).certificate == certified().certificate


def test_a_log_is_planned_at_the_pace_that_it_is_given_with() -> None:
    """Time stretched to half the rate takes less."""
    slower = certify(*inputs(12.0, slo=SLO), observed=log().at_rate(6.0))
    assert slower.certificate is not None
    assert slower.certificate.rate == pytest.approx(6.0)
    assert slower.cost_per_h < certified().cost_per_h
    assert replayed(slower, log().at_rate(6.0)) == slower.attainment


def test_a_log_too_short_to_show_the_target_is_drawn_from() -> None:
    """A hundred requests without a miss prove no more than 96 %."""
    told: list[str] = []
    plan = certify(*inputs(12.0, slo=SLO), observed=log(100), progress=told.append)
    assert plan.certificate is not None
    assert plan.certificate.arrivals == "sizes drawn from 100 requests of log.csv, Poisson arrivals"
    assert "log's 100 requests are too few to show 99.00%" in told[0]


def test_a_log_in_which_no_fleet_fills_is_drawn_from() -> None:
    """At 400 requests/s the log lasts 15 seconds, less than four times as long as a request may stay."""
    told: list[str] = []
    fast = log().at_rate(400.0)
    plan = certify(*inputs(400.0, slo=SLO), observed=fast, progress=told.append)
    assert plan.certificate is not None
    assert plan.certificate.arrivals == "sizes drawn from 6,000 requests of log.csv, Poisson arrivals"
    assert any("the log lasts 15 s, and no fleet fills in that time" in one for one in told)
    assert [one.kind for one in with_word_on_arrivals(plan, fast).cautions].count("short-log") == 1
    assert plan.max_request_rate.any()
    assert plan.load.max() < 1.3


def test_of_a_long_log_stretches_decide_that_are_spread_over_all_of_it() -> None:
    """Short ones by which plans are chosen, longer ones by which one is certified."""
    short, middle, long = map(replays_of, (100_000, 1_000_000, 4_000_000))
    assert short.is_one_run
    assert not middle.is_one_run
    assert middle.proving == ((-111_111, 1_111_111),)
    assert [start + warm_up(count) for start, count in long.choosing] == [400_000 * place for place in range(10)]
    assert {count - warm_up(count) for _, count in long.choosing} == {10_000}
    assert {count - warm_up(count) for _, count in long.proving} == {100_000}


def test_a_plan_chosen_by_stretches_is_proven_on_the_whole_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a log is too long to try each plan on it."""
    monkeypatch.setattr(melange.validate.certify.requests, "_CHOOSING_MOST", 2000)
    plan = certify(*inputs(12.0, slo=SLO), Options(max_types=1), observed=log())
    assert plan.certificate is not None
    assert (plan.certificate.seeds, plan.certificate.requests) == (1, 6000)
    assert replayed(plan, log()) == plan.attainment
    assert plan.certificate.low >= 0.99


def test_a_plan_on_means_is_simulated_on_the_log() -> None:
    """Once, as it is, and it says so."""
    shown = with_simulation(certified(1.0), observed=log()).simulation
    assert shown is not None
    assert (shown.seeds, shown.requests) == (1, 6000)
    assert shown.attainment == replayed(certified(1.0), log())
    assert shown.arrivals.startswith("6,000 requests of log.csv as recorded; ")


def test_a_coarse_clock_is_told() -> None:
    """Requests that a log has at the same moment are replayed so, and may have come one after the other."""
    clock = replace(log(), arrival_s=np.floor(log().arrival_s / 3) * 3)
    assert "as recorded; 97% of them at the same time as the previous one; " in words_of(clock)


def test_requests_of_one_moment_are_drawn_from() -> None:
    """They have no pace to be replayed at."""
    plan = certify(*inputs(12.0, slo=SLO), observed=replace(log(), arrival_s=np.zeros(6000)))
    assert plan.certificate is not None
    assert plan.certificate.arrivals.endswith("Poisson arrivals")


def test_steady_requests_have_no_peak_worth_a_word() -> None:
    """And drawn ones none that anybody asked for."""
    steady = Arrivals(
        arrival_s=np.arange(4000.0), input_tokens=np.ones(4000), output_tokens=np.ones(4000), source="a clock"
    )
    assert peak_of(steady) == ""
    assert words_of(replace(steady, is_shuffled=False)) == "a clock"
    assert words_of(replace(log(), is_shuffled=True)) == log().source
