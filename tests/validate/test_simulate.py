"""Plans played out: what must hold whatever the policy and whatever happens meanwhile."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from plan_cases import answering
from planned import inputs, plan

from melange.errors import InputError
from melange.plan.plan import Plan
from melange.plan.solve import solve
from melange.replica.policy import POLICIES
from melange.replica.simulated.outcome import SERVED
from melange.validate.attainment import met
from melange.validate.observe import report
from melange.validate.scenario import SCENARIOS, Scenario, find_scenario
from melange.validate.simulate import draw_for, left_out_of, prepare, simulate, within_context
from melange.workload.arrivals import Arrivals

COUNT = 3_000


@pytest.mark.parametrize("policy", POLICIES)
def test_no_request_and_no_token_is_lost_or_made(policy: str) -> None:
    """Under every policy all requests end with all of their tokens, on replicas that the plan has."""
    arrivals = draw_for(plan(), COUNT, seed=1)
    outcome = simulate(plan(), arrivals, policy=policy).outcome
    assert (outcome.status == SERVED).all()
    assert outcome.made_tokens.sum() == arrivals.output_tokens.sum()
    assert outcome.prompt_tokens.sum() - outcome.recomputed_tokens.sum() >= arrivals.input_tokens.sum()
    assert np.bincount(outcome.replica, minlength=len(outcome.busy_s)).sum() == COUNT
    assert set(outcome.replica.tolist()) == set(range(sum(plan().replicas.values())))


@pytest.mark.parametrize("policy", ["plan-least-work", "random"])
def test_the_same_seed_gives_the_same_report_byte_for_byte(policy: str) -> None:
    """Two runs agree in every figure, and another seed does not."""

    def told(seed: int) -> str:
        return report([simulate(plan(), draw_for(plan(), COUNT, seed=seed), policy=policy, seed=seed)]).dumps()

    assert told(3) == told(3)
    assert told(3) != told(4)


def test_more_capacity_is_never_worse() -> None:
    """One replica more of each type, faster steps: no fewer requests meet the SLO, and the mean latency falls."""
    arrivals = draw_for(plan(), COUNT, seed=2, scale=1.5)
    more = {name: n + 1 for name, n in plan().replicas.items() if n}

    def told(**settings: object) -> tuple[float, float]:
        outcome = simulate(plan(), arrivals, **settings).outcome  # type: ignore[arg-type]
        return float(met(outcome, plan().slo).mean()), float(outcome.latency_s.mean())

    usual, larger = told(), told(counts=more)
    assert larger[0] >= usual[0]
    assert larger[1] < usual[1]


def test_steps_as_slow_as_measured_ones_were_take_longer() -> None:
    """Slow steps, planned steps, fast steps: every statistic of the times is in that order."""
    arrivals = draw_for(plan(), COUNT, seed=2)
    means = [
        simulate(plan(), arrivals, steps=steps).outcome.latency_s.mean() for steps in ("slow", "as-planned", "fast")
    ]
    assert means[0] > means[1] > means[2]


def test_steps_that_take_twice_as_long_double_what_a_lone_request_takes() -> None:
    """One request alone: all its times scale with the slowdown, which must be positive."""
    arrivals = draw_for(plan(), 1, seed=2)
    once, twice = (simulate(plan(), arrivals, slowdown=factor) for factor in (1.0, 2.0))
    assert twice.outcome.latency_s == pytest.approx(2 * once.outcome.latency_s)
    assert (set(once.slowdown), set(twice.slowdown)) == ({1.0}, {2.0})
    with pytest.raises(InputError, match="slowdown"):
        simulate(plan(), arrivals, slowdown=0.0)


def test_littles_law_holds_for_the_whole_fleet() -> None:
    """What the samples of queues and batches say in the mean is rate times residence."""
    arrivals = draw_for(plan(), 20_000, seed=5)
    outcome = simulate(plan(), arrivals).outcome
    inside = (outcome.waiting + outcome.running).sum(axis=1)[20:].mean()
    assert inside == pytest.approx(arrivals.rate * outcome.latency_s.mean(), rel=0.05)


def test_a_lost_replica_loses_no_request_and_each_is_retried_once() -> None:
    """What it held is sent elsewhere and counted, its clock runs on, and once it is back it takes requests again."""
    arrivals = draw_for(plan(), COUNT, seed=1)
    until_s = float(arrivals.arrival_s[-1])
    scenario = Scenario(name="lost", lost_replicas=1, start_up_s=until_s / 4)
    run, calm = simulate(plan(), arrivals, scenario=scenario), simulate(plan(), arrivals)
    outcome = run.outcome
    assert (outcome.status == SERVED).all()
    assert 0 < outcome.retries.sum() == report([run]).retries
    assert outcome.retries.max() == 1
    assert outcome.made_tokens.sum() == arrivals.output_tokens.sum() + outcome.wasted_tokens.sum()
    assert report([run]).attainment.value <= report([calm]).attainment.value
    lost = int(np.flatnonzero(run.type_of == np.bincount(run.type_of).argmax())[0])
    times = outcome.arrival_s[(outcome.replica == lost) & (outcome.retries == 0)]
    away = (times > until_s / 2) & (times < until_s * 3 / 4)
    assert not away.any()
    assert (times > until_s * 3 / 4).any()


def test_a_rate_that_doubles_brings_twice_the_requests_and_longer_queues() -> None:
    """Half the time at the planned rate and half at twice it; a ramp ends at three times the rate it began with."""
    arrivals = draw_for(plan(), 20_000, seed=1)
    doubled = simulate(plan(), arrivals, scenario=find_scenario("double"))
    ramp = simulate(plan(), arrivals, scenario=find_scenario("ramp"))
    for run, first, last, ratio in ((doubled, 0.5, 0.5, 2.0), (ramp, 0.1, 0.9, 1.45 / 0.55)):
        times = run.arrivals.arrival_s - run.arrivals.arrival_s[0]
        shares = times / times[-1]
        before, after = (shares < first).sum() / first, (shares >= last).sum() / (1 - last)
        assert after / before == pytest.approx(ratio, rel=0.05)
        assert len(run.arrivals) == len(arrivals)
    waiting = doubled.outcome.waiting.sum(axis=1) + doubled.outcome.running.sum(axis=1)
    assert waiting[160:].mean() > 1.5 * waiting[40:120].mean()


def test_a_completion_ends_at_the_context_limit() -> None:
    """A longer one is cut, as engines cut it, and a prompt that is too long by itself is refused."""
    long = Arrivals(arrival_s=np.arange(2.0), input_tokens=np.array([100, 5000]), output_tokens=np.array([9000, 9000]))
    assert within_context(long, 4096).output_tokens.tolist() == [3996, 1]
    tight = answering(plan(), engines=tuple(one and replace(one, max_context=4096) for one in plan().engines))
    assert simulate(tight, within_context(long, 4096)).outcome.status.tolist() == [0, 1]


def test_wrong_names_are_told_with_the_nearest_right_ones() -> None:
    """A policy, a scenario, step times, a fleet without replicas, unknown steps."""
    arrivals = draw_for(plan(), 10)
    with pytest.raises(InputError, match="plan-shares"):
        simulate(plan(), arrivals, policy="plan-share")
    with pytest.raises(InputError, match="lost-replica"):
        find_scenario("lost-replicas")
    with pytest.raises(InputError, match="slow"):
        simulate(plan(), arrivals, steps="slowly")
    with pytest.raises(InputError, match="no replicas"):
        simulate(plan(), arrivals, counts={})
    with pytest.raises(InputError, match="cannot be simulated"):
        simulate(answering(plan(), engines=()), arrivals)
    assert set(SCENARIOS) == {"steady", "ramp", "double", "lost-replica"}


def test_a_plan_that_comes_from_its_file_gives_the_same_report() -> None:
    """Everything that a simulation needs travels in plan.json."""
    again = Plan.from_json(plan().to_json())
    reports = [report([simulate(one, draw_for(one, 500, seed=7))]) for one in (plan(), again)]
    assert reports[0].dumps() == reports[1].dumps()


def test_preparing_says_nothing_where_all_is_compiled() -> None:
    """After one simulation there is nothing left to compile."""
    said: list[str] = []
    simulate(plan(), draw_for(plan(), 10))
    prepare(plan(), said.append)
    assert said == []


def test_a_plan_holds_more_when_it_has_more_headroom() -> None:
    """Twice the traffic on the same replicas misses more than the planned one."""
    workload, profile = inputs()
    usual = solve(workload, profile)
    shares = [report([simulate(usual, draw_for(usual, COUNT, seed=1, scale=scale))]) for scale in (1.0, 2.0)]
    assert shares[0].attainment.value > shares[1].attainment.value
    assert shares[1].causes


@pytest.mark.parametrize(("served", "left_out"), [(1.0, 0.0), (1 - 1e-12, 0.0), (0.97, 0.03)])
def test_what_is_left_out_is_counted_as_the_plan_counts_it(served: float, left_out: float) -> None:
    """One count for both, in which rounding is nothing."""
    assert left_out_of(replace(plan(), served_fraction=served)) == pytest.approx(left_out, abs=1e-15)
