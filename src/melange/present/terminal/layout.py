"""Layout of terminal pages: consoles, tables, titles and shared phrases."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterable
from typing import IO, Any, TextIO, cast

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from melange.errors import Caution
from melange.present.terminal.narrow import Rows
from melange.units import significant
from melange.workload.workload import Buckets

# Console width in a pipe [characters]. Rich wraps at this width: it is wider than any of our rows, so that lines stay
# whole for grep and diff.
_PIPE_WIDTH = 1000
_FILL = re.compile(r"(?<! ) +$", re.MULTILINE)
# Most rows of a table that could list hundreds. With more, the answer above it scrolls off the screen; with fewer, the
# runners-up are hidden. Chosen by judgment; --json lists all.
MAX_ROWS = 8
# Smaller savings count as none: they would be shown as 0.0 %.
LEAST_SHOWN = 5e-4


def console(*, stderr: bool = False) -> Console:
    """A console as wide as its terminal; in a file or pipe, lines stay whole unless COLUMNS is set.

    Text is printed literally: names come from files, and ``[red]`` or ``:warning:`` in a name is not markup.
    """
    made = _Page(stderr=stderr, highlight=False, markup=False, emoji=False)
    if made.is_terminal:
        return made
    return _Page(
        file=cast(IO[str], _Trimmed(sys.stderr if stderr else sys.stdout)),
        highlight=False,
        markup=False,
        emoji=False,
        width=None if os.environ.get("COLUMNS") else _PIPE_WIDTH,
    )


def as_text(parts: Iterable[RenderableType]) -> str:
    """What a terminal of ``COLUMNS`` shows, or whole lines if it is not set; plain text is unchanged."""
    held = io.StringIO()
    width = None if os.environ.get("COLUMNS") else _PIPE_WIDTH
    writer = _Page(file=held, highlight=False, markup=False, emoji=False, width=width)
    for part in parts:
        if isinstance(part, str):
            held.write(part)
        else:
            writer.print(part)
    return _FILL.sub("", held.getvalue())


class _Page(Console):
    """A console that leaves long lines of commands to the terminal, instead of cutting them at its width."""

    def print(self, *objects: Any, **settings: Any) -> None:
        """Print without cutting; all other text is wrapped to the width before."""
        super().print(*objects, **{"crop": False, **settings})


def command_text(command: str) -> Text:
    """A command whose lines never wrap: a line end within a quoted name would become part of the name when copied."""
    return Text(command, no_wrap=True, overflow="ignore")


class _Trimmed(io.TextIOBase):
    """A file or pipe without the spaces that pad lines to the console's width."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The stream's encoding, which determines the characters that can be printed."""
        return self._stream.encoding

    def write(self, text: str) -> int:
        """Write whole lines, as consoles do."""
        return self._stream.write(_FILL.sub("", text))

    def flush(self) -> None:
        """Write the rest of the buffer."""
        self._stream.flush()


def table_of(*headings: str) -> Table:
    """A table without rules; headings may hold units in [brackets]."""
    table = Rows(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in headings:
        add_column(table, heading)
    return table


def add_column(table: Table, heading: str, *, right: bool = False) -> None:
    """Add a column; its heading may hold a unit in [brackets], which is not markup.

    Text too wide for a narrow terminal wraps to the next line: a truncated name could not be copied.
    """
    table.add_column(Text(heading), justify="right" if right else "left", overflow="fold")


def with_whole_names(table: Table, column: int = 0) -> Table:
    """The table with one column that never wraps, so that names can be copied; the other columns wrap instead."""
    table.columns[column].no_wrap = True
    table.columns[column].min_width = max((len(str(cell)) for cell in table.columns[column].cells), default=0)
    return table


def titled(title: str, body: RenderableType) -> RenderableType:
    """A title above a body."""
    return Group(Text(title, style="bold"), body)


def listed(title: str, lines: Iterable[str]) -> RenderableType:
    """A title above indented lines."""
    return Group(Text(title, style="bold"), *(Padding(Text(line), (0, 0, 0, 2)) for line in lines))


def spaced(parts: Iterable[RenderableType]) -> list[RenderableType]:
    """Parts separated by empty lines."""
    spaced: list[RenderableType] = []
    for part in parts:
        spaced += [part, Text("")]
    return spaced[:-1]


def cautions(items: Iterable[Caution]) -> RenderableType:
    """Warnings, one line each."""
    return Group(*(Text(f"warning: {caution}", style="yellow") for caution in items))


def edge(buckets: Buckets, axis: str, index: int) -> str:
    """The upper edge of a bucket, or its number if sizes are unknown."""
    return buckets.edge_label(axis, index)


def usd(amount: float) -> str:
    """An amount: to the cent, or with two significant digits if it would round to 0.00."""
    return f"{amount:,.2f} USD" if amount >= 0.1 else f"{significant(amount, 2)} USD"


def share_text(share: float) -> str:
    """A share without trailing zeros: 99.5 %.

    >>> share_text(0.995), share_text(0.99)
    ('99.5%', '99%')
    """
    return f"{share * 100:.6g}%"
