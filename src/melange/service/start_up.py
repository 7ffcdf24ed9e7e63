"""How long an instance of a service takes to start."""

from __future__ import annotations

from melange.service.schema import Service
from melange.service.stages import model_of


def start_up_of(service: Service) -> float | None:
    """From the order to the first request of an instance that loads the service's model [s]; None where nobody says.

    Variants with smaller weights are counted with those that are published.
    """
    if service.start_up is None:
        return None
    return service.start_up.to_start_up().seconds(model_of(service).weight_bytes())
