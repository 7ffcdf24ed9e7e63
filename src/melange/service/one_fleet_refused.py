"""Questions about one fleet reject a service with several regions or in two pools, instead of ignoring the setting."""

from __future__ import annotations

from melange.errors import InputError
from melange.service.schema import Service


def refuse_regions(service: Service | None) -> None:
    """Reject a service with users in several places.

    Raises
    ------
    InputError
        The service has ``regions``.
    """
    if service is not None and service.regions is not None:
        raise InputError(
            "regions: is for melange plan, which plans a fleet for each region",
            hint="for one fleet leave regions: out, or give melange the plan of a region",
        )


def refuse_two_pools(service: Service | None) -> None:
    """Reject a service that is planned in two pools.

    Raises
    ------
    InputError
        The service has ``plan.disaggregate``.
    """
    if service is not None and service.plan.disaggregate:
        raise InputError(
            "plan.disaggregate: is for melange plan, which plans two pools",
            hint="for one fleet --set plan.disaggregate=false, or give melange the plan of a pool",
        )
