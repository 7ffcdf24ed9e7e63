"""Random services with two request classes, compared with separate fleets and with a service without classes.

    python bench/classes.py --seed 1 --services 20

Each service is planned and certified with its classes on shared replicas, and with each class as a separate service. It
is also planned with a second class that has the same SLO as the first one, which should cost as much as the service
without classes. Certified plans are simulated again on fresh requests, by class. Results are ratios of costs: below 1,
the classes cost less on shared replicas than separately.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from melange.errors import InfeasibleError
from melange.plan.plan import Plan
from melange.service.session import Session
from melange.validate.attainment import attainment, met
from melange.validate.simulate import draw_for, simulate

MODELS = (
    "mistralai/Mistral-7B-Instruct-v0.3",
    "meta-llama/Llama-3.1-8B-Instruct",
    "mistralai/Mistral-Nemo-Instruct-2407",
)
DATASETS = ("azure-conversation", "azure-code", "arena", "sharegpt")
GPUS = ("L4", "A10G", "L40S", "A100-80GB", "H100")
# Requests and seeds of the runs that test certified plans; no search uses these seeds.
FRESH_REQUESTS, FRESH_SEEDS = 30_000, range(70_001, 70_004)


@dataclass(frozen=True, slots=True)
class Result:
    """One service: costs [USD/h], and the attainment above target of each class on fresh requests."""

    shared: float
    apart: float
    equal: float
    alone: float
    is_certified: bool
    fresh: tuple[float, ...]


def drawn(rng: np.random.Generator) -> dict[str, Any]:
    """A service with two classes."""
    slo = {"ttft_ms": int(rng.choice([500, 1000, 2000, 4000])), "tpot_ms": int(rng.choice([30, 45, 60, 90, 120]))}
    batch: dict[str, Any] = {"slo": {"latency_ms": int(rng.choice([60, 120, 300, 600])) * 1000}, "priority": 1}
    rate = round(float(np.exp(rng.uniform(np.log(2), np.log(12)))), 2)
    if rng.random() < 0.5:
        batch["share"] = round(float(rng.uniform(0.1, 0.6)), 2)
    else:
        batch["workload"] = {"dataset": str(rng.choice(DATASETS)), "rate": round(rate * float(rng.uniform(0.1, 1)), 2)}
    return {
        "model": str(rng.choice(MODELS)),
        "slo": slo,
        "workload": {"dataset": str(rng.choice(DATASETS)), "rate": rate},
        "classes": {"batch": batch},
        "offers": {"gpus": rng.choice(GPUS, int(rng.integers(2, 5)), replace=False).tolist(), "providers": "aws"},
    }


def planned(service: dict[str, Any], folder: Path) -> Plan:
    """The certified plan of a service."""
    path = folder / "service.yaml"
    path.write_text(yaml.safe_dump(service))
    return Session(path).answer(burstiness=1.0)


def apart(service: dict[str, Any], folder: Path) -> float:
    """The total cost of separate fleets for the two classes [USD/h]."""
    batch, workload = service["classes"]["batch"], service["workload"]
    share = batch.get("share", 0.0)
    rest = {name: value for name, value in service.items() if name != "classes"}
    first = planned(rest | {"workload": workload | {"rate": workload["rate"] * (1 - share)}}, folder)
    own = batch.get("workload") or workload | {"rate": workload["rate"] * share}
    return first.cost_per_h + planned(rest | {"slo": batch["slo"], "workload": own}, folder).cost_per_h


def alike(service: dict[str, Any], folder: Path) -> tuple[float, float]:
    """The cost with a second class with the same SLO as the first one, and the cost without classes [USD/h]."""
    rest = {name: value for name, value in service.items() if name != "classes"}
    equal = planned(rest | {"classes": {"batch": {"share": 0.4, "slo": service["slo"]}}}, folder)
    return equal.cost_per_h, planned(rest, folder).cost_per_h


def fresh(plan: Plan) -> tuple[float, ...]:
    """Attainment above target of each class, in simulations of fresh requests."""
    samples: list[list[np.ndarray]] = [[], []]
    assert plan.slo is not None
    for seed in FRESH_SEEDS:
        run = simulate(plan, draw_for(plan, FRESH_REQUESTS, seed=seed), seed=seed)
        class_of = run.outcome.class_of
        assert class_of is not None
        is_met = met(run.outcome, plan.slo)[run.counted]
        for k, one in enumerate(samples):
            one.append(is_met[class_of[run.counted] == k])
    targets = [one.slo.target for one in plan.slo.classes]
    return tuple(attainment(one).value - target for one, target in zip(samples, targets, strict=True))


def result(service: dict[str, Any], folder: Path) -> Result:
    """All results of a service."""
    shared = planned(service, folder)
    classes = shared.certificate.classes if shared.certificate else ()
    equal, alone = alike(service, folder)
    return Result(
        shared=shared.cost_per_h,
        apart=apart(service, folder),
        equal=equal,
        alone=alone,
        is_certified=len(classes) == 2 and all(one.holds for one in classes),
        fresh=fresh(shared),
    )


def main() -> None:
    """Print a line per service, and a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--services", type=int, default=10)
    parser.add_argument("--skip", type=int, default=0, help="Number of services that are drawn but not planned.")
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    results = []
    with tempfile.TemporaryDirectory() as name:
        for place in range(given.skip + given.services):
            service = drawn(rng)
            if place < given.skip:
                continue
            began = time.process_time()
            try:
                one = result(service, Path(name))
            except InfeasibleError as error:
                print(f"{place:3d} infeasible: {str(error)[:90]}", flush=True)
                continue
            results.append(one)
            told = " ".join(f"{100 * above:+.2f}" for above in one.fresh)
            print(
                f"{place:3d} {one.shared:8.2f} USD/h shared, {one.apart:8.2f} separate: {one.shared / one.apart:.3f}; "
                f"equal classes {one.equal / one.alone:.3f}; certified {one.is_certified}; fresh {told} points; "
                f"{time.process_time() - began:.0f} s",
                flush=True,
            )
    ratio = np.array([one.shared / one.apart for one in results])
    same = np.array([one.equal / one.alone for one in results])
    held = sum(all(above >= 0 for above in one.fresh) for one in results)
    certified = sum(one.is_certified for one in results)
    print(f"{len(results)} services, seed {given.seed}")
    print(f"shared / separate: median {np.median(ratio):.3f}, {ratio.min():.3f} to {ratio.max():.3f}")
    print(f"equal classes / no classes: median {np.median(same):.3f}, {same.min():.3f} to {same.max():.3f}")
    print(f"all classes certified: {certified}; all classes meet their targets on fresh requests: {held}")


if __name__ == "__main__":
    main()
