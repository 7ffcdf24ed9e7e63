"""The control loop: at every interval, observe, decide, log the decision, and act."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from melange.deploy.operate.controller_state import ControllerState
from melange.deploy.operate.decide import Brief, Decision, decide
from melange.deploy.operate.decision_log import DecisionLog
from melange.deploy.operate.drivers.driver import Driver, Order
from melange.deploy.operate.lease import Lease
from melange.deploy.operate.observation import Observation, TypeSeen
from melange.errors import MelangeError
from melange.files import write_text

if TYPE_CHECKING:
    from melange.deploy.operate.live_traffic import Traffic
    from melange.plan.plan import Plan

log = logging.getLogger("melange.operate")

STATE, LOG, PLAN = "state.json", "log.jsonl", "plan.json"


class Controller:
    """Keeps a service on its plan.

    Parameters
    ----------
    brief
        The service and the settings.
    plan
        The initial plan.
    driver, traffic, lease
        The driver that changes the fleet, the source of the traffic, and the lease that only one controller holds.
    folder
        Folder of the state, the log and the current plan.
    clock
        Returns the Unix time [s].
    """

    def __init__(
        self,
        brief: Brief,
        plan: Plan,
        driver: Driver,
        traffic: Traffic,
        lease: Lease,
        folder: Path,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.brief, self.plan, self.driver, self.traffic = brief, plan, driver, traffic
        self.lease, self.folder, self.clock = lease, folder, clock
        folder.mkdir(parents=True, exist_ok=True)
        self.journal = DecisionLog(folder / LOG)
        self.state: ControllerState | None = None
        self._fleet_of_plan: dict[str, int] = {}
        self._said: tuple[str, ...] = ()

    def run(self, stop: threading.Event) -> None:
        """Run one iteration at every interval until ``stop`` is set; then release the lease."""
        try:
            while not stop.is_set():
                began_s = time.monotonic()
                try:
                    self.look()
                except MelangeError as fault:
                    self._note(f"no action: {fault}")
                stop.wait(max(0.0, self.brief.settings.interval_s - (time.monotonic() - began_s)))
        finally:
            self.lease.release()

    def look(self) -> Decision | None:
        """Run one iteration: observe, decide, act; None if another controller holds the lease."""
        now_s = self.clock()
        if other := self.lease.hold(now_s):
            if self.state is not None:
                self._note(f"another controller took over: {other}")
            self.state = None
            return None
        is_first = self.state is None
        if self.state is None:
            self.state = ControllerState.read(self.folder / STATE)
            self.journal.begin(now_s, self.plan.fingerprint, self.brief.settings, self.state)
        seen = self._seen(now_s, self.state)
        decision = decide(self.brief, self.state, seen)
        # First the log, then the state, then the action: if this controller is killed in between, the next one decides
        # on its own observation.
        self.journal.look(seen, decision)
        decision.state.save(self.folder / STATE)
        self.state = decision.state
        for line in decision.lines:
            if line not in self._said:  # a line that stays the same is logged once
                log.info("%s", line)
        self._said = decision.lines
        balancer_plan = self._balancer_plan(seen.fleet, decision.state)
        if other := self.lease.hold(self.clock()):
            self._note(f"another controller took over: {other}")
            self.state = None
            return None
        cautions = self.driver.act(
            Order(
                at_s=now_s,
                steps=decision.steps,
                target=decision.state.target or {},
                plan=self._plan_of(decision.state, decision.state.target or {}),
                balancer_plan=balancer_plan,
                is_changed=decision.is_changed or is_first,
            )
        )
        for caution in cautions:
            self._note(str(caution))
        return decision

    def _seen(self, now_s: float, state: ControllerState) -> Observation:
        settings = self.brief.settings
        fleet = self.driver.look(now_s)
        if state.windows and now_s < state.windows[-1].end_s + settings.window_s - settings.interval_s / 2:
            return Observation(at_s=now_s, fleet=fleet)
        try:
            rate = self.traffic.read(now_s, settings.window_s)
        except MelangeError as fault:
            return Observation(at_s=now_s, fleet=fleet, note=f"the traffic is unknown: {fault}")
        return Observation(at_s=now_s, fleet=fleet, request_rate=rate)

    def _plan_of(self, state: ControllerState, fleet: Mapping[str, int]) -> Plan | None:
        rate = np.asarray(state.windows[-1].request_rate) if state.windows else None
        return self.brief.planner.plan_of(fleet, rate) or self.brief.planner.plan_of(fleet, None)

    def _balancer_plan(self, seen: Mapping[str, TypeSeen], state: ControllerState) -> Plan | None:
        """Write the current plan for balancers if the target or the fleet has changed; None if the plan is unchanged.

        The plan includes draining instances, so that no balancer drops a replica on which it has requests.
        """
        target = state.target or {}
        fleet = {
            name: max(target.get(name, 0), one.ready + len(one.draining_s))
            for name in dict.fromkeys((*target, *seen))
            if name in self.brief.planner.types_by_name
            for one in (seen.get(name, TypeSeen()),)
        }
        fleet = {name: count for name, count in fleet.items() if count}
        path = self.folder / PLAN
        if fleet == self._fleet_of_plan and path.exists():
            return None
        found = self._plan_of(state, fleet)
        if found is not None:
            write_text(path, found.dumps() + "\n")
            self._fleet_of_plan = fleet
        return found

    def _note(self, text: str) -> None:
        log.warning("%s", text)
        self.journal.note(self.clock(), text)
