"""A job of the HTTP API: one command in a process and a folder of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from melange.files import Json
from melange.units import GIB

# Longest line of progress or of an error that is kept, and the number of lines.
_MOST_LINE, _MOST_LINES = 2_000, 1_000
# Time between terminating a process and killing it [s].
_GRACE_S = 2.0
_TEXT = ".text"
_COMMAND = "import sys; from melange.cli import main; main()"


class State(StrEnum):
    """The state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the state is final."""
        return self in (State.DONE, State.FAILED, State.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a job.

    Parameters
    ----------
    time_s
        Longest run [s].
    memory_bytes
        Most memory of its process [bytes].
    result_bytes
        Largest result [bytes].
    """

    time_s: float = 600.0
    memory_bytes: float = 8 * GIB
    result_bytes: float = 0.25 * GIB


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """One command and its result.

    Parameters
    ----------
    number
        Its id in URLs: random, so that others cannot guess it.
    verb
        ``plan``, ``validate``, ``what-if``, ``explore`` or ``deploy``.
    arguments
        The command's arguments, relative to the folder.
    folder
        Folder with its files; removed with the job.
    page
        The file that the command writes instead of JSON; empty: the command prints JSON.
    within
        The only folder besides its own whose files it may read; None: any file that the server's owner can read.
    is_remote
        Whether the job may also read databases and object storage, with the rights of the server's owner.
    has_text
        Whether the terminal output is also kept.
    state
        The state of the job.
    progress
        Reported progress, in words.
    result, error
        The result: JSON or a page; or the error: message, hint and reasons.
    text
        The result as terminal output, if it is kept.
    changed
        Notified when the state or progress changes.
    process
        The process; None before it starts.
    created_s, ended_s
        When the job was created and when it ended [s since the epoch]; None: not yet.
    """

    number: str
    verb: str
    arguments: Sequence[str]
    folder: Path
    page: str = ""
    within: Path | None = None
    is_remote: bool = False
    has_text: bool = False
    state: State = State.QUEUED
    progress: list[str] = field(default_factory=list)
    result: Any = None
    error: Json | None = None
    text: str = ""
    created_s: float = field(default_factory=time.time)
    ended_s: float | None = None
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    process: asyncio.subprocess.Process | None = None

    @property
    def is_ended(self) -> bool:
        """Whether the job's state is final."""
        return self.state.is_final

    def to_json(self) -> Json:
        """As a JSON object."""
        return {
            "id": self.number,
            "verb": self.verb,
            "state": self.state.value,
            "progress": self.progress[-1] if self.progress else "",
            "created_s": self.created_s,
            "ended_s": self.ended_s,
            "error": self.error,
            "result": self.result,
        }

    async def run(self, limits: Limits) -> None:
        """Run the command to completion, within the limits."""
        if self.state.is_final:
            return
        await self._move(State.RUNNING)
        out = self.folder / ".out"
        with out.open("wb") as stdout:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", _COMMAND, *self.arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stdout,
                stderr=asyncio.subprocess.PIPE,
                cwd=self.folder,
                env=os.environ | self._environment(),
                start_new_session=True,
                preexec_fn=_limiter(limits),
            )
        said: list[str] = []
        try:
            async with asyncio.timeout(limits.time_s):
                await self._listen(self.process, said)
                code = await self.process.wait()
        except TimeoutError:
            await self.stop()
            await self.fail(f"took longer than {limits.time_s:g} s")
            return
        except asyncio.CancelledError:
            await self.stop()
            raise
        if self.is_ended:
            return
        # Exit code 1: there is a result, but the SLO is not shown to hold.
        if code not in (0, 1):
            self.error = _error_of(said, code)
            await self._move(State.FAILED)
            return
        file = self.folder / self.page if self.page else out
        if file.stat().st_size > limits.result_bytes:
            await self.fail("the result is too large")
            return
        text = await asyncio.to_thread(file.read_text)
        self.result = text if self.page else json.loads(text)
        if self.has_text:
            self.text = await asyncio.to_thread((self.folder / _TEXT).read_text)
        await self._move(State.DONE)

    def _environment(self) -> dict[str, str]:
        """The environment variables of the command."""
        remote = "1" if self.is_remote else "0"
        folders = os.pathsep.join(map(str, dict.fromkeys((self.folder, self.within))))
        within = {} if self.within is None else {"MELANGE_WITHIN": folders, "MELANGE_REMOTE": remote}
        shown = {"MELANGE_TEXT": _TEXT} if self.has_text else {}
        return {"MELANGE_PROGRESS": "json", "COLUMNS": "100"} | within | shown

    async def _listen(self, process: asyncio.subprocess.Process, said: list[str]) -> None:
        """Read progress and errors, line by line."""
        assert process.stderr is not None
        while line := await process.stderr.readline():
            text = line.decode(errors="replace").rstrip()[:_MOST_LINE]
            if text.startswith('{"task"'):
                with contextlib.suppress(ValueError, KeyError):
                    event = json.loads(text)
                    await self._tell(f"{event['task']}: {event['news']}" if event["news"] else event["task"])
            elif len(said) < _MOST_LINES:
                said.append(text)

    async def _tell(self, words: str) -> None:
        if len(self.progress) < _MOST_LINES and (not self.progress or self.progress[-1] != words):
            self.progress.append(words)
            async with self.changed:
                self.changed.notify_all()

    async def fail(self, message: str) -> None:
        """End the job without a result, and record why."""
        self.error = {"message": message, "hint": "", "reasons": []}
        await self._move(State.FAILED)

    async def _move(self, state: State) -> None:
        if self.state.is_final:
            return
        self.state = state
        if state.is_final:
            self.ended_s = time.time()
        async with self.changed:
            self.changed.notify_all()

    async def wait_for_news(self, most_s: float) -> None:
        """Wait until the state or progress changes, with a time limit [s]."""
        try:
            async with asyncio.timeout(most_s), self.changed:
                await self.changed.wait()
        except TimeoutError:
            pass

    async def cancel(self) -> None:
        """End the job; partial results are lost."""
        await self._move(State.CANCELLED)
        await self.stop()

    async def stop(self) -> None:
        """End the process and its child processes."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GRACE_S):
                    await process.wait()
                    return

    def remove(self) -> None:
        """Remove the job's files."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _limiter(limits: Limits) -> Callable[[], None]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (int(limits.memory_bytes), int(limits.memory_bytes)))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    return limit


def _error_of(said: Sequence[str], code: int) -> Json:
    """An error message of the command line, divided into its parts."""
    message, hint, reasons = "", "", []
    for line in said:
        if line.startswith("error: "):
            message = line.removeprefix("error: ")
        elif line.startswith("hint: "):
            hint = line.removeprefix("hint: ")
        elif line.startswith("  - "):
            reasons.append(line.removeprefix("  - "))
        elif message and not hint and not reasons:
            message += f"\n{line}"
    return {"message": message or f"ended with exit code {code}", "hint": hint, "reasons": reasons}
