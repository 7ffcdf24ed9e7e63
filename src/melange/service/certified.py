"""The certified plan of a service."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from melange.plan.plan import Plan
    from melange.plan.question import Question
    from melange.service.schema import Service
    from melange.workload.arrivals import Arrivals


def certified_plan(
    service: Service | None,
    question: Question,
    burstiness: float | None,
    observed: Arrivals | None,
    incumbent: Plan | None,
    tell: Callable[[str], None],
) -> Plan:
    """The certified plan, under the balancer's policy that the service's capacities assume."""
    from melange.replica.policy import POLICIES, PREFIX_AFFINITY
    from melange.validate.certify.certify import certify

    is_kept_together = service is not None and service.profile.prefix_routing == "affinity"
    return certify(
        question,
        policy=POLICIES[PREFIX_AFFINITY if is_kept_together else 0],
        burstiness=burstiness,
        observed=observed,
        incumbent=incumbent,
        progress=tell,
    )
