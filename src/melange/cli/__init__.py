"""The command line: a :class:`melange.MelangeError` becomes lines on stderr and exit code 2."""

from __future__ import annotations

import contextlib
import sys
from typing import NoReturn

from melange.cli.app import app
from melange.errors import InfeasibleError, MelangeError


def fail(error: MelangeError) -> NoReturn:
    """What is wrong, why, and what to do next."""
    print(f"error: {error}", file=sys.stderr)
    if isinstance(error, InfeasibleError):
        for reason in error.reasons:
            print(f"  - {reason}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    raise SystemExit(2)


def main() -> None:
    """Entry point of the ``melange`` command: a :class:`MelangeError` becomes two lines on stderr and exit code 2."""
    try:
        app()
    except MelangeError as error:
        fail(error)
    except BrokenPipeError:
        # The reader has gone (`melange catalog | head`): nothing is left to say, and Python must not say it at exit.
        with contextlib.suppress(OSError):
            sys.stdout.close()
        raise SystemExit(0) from None
