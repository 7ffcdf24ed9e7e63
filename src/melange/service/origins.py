"""Traffic by origin from a log: the rows that belong to each origin."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from melange.errors import InputError
from melange.service.regions_section import OriginSection
from melange.service.schema import Service
from melange.service.stages import model_of, workload_of
from melange.service.traffic_sections import LOGS
from melange.units import percent
from melange.workload.workload import Array, Workload


def rates_of_rows(service: Service, origins: Mapping[str, OriginSection]) -> Array:
    """Share of all requests by origin and size (K, I, O), counted in the log; the shares add up to 1.

    Raises
    ------
    InputError
        The traffic is not a log, or origins omit rows or share some.
    """
    kind, _ = service.workload.source
    if kind not in LOGS:
        raise InputError(
            f"regions.origins: where selects rows of a log, but the traffic is a {kind}",
            hint="give each origin a share",
        )
    whole = _counted(service, {})
    parts = [_counted(service, dict(one.where or {})) for one in origins.values()]
    found = sum(part.requests or 0 for part in parts)
    if whole.requests and found != whole.requests:
        raise InputError(
            f"regions.origins: their rows are {found:,} requests, but the log has {whole.requests:,} "
            f"({percent(found / whole.requests, 2)})",
            hint="each row must be of one origin: add an origin for the rest, or leave it out with workload.where",
        )
    # Count requests rather than rates: a rate would depend on the time between an origin's first and last request.
    counts = [part.request_rate / part.total_rate * (part.requests or 0) for part in parts]
    return np.stack(counts) / found


def _counted(service: Service, where: Mapping[str, object]) -> Workload:
    """The mean traffic of the rows that the service and an origin select."""
    section = service.workload
    if both := sorted(set(where) & set(section.where or {})):
        raise InputError(f"regions.origins: {both[0]!r} is already selected by workload.where", hint="select it once")
    chosen = {"where": {**(section.where or {}), **where} or None, "rate": None, "window": None}
    return workload_of(section.model_copy(update=chosen), service.path, None, lambda: model_of(service).max_context)
