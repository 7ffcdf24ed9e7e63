"""Text on stderr: wrapped at the width of a terminal, in whole lines elsewhere."""

from __future__ import annotations

import os
import re
import sys
import textwrap

# Width where a terminal does not know its own [characters].
_USUAL_WIDTH = 80
# A word of a command that is not prose: a flag with its value, a quoted text, a file or a setting.
_ARGUMENT = r"""(?:--?[\w-]+(?:[ =](?:'[^']*'|"[^"]*"|[^\s,;:]+))?|'[^']*'|"[^"]*"|[^\s,;:]*[./=][^\s,;:]*[^\s,;:.])"""
# What is copied as a whole: our commands and pip's with their arguments, and a flag with a quoted value or a setting.
_COMMAND = re.compile(
    rf"\b(?:melange [a-z-]+|pip install)(?: {_ARGUMENT})*"
    rf"""|--[\w-]+ (?:'[^']*'|"[^"]*"|[^\s,;:]+=[^\s,;:]+)"""
)
_SPACE = "\N{NO-BREAK SPACE}"


def say(text: str, indent: str = "  ") -> None:
    """Print to stderr; on a terminal, lines wrap between words, with an indent, but not within a command or a path."""
    lines = text.split("\n")
    if sys.stderr.isatty():
        wrapper = textwrap.TextWrapper(
            width=_width(), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
        lines = [_wrapped(wrapper, line) for line in lines]
    print("\n".join(lines), file=sys.stderr)


def _wrapped(wrapper: textwrap.TextWrapper, line: str) -> str:
    if _SPACE in line:
        return wrapper.fill(line)
    whole = _COMMAND.sub(lambda found: found[0].replace(" ", _SPACE), line)
    return wrapper.fill(whole).replace(_SPACE, " ")


def _width() -> int:
    """The width of stderr's own terminal: stdout may be a file."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _USUAL_WIDTH
    except (OSError, ValueError):
        return _USUAL_WIDTH
