"""Commands that do not support classes of requests yet reject a service with several, instead of ignoring limits."""

from __future__ import annotations

from melange.errors import InputError
from melange.service.schema import Service


def refuse_classes(service: Service | None, what: str) -> None:
    """Reject a service with classes where they are not supported yet, instead of ignoring their limits.

    Raises
    ------
    InputError
        The service has classes.
    """
    if service is not None and service.classes:
        raise InputError(
            f"classes: {what} does not support request classes yet",
            hint="melange plan, validate and deploy do; or plan each class as a separate service",
        )
