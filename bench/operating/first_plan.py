"""The first plan of the operated service."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import melange
import week
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.workload.demand import Demand
from melange.workload.workload import Array

REGIONS = ("us-east-1", "us-west-2")


def first_plan(name: str, demand: Demand, rate: Array) -> Plan:
    """The plan for these rates, with the types that the best plans of some windows use, in two regions."""
    model, slo = week.SERVICES[name]
    offers = melange.load_catalog().select(providers=["aws"], markets=["on-demand"], regions=list(REGIONS)).offers
    workload = demand.workload()
    rates = demand.rates().reshape(-1, *demand.buckets.shape)
    found = melange.estimate(melange.find_model(model), offers, slo, workload)
    options = Options(drop_unservable=True)
    used: dict[str, None] = {}
    # The best types, and their replacements: the best types without these accelerators.
    for excluded in range(3):
        best: dict[str, None] = {}
        for one in rates[:: len(rates) // 8]:
            if not np.isfinite(one).all():
                continue
            question = Question(workload=replace(workload, request_rate=one), profile=found, options=options)
            plan = melange.solve(question)
            best |= {n: None for n, count in plan.instances_by_name.items() if count}
        used |= best
        accelerators = {one.offer.accelerator for one in found.replica_types if one.name in best}
        if excluded < 2:
            options = replace(options, exclude=tuple({*options.exclude, *accelerators}))
    shapes = {
        (one.offer.instance_type, one.tensor_parallel, one.variant) for one in found.replica_types if one.name in used
    }
    kept = [
        r
        for r, one in enumerate(found.replica_types)
        if (one.offer.instance_type, one.tensor_parallel, one.variant) in shapes
    ]
    profile = replace(
        found,
        replica_types=tuple(found.replica_types[r] for r in kept),
        engines=tuple(found.engines[r] for r in kept) if found.engines else (),
        **{key: getattr(found, key)[kept] for key in ("max_request_rate", "low", "high", "provenance", "reason")},
    )
    return melange.solve(
        Question(workload=replace(workload, request_rate=rate), profile=profile, options=Options(drop_unservable=True))
    )
