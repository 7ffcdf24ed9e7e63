"""Judges and searches that the tests of the search share, and the services that it is tried on."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from planned import offers

from melange.catalog.bundled import find_model
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.profile.estimate import estimate
from melange.slo import Slo
from melange.validate.attainment import Interval, attainment, counted, met
from melange.validate.certify.headroom import Search
from melange.validate.certify.judge import Judge
from melange.validate.simulate import draw_for, simulate
from melange.workload.arrivals import draw
from melange.workload.datasets import dataset

# Data sets, limits and targets of small services: each has a best fleet of a few L4, A10G and A100.
MIXES = ("azure-conversation", "arxiv-summarization", "arena")
LIMITS: tuple[dict[str, float], ...] = (
    {"ttft_s": 1.5, "tpot_s": 0.09},
    {"ntpot_s": 0.12},
    {"tpot_s": 0.07},
    {"latency_s": 25.0},
)
TARGETS = (0.9, 0.95, 0.99)


@cache
def small_service(seed: int) -> Question:
    """A service drawn with a seed: data set, rate, limits, target and which types there are."""
    random = np.random.default_rng(seed)
    slo = Slo(**LIMITS[int(random.integers(len(LIMITS)))], attainment=float(random.choice(TARGETS)))
    workload = dataset(str(random.choice(MIXES)), request_rate=float(np.round(np.exp(random.uniform(0, 2.5)), 1)))
    model = find_model("meta-llama/Llama-3.1-8B")
    return Question(workload=workload, profile=estimate(model, offers("L4", "A10G", "A100-80GB"), slo, workload))


def with_options(question: Question, **options: Any) -> Question:
    """The question with these settings and no others."""
    return Question(workload=question.workload, profile=question.profile, options=Options(**options))


def judge_of(question: Question, target: float, requests: int = 2000) -> Judge:
    """A judge whose runs are drawn from the workload."""
    slo = question.profile.slo
    assert slo is not None
    return Judge(
        question=question,
        slo=slo,
        target=target,
        policy="plan-least-work",
        draw=lambda count, seed: draw(question.workload, count, seed=seed),
        requests=requests,
        say=lambda _: None,
    )


def search_of(question: Question, target: float) -> Search:
    """A search among all types."""
    among = np.ones(question.profile.max_request_rate.shape, bool)
    return Search(question=question, judge=judge_of(question, target), among=among)


def fresh(plan: Plan, requests: int = 20_000, runs: int = 4) -> Interval:
    """The share of requests that meet the SLO, in long runs that no search uses."""
    slo = plan.question.profile.slo
    assert slo is not None
    samples = []
    for seed in range(70_000, 70_000 + runs):
        outcome = simulate(plan, draw_for(plan, requests, seed=seed), seed=seed).outcome
        samples.append(met(outcome, slo)[counted(len(outcome.arrival_s))])
    return attainment(samples)
