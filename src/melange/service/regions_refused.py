"""Questions about one fleet refuse a service with several regions, rather than pass over the way."""

from __future__ import annotations

from melange.errors import InputError
from melange.service.schema import Service


def refuse_regions(service: Service | None) -> None:
    """Refuse a service whose users are in several places.

    Raises
    ------
    InputError
        It says where its users are.
    """
    if service is not None and service.regions is not None:
        raise InputError(
            "regions: is for melange plan, which plans a fleet for each region",
            hint="for one fleet leave regions: out, or give melange the plan of a region",
        )
