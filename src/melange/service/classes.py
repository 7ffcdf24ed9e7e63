"""Classes of requests of one service: their traffic, and the commands that do not support them yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from melange.errors import Caution, InputError, some_of
from melange.plan.schedule.contracts import Deferral
from melange.replica.releases import number_of, pinned
from melange.service.demand_of import demand_of
from melange.service.schema import Service
from melange.service.stages import workload_of
from melange.service.traffic_sections import DEFAULT_CLASS, LOGS, BucketsSection, WorkloadSection
from melange.workload.classed_demand import demand_of_classes, steady_demand
from melange.workload.clock import parse_duration
from melange.workload.request_classes import of_classes

if TYPE_CHECKING:
    from melange.workload.arrivals import Arrivals
    from melange.workload.demand import Demand
    from melange.workload.workload import Buckets, Workload

# The first release of vLLM whose current engine orders its queue by priority, as the simulator does (pull request 19057
# of vllm-project/vllm, June 2025). Older releases reject priorities, or preempt running requests for waiting ones.
_WITH_PRIORITY = "0.9.2"
# Seed for assigning requests of a log to classes at random, always in the same way.
_SEED = 0


def workload_with_classes(
    service: Service | None,
    whole: Workload,
    progress: Callable[[float], None] | None = None,
    max_context: Callable[[], int | None] = lambda: None,
) -> Workload:
    """The traffic of all classes; unchanged if there is no service, or if the service has no classes.

    Parameters
    ----------
    service
        The service with the classes.
    whole
        The traffic of its ``workload``: the default class and all classes defined as a share of it.
    progress, max_context
        As in :func:`~melange.service.stages.workload_of`.
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
        section = _on_buckets(one.workload, service, service.workload.buckets)
        own = workload_of(section, service.path, progress, max_context)
        _check_buckets(name, one.workload, own.buckets, whole.buckets)
        parts[name] = own
    return of_classes(parts)


def demand_with_classes(service: Service, whole: Demand, progress: Callable[[float], None] | None = None) -> Demand:
    """The traffic over time of all classes; unchanged if the service has no classes.

    A class whose own workload has no times arrives at a constant rate.

    Parameters
    ----------
    service
        The service with the classes.
    whole
        The traffic of its ``workload``: the default class and all classes defined as a share of it.
    progress
        As in :func:`~melange.service.demand_of.demand_of`.
    """
    if not service.classes:
        return whole
    _check_engine(service)
    _check_settings(service)
    rest = 1.0 - sum(one.share or 0.0 for one in service.classes.values())
    parts = {DEFAULT_CLASS: replace(whole, rate=whole.rate * rest)}
    for name, one in service.classes.items():
        if one.workload is None:
            parts[name] = replace(whole, rate=whole.rate * (one.share or 0.0))
            continue
        edges = BucketsSection(input=list(whole.buckets.input_edges), output=list(whole.buckets.output_edges))
        section = _on_buckets(one.workload, service, edges)
        if one.workload.source[0] == "rates" or one.workload.over is not None:
            parts[name] = demand_of(section, service.path, progress)
        else:
            parts[name] = steady_demand(workload_of(section, service.path, progress), whole)
        _check_buckets(name, one.workload, parts[name].buckets, whole.buckets)
    return demand_of_classes(parts)


def deferrals_of(service: Service) -> tuple[Deferral, ...]:
    """The classes that may wait."""
    return tuple(
        Deferral(name=name, deadline_s=parse_duration(one.deadline, name=f"classes.{name}.deadline"))
        for name, one in service.classes.items()
        if one.deadline is not None
    )


def equal_priorities(service: Service) -> tuple[Caution, ...]:
    """A caution if requests that may wait still enter the engine's queue before others or beside them."""
    last = max([0, *(one.priority for one in service.classes.values() if one.deadline is None)])
    names = [name for name, one in service.classes.items() if one.deadline is not None and one.priority <= last]
    if not names:
        return ()
    words = (
        f"requests of {some_of(names)} may wait, but in the engine's queue they do not stand behind all others: "
        f"set classes.{names[0]}.priority: {last + 1}"
    )
    return (Caution("priority", words),)


def with_limits_beside(service: Service) -> Service:
    """The service with tighter limits for requests that may wait, so that they can run beside requests that may not.

    Both share engine steps, so a step must not exceed the tightest time between tokens of the requests that may not
    wait. The capacity for requests that may wait is estimated under this limit.
    """
    others = [service.slo, *(one.slo for one in service.classes.values() if one.deadline is None)]
    tightest = [limit for one in others for limit in (one.tpot_ms, one.ntpot_ms) if limit is not None]
    if not tightest:
        return service
    classes = {
        name: one
        if one.deadline is None
        else one.model_copy(
            update={"slo": one.slo.model_copy(update={"tpot_ms": min([*tightest, one.slo.tpot_ms or np.inf])})}
        )
        for name, one in service.classes.items()
    }
    return service.model_copy(update={"classes": classes})


def _on_buckets(section: WorkloadSection, service: Service, edges: BucketsSection) -> WorkloadSection:
    """The traffic of a class, on the service's buckets and windows if its source supports them."""
    source, whole = section.source[0], service.workload
    given: dict[str, Any] = {} if source in ("file", "metrics", "rates") else {"buckets": edges}
    if source in LOGS and section.over is not None and section.window is None and whole.window is not None:
        given["window"] = whole.window
    found = section.model_copy(update=given)
    return found.model_construct(_fields_set=section.model_fields_set | set(given), **dict(found))


def _check_buckets(name: str, section: WorkloadSection, own: Buckets, whole: Buckets) -> None:
    if own != whole:
        raise InputError(
            f"classes.{name}.workload: a {section.source[0]} has its own buckets, which differ from those of workload",
            hint="set workload.buckets to the same edges, or give the class another source",
        )


def _check_engine(service: Service) -> None:
    """Check that the engine orders requests by priority, if the classes need it.

    Raises
    ------
    InputError
        The engine is not vLLM, or the release is too old.
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
    """Reject settings that do not support classes, instead of ignoring the classes' limits."""
    if service.plan.budget_per_h is not None:
        raise InputError(
            "plan.budget_per_h: priorities between classes do not work under a budget", hint="leave it out, or classes"
        )
    if service.profile.simulate:
        raise InputError(
            "profile.simulate: simulated rates are for one SLO", hint="leave it out: melange plan certifies"
        )


def observed_of_classes(service: Service | None, log: Arrivals) -> Arrivals | None:
    """The requests of a log with classes drawn by the classes' shares; None if a class has its own traffic."""
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
