"""What does not know classes of requests yet refuses a service with several, rather than pass over their limits."""

from __future__ import annotations

from melange.errors import InputError
from melange.service.schema import Service


def refuse_classes(service: Service | None, what: str) -> None:
    """Refuse a service with classes for what does not know them yet, rather than pass over their limits.

    Raises
    ------
    InputError
        It has classes.
    """
    if service is not None and service.classes:
        raise InputError(
            f"classes: {what} does not support request classes yet",
            hint="melange plan, validate and deploy do; or plan each class as a separate service",
        )
