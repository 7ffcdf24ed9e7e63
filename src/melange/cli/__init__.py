"""The command line: a :class:`melange.MelangeError` becomes lines on stderr and exit code 2."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import NoReturn

try:
    from melange.cli.stderr import say
    from melange.errors import InfeasibleError, MelangeError, printable
except KeyboardInterrupt:  # before main(), which handles it from then on
    raise SystemExit(130) from None

# Exit code for bugs (EX_SOFTWARE of sysexits.h), and the longest text printed about a bug [characters].
_BUG = 70
# Exit code after Ctrl-C, as of shells.
_STOPPED = 130
_MOST_TOLD = 300
# With several threads, NumPy's products of small matrices mostly wait for each other: a fifth of an exploration's CPU
# time. OpenBLAS reads this when NumPy is imported. It is not set for operate, whose child processes would inherit it.
_BLAS_THREADS = "OPENBLAS_NUM_THREADS"


def fail(error: MelangeError) -> NoReturn:
    """Print what is wrong, why, and what to do next."""
    say(f"error: {error}")
    if isinstance(error, InfeasibleError):
        for reason in error.reasons:
            say(f"  - {reason}", indent="    ")
    if error.hint:
        say(f"hint: {error.hint}")
    raise SystemExit(2)


def main() -> None:
    """Entry point of the ``melange`` command: a :class:`MelangeError` becomes two lines on stderr and exit code 2."""
    _open_streams()
    if "operate" not in sys.argv[1:2]:
        os.environ.setdefault(_BLAS_THREADS, "1")
    try:
        try:
            from melange.cli.app import app  # takes half a second, in which Ctrl-C must not cause a traceback

            code = app(standalone_mode=False)
        finally:
            sys.stdout.flush()  # report a full disk here; at Python's exit it would cause a traceback
    except MelangeError as error:
        fail(error)
    except KeyboardInterrupt:
        raise SystemExit(_STOPPED) from None
    except BrokenPipeError:
        # The reader has closed the pipe (`melange catalog | head`): nothing is left to print.
        _close_output()
        raise SystemExit(0) from None
    except OSError as error:
        # The system refused: full disk, no permission, too many open files.
        _close_output()
        fail(MelangeError(f"{error.filename or 'standard output'}: {error.strerror or error}"))
    except MemoryError:
        fail(MelangeError("not enough memory", hint="use a smaller file, fewer buckets or a larger machine"))
    except Exception as error:
        from melange.cli.usage import UsageError, usage_error

        if isinstance(error, UsageError):
            fail(usage_error(error))
        if os.environ.get("MELANGE_DEBUG") == "1":
            raise
        crashed(error)
    raise SystemExit(code)


def _open_streams() -> None:
    """Let standard streams that the caller closed lead nowhere.

    Without this they are None, and the next file that is opened takes a stream's number: what a child process prints
    would end up in that file.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 (open until the end)


def _close_output() -> None:
    """Drop unwritten output, so that Python does not try again at exit."""
    with contextlib.suppress(OSError):
        sys.stdout.close()


def crashed(error: Exception) -> NoReturn:
    """Print a bug in one line; the traceback is printed only on request."""
    told = " ".join(printable(f"{type(error).__name__}: {error}").split())
    told = told if len(told) <= _MOST_TOLD else f"{told[:_MOST_TOLD]}..."
    say(
        f"error: this is a bug in melange: please report it, with the command and its files ({told}); MELANGE_DEBUG=1 "
        "shows where"
    )
    raise SystemExit(_BUG)
