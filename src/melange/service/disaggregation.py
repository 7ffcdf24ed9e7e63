"""Two pools instead of one fleet, if a service asks for them."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

from melange.errors import Caution, InfeasibleError, InputError
from melange.plan.disaggregated import DisaggregatedPlan
from melange.plan.plan import Plan
from melange.service.classes_refused import refuse_classes
from melange.service.events import task

if TYPE_CHECKING:
    from collections.abc import Callable

    from melange.service.session import Session

AUTO = "auto"


def is_asked(session: Session) -> bool:
    """Whether the service asks for plans in two pools."""
    return session.service is not None and bool(session.service.plan.disaggregate)


def in_pools(
    session: Session, aggregated: Callable[[Session], Plan], *, quick: bool = False, burstiness: float | None = None
) -> Plan | DisaggregatedPlan:
    """The service's plan in two pools; if the service leaves the choice, the cheaper of two pools and one fleet.

    Parameters
    ----------
    session
        A service whose ``plan.disaggregate`` is true or auto.
    aggregated
        Plans one fleet whose replicas do both prefill and decode, for a session without ``plan.disaggregate``.
    quick
        Use the closed form only.
    burstiness
        Coefficient of variation of the times between simulated arrivals; None: 1.

    Raises
    ------
    InputError
        Capacities that are not estimates, or limits or options that cannot be divided between two pools.
    InfeasibleError
        Neither is possible, or the service requires pools and they are not possible.
    """
    assert session.service is not None
    is_free = session.service.plan.disaggregate == AUTO
    try:
        whole: Plan | None = aggregated(_for_one_fleet(session))
        why = None
    except InfeasibleError as error:
        whole, why = None, error
    try:
        found = _pools(session, quick=quick, burstiness=burstiness)
    except InfeasibleError as error:
        if not is_free:
            raise
        if whole is None:
            raise why or error from error
        return _with_word(whole, f"no pair of pools serves it: {error}")
    if whole is None:
        return found
    if is_free and (found.holds is False or found.cost_per_h >= whole.cost_per_h):
        missed = "; they miss the SLO" if found.holds is False else ""
        return _with_word(whole, f"separate pools for prompts and tokens cost {found.cost_per_h:.2f} USD/h{missed}")
    return replace(found, aggregated_per_h=whole.cost_per_h)


def _for_one_fleet(session: Session) -> Session:
    """The session without ``plan.disaggregate``, with the same traffic."""
    service = session.service
    assert service is not None
    session.workload()  # kept for the plan in two pools
    whole = copy.copy(session)
    whole.service = service.model_copy(update={"plan": service.plan.model_copy(update={"disaggregate": False})})
    return whole


def _pools(session: Session, *, quick: bool, burstiness: float | None) -> DisaggregatedPlan:
    from melange.service.stages import estimate_inputs
    from melange.validate.disaggregation.disaggregate import Search, disaggregate

    service = session.service
    assert service is not None
    refuse_classes(service, "plan.disaggregate")
    for key, is_given in (
        ("source", service.profile.source != ["estimate"]),
        ("anchors", bool(service.profile.anchors)),
        ("observed", bool(service.profile.observed)),
        ("simulate", service.profile.simulate),
    ):
        if is_given:
            raise InputError(
                f"plan.disaggregate: pools are estimated, but profile.{key} is for combined replicas",
                hint=f"remove profile.{key}, or plan: {{disaggregate: false}}",
            )
    inputs, cautions = estimate_inputs(service, session.workload(), session.catalog, session.slo)
    with task(session.listener, "planning two pools") as tell:
        search = Search(
            is_quick=quick or not session.slo.is_on_requests,
            burstiness=1.0 if burstiness is None else burstiness,
            observed=None if quick else session.observed(),
            say=tell,
        )
        found = disaggregate(inputs, session.options, search)
    prefill, decode = (replace(one, service_file=session.name) for one in (found.prefill, found.decode))
    return replace(found, prefill=prefill, decode=decode, cautions=(*found.cautions, *cautions))


def _with_word(plan: Plan, words: str) -> Plan:
    return replace(plan, cautions=(*plan.cautions, Caution("disaggregate", words)))
