"""The target fleet: scaled by the rule, with another mix if that saves money, and without types that failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from melange.deploy.operate.controller_state import MOST_WINDOWS
from melange.deploy.operate.exclusions import is_out
from melange.deploy.operate.expected_traffic import expected_after
from melange.deploy.operate.fleet_planner import FULL
from melange.units import S_PER_H, count_of
from melange.workload.workload import Array

if TYPE_CHECKING:
    from melange.deploy.operate.controller_state import ControllerState
    from melange.deploy.operate.decide import Brief
    from melange.deploy.operate.observation import Observation

# Share of an hour's changes that voluntary ones (scale-downs and new mixes) may use.
_VOLUNTARY = 0.5
# If a fleet would have been enough for all windows in the state, it must save only this part of the least saving, so
# that steady traffic does not pay for unused instances. With 1, 12 % would stay unused; with 0, there are a fifth more
# changes.
_LASTING = 1 / 3
LOST, UP, DOWN, MIX = "replace", "scale up", "scale down", "change the mix"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The wanted target.

    Parameters
    ----------
    target
        Instances by replica type name.
    lines
        Reasons for a change of the target, if there is one.
    is_mix_checked
        Whether a cheaper fleet was searched for.
    is_voluntary
        Whether the change only saves money: the fleet is reduced, or its mix changes.
    no_room
        Instances that are wanted but not available, in words; empty: none; None: not known without a new window.
    """

    target: Mapping[str, int]
    lines: tuple[str, ...] = ()
    is_mix_checked: bool = False
    is_voluntary: bool = False
    no_room: str | None = None


def wanted_after(
    brief: Brief, state: ControllerState, seen: Observation, *, is_new_window: bool, is_new_failure: bool
) -> Wanted:
    """The target after an observation.

    Parameters
    ----------
    is_new_window
        Whether no decision was made on the newest window yet.
    is_new_failure
        Whether a type has just been excluded: its replacement is planned at once, otherwise with each new window.
    """
    one = _Question(brief, state, seen)
    found = one.lost() if is_new_window or is_new_failure else None
    if found is None and is_new_window and state.windows:
        found = one.scaled() or one.cheaper()
    return replace(found or Wanted(target=one.target), no_room=one.no_room)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Saving:
    """A cheaper fleet, and its saving over the time that it is expected to last, minus the cost of the switch [USD]."""

    verb: str
    fleet: Mapping[str, int]
    usd: float
    why: str
    no_room: str | None


class _Question:
    """One observation, with values that several answers use."""

    def __init__(self, brief: Brief, state: ControllerState, seen: Observation) -> None:
        self.brief, self.state, self.seen = brief, state, seen
        self.planner, self.settings = brief.planner, brief.settings
        self.now_s, self.held = seen.at_s, brief.held
        self.target: dict[str, int] = dict(state.target or {})
        # The running instances of an excluded type are kept.
        self.most = {
            name: seen.of(name).ready + seen.of(name).starting - seen.of(name).late(brief.settings.patience_s)
            for name in brief.planner.types_by_name
            if is_out(state.excluded, name, seen.at_s)
        }
        used = len(state.changes_s)
        self.may_replace = used < self.settings.most_changes_per_h
        self.may_grow = used < self.settings.most_changes_per_h - 1
        own = len(state.voluntary_s)
        self.may_shrink = self.may_grow and own < max(1, int(self.settings.most_changes_per_h * _VOLUNTARY))
        self.expected = expected_after(brief, state) if state.windows else None
        self.no_room: str | None = None

    # -- failures

    def lost(self) -> Wanted | None:
        """The next best fleet if a wanted type is unavailable; the floor if its types are available again."""
        gone = [name for name, count in self.target.items() if count > self.most.get(name, count)]
        if not gone:
            return self._back_to_floor()
        kept = {name: min(count, self.most.get(name, count)) for name, count in self.target.items()}
        need = self._needed()
        why = f"{', '.join(gone)} not available"
        found = self.planner.cheapest(need * (1 + self.settings.slack), at_least=kept, at_most=self.most)
        if found is None:
            found = self.planner.cheapest(need, at_least=self.held, at_most=self.most)
        if found is None:
            found, why = self._partly(need, kept), f"{why}, and no available fleet carries all of the traffic"
        if found is None:
            return Wanted(target=self.target)
        return self._change(LOST, self._with_spare(found), why, may=self.may_replace)

    def _back_to_floor(self) -> Wanted | None:
        floor = {name: count for name, count in self.held.items() if name not in self.most}
        if all(self.target.get(name, 0) >= count for name, count in floor.items()):
            return None
        return self._change(UP, _most(self.target, floor), "the floor", may=self.may_replace)

    # -- scaling

    def scaled(self) -> Wanted | None:
        """A larger fleet if the expected traffic exceeds the capacity."""
        need = self._needed()
        if self._follows_rule():
            fleet = self._by_rule()
            if any(count > self.target.get(name, 0) for name, count in fleet.items()):
                why = self._rule_words(fleet)
                return self._change(UP, _most(self.target, fleet), why, may=self.may_grow)
            return None
        without_spare = self._without_spare(self.target)
        peak = self.planner.peak(without_spare, need)
        if peak <= FULL:
            self.no_room = ""
            return None
        room = need * (1 + self.settings.slack)
        found = self.planner.cheapest(room, at_least=without_spare, at_most=self._most_of(without_spare))
        if found is None:
            found = self.planner.cheapest(need, at_least=self.held, at_most=self.most)
        if found is None:
            found = self._partly(need, without_spare)
            if found is None or self.planner.cost(found) <= self.planner.cost(without_spare):
                self.no_room = "no available fleet carries the traffic"
                return Wanted(target=self.target)
        return self._change(UP, self._with_spare(found), self._loaded(need, without_spare, peak), may=self.may_grow)

    def cheaper(self) -> Wanted | None:
        """A smaller fleet or another mix: the one that saves more over its expected duration, minus the switching cost.

        A smaller fleet of the same types saves at once, another mix only after its start-up; neither has priority.
        """
        if self._follows_rule():
            return self._fewer_by_rule()
        if not self._may_look():
            return None
        needs = self._needs()
        lately = needs[-self.settings.rule.stable_windows :]
        checked = Wanted(target=self.target, is_mix_checked=True)
        if len(lately) < self.settings.rule.stable_windows:
            return None
        need = max(lately, key=lambda one: float((one * self.planner.work).sum())) * (1 + self.settings.slack)
        if not self._may_save(need, needs):
            return checked
        found = [(DOWN, self._smaller(need)), (MIX, self._mixed(need))]
        no_room = self.no_room
        savings = [self._saving(verb, fleet, needs, lately) for verb, fleet in found if fleet is not None]
        best = max((one for one in savings if one is not None), key=lambda one: one.usd, default=None)
        self.no_room = no_room if best is None else best.no_room
        if best is None:
            return checked
        return self._change(best.verb, best.fleet, best.why, may=self.may_shrink, is_mix_checked=True)

    def _may_save(self, need: Array, needs: list[Array]) -> bool:
        """Whether any fleet could save enough: the lower bound is to serve each size where it is cheapest."""
        if self.brief.rule is not None:
            return True
        cost = self.planner.cost(self.target)
        least = float((need * self.planner.work).sum())
        lasting = max(least, *(float((one * self.planner.work).sum()) for one in needs))
        return cost - least > self._least_saving(0) or cost - lasting > self._least_saving(len(needs))

    def _fewer_by_rule(self) -> Wanted | None:
        fleet = self._by_rule()
        fewer = {name: max(fleet.get(name, 0), self.held.get(name, 0)) for name in self.target}
        if self.planner.cost(fewer) >= self.planner.cost(self.target) - 1e-9:
            return None
        why = self._rule_words(fleet)
        return self._change(DOWN, fewer, why, may=self.may_shrink)

    def _smaller(self, need: Array) -> dict[str, int] | None:
        """The cheapest part of the target fleet that carries this traffic."""
        if self.brief.rule is not None and not self._is_rule_out():
            return None
        return self.planner.cheapest(need, at_least=self.held, at_most=_most({}, self.target) | self._zero())

    def _mixed(self, need: Array) -> dict[str, int] | None:
        """The cheapest fleet of all available types that carries this traffic; the rule's fleet if there is a rule."""
        if self.brief.rule is not None and not self._is_rule_out():
            return self._by_rule()
        return self.planner.cheapest(need, self.held, self.most, near=self.planner.plan_of(self.target, need))

    def _saving(self, verb: str, found: Mapping[str, int], needs: list[Array], lately: list[Array]) -> _Saving | None:
        """The saving of a fleet; None if it is below the cost of the switch, or the fleet was recently too small."""
        after = found if verb == MIX and self.brief.rule is not None else self._with_spare(found)
        saved = self.planner.cost(self.target) - self.planner.cost(after)
        windows = self.planner.carried(found, needs)
        if saved <= self._least_saving(windows) or windows < len(lately):
            return None
        # A fleet that would have been enough for some time is expected to be enough for the same time again.
        hours = min(windows * self.settings.window_s / S_PER_H, self.settings.longest_h)
        price = self._price(_difference(after, self.target), _difference(self.target, after))
        if saved * hours <= price:
            return None
        lasting = f"enough for the last {hours:.1f} h" if verb == DOWN else f"for an expected {hours:.1f} h"
        why = f"saves {saved:.2f} USD/h, {lasting}, for {price:.2f} USD of switching"
        return _Saving(verb=verb, fleet=after, usd=saved * hours - price, why=why, no_room=self.no_room)

    # -- shared parts

    @property
    def _rule_type(self) -> str:
        return self.brief.rule.replica_type if self.brief.rule is not None else ""

    def _is_rule_out(self) -> bool:
        return is_out(self.state.excluded, self._rule_type, self.now_s)

    def _follows_rule(self) -> bool:
        """Whether the schedule's rule decides: its type is available, and no other type replaces it."""
        if self.brief.rule is None or self._is_rule_out():
            return False
        return all(count <= self.held.get(name, 0) for name, count in self.target.items() if name != self._rule_type)

    def _by_rule(self) -> dict[str, int]:
        rule = self.brief.rule
        assert rule is not None
        name, reserved = rule.replica_type, self.brief.reserved.get(rule.replica_type, 0)
        fleet = dict(self.held)
        have = fleet.get(name, 0)
        count = max(reserved + max(0, rule.wanted(self.state.rates())) + self.settings.spare, have)
        count = max(count, self.planner.least_total - sum(fleet.values()) + have)
        fleet[name] = have + min(count - have, self.planner.room.of(fleet, name, count - have))
        few = f"not all instances of the rule are available: {fleet[name]} of {count} x {name}"
        self.no_room = few if fleet[name] < count else ""
        return fleet

    def _rule_words(self, fleet: Mapping[str, int]) -> str:
        """What the rule wants, with the spare instances that are added to it."""
        spare = f" with {count_of(self.settings.spare, 'spare instance')}" if self.settings.spare else ""
        return f"the schedule's rule wants {fleet.get(self._rule_type, 0)} x {self._rule_type}{spare}"

    def _needed(self) -> Array:
        """The traffic that the fleet must carry (I, O) [1/s]."""
        if self.expected is None:
            return np.asarray(self.planner.question.workload.request_rate)
        return np.asarray(self.expected[-1])

    def _partly(self, need: Array, at_least: Mapping[str, int]) -> dict[str, int] | None:
        """The cheapest fleet for the sizes that available types serve; None if there are no such sizes.

        The rest of the traffic waits for its types: serving part of the requests is better than serving none.
        """
        free = [r for r, one in enumerate(self.planner.types) if one.name not in self.most]
        is_served = (self.planner.question.profile.max_request_rate[free] > 0).any(axis=0)
        part = np.where(is_served, need, 0.0)
        if not part.any():
            return None
        return self.planner.cheapest(part, at_least=at_least, at_most=self._most_of(at_least))

    def _needs(self) -> list[Array]:
        """The same after each window in the state."""
        assert self.expected is not None
        return [np.asarray(one) for one in self.expected]

    def _zero(self) -> dict[str, int]:
        return {name: 0 for name in self.planner.types_by_name if not self.target.get(name, 0)}

    def _most_of(self, at_least: Mapping[str, int]) -> dict[str, int]:
        return {name: max(count, at_least.get(name, 0)) for name, count in self.most.items()}

    def _may_look(self) -> bool:
        """Whether it is time to search for a cheaper fleet, and no other change is in progress.

        It is time after every interval, and when an excluded type may be ordered again, since its replacement is more
        expensive.
        """
        since_s = self.state.mixed_at_s
        is_back = any(since_s < one.until_s <= self.now_s for one in self.state.excluded.values())
        if not is_back and self.now_s - since_s < self.settings.settle_s - self.settings.interval_s / 2:
            return False
        return all(self.seen.of(name).ready >= count for name, count in self.target.items())

    def _least_saving(self, windows: int) -> float:
        """The least saving of a fleet that would have been enough for this number of past windows [USD/h]."""
        part = _LASTING if windows >= MOST_WINDOWS else 1.0
        return max(part * self.settings.least_saving * self.planner.cost(self.target), 1e-9)

    def _price(self, starts: Mapping[str, int], stops: Mapping[str, int]) -> float:
        """The cost of a switch [USD]: instances are paid while they start and drain, and old ones until new ones serve.

        It includes a later start of the stopped instances, which are expected to be ordered again.
        """
        settings = self.settings
        start_h, drain_h = settings.start_up_s / S_PER_H, settings.drain_s / S_PER_H
        overlap_h = start_h if starts else 0.0
        going = self.planner.cost(stops) * (overlap_h + drain_h + start_h)
        return self.planner.cost(starts) * start_h + going

    def _with_spare(self, fleet: Mapping[str, int]) -> dict[str, int]:
        """The fleet with the spare instances, of the type on which it spends most."""
        after, spare = dict(fleet), self.settings.spare
        self.no_room = ""
        if spare and after:
            name = _main(self.planner.cost_per_h, {one: n for one, n in after.items() if one not in self.most} or after)
            room = min(self.planner.room.of(after, name, spare), self.most.get(name, after[name] + spare) - after[name])
            added = max(0, min(spare, room))
            after[name] += added
            if added < spare:
                self.no_room = f"not all spare instances are available: {added} of {spare} x {name}"
        return after

    def _without_spare(self, fleet: Mapping[str, int]) -> dict[str, int]:
        after = dict(fleet)
        if self.settings.spare and after:
            name = _main(self.planner.cost_per_h, after)
            after[name] = max(after[name] - self.settings.spare, self.held.get(name, 0))
        return after

    def _loaded(self, need: Array, without_spare: Mapping[str, int], peak: float) -> str:
        """The load of the target fleet, and ``peak``, that without its spare instances."""
        whole = self.planner.peak(self.target, need)
        if np.isinf(whole):
            return "requests have sizes that no type of the fleet serves"
        said = f"the predicted traffic takes {whole:.0%} of the capacity"
        spare = sum(self.target.values()) - sum(without_spare.values())
        if not spare:
            return said
        without = "the spare instance" if spare == 1 else f"the {spare} spare instances"
        if np.isinf(peak):
            return f"{said}, and nothing else serves it without {without}"
        return f"{said}, and {peak:.0%} without {without}"

    def _change(
        self, verb: str, after: Mapping[str, int], why: str, *, may: bool, is_mix_checked: bool = False
    ) -> Wanted | None:
        """The change with its text; None if nothing changes; only the text if the limit on changes is reached."""
        before = {name: count for name, count in self.target.items() if count}
        after = {name: count for name, count in after.items() if count}
        if before == after:
            return Wanted(target=self.target, is_mix_checked=is_mix_checked) if is_mix_checked else None
        moved = ", ".join(
            f"{name} {before.get(name, 0)} -> {after.get(name, 0)}"
            for name in dict.fromkeys((*before, *after))
            if before.get(name, 0) != after.get(name, 0)
        )
        cost = self.planner.cost(after) - self.planner.cost(before)
        text = f"{verb}: {moved} ({cost:+.2f} USD/h): {why}"
        if not may:
            limit = self.settings.most_changes_per_h
            return Wanted(target=self.target, lines=(f"postponed, the limit is {limit} changes per hour: {text}",))
        is_voluntary = verb in (DOWN, MIX)
        return Wanted(target=after, lines=(text,), is_mix_checked=is_mix_checked, is_voluntary=is_voluntary)


def _most(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    names = dict.fromkeys((*first, *second))
    return {name: max(first.get(name, 0), second.get(name, 0)) for name in names}


def _difference(more: Mapping[str, int], less: Mapping[str, int]) -> dict[str, int]:
    """Instances of the first fleet that the second does not have."""
    return {name: count - less.get(name, 0) for name, count in more.items() if count > less.get(name, 0)}


def _main(cost_per_h: Mapping[str, float], fleet: Mapping[str, int]) -> str:
    """The type that a fleet spends most on."""
    return max(sorted(fleet), key=lambda name: cost_per_h[name] * fleet[name])
