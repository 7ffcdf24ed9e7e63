"""A controller from a plan, a schedule and the settings of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from melange.deploy.addresses import fitting, named_among
from melange.deploy.operate.decide import Brief
from melange.deploy.operate.fleet_planner import FleetPlanner
from melange.errors import InputError, unknown

if TYPE_CHECKING:
    from melange.deploy.operate.operate_settings import OperateSettings
    from melange.plan.plan import Plan
    from melange.plan.schedule.schedule import Schedule
    from melange.profile.profile import Profile, ReplicaType


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A service to operate.

    Parameters
    ----------
    plan
        The initial plan; its question is solved again for new traffic.
    schedule
        The schedule whose rule and reserved instances are used; None: the settings' rule.
    profile
        All types that may be rented; None: the profile of the plan.
    """

    plan: Plan
    schedule: Schedule | None = None
    profile: Profile | None = None

    def types(self) -> dict[str, ReplicaType]:
        """All types that may be rented, by name."""
        profile = self.profile or self.plan.question.profile
        return {one.name: one for one in profile.replica_types}

    def type_named(self, name: str, flag: str) -> str:
        """The full name of a type: one that the plan uses, as a replica's ``NAME=URL`` names it, or any other type."""
        types = self.types()
        if name in types:
            return name
        used = [types[one] for one, count in self.plan.instances_by_name.items() if count and one in types]
        among = used if fitting(used, name) else list(types.values())
        try:
            return among[named_among(among, name)].name
        except InputError as error:
            raise InputError(f"{flag}: {error}", hint=error.hint) from None

    def settings(self, given: OperateSettings) -> OperateSettings:
        """The settings with the schedule's rule, window, start-up time and drain time."""
        one = self.schedule
        if one is None or one.rule is None:
            return given
        options = one.options
        return replace(
            given,
            rule=one.rule.settings,
            window_s=one.rule.window_s,
            start_up_s=options.start_up_s,
            drain_s=options.drain_s,
        )

    def brief(self, settings: OperateSettings) -> Brief:
        """The fixed inputs of the controller.

        Raises
        ------
        InputError
            The schedule has other request sizes or types than the plan.
        """
        planner = FleetPlanner(self.plan, self.profile, settings.floor)
        first = {name: count for name, count in self.plan.instances_by_name.items() if count}
        schedule = self.schedule
        if schedule is None:
            return Brief(planner=planner, settings=settings, first=first)
        reserved = {
            one.name: int(count)
            for one, count in zip(schedule.replica_types, schedule.reserved, strict=True)
            if count > 0
        }
        rule = schedule.rule
        names = (*reserved, *(() if rule is None else (rule.replica_type,)))
        for name in names:
            if name not in planner.types_by_name:
                fault = unknown("replica type", name, planner.types_by_name, place="--schedule")
                raise InputError(str(fault), hint="give all types that may be rented with --profile") from None
        shape = self.plan.workload.buckets.shape
        for signal in () if rule is None else rule.signals:
            if signal.request_weight.shape != shape:
                raise InputError(
                    "--schedule: has other request sizes than the plan",
                    hint="make both from the same service.yaml",
                )
        return Brief(planner=planner, settings=settings, first=first, rule=rule, reserved=reserved)


def floor_of(texts: Sequence[str] | None, operation: Operation) -> dict[str, int]:
    """A floor by replica type name from texts ``NAME=N`` or ``N``; the empty name: in total."""
    floor: dict[str, int] = {}
    for text in texts or ():
        name, _, count = text.rpartition("=")
        if not (count.strip().isdecimal() and count.isascii()):
            raise InputError(f"--floor: must be NAME=N or N, got {text!r}")
        whole = operation.type_named(name.strip(), "--floor") if name.strip() else ""
        if whole in floor:
            raise InputError(f"--floor: {whole or 'the total'} is given twice")
        floor[whole] = int(count)
    return floor
