"""The core of the controller: a function from its state, an observation and the time to a target and steps.

Nothing here waits, reads or acts, so replaying a log of observations gives the same decisions. The target (the wanted
fleet) changes rarely, and every change has a stated reason. The steps follow from the difference between the target and
the observed fleet in each iteration, so nothing is lost if a controller dies between two iterations.
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
    """The fixed inputs of a controller.

    Parameters
    ----------
    planner
        Plans fleets for the service's question.
    settings
        Settings of its decisions.
    first
        The initial fleet by replica type name: the plan's.
    rule
        The scaling rule of a schedule; None: the settings' rule on the load of all types.
    reserved
        Reserved instances, which are paid anyway, by replica type name.
    """

    planner: FleetPlanner
    settings: OperateSettings
    first: Mapping[str, int]
    rule: ScalingRule | None = None
    reserved: Mapping[str, int] = field(default_factory=dict)

    @property
    def held(self) -> dict[str, int]:
        """Instances that are always kept, by replica type name: the floor and the reserved ones."""
        names = {*self.planner.floor, *self.reserved}
        return {name: max(self.planner.floor.get(name, 0), self.reserved.get(name, 0)) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decision:
    """The result of one iteration.

    Parameters
    ----------
    state
        The new state of the controller.
    steps
        The steps to take now.
    lines
        The reasons, one line each; none if nothing changed.
    is_changed
        Whether the target has changed.
    """

    state: ControllerState
    steps: tuple[Step, ...]
    lines: tuple[str, ...]
    is_changed: bool


def decide(brief: Brief, state: ControllerState, seen: Observation) -> Decision:
    """Decide on one observation.

    Parameters
    ----------
    brief
        The service and the settings.
    state
        The state after the previous iteration.
    seen
        The current fleet and traffic.
    """
    now_s, settings = seen.at_s, brief.settings
    lines: list[str] = [seen.note] if seen.note else []
    state = replace(
        state,
        decisions=state.decisions + 1,
        changes_s=_of_last_hour(state.changes_s, now_s),
        voluntary_s=_of_last_hour(state.voluntary_s, now_s),
    )
    is_first = state.target is None
    if state.target is None:
        state = replace(state, target=_first_target(brief, seen))
        lines.append(f"start: target {in_words(state.target or {})}")
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
    if (is_first or is_changed) and (short := brief.planner.short_of_floor(state.target or {})):
        lines.append(short)
    if wanted.no_room is not None and wanted.no_room != state.no_room:
        lines += [wanted.no_room] if wanted.no_room else []
        state = replace(state, no_room=wanted.no_room)
    out = {name for name in excluded if is_out(excluded, name, now_s)}
    steps = steps_towards(state.target or {}, seen, out, brief)
    lines += map(str, steps)
    return Decision(state=state, steps=steps, lines=tuple(lines), is_changed=is_changed)


def _first_target(brief: Brief, seen: Observation) -> dict[str, int]:
    """The plan's fleet, the floor, and all running instances: nothing is stopped before the traffic is known."""
    names = dict.fromkeys((*brief.first, *brief.held, *seen.fleet))
    first = {
        name: max(brief.first.get(name, 0), brief.held.get(name, 0), seen.of(name).ready)
        for name in names
        if name in brief.planner.types_by_name
    }
    return {name: count for name, count in brief.planner.at_total(first).items() if count}


def _revised(state: ControllerState, wanted: Wanted, now_s: float) -> tuple[ControllerState, bool]:
    """The state with the new target, and whether the target has changed."""
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
    """A fleet as text.

    >>> in_words({"L4": 2, "A100": 1, "H100": 0})
    '2 x L4, 1 x A100'
    """
    return ", ".join(f"{count} x {name}" for name, count in fleet.items() if count) or "nothing"
