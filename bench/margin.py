"""Calibration of the stated chance that plans hold, and the confidence with the lowest expected cost.

    python bench/margin.py run --seed 1 --first 1 --count 12     # random services of bench/services, some minutes
    python bench/margin.py table --seed 1 2                      # the results so far

Every service is certified with estimated step times and with `confidence` 0.8. The chance that each plan states is
compared with the share of random step times (drawn independently here, not evenly) with which the plan holds, on
requests that no search has used. Then the service is certified on step times that are 1.28 and 0.84 standard deviations
faster, as estimated, and 0.39 to 1.64 slower. This gives the cost of a fleet by step time, and from it the expected
cost of too large and too small fleets at each confidence. The requests that miss the SLO because instances are missing
are valued at a multiple of the rent of these instances. Rates above 20 requests/s are planned at 20 (seed 1 at 40).
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import NormalDist

import numpy as np

from melange.errors import MelangeError
from melange.plan.plan import Plan
from melange.plan.routing import replica_engines, types_of
from melange.replica.step_errors import common_part, factor_at
from melange.service.session import Session
from melange.validate.attainment import met
from melange.validate.certify.cautious import plan_at
from melange.validate.certify.certify import certified
from melange.validate.simulate import draw_for, simulate
from services.draw import service

OUT = Path("bench/out/margin")
MOST_RATE = 20.0
DRAWS, REQUESTS, SEED = 60, 15_000, 77_000
DEVIATIONS = (-1.2816, -0.8416, 0.0, 0.3853, 0.8416, 1.2816, 1.6449)
CONFIDENCES = (0.5, 0.65, 0.8, 0.9, 0.95)
WORTH = (1.0, 2.0, 4.0, 10.0)


def held_share(plan: Plan, seed: int) -> float:
    """Share of random step times with which a plan holds, on fresh requests."""
    assert plan.slo is not None
    assert plan.certificate is not None
    random = np.random.default_rng(seed)
    types = types_of(plan)
    engines = replica_engines(plan, types)
    cards = [plan.replica_types[r].offer.accelerator for r in types]
    requests = draw_for(plan, REQUESTS, seed=SEED + seed)
    held = 0
    for _ in range(DRAWS):
        common, own = random.standard_normal(), {card: random.standard_normal() for card in dict.fromkeys(cards)}
        slowdown = np.ones(len(plan.replica_types))
        for r, engine, card in zip(types, engines, cards, strict=True):
            w = common_part(engine)
            slowdown[r] = factor_at(engine, w * common + math.sqrt(1 - w * w) * own[card])
        run = simulate(plan, requests, slowdown=slowdown)
        held += bool(met(run.outcome, plan.slo)[run.counted].mean() >= plan.certificate.target)
    return held / DRAWS


def measure(seed: int, place: int) -> dict[str, object]:
    """The results of one service."""
    drawn = service(seed, place)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "service.yaml"
        path.write_text(drawn.text, encoding="utf-8")
        rate = Session(path).workload().total_rate
        settings = [f"workload.rate={min(rate, MOST_RATE):g}"]
        found: dict[str, object] = {"name": drawn.name}
        for key, more in (("estimated", []), ("at 0.8", ["plan.confidence=0.8"])):
            started = time.process_time()
            plan = Session(path, settings=[*settings, *more]).certified()
            shown = plan.certificate
            assert shown is not None
            found[key] = {
                "cost": plan.cost_per_h,
                "margin": shown.margin,
                "chance": shown.chance,
                "held": held_share(plan, place),
                "instances": int(plan.instances.sum()),
                "types": int((plan.instances > 0).sum()),
                "cpu_s": time.process_time() - started,
            }
        question = Session(path, settings=settings).question()
        search = partial(certified, requests=None)
        costs: list[float | None] = []
        for deviation in DEVIATIONS:
            try:
                costs.append(plan_at(question, deviation, search).cost_per_h)
            except MelangeError:
                costs.append(None)
        found["costs"] = costs
    return found


def run(seed: int, first: int, count: int) -> None:
    """Measure services and store the results."""
    OUT.mkdir(parents=True, exist_ok=True)
    for place in range(first, first + count):
        file = OUT / f"{seed}-{place:03}.json"
        if file.exists():
            continue
        try:
            found = measure(seed, place)
        except MelangeError as error:
            found = {"name": f"{seed}-{place:03}", "error": str(error)}
        file.write_text(json.dumps(found), encoding="utf-8")
        print(json.dumps(found), flush=True)


def table(seeds: list[int]) -> None:
    """Print the results."""
    every = [json.loads(file.read_text()) for seed in seeds for file in sorted(OUT.glob(f"{seed}-*.json"))]
    rows = [one for one in every if "estimated" in one]
    print(f"{len(rows)} services ({len(every) - len(rows)} without a plan)")
    for key in ("estimated", "at 0.8"):
        said, held = (np.array([one[key][name] for one in rows]) for name in ("chance", "held"))
        error = np.abs(said - held)
        print(
            f"{key}: stated chance {said.mean():.2f}, holds in {held.mean():.2f} of draws; error of a service's chance "
            f"{np.median(error):.3f} (median), {np.quantile(error, 0.9):.3f} (90 %); margin "
            f"{np.median([one[key]['margin'] for one in rows]):.1%} (median)"
        )
    more = [one["at 0.8"]["cost"] / one["estimated"]["cost"] - 1 for one in rows]
    print(f"cost at 0.8: {np.median(more):+.1%} (median), {np.quantile(more, 0.9):+.1%} (90 %)")
    curves = [one["costs"] for one in rows if None not in one["costs"]]
    z = NormalDist(0, 1)
    nodes = np.array([z.inv_cdf((i + 0.5) / 200) for i in range(200)])
    print(f"additional cost per hour until corrected, relative to known step times ({len(curves)} services)")
    print("confidence | too large | too small | " + " | ".join(f"worth {worth:g}" for worth in WORTH))
    for confidence in CONFIDENCES:
        over, under = [], []
        for costs in curves:
            needed = np.interp(nodes, DEVIATIONS, costs)
            bought = float(np.interp(z.inv_cdf(confidence), DEVIATIONS, costs))
            over.append((np.maximum(bought - needed, 0) / needed).mean())
            under.append((np.maximum(needed - bought, 0) / needed).mean())
        large, small = float(np.mean(over)), float(np.mean(under))
        totals = " | ".join(f"{large + (worth - 1) * small:.1%}" for worth in WORTH)
        print(f"{confidence:.2f} | {large:.1%} | {small:.1%} | {totals}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--seed", type=int, nargs="+", default=[1])
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--count", type=int, default=12)
    chosen = parser.parse_args()
    table(chosen.seed) if chosen.what == "table" else run(chosen.seed[0], chosen.first, chosen.count)
