"""Several independent balancers in front of the same replicas, compared with one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import uvloop

from balancing import processes
from balancing.client import ask_all, request_of
from balancing.processes import running, seen
from melange.plan.plan import Plan


def several(plan: Plan, path: Path, count: int, options: tuple[str, ...]) -> None:
    """Print the shares of types and the balance of replicas, for one balancer and for four with random requests."""
    names = [name for name, used in plan.replicas.items() for _ in range(used)]
    kept = [r for r, one in enumerate(plan.replica_types) if plan.replicas[one.name]]
    planned_share = (plan.share * plan.workload.request_rate).sum(axis=(1, 2)) / plan.workload.total_rate
    random = np.random.default_rng(2)
    rates = plan.workload.request_rate.ravel()
    cells = random.choice(len(rates), count, p=rates / rates.sum())
    inputs, outputs = plan.workload.input_tokens.ravel(), plan.workload.output_tokens.ravel()
    requests = [request_of("abc " * int(inputs[cell]), tokens=int(outputs[cell])) for cell in cells]
    print(f"{count:,} requests over {len(names)} replicas through independent balancers")
    for balancers in (1, 4):
        replicas = [processes.upstream("--first-ms", "3") for _ in names]
        given = (*options, "--balancers", str(balancers))
        pairs = list(zip(names, replicas, strict=True))
        proxies = [processes.melange(path, pairs, *given) for _ in range(balancers)]
        with running(*proxies, *replicas):
            parts = [requests[k::balancers] for k in range(balancers)]
            served = uvloop.run(asked_of_all([one.port for one in proxies], parts))
            counts = np.array([seen(one) for one in replicas])
        of_type = np.array([[name == plan.replica_types[r].name for name in names] for r in kept])
        observed = of_type @ counts / counts.sum()
        worst = float(np.abs(observed - planned_share[kept]).max())
        spread = max(float(counts[mine].max() / counts[mine].mean()) for mine in of_type)
        print(
            f"{balancers} balancers: {served:,} served; largest difference of a type's share {worst * 100:.2f} points"
        )
        print(f"    fullest replica {spread:.2f} times the mean of its type")
    print()


async def asked_of_all(ports: list[int], parts: list[list[bytes]]) -> int:
    """Send each part of the requests to its port, all parts at the same time; the number of served requests."""
    tallies = await asyncio.gather(*(ask_all(port, part, 8) for port, part in zip(ports, parts, strict=True)))
    return sum(one.served for one in tallies)
