"""How long an instance of a service takes to start."""

from __future__ import annotations

from melange.service.schema import Service
from melange.service.stages import model_of


def start_up_of(service: Service) -> float | None:
    """Time from the order of an instance to its first request, including loading the model [s]; None if unknown.

    Variants with smaller weights are counted with the size of the published weights.
    """
    if service.start_up is None:
        return None
    return service.start_up.to_start_up().seconds(model_of(service).weight_bytes())
