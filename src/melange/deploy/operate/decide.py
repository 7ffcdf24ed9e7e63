"""The core of the controller: what it remembers, what it sees and the time give what is wanted and what is done.

Nothing here waits, reads or acts, so that a log of what was seen can be decided again to the same end. What is wanted
(the target) changes rarely, and for a reason that is said; what is done follows from the difference between the target
and what is there, at every look, so that nothing is lost when a controller dies between two of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from melange.deploy.operate.controller_state import ControllerState
from melange.deploy.operate.exclusions import excluded_after, is_out
from melange.deploy.operate.fleet_steps import Step, steps_towards
from melange.deploy.operate.fleet_wanted import Wanted, wanted_after
from melange.units import S_PER_H

if TYPE_CHECKING:
    from melange.deploy.operate.fleet_planner import FleetPlanner
    from melange.deploy.operate.observation import Observation
    from melange.deploy.operate.operate_settings import OperateSettings
    from melange.plan.schedule.rule import ScalingRule


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Brief:
    """What a controller is told once.

    Parameters
    ----------
    planner
        Plans fleets under the service's question.
    settings
        How it decides.
    first
        The fleet to begin with, by replica type name: the plan's.
    rule
        A schedule's; None: the settings' rule on the load of all types.
    reserved
        Instances that are paid anyway, by replica type name.
    """

    planner: FleetPlanner
    settings: OperateSettings
    first: Mapping[str, int]
    rule: ScalingRule | None = None
    reserved: Mapping[str, int] = field(default_factory=dict)

    @property
    def held(self) -> dict[str, int]:
        """What is never given back, by replica type name: the floor and what is reserved."""
        names = {*self.planner.floor, *self.reserved}
        return {name: max(self.planner.floor.get(name, 0), self.reserved.get(name, 0)) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decision:
    """What came out of one look.

    Parameters
    ----------
    state
        To be remembered.
    steps
        To be taken now.
    lines
        Why, a line each; none where nothing changed.
    is_changed
        Whether the target was revised.
    """

    state: ControllerState
    steps: tuple[Step, ...]
    lines: tuple[str, ...]
    is_changed: bool


def decide(brief: Brief, state: ControllerState, seen: Observation) -> Decision:
    """Decide on one look.

    Parameters
    ----------
    brief
        The service and the settings.
    state
        What was remembered from the look before.
    seen
        The fleet and the traffic now.
    """
    now_s, settings = seen.at_s, brief.settings
    lines: list[str] = [seen.note] if seen.note else []
    state = replace(
        state,
        decisions=state.decisions + 1,
        changes_s=_of_last_hour(state.changes_s, now_s),
        voluntary_s=_of_last_hour(state.voluntary_s, now_s),
    )
    if state.target is None:
        state = replace(state, target=_first_target(brief, seen))
        lines.append(f"begin: wanted {in_words(state.target or {})}")
    excluded, said = excluded_after(brief, state, seen)
    lines += said
    state = replace(state, excluded=excluded)
    is_new = seen.request_rate is not None and (
        not state.windows or now_s >= state.windows[-1].end_s + settings.window_s - settings.interval_s / 2
    )
    if is_new:
        assert seen.request_rate is not None
        state = replace(state, windows=state.with_window(now_s, brief.planner.seen(seen.request_rate)))
    wanted = wanted_after(brief, state, seen, is_new_window=is_new, is_new_failure=bool(said))
    lines += wanted.lines
    state, is_changed = _revised(state, wanted, now_s)
    out = {name for name in excluded if is_out(excluded, name, now_s)}
    steps = steps_towards(state.target or {}, seen, out, brief)
    lines += map(str, steps)
    return Decision(state=state, steps=steps, lines=tuple(lines), is_changed=is_changed)


def _first_target(brief: Brief, seen: Observation) -> dict[str, int]:
    """The plan's fleet, the floor, and whatever runs: nothing is given back before the traffic is known."""
    names = dict.fromkeys((*brief.first, *brief.held, *seen.fleet))
    first = {
        name: max(brief.first.get(name, 0), brief.held.get(name, 0), seen.of(name).ready)
        for name in names
        if name in brief.planner.types_by_name
    }
    lacking = brief.planner.least_total - sum(first.values())
    if lacking > 0:
        name = min(first or brief.planner.types_by_name, key=brief.planner.cost_per_h.__getitem__)
        first[name] = first.get(name, 0) + lacking
    return {name: count for name, count in first.items() if count}


def _revised(state: ControllerState, wanted: Wanted, now_s: float) -> tuple[ControllerState, bool]:
    """The state with what is wanted now."""
    if wanted.is_mix_checked:
        state = replace(state, mixed_at_s=now_s)
    before = {name: count for name, count in (state.target or {}).items() if count}
    after = {name: count for name, count in wanted.target.items() if count}
    if before == after:
        return state, False
    if wanted.is_voluntary:
        state = replace(state, voluntary_s=(*state.voluntary_s, now_s))
    return replace(state, target=after, changes_s=(*state.changes_s, now_s)), True


def _of_last_hour(times_s: tuple[float, ...], now_s: float) -> tuple[float, ...]:
    return tuple(at_s for at_s in times_s if now_s - S_PER_H < at_s <= now_s)


def in_words(fleet: Mapping[str, int]) -> str:
    """A fleet in words.

    >>> in_words({"L4": 2, "A100": 1, "H100": 0})
    '2 x L4, 1 x A100'
    """
    return ", ".join(f"{count} x {name}" for name, count in fleet.items() if count) or "nothing"
