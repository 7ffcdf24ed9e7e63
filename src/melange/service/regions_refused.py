"""Questions about one fleet reject a service with several regions, instead of ignoring the network time."""

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
