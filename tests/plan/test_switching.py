"""Staying with the fleet in force or switching: savings while they last against what both fleets cost meanwhile."""

from __future__ import annotations

import numpy as np
import pytest
from plan_cases import offer, profile, workload

from melange.errors import InputError
from melange.plan.options import Options
from melange.plan.question import Question
from melange.plan.schedule.choose_rule import settings_to_try
from melange.plan.solve import solve
from melange.plan.switching import StartUp, Switching, decide_switch, in_force_at

DAY_S = 86_400.0


def question(rate: float, old: float = 2.0, new: float = 1.0) -> Question:
    """One size, served by either of two types at 1 request/s."""
    return Question(
        workload=workload([[rate]]),
        profile=profile([offer("old", old), offer("new", new)], [[[1.0]], [[1.0]]]),
        options=Options(headroom=0.0),
    )


def test_switches_once_what_is_saved_exceeds_what_changing_costs() -> None:
    """Ten instances of 2 USD/h run an hour and a minute beside ten that save 10 USD/h: for 20.33 USD, two hours."""
    before, now = solve(question(10, old=1.0, new=2.0)), question(10)
    found = solve(now)
    kept, why = in_force_at(now, before)
    assert kept is not None
    assert why == ""
    for hours, switches in ((2.0, False), (2.1, True)):
        settings = Switching(expected_s=hours * 3600, start_up_s=3600.0, drain_s=60.0)
        decision = decide_switch(found, kept, why, before, settings)
        # At the prices of now: the fleet in force was planned at others.
        assert decision.saved_usd == pytest.approx(10 * (2.0 - 1.0) * hours)
        assert decision.switch_usd == pytest.approx(20.0 * 61 / 60)
        assert decision.is_switch is switches


def test_counts_the_overlap_and_the_work() -> None:
    """The current fleet at 3 USD/h; an hour of start-up, none of drain, 1 USD an instance."""
    before = solve(question(10, old=3.0, new=4.0))
    now = question(10, old=3.0, new=1.0)
    found = solve(now)
    kept, why = in_force_at(now, before)
    settings = Switching(expected_s=3600.0, start_up_s=3600.0, drain_s=0.0, change_usd=1.0)
    decision = decide_switch(found, kept, why, before, settings)
    assert decision.switch_usd == pytest.approx(10 * 3.0 + 20 * 1.0)
    assert decision.saved_usd == pytest.approx(20.0)
    assert not decision.is_switch
    longer = Switching(expected_s=3 * 3600.0, start_up_s=3600.0, drain_s=0.0, change_usd=1.0)
    assert decide_switch(found, kept, why, before, longer).is_switch


def test_a_fleet_that_no_longer_does_is_left_whatever_it_costs() -> None:
    """With the reason: too little for the traffic, or a type that is not offered any more."""
    before = solve(question(10))
    kept, why = in_force_at(question(20), before)
    assert kept is None
    assert "at 200% load" in why
    settings = Switching(expected_s=1.0, start_up_s=3600.0)
    assert decide_switch(solve(question(20)), kept, why, before, settings).is_switch
    other = Question(workload=workload([[10.0]]), profile=profile([offer("other", 1.0)], [[[1.0]]]))
    assert in_force_at(other, before) == (None, "new is no longer offered")


def test_no_change_is_no_switch() -> None:
    """Whatever is expected."""
    before = solve(question(10))
    kept, why = in_force_at(question(10), before)
    decision = decide_switch(before, kept, why, before, Switching(expected_s=DAY_S, start_up_s=300.0))
    assert (decision.is_switch, decision.switch_usd) == (False, 0.0)


def test_start_up_grows_with_the_model() -> None:
    """Boot, image and weights, one after the other."""
    start = StartUp(boot_s=60, image_bytes=10e9, pull_bytes_per_s=1e9, load_bytes_per_s=2e9)
    assert start.seconds(16e9) == pytest.approx(60 + 10 + 8)
    with pytest.raises(InputError, match="load_gb_per_s must be > 0"):
        StartUp(load_bytes_per_s=0.0)


def test_instances_stay_for_the_least_time() -> None:
    """No rule that is tried gives one back earlier."""
    load = np.linspace(1, 2, 300)
    assert min(one.stable_windows for one in settings_to_try(load, 600.0, 3600.0)) == 6
    assert min(one.stable_windows for one in settings_to_try(load, 600.0)) == 1
