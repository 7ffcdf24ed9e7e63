"""The log of a controller: every look at which something was decided, and all that is needed to decide it again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from melange.deploy.operate.controller_state import ControllerState
from melange.deploy.operate.decide import Brief, Decision, decide
from melange.deploy.operate.observation import Observation
from melange.errors import InputError
from melange.files import Json
from melange.parsing import parse_json
from melange.records import reading

if TYPE_CHECKING:
    from melange.deploy.operate.operate_settings import OperateSettings

BEGIN, LOOK, NOTE = "begin", "look", "note"
_A_LOG = "a log of melange operate"


class DecisionLog:
    """A file with a JSON object a line, which only grows.

    Parameters
    ----------
    path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Of a line that a killed controller did not finish only the beginning is there: the next one starts on its own.
        if path.exists() and path.stat().st_size:
            with path.open("rb+") as stream:
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    stream.write(b"\n")

    def begin(self, at_s: float, plan: str, settings: OperateSettings, state: ControllerState) -> None:
        """A controller starts with this state."""
        self._add({"kind": BEGIN, "at_s": at_s, "plan": plan, "settings": asdict(settings), "state": state.to_json()})

    def look(self, seen: Observation, decision: Decision) -> None:
        """A look, and what came of it."""
        self._add({"kind": LOOK, "at_s": seen.at_s, "seen": seen.to_json(), **told(decision)})

    def note(self, at_s: float, text: str) -> None:
        """Something that kept the controller from looking or acting."""
        self._add({"kind": NOTE, "at_s": at_s, "note": text})

    def _add(self, content: Json) -> None:
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(content, allow_nan=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def told(decision: Decision) -> Json:
    """A decision as the log has it."""
    return {
        "target": dict(decision.state.target or {}),
        "steps": [step.to_json() for step in decision.steps],
        "lines": list(decision.lines),
    }


def replayed(path: Path, brief: Brief, plan: str) -> Iterator[tuple[Json, Decision, bool]]:
    """Decide on every look of a log again: its line, the decision, and whether it is the same.

    Parameters
    ----------
    path
        The log.
    brief
        The same service and settings.
    plan
        Its fingerprint.

    Raises
    ------
    InputError
        No log of this plan, or none that begins with a state.
    """
    state: ControllerState | None = None
    for number, content in lines_of(path):
        place = f"{path}:{number}"
        if content.get("kind") == BEGIN:
            with reading(place, _A_LOG):
                made_for, state = content["plan"], ControllerState.from_json(content["state"])
            if made_for != plan:
                raise InputError(
                    f"{place}: is for the plan {made_for}, not {plan}",
                    hint="replay it with the controller's plan",
                )
        elif content.get("kind") == LOOK:
            if state is None:
                raise InputError(f"{place}: a look before the first 'begin'", hint="keep the log's first lines")
            with reading(place, _A_LOG):
                decision = decide(brief, state, Observation.from_json(content["seen"]))
                state = decision.state
                again = told(decision)
                is_same = all(again[key] == content[key] for key in ("target", "steps"))  # words change with releases
            yield content, decision, is_same


def lines_of(path: Path) -> Iterator[tuple[int, Json]]:
    """The lines of a log with their numbers; one that was cut off by a crash is left out."""
    with path.open(encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                content = parse_json(line, f"{path}:{number}")
            except InputError:
                continue
            if isinstance(content, dict):
                yield number, content
