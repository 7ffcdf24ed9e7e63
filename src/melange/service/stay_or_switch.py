"""Stay with the current fleet or switch: a decision by the service's ``switching``, for the plan that was found."""

from __future__ import annotations

from melange.plan.plan import Plan
from melange.plan.schedule.contracts import ScheduleOptions
from melange.plan.switching import SwitchDecision, decide_switch, in_force_at
from melange.service.session import Session
from melange.service.start_up import start_up_of


def stay_or_switch(
    session: Session, found: Plan, incumbent: Plan, *, quick: bool = False
) -> tuple[Plan, SwitchDecision | None]:
    """The plan to keep or to switch to, and why; the plan as found without a decision, if there is no ``switching``.

    Parameters
    ----------
    session
        The service.
    found
        The answer for the current traffic.
    incumbent
        The current plan.
    quick
        Whether the closed form is enough to check that the current fleet is still sufficient; otherwise it is
        simulated.
    """
    from melange.validate.evidence import why_not_simulated, with_simulation

    service = session.service
    if service is None or service.switching is None:
        return found, None
    kept, reason = in_force_at(session.question(), incumbent, is_simulated=not quick)
    if kept is not None and not quick and not why_not_simulated(kept.question, kept.instances > 0):
        kept = with_simulation(kept, observed=session.observed())
        if kept.holds is False:
            kept, reason = None, "the current fleet is not shown to meet the SLO at the current traffic"
    start_up_s = start_up_of(service)
    settings = service.switching.to_switching(ScheduleOptions().start_up_s if start_up_s is None else start_up_s)
    decision = decide_switch(found, kept, reason, incumbent, settings)
    is_other = kept is not None and not decision.is_switch and bool(found.changes_from(incumbent))
    return (kept if is_other and kept is not None else found), decision
