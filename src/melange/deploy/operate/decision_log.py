"""The decision log of a controller: every iteration, with all data for replaying its decision."""

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
    """An append-only file with one JSON object per line.

    Parameters
    ----------
    path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # If a controller was killed while it wrote, the last line is incomplete: the next entry starts on a new line.
        if path.exists() and path.stat().st_size:
            with path.open("rb+") as stream:
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    stream.write(b"\n")

    def begin(self, at_s: float, plan: str, settings: OperateSettings, state: ControllerState) -> None:
        """Log the start of a controller with this state."""
        self._add({"kind": BEGIN, "at_s": at_s, "plan": plan, "settings": asdict(settings), "state": state.to_json()})

    def look(self, seen: Observation, decision: Decision) -> None:
        """Log an observation and the decision on it."""
        self._add({"kind": LOOK, "at_s": seen.at_s, "seen": seen.to_json(), **told(decision)})

    def note(self, at_s: float, text: str) -> None:
        """Log a reason why the controller could not observe or act."""
        self._add({"kind": NOTE, "at_s": at_s, "note": text})

    def _add(self, content: Json) -> None:
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(content, allow_nan=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def told(decision: Decision) -> Json:
    """A decision in the form of the log."""
    return {
        "target": dict(decision.state.target or {}),
        "steps": [step.to_json() for step in decision.steps],
        "lines": list(decision.lines),
    }


def replayed(path: Path, brief: Brief, plan: str) -> Iterator[tuple[Json, Decision, bool]]:
    """Replay a log: for each observation, its line, the new decision, and whether it equals the logged one.

    Parameters
    ----------
    path
        The log.
    brief
        The same service and settings.
    plan
        Fingerprint of the plan.

    Raises
    ------
    InputError
        The log is of another plan, or it does not begin with a state.
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
                is_same = all(
                    again[key] == content[key] for key in ("target", "steps")
                )  # texts may change between releases
            yield content, decision, is_same


def lines_of(path: Path) -> Iterator[tuple[int, Json]]:
    """The lines of a log with their numbers; a line that a crash cut off is skipped."""
    with path.open(encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                content = parse_json(line, f"{path}:{number}")
            except InputError:
                continue
            if isinstance(content, dict):
                yield number, content
