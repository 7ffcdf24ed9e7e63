"""Two unequal engines: measured, planned with, and balanced by the plan, against what other balancers do."""

import asyncio
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from engine_servers import Server
from mixed_load import Requests, poisson, send_all
from unequal import BUCKETS, SHARES, balancing, measure, plan_of_files, planned, traffic

from melange.measure.answer import Answer
from melange.measure.endpoint import connect
from melange.measure.load import client_session, send_alone
from melange.profile.percentiles import with_simulated_rates
from melange.profile.profile import ANCHORED, MEASURED, Profile
from melange.slo import Slo

POLICIES = ("plan-least-work", "least-outstanding", "round-robin", "random")
# Sizes measured on each; part of what the two carry together, each by itself; requests of a run.
MEASURED_SIZES, PART, COUNT = 3, 0.75, 250
# The SLO is judged request by request: a limit on the mean would let half of them miss it.
STATISTIC = "p90"
# Rounds are added where neighbors have blurred the first.
LEAST_ROUNDS, MOST_ROUNDS = 2, 5
# Of what the slower one takes for a request alone: the machine's speed is not known.
TTFT_TIMES, TPOT_TIMES = 5.0, 2.4


@pytest.fixture(scope="session")
def slo(large: Server) -> Slo:
    """Limits that the slower one can hold with several requests at once: on the longest prompt, and on the gaps."""

    async def alone() -> tuple[float, float]:
        async with client_session() as session:
            endpoint = await connect(session, large.url)
            size = BUCKETS.input_edges[-1], BUCKETS.output_edges[-1]
            await send_alone(session, endpoint, *size, 1)  # the first is slower
            window = await send_alone(session, endpoint, *size, 5)
            return float(np.median(window.ttft_s)), float(np.median(window.tpot_s))

    ttft_s, tpot_s = asyncio.run(alone())
    return Slo(ttft_s=round(TTFT_TIMES * ttft_s, 3), tpot_s=round(TPOT_TIMES * tpot_s, 4), statistic="mean")


@pytest.fixture(scope="session")
def measurements(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what was measured."""
    return tmp_path_factory.mktemp("measured")


@pytest.fixture(scope="session")
def profiles(small: Server, large: Server, slo: Slo, measurements: Path) -> list[Profile]:
    """What the command says of both."""
    servers = {"small": small, "large": large}
    return [measure(server, name, slo, measurements, MEASURED_SIZES) for name, server in servers.items()]


@pytest.fixture(scope="session")
def percentiles(profiles: list[Profile]) -> list[Profile]:
    """Rates at which nine of ten requests meet the limits, by simulation of the steps that were fitted to both."""
    assert profiles[0].slo is not None
    slo = replace(profiles[0].slo, statistic=STATISTIC)
    anchored = [replace(one, provenance=np.full_like(one.provenance, ANCHORED)) for one in profiles]
    return [with_simulated_rates(one, traffic(10.0), slo) for one in anchored]


@pytest.fixture
def _beside_small() -> Iterator[None]:
    """Client and balancer on the faster server's core: the slower one's is as free as when it was measured."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {0})
    yield
    os.sched_setaffinity(0, before)


def test_both_are_measured_and_a_plan_is_made_of_it(profiles: list[Profile], measurements: Path) -> None:
    """Measured and anchored cells; the smaller model carries more of every size; the plan stands on these figures."""
    for profile in profiles:
        assert (profile.provenance[0][SHARES > 0] == MEASURED).all()
        assert (profile.provenance[0][SHARES == 0] == ANCHORED).all()
        assert (profile.low <= profile.max_request_rate).all()
        assert (profile.max_request_rate <= profile.high).all()
    ratio = profiles[0].max_request_rate[0] / profiles[1].max_request_rate[0]
    print(f"\nhow many times more the smaller carries, by size:\n{np.round(ratio, 2)}")
    assert (ratio > 1.5).all()
    rate = planned(profiles, PART)[1]
    answer = json.loads(plan_of_files(measurements, rate, ["small", "large"]))
    print(f"at {rate:.1f} requests/s: {answer['replicas']}, {answer['cost_per_h']} USD/h")
    assert answer["replicas"]
    assert set(answer["replicas"]) <= {"small", "large"}
    # One of each carries that rate without headroom; with it, and whole instances, at most one more of each is needed.
    assert 1.0 <= answer["cost_per_h"] <= 8.0


def attainment(answers: list[Answer], slo: Slo) -> float:
    """Share of requests that met every limit."""
    met = [
        not one.failure and all(getattr(one, f"{metric}_s") <= limit_s for metric, limit_s in slo.limits.items())
        for one in answers
    ]
    return float(np.mean(met))


async def run(url: str, requests: Requests) -> list[Answer]:
    """The requests through a balancer."""
    async with client_session() as session:
        return await send_all(session, await connect(session, url), requests)


@pytest.mark.timing
@pytest.mark.usefixtures("_beside_small")
def test_the_plan_s_policy_meets_the_objective_more_often_than_others(
    percentiles: list[Profile], small: Server, large: Server, tmp_path: Path
) -> None:
    """The same requests under every policy, one after the other, and again: neighbors shift times meanwhile."""
    plan, rate = planned(percentiles, PART)
    slo = plan.slo
    assert slo is not None
    plan.save(tmp_path / "plan.json")
    sizes = list(product(BUCKETS.input_edges, BUCKETS.output_edges))
    found: dict[str, list[list[Answer]]] = {policy: [] for policy in POLICIES}
    for name, one in zip(("small", "large"), percentiles, strict=True):
        print(f"\n{name}: {np.round(one.max_request_rate[0], 1).tolist()} requests/s hold {slo}")
    print(f"shares of small, by size: {np.round(plan.share[0], 2).tolist()}")
    for number in range(MOST_ROUNDS):
        requests = poisson(sizes, SHARES.ravel().tolist(), rate, COUNT, seed=number)
        for policy in POLICIES:
            with balancing(tmp_path / "plan.json", {"small": small, "large": large}, policy) as url:
                found[policy].append(asyncio.run(run(url, requests)))
        print(f"\n{rate:.1f} requests/s, {PART:.0%} of what both carry; {slo}; {COUNT} requests a round")
        means = table(found, slo)
        if number + 1 >= LEAST_ROUNDS and all(means[POLICIES[0]] > means[policy] for policy in POLICIES[1:]):
            return
    raise AssertionError(means)


def table(found: dict[str, list[list[Answer]]], slo: Slo) -> dict[str, float]:
    """Print what became of the requests under each policy; mean attainment of all rounds."""
    print("policy             SLO met  by round             mean TTFT [ms]  mean TPOT [ms]  p95 TPOT [ms]  failed")
    means = {}
    for policy, runs in found.items():
        shares = [attainment(answers, slo) for answers in runs]
        means[policy] = float(np.mean(shares))
        good = [answer for answers in runs for answer in answers if not answer.failure]
        ttft, tpot = (np.array([getattr(answer, name) for answer in good]) * 1e3 for name in ("ttft_s", "tpot_s"))
        failed = sum(map(len, runs)) - len(good)
        print(
            f"{policy:18}{means[policy]:8.1%}  {' '.join(f'{share:6.1%}' for share in shares):20}"
            f"{ttft.mean():15.0f}{tpot.mean():16.1f}{np.quantile(tpot, 0.95):15.1f}{failed:8}"
        )
    return means
