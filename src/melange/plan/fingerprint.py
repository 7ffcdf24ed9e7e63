"""By what a plan is known again: what it says is to be run and sent where, and not how it was found."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

from melange.workload.workload import Array

if TYPE_CHECKING:
    from melange.plan.plan import Plan

# Shares and rates that differ by less are the same.
DECIMALS = 9
# Hexadecimal digits.
LENGTH = 16


def fingerprint(plan: Plan) -> str:
    """Sixteen hexadecimal digits, the same for plans that say the same.

    Of the fleet and what each of it carries, the shares, the buckets with their sizes and rates, the SLO, the model and
    the settings that the shares depend on. Not of prices, bounds, warnings and the time that solving took: those may
    differ from run to run and from day to day.
    """
    used = [r for r, count in enumerate(plan.instances) if count]
    fleet = [
        (item.name, item.tensor_parallel, item.engine, item.variant, int(plan.instances[r]))
        for r, item in ((r, plan.replica_types[r]) for r in used)
    ]
    workload = plan.workload
    told = {
        "model": plan.model,
        "slo": plan.slo.to_json() if plan.slo else None,
        "fleet": fleet,
        "share": _rounded(plan.share[used]),
        "max_request_rate": _rounded(plan.max_request_rate[used]),
        "buckets": workload.buckets.to_json(),
        "sizes": [workload.input_tokens.tolist(), workload.output_tokens.tolist()],
        "request_rate": workload.request_rate.tolist(),
        "headroom": plan.options.headroom,
        "slices": plan.options.slices,
        "confidence": plan.options.confidence,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:LENGTH]


def _rounded(values: Array) -> list[object]:
    """Without the sign of zero."""
    return list((np.round(values, DECIMALS) + 0.0).tolist())
