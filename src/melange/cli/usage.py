"""Wrong flags and arguments: Typer's own errors, printed like all others."""

from __future__ import annotations

import sys
from typing import Any

import typer

from melange.errors import InputError

# Base class of Typer's errors about flags and arguments. Typer exports only its subclasses.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def usage_error(error: Exception) -> InputError:
    """A wrong flag or argument as an error with a hint; its command's usage is printed.

    A command that was called without arguments prints its help instead, as Typer does.
    """
    raised: Any = error
    context = raised.ctx
    if context is None:
        return InputError(_message(raised))
    if type(error).__name__ == "NoArgsIsHelpError":
        raised.show()
        raise SystemExit(raised.exit_code)
    print(context.get_usage(), file=sys.stderr)
    return InputError(_message(raised), hint=_setting(raised) or f"{context.command_path} --help")


def _message(raised: Any) -> str:
    said = raised.format_message().replace("Value error, ", "").removesuffix(".")
    return f"{said[:1].lower()}{said[1:]}"


def _setting(raised: Any) -> str:
    """The ``--set`` that does what an unknown flag wanted; empty if there is none."""
    takes_settings = any("--set" in one.opts for one in raised.ctx.command.params)
    flag = getattr(raised, "option_name", "")
    if not takes_settings or not flag.startswith("--"):
        return ""
    from melange.service.faults import keys_called
    from melange.service.schema import Service

    return " or ".join(f"--set {key}=VALUE" for key in keys_called(Service, flag.removeprefix("--").replace("-", "_")))
