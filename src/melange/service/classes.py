"""Classes of requests of one service: their traffic, and what cannot take them yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from melange.errors import InputError
from melange.replica.releases import number_of, pinned
from melange.service.schema import Service
from melange.service.stages import workload_of
from melange.service.traffic_sections import DEFAULT_CLASS
from melange.workload.request_classes import of_classes

if TYPE_CHECKING:
    from melange.workload.arrivals import Arrivals
    from melange.workload.workload import Workload

# The first release of vLLM whose current engine orders its queue by priority, as the simulator does (pull request 19057
# of vllm-project/vllm, June 2025). Older ones refuse priorities, or preempt running requests for waiting ones.
_WITH_PRIORITY = "0.9.2"
# Requests of a log become of a class at random, always the same ones.
_SEED = 0


def workload_with_classes(
    service: Service | None,
    whole: Workload,
    progress: Callable[[float], None] | None = None,
    max_context: Callable[[], int | None] = lambda: None,
) -> Workload:
    """The traffic of all classes; as it is where there is no service, or it has none.

    Parameters
    ----------
    service
        With the classes.
    whole
        What its ``workload`` describes: the default class and all that are a share of it.
    progress, max_context
        As of :func:`~melange.service.stages.workload_of`.
    """
    if service is None or not service.classes:
        return whole
    _check_engine(service)
    _check_settings(service)
    parts = {DEFAULT_CLASS: _times(whole, 1.0 - sum(one.share or 0.0 for one in service.classes.values()))}
    for name, one in service.classes.items():
        if one.workload is None:
            parts[name] = _times(whole, one.share or 0.0)
            continue
        source, _ = one.workload.source
        section = one.workload.model_copy(update={"buckets": service.workload.buckets})
        fields = one.workload.model_fields_set | (set() if source in ("file", "metrics") else {"buckets"})
        section = section.model_construct(_fields_set=fields, **dict(section))
        own = workload_of(section, service.path, progress, max_context)
        if own.buckets != whole.buckets:
            raise InputError(
                f"classes.{name}.workload: a {source} has its own buckets, which differ from those of workload",
                hint="set workload.buckets to the same edges, or give the class another source",
            )
        parts[name] = own
    return of_classes(parts)


def _check_engine(service: Service) -> None:
    """See that the engine orders requests by priority, where the classes ask for it.

    Raises
    ------
    InputError
        Another engine than vLLM, or an older release.
    """
    ordered = next((name for name, one in service.classes.items() if one.priority), None)
    if ordered is None:
        return
    name, release = pinned(service.engine.requirement)
    is_able = name == "vllm" and (not release or number_of(release) >= number_of(_WITH_PRIORITY))
    if not is_able:
        raise InputError(
            f"classes.{ordered}.priority: {service.engine.requirement} serves requests first come, first served",
            hint=f"engine: vllm ({_WITH_PRIORITY} or later) supports priorities; or remove priority",
        )


def _check_settings(service: Service) -> None:
    """Refuse settings that do not know classes, rather than pass over their limits."""
    if service.plan.budget_per_h is not None:
        raise InputError(
            "plan.budget_per_h: priorities between classes do not work under a budget", hint="leave it out, or classes"
        )
    if service.profile.simulate:
        raise InputError(
            "profile.simulate: simulated rates are for one SLO", hint="leave it out: melange plan certifies"
        )


def observed_of_classes(service: Service | None, log: Arrivals) -> Arrivals | None:
    """The requests of a log with their classes, drawn by the classes' shares; None where one has traffic of its own."""
    if service is None or not service.classes:
        return log
    if any(one.workload is not None for one in service.classes.values()):
        return None
    shares = [one.share or 0.0 for one in service.classes.values()]
    chance = np.array([1.0 - sum(shares), *shares])
    drawn = np.random.default_rng(_SEED).choice(len(chance), size=len(log), p=chance)
    return replace(log, class_of=drawn.astype(np.int32))


def _times(workload: Workload, share: float) -> Workload:
    """A share of a workload's requests."""
    return replace(workload, request_rate=workload.request_rate * share)
