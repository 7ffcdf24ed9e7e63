"""A plan without unused types: small enough to be shipped with a balancer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from melange.catalog.grid import DEFAULT
from melange.errors import InputError
from melange.plan.bindings import (
    ACCELERATOR,
    ACCELERATOR_IN_REGION,
    INSTANCE_TYPE,
    OFFER,
    REGION,
    REPLICA_TYPE,
    Bindings,
)
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.profile.profile import Profile

# Largest plan that fits into one Kubernetes ConfigMap [bytes], with room for its other keys.
_MOST_BYTES = 1_000_000


def plan_in_use(plan: Plan) -> Plan:
    """The same plan with only the used types: the same fleet, shares and fingerprint."""
    used = np.flatnonzero(plan.instances > 0)
    profile = plan.question.profile
    rows = {name: getattr(profile, name)[used] for name in ("max_request_rate", "low", "high", "provenance", "reason")}
    names = [profile.replica_types[r].name for r in used]
    smaller = replace(
        profile,
        replica_types=tuple(profile.replica_types[r] for r in used),
        engines=tuple(profile.engines[r] for r in used) if profile.engines else (),
        **rows,
    )
    return replace(
        plan,
        question=Question(workload=plan.workload, profile=smaller, options=_options_of(plan.options, smaller)),
        instances=plan.instances[used],
        share=plan.share[used],
        load=plan.load[used],
        # The time of the solution has no effect on a deployment.
        solve_s=0.0,
        single_type={name: plan.single_type[name] for name in names if name in plan.single_type},
    )


def _options_of(options: Options, profile: Profile) -> Options:
    """The options without names that apply to none of the remaining types."""
    kinds = {
        "max_instances": (OFFER, INSTANCE_TYPE, REPLICA_TYPE),
        "max_accelerators": (ACCELERATOR, ACCELERATOR_IN_REGION, REGION),
        "min_replicas": (REPLICA_TYPE,),
        "spare_replicas": (REPLICA_TYPE,),
        "require": (REPLICA_TYPE, ACCELERATOR),
        "exclude": (REPLICA_TYPE, ACCELERATOR),
    }
    regions = {one.offer.region for one in profile.replica_types} | {DEFAULT}
    grids = {name: intensity for name, intensity in options.grid_g_per_kwh.items() if name in regions}
    changes: dict[str, Any] = {"grid_g_per_kwh": grids}
    for key, some in kinds.items():
        given = getattr(options, key)
        if isinstance(given, int):
            continue
        bound = Bindings(profile.replica_types, some)
        left = [name for name in given if len(bound.positions(name))]
        changes[key] = {name: given[name] for name in left} if isinstance(given, Mapping) else tuple(left)
    return replace(options, **changes)


def plan_text(plan: Plan) -> str:
    """The text of a ``plan.json`` with only the used types.

    Raises
    ------
    InputError
        The text is too large for a ConfigMap.
    """
    text = plan_in_use(plan).dumps() + "\n"
    if len(text.encode()) > _MOST_BYTES:
        raise InputError(
            f"the plan has {len(text.encode()):,} bytes, but a ConfigMap holds at most {_MOST_BYTES:,}",
            hint="plan with coarser workload.buckets, or --option routing=gateway",
        )
    return text
