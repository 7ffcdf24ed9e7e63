"""A stable hash of a plan's fleet and routing, independent of how the plan was found."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import numpy.typing as npt

from melange.plan.question import Question
from melange.replica.parallelism import Layout
from melange.workload.workload import Array

# Shares and rates that differ by less count as equal: a solver leaves differences of 1e-12 between equal answers.
_DECIMALS = 9
# Hexadecimal digits: two of a million plans agree by chance once in 40 million.
_LENGTH = 16


def fingerprint(question: Question, instances: npt.NDArray[np.int64], share: Array, max_request_rate: Array) -> str:
    """Sixteen hexadecimal digits, the same for plans with the same content.

    The hash covers the fleet and what each type carries, the shares, the buckets with their sizes and rates, the SLO,
    the model and the settings that the shares depend on. It leaves out prices, bounds, warnings and the solve time:
    those may differ from run to run and from day to day.

    Parameters
    ----------
    question
        The question that the plan answers.
    instances
        Instances of each replica type (R,).
    share, max_request_rate
        Shares and rates of each replica type and bucket (R, I, O).
    """
    profile, workload, options = question.profile, question.workload, question.options
    used = [r for r, count in enumerate(instances) if count]
    fleet = [
        (item.name, *_split(item.layout), item.engine, item.variant, int(instances[r]))
        for r, item in ((r, profile.replica_types[r]) for r in used)
    ]
    told = {
        "model": profile.model,
        "slo": profile.slo.to_json() if profile.slo else None,
        "fleet": fleet,
        "share": _rounded(share[used]),
        "max_request_rate": _rounded(max_request_rate[used]),
        "buckets": workload.buckets.to_json(),
        "sizes": [workload.input_tokens.tolist(), workload.output_tokens.tolist()],
        "request_rate": workload.request_rate.tolist(),
        "headroom": options.headroom,
        "slices": options.slices,
        "confidence": options.confidence,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:_LENGTH]


def _split(layout: Layout) -> tuple[int, ...]:
    plain = (layout.tensor_parallel,)
    return plain if layout.is_plain else (*plain, layout.expert_parallel, layout.pipeline_parallel)


def _rounded(values: Array) -> list[object]:
    """Rounded values as lists, without negative zeros."""
    return list((np.round(values, _DECIMALS) + 0.0).tolist())
