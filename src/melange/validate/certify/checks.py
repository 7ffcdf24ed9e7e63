"""Which questions can be certified, and settings that a certified plan does not use."""

from __future__ import annotations

from melange.errors import Caution, InputError
from melange.plan.options import Options
from melange.plan.question import Question
from melange.plan.servable import scope_of
from melange.slo import Slo


def checked(question: Question, target: float | None) -> tuple[Slo, float]:
    """The SLO and the share of requests that must meet it; refuses questions that cannot be certified."""
    profile = question.profile
    if profile.slo is None:
        raise InputError(
            "certify: the profile has no SLO to certify", hint="add an slo to the service and profile again"
        )
    if question.options.budget_per_h is not None:
        raise InputError("certify: a plan under a budget cannot be certified", hint="leave out plan.budget_per_h")
    if not any(profile.engines):
        if not (profile.max_request_rate > 0).any():
            scope_of(question)  # raises an error with the reasons why no type can serve a request
        raise InputError(
            "certify: the step times of all replica types are unknown, so no plan can be simulated",
            hint="profile with a model (profile: {source: [measured.json, estimate]})",
        )
    wanted = target if target is not None else profile.slo.target
    if not 0 < wanted < 1:
        raise InputError(f"certify: the target must be between 0 and 1, got {wanted:g}")
    return profile.slo, wanted


def word_on_headroom(options: Options) -> tuple[Caution, ...]:
    """A caution that a custom headroom is not used."""
    if options.headroom == Options().headroom:
        return ()
    message = (
        f"plan.headroom: {options.headroom:g} applies to the closed form only: the simulation finds how much of each "
        "replica must stay free; to keep more, set a higher slo.attainment or plan.spare_replicas"
    )
    return (Caution("headroom", message),)
