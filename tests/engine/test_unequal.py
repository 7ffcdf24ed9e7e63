"""Two unequal engines: measured, planned with, and balanced by the plan, against what other balancers do."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from engine_servers import Server
from mixed_load import Requests, poisson, send_all
from unequal import BUCKETS, SHARES, SLO, balancing, measure, planned

from melange.measure.answer import Answer
from melange.measure.endpoint import connect
from melange.measure.load import client_session
from melange.plan.plan import Plan
from melange.profile.profile import ANCHORED, MEASURED, Profile

POLICIES = ("plan-least-work", "least-outstanding", "round-robin", "random")
# Part of what the two carry together, as measured one by one; requests of a run; runs of each policy.
PART, COUNT, ROUNDS = 0.75, 240, 3


@pytest.fixture(scope="session")
def profiles(small: Server, large: Server, tmp_path_factory: pytest.TempPathFactory) -> list[Profile]:
    """What the command says of both, two sizes measured on each."""
    folder = tmp_path_factory.mktemp("measured")
    return [measure(small, "small", folder, 2), measure(large, "large", folder, 2)]


def test_both_are_measured_and_a_plan_is_made_of_it(profiles: list[Profile]) -> None:
    """Measured and anchored cells; the smaller model carries more of every size, and the more so the longer prompts."""
    for profile in profiles:
        assert (profile.provenance == MEASURED).sum() == 2
        assert (profile.provenance == ANCHORED).sum() == 2
        assert (profile.max_request_rate > 0).all()
    ratio = profiles[0].max_request_rate[0] / profiles[1].max_request_rate[0]
    print(f"\nhow many times more the smaller carries, by size:\n{np.round(ratio, 2)}")
    assert (ratio > 1.5).all()
    plan, rate = planned(profiles, PART)
    print(f"at {rate:.2f} requests/s, shares of small:\n{np.round(plan.share[0], 2)}")
    assert plan.cost_per_h == 4.0
    assert (plan.share.sum(axis=0) == pytest.approx(1.0)) or np.allclose(plan.share.sum(axis=0), 1.0)


def attainment(answers: list[Answer]) -> float:
    """Share of requests that met every limit."""
    met = [
        not answer.failure and answer.ttft_s <= (SLO.ttft_s or 0) and answer.tpot_s <= (SLO.tpot_s or 0)
        for answer in answers
    ]
    return float(np.mean(met))


async def run(url: str, requests: Requests) -> list[Answer]:
    """The requests through a balancer."""
    async with client_session() as session:
        return await send_all(session, await connect(session, url), requests)


def test_the_plan_s_policy_meets_the_objective_more_often_than_others(
    profiles: list[Profile], small: Server, large: Server, tmp_path: Path
) -> None:
    """The same requests under every policy, one after the other, and again: neighbors shift times meanwhile."""
    plan, rate = planned(profiles, PART)
    plan.save(tmp_path / "plan.json")
    sizes = [(inputs, outputs) for inputs in BUCKETS.input_edges for outputs in BUCKETS.output_edges]
    found: dict[str, list[list[Answer]]] = {policy: [] for policy in POLICIES}
    for seed in range(ROUNDS):
        requests = poisson(sizes, SHARES.ravel().tolist(), rate, COUNT, seed)
        for policy in POLICIES[seed % 2 :: 1] + POLICIES[: seed % 2]:
            with balancing(tmp_path / "plan.json", {"small": small, "large": large}, policy) as url:
                found[policy].append(asyncio.run(run(url, requests)))
    print(f"\n{rate:.1f} requests/s, {PART:.0%} of what both carry; {SLO}")
    print("policy             attainment, of each run       mean TTFT [ms]  mean TPOT [ms]  p95 TPOT [ms]  failed")
    means = {}
    for policy, runs in found.items():
        shares = [attainment(answers) for answers in runs]
        means[policy] = float(np.mean(shares))
        good = [answer for answers in runs for answer in answers if not answer.failure]
        ttft, tpot = (np.array([getattr(answer, name) for answer in good]) * 1e3 for name in ("ttft_s", "tpot_s"))
        failed = sum(map(len, runs)) - len(good)
        print(
            f"{policy:18} {means[policy]:.1%} {[f'{share:.1%}' for share in shares]} {ttft.mean():10.0f} "
            f"{tpot.mean():15.1f} {np.quantile(tpot, 0.95):14.1f} {failed:7}"
        )
    for policy in POLICIES[1:]:
        assert means[POLICIES[0]] > means[policy]


def test_the_plan_is_read_back(profiles: list[Profile], tmp_path: Path) -> None:
    """What was planned on measured engines is a plan like any other."""
    plan, _ = planned(profiles, PART)
    assert Plan.read(plan.save(tmp_path / "plan.json")).cost_per_h == plan.cost_per_h
