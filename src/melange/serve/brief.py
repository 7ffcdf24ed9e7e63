"""The part of a result for an assistant to read: a plan.json has half a megabyte, most of it the profile."""

from __future__ import annotations

from typing import Any

from melange.files import Json

# Arrays by request size or time, and inputs of the plan.
_LEFT_OUT = frozenset(
    {
        "bucket_attainment",
        "bucket_requests",
        "bucket_times",
        "engine",
        "engines",
        "input_edges",
        "max_request_rate",
        "melange",
        "output_edges",
        "profile",
        "queue",
        "queue_s",
        "replica_types",
        "share",
    }
)
# Counts by replica type: only nonzero ones are shown.
_COUNTS = frozenset({"instances", "replicas", "load"})


def brief(result: Json) -> Json:
    """A result without the parts that only other commands need.

    >>> brief({"cost_per_h": 2.5, "share": [[1.0]], "instances": {"L4": 2, "H100": 0}})
    {'cost_per_h': 2.5, 'instances': {'L4': 2}}
    """
    return {key: _shown(key, value) for key, value in result.items() if key not in _LEFT_OUT}


def _shown(key: str, value: Any) -> Any:
    if key in _COUNTS and isinstance(value, dict):
        return {name: count for name, count in value.items() if count}
    if key == "single_type" and isinstance(value, dict):
        return {name: one for name, one in value.items() if one.get("cost_per_h") is not None}
    if key == "workload" and isinstance(value, dict):
        return {name: one for name, one in value.items() if not isinstance(one, list)}
    if isinstance(value, dict):
        return brief(value)
    if isinstance(value, list):
        return [brief(one) if isinstance(one, dict) else one for one in value]
    return value
