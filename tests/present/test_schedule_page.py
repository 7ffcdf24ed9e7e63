"""A schedule's page and its words in the terminal: whole, escaped, at 80 columns."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from structure import Structure
from tiny import HOSTILE

from melange.catalog.offer import Offer
from melange.plan.options import Options
from melange.plan.schedule.backtest import RunningCost
from melange.plan.schedule.choose_rule import FrontierPoint
from melange.plan.schedule.contracts import Reserved, ScheduleOptions, Spot
from melange.plan.schedule.deferred import Deferred, DeferredClass
from melange.plan.schedule.plan_over_time import plan_over_time
from melange.plan.schedule.rule import RuleSettings
from melange.plan.schedule.schedule import PlayedStretch, Schedule
from melange.present.figures.by_hour import figure_week, stacked, unbeaten
from melange.present.pages.schedule_report import schedule_html
from melange.present.terminal.demand_page import demand_page
from melange.present.terminal.schedule_page import schedule_page
from melange.present.terminal.schedule_words import schedule_sentence
from melange.profile.profile import Profile, ReplicaType
from melange.workload.demand import Demand
from melange.workload.workload import Buckets


@pytest.fixture(scope="module")
def demand() -> Demand:
    """A day of two sizes."""
    hour = np.arange(144) / 6
    return Demand(
        buckets=Buckets.ordinal(1, 2),
        window_s=600.0,
        rate=6 * (1 + 0.6 * np.sin(hour / 4)),
        period=np.zeros(144, int),
        share=np.array([[[0.7, 0.3]]]),
        input_tokens=np.ones((1, 2)),
        output_tokens=np.ones((1, 2)),
    )


@pytest.fixture(scope="module")
def schedule(demand: Demand) -> Schedule:
    """Of two types, one of which has a hostile name."""
    rates = np.array([[[1.0, 0.2]], [[3.0, 1.4]]])
    offers = [
        Offer(provider="", region="", instance_type=name, accelerator=name, accelerators=1, cost_per_h=cost)
        for name, cost in ((HOSTILE, 1.0), ("large", 3.2))
    ]
    profile = Profile(
        replica_types=tuple(ReplicaType(name=one.instance_type, offer=one) for one in offers),
        buckets=demand.buckets,
        max_request_rate=rates,
        low=rates,
        high=rates,
        provenance=np.zeros(rates.shape, np.int8),
        reason=np.zeros(rates.shape, np.int32),
    )
    options = ScheduleOptions(reserved=(Reserved(term_years=1, discount=0.4),), spot=Spot(discount=0.6))
    return plan_over_time(demand, profile, Options(), options, over="day")


def test_the_page_is_a_whole_document_that_says_the_answer(schedule: Schedule) -> None:
    """All tags closed, ids of their own, nothing fetched, hostile names as text."""
    text = schedule_html(schedule, HOSTILE)
    found = Structure(text)
    assert found.open == []
    assert found.tags.count("h1") == 1
    assert len(set(found.ids)) == len(found.ids)
    assert all(address.startswith("data:") for address in found.addresses)
    assert schedule_sentence(schedule) in " ".join(found.words)
    assert HOSTILE not in text


def test_the_terminal_says_it_at_80_columns(schedule: Schedule, demand: Demand) -> None:
    """No line is longer, and the first sentence holds cost, base and saving."""
    for page in (schedule_page(schedule), demand_page(demand)):
        stream = io.StringIO()
        Console(file=stream, width=80, highlight=False, markup=False).print(page)
        lines = stream.getvalue().splitlines()
        assert max(map(len, lines)) <= 80
    sentence = schedule_sentence(schedule)
    assert "a week (" in sentence
    assert "reserved" in sentence
    assert "than a fleet for the peak" in sentence


def test_requests_that_may_wait_have_a_table(schedule: Schedule) -> None:
    """When they are sent, what waiting is worth, and what windows did with and without them; at 80 columns."""
    hours = np.arange(24.0)
    waits = DeferredClass(
        name="batch",
        deadline_s=86400.0,
        arrival_rate=np.ones(24),
        sending_rate=hours / hours.mean(),
        late_fraction=0.0025,
    )
    once = replace(schedule.running, cost_per_h=schedule.running.cost_per_h + 1)
    added = schedule.planned_per_h
    deferred = Deferred(classes=(waits,), without_per_h=added - 0.5, at_once_per_h=added + 1, at_once=once)
    stretch = PlayedStretch(
        label="Mon", requests=900, load=0.9, attainment=0.995, low=0.99, started=1, drained=0, words="the busiest",
        deferred_requests=1234, deferred_attainment=0.75, attainment_alone=0.998,
    )  # fmt: skip
    found = replace(schedule, deferred=deferred, played=(stretch,))
    stream = io.StringIO()
    Console(file=stream, width=80, highlight=False, markup=False).print(schedule_page(found))
    text = stream.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    assert "cost 84.00 USD a week more than without batch, and 252 USD more if all is served as it arrives" in words
    assert "with the scaling rule, deferral saves 168 USD a week" in words
    page = Structure(schedule_html(found, "a"))
    assert page.open == []
    said = " ".join(page.words)
    for cell in ("24 h", "0.25%", "99.80%", "1,234", "75.00%"):
        assert cell in said
        assert cell in words
    for header in ("Alone", "May wait", "Of those met"):
        assert header in said


def test_the_picture_stacks_what_the_schedule_holds(schedule: Schedule) -> None:
    """Its capacity is that of the instances, and never below the load."""
    parts = stacked(schedule)
    total = sum(parts.values())
    counts = schedule.reserved + schedule.on_demand + schedule.spot
    assert total == pytest.approx(counts @ schedule.on_demand_per_h)
    assert (total * (1 + 1e-9) >= schedule.work_per_h).all()
    assert len(figure_week(schedule).data) == 1 + sum(1 for part in parts.values() if part.any())


def test_the_frontier_line_never_turns_back() -> None:
    """Of rules in the last third, those that none beats: each more expensive one leaves fewer requests short."""
    settings = RuleSettings(ahead="last", look_back=1, margin=0.0, target=1.0, stable_windows=1)
    random = np.random.default_rng(3)
    points = [
        FrontierPoint(
            settings=settings,
            outcome=RunningCost(
                cost_per_h=float(cost),
                on_demand_per_h=0.0,
                spot_per_h=0.0,
                short_fraction=float(short),
                short_windows_fraction=0.0,
            ),
        )
        for cost, short in random.uniform(0, 1, (30, 2))
    ]
    line = unbeaten(points)
    assert all(b.outcome.cost_per_h > a.outcome.cost_per_h for a, b in itertools.pairwise(line))
    assert all(b.outcome.short_fraction < a.outcome.short_fraction for a, b in itertools.pairwise(line))
    for one in points:
        beaten_by = [
            other
            for other in line
            if other.outcome.cost_per_h <= one.outcome.cost_per_h
            and other.outcome.short_fraction <= one.outcome.short_fraction
        ]
        assert beaten_by
