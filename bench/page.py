"""Time of an answer of the page of ``melange ui`` to random changes of the example services.

Each service is answered once before; then controls are changed one after the other, and some are reset, as users do.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import numpy as np

from melange.ui.choices import Choices
from melange.ui.in_workers import answer
from melange.ui.opened import Asked, opened

EXAMPLES = Path(__file__).parents[1] / "examples"
# A delay that users do not notice [s].
GOAL_S = 0.3


def drawn(draw: random.Random, before: dict[str, str]) -> dict[str, str]:
    """The choices after one more random change, mostly of the rate or a limit, which have sliders."""
    values = {
        "rate": f"{10 ** draw.uniform(0, 2):.3g}",
        "growth": f"{draw.randint(-50, 300)}",
        "ttft_ms": f"{10 ** draw.uniform(2.7, 4):.3g}",
        "attainment": f"{draw.uniform(90, 99.9):.4g}",
        "headroom": f"{draw.randint(0, 40)}",
        "spare_replicas": f"{draw.randint(0, 3)}",
        "gpus": draw.choice(["L4,L40S,H100-80GB", "L4,A10G,L40S,A100-80GB", "all"]),
        "market": draw.choice(["all", "on-demand"]),
        "providers": draw.choice(["aws,gcp", "aws", "all"]),
        "max": draw.choice(["L4:10", "L40S:3,H100-80GB:2"]),
    }
    key = draw.choices(list(values), [6, 3, 4, 1, 1, 2, 1, 1, 1, 1])[0]
    after = {name: value for name, value in before.items() if name != key or draw.random() < 0.5}
    return after | {key: values[key]}


def main() -> None:
    """Print the times of the answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100)
    given = parser.parse_args()
    draw = random.Random(given.seed)
    services = [opened(EXAMPLES / f"{name}.yaml") for name in ("chat", "code", "mixed")]
    states: list[dict[str, str]] = [{} for _ in services]
    for one in services:
        answer(Asked(opened=one, choices=Choices()), None, None)
    walls, cpus, plans = [], [], 0
    for _ in range(given.count):
        at = draw.randrange(len(services))
        states[at] = drawn(draw, states[at])
        asked = Asked(opened=services[at], choices=Choices.of(states[at].items()))
        began, spent = time.perf_counter(), time.process_time()
        found = answer(asked, None, None)
        walls.append(time.perf_counter() - began)
        cpus.append(time.process_time() - spent)
        plans += found["summary"]["cost_per_h"] is not None
    for name, times in (("CPU", cpus), ("wall", walls)):
        median, late = np.quantile(times, (0.5, 0.95))
        within = np.mean(np.array(times) <= GOAL_S)
        print(
            f"{name}: median {median:.3f} s, p95 {late:.3f} s, max {max(times):.2f} s, {within:.0%} within {GOAL_S} s"
        )
    print(f"{given.count} changes, {plans} with a plan")


if __name__ == "__main__":
    main()
