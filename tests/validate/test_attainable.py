"""The bound on what any fleet reaches: what simulated requests meet that come one at a time, and never less."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from planned import inputs

from melange.plan.options import Options
from melange.plan.question import Question
from melange.plan.solve import solve
from melange.slo import Slo
from melange.validate.attainment import met
from melange.validate.certify.attainable import attainable
from melange.validate.simulate import simulate
from melange.workload.arrivals import Arrivals, draw

LIMITS = [
    {"ttft_s": 0.3},
    {"tpot_s": 0.035},
    {"ntpot_s": 0.06},
    {"latency_s": 4.0},
    {"ttft_s": 0.5, "tpot_s": 0.05},
]


def question(*only: str) -> Question:
    """A mix of short and long requests at a rate that any replica carries."""
    workload, profile = inputs(0.02, "azure-conversation", Slo(ttft_s=1e3))
    exclude = tuple({"L4", "A10G", "A100-80GB"} - set(only))
    return Question(workload=workload, profile=profile, options=Options(exclude=exclude))


def far_apart(asked: Question) -> Arrivals:
    """Requests of which each has left before the next comes."""
    requests = draw(asked.workload, 600, seed=1)
    return replace(requests, arrival_s=np.arange(600) * 500.0)


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("name", ["L4", "A10G", "A100-80GB"])
def test_the_bound_is_what_requests_meet_that_come_one_at_a_time(name: str, limits: dict[str, float]) -> None:
    """The closed form says of one type what the simulated engine says, request by request."""
    asked, slo = question(name), Slo(**limits)
    requests = far_apart(asked)
    simulated = met(simulate(solve(asked), requests).outcome, slo)
    assert attainable(asked, slo, [requests]).share == pytest.approx(simulated.mean(), abs=1e-12)


@pytest.mark.parametrize("limits", LIMITS)
def test_of_several_types_each_request_takes_the_one_that_suits_it(limits: dict[str, float]) -> None:
    """The bound of several is at least that of each, and at most their sum; a type that is left out does not count."""
    slo, requests = Slo(**limits), [far_apart(question("L4"))]
    shares = [attainable(question(name), slo, requests).share for name in ("L4", "A10G", "A100-80GB")]
    both = attainable(question("L4", "A10G"), slo, requests).share
    assert max(shares[:2]) <= both <= sum(shares[:2])
    assert attainable(question("L4", "A10G", "A100-80GB"), slo, requests).share >= max(shares)


def test_what_misses_is_told_by_limit_and_by_how_much() -> None:
    """One sentence a limit, the share of all requests and the median of what is too much."""
    slo, requests = Slo(ttft_s=0.3, tpot_s=1.0), [far_apart(question("L4"))]
    bound = attainable(question("L4"), slo, requests)
    assert 0 < bound.share < bound.high < 1
    (said,) = bound.why
    assert said.startswith(f"{1 - bound.share:.2%} of the requests exceed the TTFT limit even alone")
    assert said.endswith("% in the median")
    (far,) = attainable(question("L4"), Slo(ttft_s=1e-3), requests).why
    assert re.search(r"alone on the closest type: the median takes \d+\.\d times as long$", far)


def test_requests_that_no_type_holds_are_told() -> None:
    """Longer than the context of every allowed type."""
    asked = question("L4")
    short = replace(
        asked.profile, engines=tuple(one and replace(one, max_context=300) for one in asked.profile.engines)
    )
    bound = attainable(replace(asked, profile=short), Slo(ttft_s=1e3), [far_apart(asked)])
    assert bound.share < 1
    assert bound.why == (f"{1 - bound.share:.2%} of the requests fit on no allowed type",)


def test_a_type_whose_steps_are_not_known_may_serve_anything() -> None:
    """Unless it serves nothing at all."""
    asked, slo = question("L4", "A10G"), Slo(ttft_s=0.01)
    profile, requests = asked.profile, [far_apart(asked)]
    is_l4 = np.array([one.offer.accelerator == "L4" for one in profile.replica_types])
    engines = tuple(None if gone else one for gone, one in zip(is_l4, profile.engines, strict=True))
    unknown = replace(profile, engines=engines)
    kept = ~is_l4[:, None, None]
    idle = replace(unknown, **{key: getattr(profile, key) * kept for key in ("max_request_rate", "low", "high")})
    shares = [attainable(replace(asked, profile=one), slo, requests).share for one in (profile, unknown, idle)]
    assert shares == [0, 1, 0]
