"""The driver that runs a user's own program: JSON on its standard input, JSON on its standard output.

``{"do": "look", "at_s": ...}`` is answered by ``{"fleet": {"NAME": {"ready": 2, "starting_s": [31.5], ...}}}``;
``{"do": "act", "at_s": ..., "steps": [{"verb": "start", "replica_type": "NAME", "instances": 1}], "target": {...}}`` by
nothing, or by ``{"failures": {"NAME": ["out of stock"]}}``.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from melange.deploy.operate.drivers.driver import Order
from melange.deploy.operate.observation import TypeSeen, fleet_from
from melange.errors import Caution, InputError, MelangeError
from melange.parsing import parse_json
from melange.records import items, mapping, text


class CommandDriver:
    """A program that looks and acts.

    Parameters
    ----------
    command
        The program and its arguments.
    timeout_s
        How long it may take [s].
    """

    def __init__(self, command: Sequence[str], timeout_s: float) -> None:
        self.command, self.timeout_s = list(command), timeout_s
        if not self.command:
            raise InputError("--command: must name a program")
        self._failures: dict[str, tuple[str, ...]] = {}

    def look(self, now_s: float) -> Mapping[str, TypeSeen]:
        """What the program sees."""
        answer = self._run({"do": "look", "at_s": now_s})
        if "fleet" not in answer:
            raise MelangeError(f"{self.command[0]}: must answer 'look' with a JSON object that has the key 'fleet'")
        fleet = fleet_from(answer["fleet"], f"{self.command[0]}: fleet")
        told, self._failures = self._failures, {}
        for name, failures in told.items():
            one = fleet.get(name, TypeSeen())
            fleet[name] = replace(one, failures=(*one.failures, *failures))
        return fleet

    def act(self, order: Order) -> Sequence[Caution]:
        """Have it done."""
        if not order.steps:
            return ()
        steps = [step.to_json() for step in order.steps]
        answer = self._run({"do": "act", "at_s": order.at_s, "steps": steps, "target": dict(order.target)})
        place = f"{self.command[0]}: failures"
        self._failures = {
            name: tuple(text(one, at) for at, one in items(some, f"{place}.{name}"))
            for name, some in mapping(answer.get("failures", {}), place).items()
        }
        return ()

    def _run(self, question: dict[str, Any]) -> Mapping[str, Any]:
        name = self.command[0]
        try:
            done = subprocess.run(
                self.command,
                input=json.dumps(question),
                capture_output=True,
                text=True,
                timeout=self.timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise MelangeError(f"{name}: no answer to {question['do']!r} within {self.timeout_s:g} s") from None
        except OSError as fault:
            raise InputError(f"{name}: cannot be run: {fault.strerror or fault}") from fault
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["no output on stderr"])[-1]
            raise MelangeError(f"{name}: exited with {done.returncode} on {question['do']!r}: {said}")
        if not done.stdout.strip():
            return {}
        return mapping(parse_json(done.stdout, name), name)
