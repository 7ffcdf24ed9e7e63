"""The cost of certification: plans before and after it, on the paper's workloads, prices and limits.

    python bench/certify.py                        # 4 requests/s (about 3 minutes)
    python bench/certify.py --rate 32 --no-cheaper

*Before* is the closed form alone (`melange plan --quick`), *single* the cheapest certified fleet of one type. Plans are
tested by bench/services/fresh.py on long runs of requests that no certificate has used. If a certified plan costs much
more than the closed form, every cheaper fleet is simulated too, until none meets the SLO with confidence. For each of
them, a local search with `--moves` moves of prompts between types looks for the shares with the best attainment. Fleets
to which another instance can be added at less cost than the plan are skipped, since an additional instance can be idle.
Seconds are CPU time of `certify` in a process that has already run simulations.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from melange.catalog.bundled import find_model
from melange.errors import InfeasibleError
from melange.plan.certificate import MOST_CARRIED
from melange.plan.plan import Plan
from melange.plan.problem import ROUNDING
from melange.plan.question import Question
from melange.plan.solve import solve
from melange.profile.estimate import estimate
from melange.profile.profile import Profile
from melange.replica.policy import POLICIES
from melange.slo import Slo
from melange.validate.attainment import Interval
from melange.validate.certify.certify import certify
from melange.validate.certify.headroom import Search, as_asked
from melange.validate.certify.judge import Judge
from melange.validate.certify.tolerance import with_tolerance
from melange.validate.simulate import within_context
from melange.workload.arrivals import Arrivals, draw
from melange.workload.datasets import dataset
from melange.workload.workload import Workload
from reproduction import setting
from services.fresh import FRESH_SEED, measured, requests_of

MIXES: dict[str, str | dict[str, float]] = {
    "arena": "arena",
    "arxiv-summarization": "arxiv-summarization",
    "80/20 mixed": {"arena": 0.8, "arxiv-summarization": 0.2},
}
LIMITS_MS = (120, 40)
ERAS = {"vllm-0.2": "Llama-2-7b, vLLM 0.2", "vllm-1": "Llama-3.1-8B, vLLM 1"}
TARGET = 0.995
MOST_COST, MEDIAN_COST = 0.20, 0.05  # targets: cost above the closed form, of every case and in the median
# For cheaper fleets: factors on the rates of their first type for the initial shares of the local search; simulated
# runs per move; the maximum load of a type (with more, the result would depend on the balancer sending requests to
# other types); fleets whose initial strain is this many times the allowed share of misses are skipped.
STARTS, SETS, MOST_LOAD, FAR = (1.0, 0.6, 0.35), 3, MOST_CARRIED, 15.0


@dataclass(frozen=True, kw_only=True)
class Case:
    """One service."""

    mix: str
    era: str
    limit_ms: int
    workload: Workload
    profile: Profile

    @property
    def slo(self) -> Slo:
        """The SLO of each request."""
        assert self.profile.slo is not None
        return self.profile.slo

    def judged(self, plan: Plan) -> Interval:
        """Share of requests that meet the SLO, among requests that no certificate has used."""
        return measured(plan, self.workload, self.slo, TARGET, FRESH_SEED)[0]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One certified service; ``before`` is the plan by closed form."""

    case: Case
    before: Plan
    plan: Plan
    cpu_s: float

    @property
    def price(self) -> float:
        """The additional cost of the certified plan, as a share of the closed form's cost."""
        return self.plan.cost_per_h / self.before.cost_per_h - 1.0

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"{self.case.mix}, {self.case.era}, {self.case.limit_ms} ms"


def profile_of(era: str, workload: Workload, limit_ms: float) -> Profile:
    """The profile of the paper's model and engine, or of current ones, at the paper's prices."""
    slo = Slo(ntpot_s=limit_ms / 1e3, attainment=TARGET)
    if era == setting.ERA:
        return estimate(find_model(setting.MODEL), setting.offers(), slo, workload, engine=setting.era())
    return estimate(find_model("meta-llama/Llama-3.1-8B"), setting.offers(), slo, workload)


def cases(rate: float, eras: tuple[str, ...]) -> Iterator[Case]:
    """All combinations of engine, mix and limit."""
    for era, (mix, what), limit_ms in itertools.product(eras, MIXES.items(), LIMITS_MS):
        workload = dataset(what, request_rate=rate)
        yield Case(mix=mix, era=era, limit_ms=limit_ms, workload=workload, profile=profile_of(era, workload, limit_ms))


def certified(case: Case, requests: int | None, repeats: int) -> Row:
    """A case with its plans before and after certification."""
    cpu_s = []
    for _ in range(repeats):
        began = time.process_time()
        plan = certify(case.workload, case.profile, requests=requests)
        cpu_s.append(time.process_time() - began)
    return Row(case=case, before=solve(case.workload, case.profile), plan=plan, cpu_s=statistics.median(cpu_s))


@dataclass(frozen=True, kw_only=True)
class Cheaper:
    """Fleets cheaper than a certified plan: the cheapest that meets the SLO with confidence, and the best below it."""

    fleets: int
    cheapest: tuple[Plan, float] | None
    best: tuple[Plan, float] | None

    def __str__(self) -> str:
        said = [f"{self.fleets} fleets tried"]
        for what, found in (("cheapest that holds", self.cheapest), ("best of the cheaper ones", self.best)):
            if found is not None:
                said.append(f"{what}: {_fleet(found[0])} at {found[0].cost_per_h:.2f}, {found[1]:.2%} met")
        return "; ".join(said)


def cheaper(row: Row, moves: int) -> Cheaper:
    """Test cheaper fleets on fresh requests, at ever lower cost, until none meets the SLO with confidence."""
    search, below, count = _search(row.case), row.plan.cost_per_h, 0
    cheapest: tuple[Plan, float] | None = None
    while True:
        tried = [_easiest(search, fleet, moves) for fleet in _most_for_less(row.case, below - ROUNDING)]
        held = [(row.case.judged(plan), plan) for plan in tried if plan is not None]
        count += len(tried)
        sure = [(plan, share.value) for share, plan in held if share.low >= TARGET]
        if not sure:
            best = max(held, key=lambda pair: pair[0].value, default=None)
            return Cheaper(fleets=count, cheapest=cheapest, best=None if best is None else (best[1], best[0].value))
        cheapest = min(sure, key=lambda pair: pair[0].cost_per_h)
        below = cheapest[0].cost_per_h


def _search(case: Case) -> Search:
    """A search object that simulates fleets of a case, without choosing any."""
    context = max(engine.max_context for engine in case.profile.engines if engine)

    def drawn(count: int, seed: int) -> Arrivals:
        return within_context(draw(case.workload, count, seed=seed), context)

    question = with_tolerance(Question(workload=case.workload, profile=case.profile), case.slo, TARGET)[0]
    judge = Judge(
        question=question,
        slo=case.slo,
        target=TARGET,
        policy=POLICIES[0],
        draw=drawn,
        requests=max(4_000, requests_of(case.workload, case.slo) // 5),
        say=lambda _: None,
    )
    return Search(question=question, judge=judge, among=np.ones(len(case.profile.replica_types), bool))


def _most_for_less(case: Case, below: float) -> Iterator[np.ndarray]:
    """Fleets (R,) that cost less than ``below``, and to which no instance can be added below that cost."""
    price = np.array([one.cost_per_h for one in case.profile.replica_types])
    able = case.profile.max_request_rate.max(axis=(1, 2)) > 0
    counts = [range(int(below / cost) + 1 if serves else 1) for cost, serves in zip(price, able, strict=True)]
    for instances in map(np.array, itertools.product(*counts)):
        if below - price[able].min() < instances @ price < below:
            yield instances


def _easiest(search: Search, instances: np.ndarray, moves: int) -> Plan | None:
    """A fleet with the best shares that the local search finds; None if it is far from meeting the SLO."""
    random, used = np.random.default_rng(0), np.flatnonzero(instances)
    starts = []
    for times in STARTS if len(used) > 1 else STARTS[:1]:
        factor = np.ones(search.question.profile.max_request_rate.shape)
        factor[used[0]] = times
        plan = search.of(instances, factor)
        if plan is not None and plan.load.max() <= MOST_LOAD:
            starts.append((search.judge.ease(plan, SETS).strain, plan))
    if not starts:
        return None
    strain, best = min(starts, key=lambda pair: pair[0])
    if strain > FAR * (1 - TARGET):
        return None
    sizes = np.flatnonzero(search.question.workload.request_rate.sum(axis=1))
    for _ in range(moves if len(used) > 1 else 0):
        plan = _moved(best, sizes, int(random.choice(used)), random)
        if plan.load.max() <= MOST_LOAD:
            now = search.judge.ease(plan, SETS).strain
            if now < strain:
                strain, best = now, plan
    return best


def _moved(plan: Plan, sizes: np.ndarray, target: int, random: np.random.Generator) -> Plan:
    """The plan with a part of the prompts moved to one type: those of one size, all up to it, or all from it on."""
    place, part = int(random.integers(len(sizes))), float(random.choice([1.0, 0.5, 0.25]))
    moved = [sizes[place : place + 1], sizes[: place + 1], sizes[place:]][int(random.integers(3))]
    share = plan.share.copy()
    row = share[:, moved] * (1.0 - part * (plan.max_request_rate[target, moved] > 0))
    row[target] += share[:, moved].sum(axis=0) - row.sum(axis=0)
    share[:, moved] = row
    return as_asked(replace(plan, share=share), plan.question)


def hopeless() -> tuple[str, float]:
    """The error for a limit that prefill alone exceeds for nearly all requests, and the time until it [CPU s]."""
    workload = dataset("arxiv-summarization", request_rate=4.0)
    loose = estimate(find_model("meta-llama/Llama-3.1-8B"), setting.offers(), Slo(tpot_s=0.12), workload)
    began = time.process_time()
    try:
        plan = certify(workload, replace(loose, slo=Slo(ttft_s=0.01, tpot_s=0.12, attainment=TARGET)))
    except InfeasibleError as error:
        return str(error), time.process_time() - began
    raise AssertionError(f"a plan of {plan.cost_per_h:.2f} USD/h for a limit that hardly any request can meet")


def main() -> None:
    """Print the table and the targets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=4.0, help="requests per second")
    parser.add_argument("--requests", type=int, help="requests of the shortest run; default: chosen by certify")
    parser.add_argument("--repeats", type=int, default=1, help="number of runs, of which the median time is printed")
    parser.add_argument("--eras", nargs="+", default=list(ERAS), help="vllm-0.2, vllm-1")
    parser.add_argument("--moves", type=int, default=40, help="moves of the local search in each cheaper fleet")
    parser.add_argument(
        "--above",
        type=float,
        default=MEDIAN_COST,
        help="try cheaper fleets if the cost above the closed form is larger",
    )
    parser.add_argument("--no-cheaper", action="store_true", help="do not try cheaper fleets")
    given = parser.parse_args()
    certified(next(cases(1.0, ("vllm-1",))), given.requests, 1)  # loads everything before times are taken
    print(f"{'mix':20} {'engine':9} {'limit':>6} {'before':>7} {'fresh':>8} {'after':>7} {'':>7} {'fresh':>8} "
          f"{'single':>7} {'plans':>5} {'CPU s':>6}  fleet")  # fmt: skip
    found = []
    for case in cases(given.rate, tuple(given.eras)):
        row = certified(case, given.requests, given.repeats)
        found.append((row, case.judged(row.before), case.judged(row.plan)))
        print(line(*found[-1]), flush=True)
    _print_bars(found)
    if not given.no_cheaper:
        for row, _, _ in found:
            if row.price > given.above:
                print(f"below {row.plan.cost_per_h:.2f} USD/h for {row.name}: {cheaper(row, given.moves)}", flush=True)
    said, cpu_s = hopeless()
    print(f"TTFT <= 10 ms, which nearly all prompts exceed: after {cpu_s:.1f} s of CPU: {said}")


def _print_bars(found: list[tuple[Row, Interval, Interval]]) -> None:
    """Print the results against their targets."""
    prices = [row.price for row, _, _ in found]
    worse = sum(row.plan.cost_per_h > (_single(row.plan) or np.inf) + ROUNDING for row, _, _ in found)
    costly = [f"{row.name}: {row.price:+.1%}" for row, _, _ in found if row.price > MOST_COST]
    print(f"\nworst fresh attainment {min(after.value for _, _, after in found):.2%} (target {TARGET:.1%}); before: "
          f"{sum(before.value >= TARGET for _, before, _ in found)} of {len(found)} hold")  # fmt: skip
    print(f"cost above the closed form: median {statistics.median(prices):+.1%} (target {MEDIAN_COST:+.0%}), "
          f"more than {MOST_COST:.0%}: {'; '.join(costly) or 'none'}")  # fmt: skip
    print(f"more expensive than the cheapest certified single type: {worse} of {len(found)} (target 0)")
    print(f"CPU: median {statistics.median(row.cpu_s for row, _, _ in found):.1f} s, "
          f"longest {max(row.cpu_s for row, _, _ in found):.1f} s")  # fmt: skip


def line(row: Row, before: Interval, after: Interval) -> str:
    """One row of the table."""
    plan, proof, case = row.plan, row.plan.certificate, row.case
    assert proof is not None
    single = "none" if _single(plan) is None else f"{_single(plan):.2f}"
    return (
        f"{case.mix:20} {case.era:9} {case.limit_ms:>4}ms {row.before.cost_per_h:>7.2f} {before.value:>8.2%} "
        f"{plan.cost_per_h:>7.2f} {row.price:>+7.1%} {after.value:>8.2%} {single:>7} "
        f"{proof.plans:>5} {row.cpu_s:>6.1f}  {_fleet(plan)}"
    )


def _single(plan: Plan) -> float | None:
    return plan.certificate.single_type_per_h if plan.certificate else None


def _fleet(plan: Plan) -> str:
    counts = {one.name: plan.replicas[one.name] for one in plan.replica_types if plan.replicas[one.name]}
    return ", ".join(f"{n} x {name.split()[0].removeprefix('paper/')}" for name, n in counts.items())


if __name__ == "__main__":
    main()
