"""Gap and CPU time of joint plans for random services on shared pools.

    python bench/fleets.py                                        # 8 services x 20 types, ten seeds
    python bench/fleets.py --services 50 --gap 0.02 --seeds 1 2 3
    python bench/fleets.py --first-seed 100                       # other seeds

All services rent from the same market of types (bench/instances.py, 64 sizes). Each service has its own speeds, like
different models, and its own traffic of 8 to 40 replicas. The pools limit the four types that the services would use
most if they were planned separately, to a random share (0.2 to 0.8) of that use. With ``--greedy``, the joint plan is
compared with planning one service after the other, the largest first, each with the remaining instances, as teams
without a common plan do.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace

import numpy as np

from instances import draw as draw_instance
from melange.errors import InfeasibleError
from melange.plan.fleet import least_peak_shares
from melange.plan.joint.member import Member
from melange.plan.joint.shared_pools import Pools
from melange.plan.joint.shortage import ShortPoolsError
from melange.plan.joint.solve_jointly import JointFleets, JointSettings, solve_jointly
from melange.plan.options import Options
from melange.plan.question import Question
from melange.plan.solve import solve

POOLS = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """Services and their pools."""

    questions: dict[str, Question]
    pools: Pools


def draw(services: int, types: int, seed: int) -> Drawn:
    """Random services on one market, and pools that are too small for their separate plans."""
    random = np.random.default_rng([seed, services, types])
    market = draw_instance(8, 8, types, replicas=10, family="mixed", seed=seed)
    price = np.array([one.cost_per_h for one in market.profile.replica_types])
    questions = {}
    for k in range(services):
        rates = market.profile.max_request_rate * random.lognormal(0, 0.15, (types, 1, 1)) * random.lognormal(0, 0.5)
        weight = random.gamma(0.7, size=market.workload.request_rate.shape) + 1e-4
        with np.errstate(divide="ignore"):
            load = np.where(rates > 0, weight / rates, np.inf)
        best = np.argmin(load * price[:, None, None], axis=0)
        busy = float(np.take_along_axis(load, best[None], 0).sum())
        workload = replace(market.workload, request_rate=weight * random.uniform(8, 40) / busy)
        profile = replace(market.profile, max_request_rate=rates, low=rates, high=rates)
        questions[f"s{k}"] = Question(workload=workload, profile=profile, options=Options(headroom=0.0))
    taken = np.zeros(types)
    apart = solve_jointly(members(questions, Pools()), Pools())
    for member, column in zip(members(questions, Pools()), apart.columns, strict=True):
        taken[member.problem.types] += column.instances
    top = np.argsort(-taken)[:POOLS]
    most = {f"t{r}": int(np.ceil(random.uniform(0.2, 0.8) * taken[r])) for r in top.tolist()}
    return Drawn(questions=questions, pools=Pools(max_accelerators=most))


def members(questions: dict[str, Question], pools: Pools) -> list[Member]:
    """The services as members of a joint problem."""
    return [Member.of(name, question, pools) for name, question in questions.items()]


def checked(drawn: Drawn, found: JointFleets, these: list[Member]) -> None:
    """Check all pools, shares and loads again, in plain NumPy."""
    taken = np.zeros(len(drawn.pools.names))
    for member, column in zip(these, found.columns, strict=True):
        taken += drawn.pools.draw([member.question.profile.replica_types[r] for r in member.problem.types]) @ (
            column.instances
        )
        shares = least_peak_shares(member.problem, member.problem.carried(column.instances))
        assert shares is not None, member.name
        assert shares[1] <= 1 + 1e-6, member.name
        assert (column.instances >= 0).all()
    assert (taken <= drawn.pools.most).all()


def one_after_another(drawn: Drawn) -> float:
    """Cost of services planned one after the other, the largest first [USD/h]; infinite if one of them has no plan."""
    rest, total = drawn.pools.most.copy(), 0.0
    order = sorted(drawn.questions.values(), key=lambda one: -one.workload.total_rate)
    for question in order:
        try:
            plan = solve(drawn.pools.bounded(question, rest))
        except InfeasibleError:
            return float("inf")
        rest -= drawn.pools.draw(plan.replica_types) @ plan.instances
        total += plan.cost_per_h
    return total


def main() -> None:
    """Print a row for each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", type=int, default=8)
    parser.add_argument("--types", type=int, default=20)
    parser.add_argument("--gap", type=float, default=0.01)
    parser.add_argument("--seeds", type=int, nargs="*")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--greedy", action="store_true", help="also plan one service after the other")
    given = parser.parse_args()
    print("seed  USD/h      bound      gap     CPU [s]  separate  one after another")
    for seed in given.seeds or range(given.first_seed, given.first_seed + given.count):
        drawn = draw(given.services, given.types, seed)
        began = time.process_time()
        these = members(drawn.questions, drawn.pools)
        try:
            found = solve_jointly(these, drawn.pools, JointSettings(gap=given.gap))
        except ShortPoolsError as error:
            print(f"{seed:4d}  {error}: {'; '.join(error.reasons)}", flush=True)
            continue
        took = time.process_time() - began
        checked(drawn, found, these)
        greedy = f"{one_after_another(drawn) / found.cost_per_h - 1:+.1%}" if given.greedy else "-"
        apart = found.apart_per_h.sum() / found.cost_per_h - 1
        print(
            f"{seed:4d}  {found.cost_per_h:9.2f}  {found.bound_per_h:9.2f}  {found.gap:6.2%}  {took:7.1f}  "
            f"{apart:+8.1%}  {greedy}",
            flush=True,
        )


if __name__ == "__main__":
    main()
