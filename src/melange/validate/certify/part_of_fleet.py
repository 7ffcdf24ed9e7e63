"""A part of a large fleet under the same part of its traffic: enough to compare plans, in a fraction of the time.

A request sees its own replica, and a balancer that chooses among many; beyond some tens of replicas more choice changes
little. A part of the fleet does slightly worse than the whole, so a plan that holds in part holds. Proofs simulate the
whole fleet.
"""

from __future__ import annotations

from collections.abc import Mapping

# Least replicas of each type, and least requests of a run, that are left. With fewer replicas, plans seem to miss that
# hold; with more, less time is saved. Chosen by judgment.
_LEAST_REPLICAS, _LEAST_REQUESTS = 48, 20_000
# Largest error of a type's part of the fleet, because replicas are whole. Chosen by judgment.
_MOST_OFF = 0.004


def part_of(replicas: Mapping[str, int], requests: int) -> dict[str, int] | None:
    """The replicas of a part of a fleet, by replica type name; None if the fleet is simulated as a whole.

    Parameters
    ----------
    replicas
        Replicas of the whole fleet by replica type name.
    requests
        Requests of a run of the whole fleet.
    """
    held = {name: n for name, n in replicas.items() if n}
    most = min(min(held.values(), default=0) // _LEAST_REPLICAS, requests // _LEAST_REQUESTS)
    for times in range(most, 1, -1):
        fewer = {name: round(n / times) for name, n in held.items()}
        scale = sum(fewer.values()) / sum(held.values())
        if all(abs(fewer[name] / (n * scale) - 1.0) <= _MOST_OFF for name, n in held.items()):
            return fewer
    return None
