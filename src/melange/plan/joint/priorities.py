"""Pools that are too small for all: services of a higher priority go first, then as much of the others as fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from melange.errors import InfeasibleError
from melange.plan.joint.member import Member
from melange.plan.joint.shared_pools import Pools
from melange.plan.joint.shortage import ShortPoolsError
from melange.plan.joint.solve_jointly import JointFleets, JointSettings, solve_jointly
from melange.plan.milp.program import Say
from melange.plan.question import Question

# Precision of the served share of a service of lower priority.
_NEAR = 1 / 32
# Gap of a search that only asks whether something fits.
_ROUGH = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fitted:
    """The services and shares of traffic that fit.

    Parameters
    ----------
    served_fraction
        Share of its traffic that each service is planned for, 0-1, by name; 0: left out.
    members
        The services that are not left out.
    fleets
        The fleets of these services.
    """

    served_fraction: Mapping[str, float]
    members: tuple[Member, ...]
    fleets: JointFleets


def fit(
    questions: Mapping[str, Question],
    priorities: Mapping[str, int],
    pools: Pools,
    settings: JointSettings,
    say: Say | None = None,
) -> Fitted:
    """Fit all services; if the pools are too small and priorities differ, fit as much as possible.

    Services of equal priority are cut by the same share.

    Raises
    ------
    InfeasibleError
        A service has no fleet of its own, or the pools are too small for the services of the highest priority.
    """
    everyone = dict.fromkeys(questions, 1.0)
    try:
        return _planned(questions, everyone, pools, settings, say)
    except ShortPoolsError:
        levels = sorted({priorities[name] for name in questions}, reverse=True)
        if len(levels) == 1:
            raise
    rough = JointSettings(gap=_ROUGH, time_limit_s=settings.time_limit_s / 4)
    part: dict[str, float] = {}
    for level in levels:
        names = [name for name in questions if priorities[name] == level]
        part |= dict.fromkeys(names, 1.0)
        if _fits(questions, part, pools, rough):
            continue
        if level == levels[0]:
            _planned(questions, part, pools, settings, say)  # raises the error with the reasons
        low, high = 0.0, 1.0
        while high - low > _NEAR:
            middle = (low + high) / 2
            fits = _fits(questions, part | dict.fromkeys(names, middle), pools, rough)
            low, high = (middle, high) if fits else (low, middle)
        part |= dict.fromkeys(names, low)
    return _planned(questions, part, pools, settings, say)


def _fits(questions: Mapping[str, Question], part: Mapping[str, float], pools: Pools, rough: JointSettings) -> bool:
    try:
        _planned(questions, part, pools, rough, None)
    except InfeasibleError:
        return False
    return True


def _planned(
    questions: Mapping[str, Question],
    part: Mapping[str, float],
    pools: Pools,
    settings: JointSettings,
    say: Say | None,
) -> Fitted:
    members = members_of({name: one for name, one in questions.items() if part.get(name, 0.0) > 0}, part, pools)
    fleets = solve_jointly(members, pools, settings, say=say)
    whole = {name: part.get(name, 0.0) for name in questions}
    return Fitted(served_fraction=whole, members=tuple(members), fleets=fleets)


def members_of(questions: Mapping[str, Question], part: Mapping[str, float], pools: Pools) -> Sequence[Member]:
    """The services in numbers, each with a share of its traffic.

    Raises
    ------
    InfeasibleError
        A service has no fleet of its own; the message names it.
    """
    found = []
    for name, question in questions.items():
        share = part.get(name, 1.0)
        asked = question if share == 1.0 else question.at_rate(share * question.workload.total_rate)
        try:
            found.append(Member.of(name, asked, pools))
        except InfeasibleError as error:
            raise InfeasibleError(f"{name}: {error}", reasons=error.reasons, hint=error.hint) from error
    return found
