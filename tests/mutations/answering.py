"""Run one command on one file, in this process, and say what was wrong with how it ended."""

from __future__ import annotations

import contextlib
import io
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import click
import typer
from read_formats import Command

from melange.cli.app import app
from melange.errors import UNPRINTABLE, MelangeError

# A command line that is not one, as typer tells it: it may carry a click of its own.
_USAGE = (click.exceptions.Exit, click.ClickException, SystemExit, typer.Exit, typer.BadParameter.__mro__[2])
# An input that takes longer is a finding [s of CPU time: that the machine has other work is none].
MOST_S = 60


class TooLong(BaseException):
    """A command that took longer than it may."""


@contextlib.contextmanager
def _alarm(seconds: int) -> Iterator[None]:
    def ring(_signal: int, frame: FrameType | None) -> None:
        raise TooLong("".join(traceback.format_stack(frame)[-6:]))

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def finding(command: Command, file: Path, folder: Path) -> str:
    """What is wrong with how a command ended on a file; empty: nothing.

    It must end with an answer or with an error of ours that names the file, and after an error nothing may be written.
    """
    out, outputs = Path(f"{file}.out"), Path(f"{file}.folder")
    out.unlink(missing_ok=True)
    shutil.rmtree(outputs, ignore_errors=True)
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), _alarm(MOST_S):
            if callable(command):
                command(file)
            else:
                arguments = [part.replace("{x}", str(folder)).replace("{}", str(file)) for part in command]
                app(arguments, standalone_mode=False)
            said.flush()
    except MelangeError as error:
        text = str(error)
        if UNPRINTABLE.search(text):
            return f"unprintable: {text[:200]!r}"
        if len(text) > 20_000:
            return f"long message: {len(text)} characters: {text[:100]}"
        if out.exists() or outputs.exists():
            return "written in spite of an error"
        text.encode()
        return ""
    except _USAGE:
        return ""
    except TooLong as error:
        return f"TooLong: {error}"
    except Exception as error:  # what is looked for
        place = traceback.extract_tb(error.__traceback__)
        ours = [one for one in place if "melange" in one.filename] or list(place)
        where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
        return f"{type(error).__name__} at {where}: {str(error)[:200]}"
    return ""


def report(*lines: str) -> None:
    """Print to the real terminal."""
    print(*lines, file=sys.__stdout__, flush=True)
