"""A plan without the types that it does not use: what goes with a balancer, and is small."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from melange.errors import InputError
from melange.plan.plan import Plan

# What Kubernetes keeps in one ConfigMap [bytes], less what its other keys may take.
_MOST_BYTES = 1_000_000


def plan_in_use(plan: Plan) -> Plan:
    """The same plan over the types that it uses: the same fleet, shares and fingerprint."""
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
        question=replace(plan.question, profile=smaller),
        instances=plan.instances[used],
        share=plan.share[used],
        load=plan.load[used],
        single_type={name: plan.single_type[name] for name in names if name in plan.single_type},
    )


def plan_text(plan: Plan) -> str:
    """The text of a ``plan.json`` of the types in use.

    Raises
    ------
    InputError
        Where it is too large for a ConfigMap.
    """
    text = plan_in_use(plan).dumps() + "\n"
    if len(text.encode()) > _MOST_BYTES:
        raise InputError(
            f"the plan has {len(text.encode()):,} bytes, and a ConfigMap holds {_MOST_BYTES:,}",
            hint="plan with coarser workload.buckets, or --option routing=gateway",
        )
    return text
