"""Tables on narrow terminals: names and words stay whole, long remarks go below their row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

# Space between columns, and indentation of text below a row [characters].
_GAP, _INDENT = 2, 4
# A last column with longer text holds remarks; in narrower columns, remarks are hard to read. Chosen by judgment.
_REMARK = 32
# Longer words are broken, so that one address does not take the space of all other columns. Chosen by judgment.
_LONGEST_WORD = 24


class Rows(Table):
    """A table without rules that stays readable when the terminal is narrower than its rows.

    First the text wraps, then remarks move below their row, then names wrap at ``/`` and spaces, and finally each row
    becomes a paragraph. Nothing is cut off.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Rich's own layout if the rows fit; otherwise the widest of the layouts above that fits."""
        grid = _grid(self)
        if sum(one.most for one in grid) + _GAP * (len(grid) - 1) <= options.max_width or not self.row_count:
            yield from super().__rich_console__(console, options)
            return
        yield from _narrow(grid, self.row_count, console, options.max_width)


@dataclass(slots=True)
class _Column:
    heading: Text
    cells: list[Text]
    is_right: bool
    is_name: bool

    @property
    def texts(self) -> list[Text]:
        return [self.heading, *self.cells]

    @property
    def most(self) -> int:
        """The width at which nothing wraps."""
        return max(_longest(text.plain.split("\n")) for text in self.texts)

    def least(self, *, whole_names: bool) -> int:
        """The narrowest width that breaks no word, or no name if requested."""
        words = [word for text in self.texts for word in text.plain.split()]
        if not self.is_name:
            return min(_longest(words), _LONGEST_WORD)
        if whole_names:
            return max(_longest(text.plain for text in self.cells), _longest(self.heading.plain.split()))
        return _longest(piece.strip() for text in self.texts for piece in _pieces(text.plain))


def _grid(table: Table) -> list[_Column]:
    found = []
    for column in table.columns:
        heading, *cells = (one if isinstance(one, Text) else Text(str(one)) for one in (column.header, *column.cells))
        right = column.justify == "right"
        found.append(_Column(heading, cells, right, column.no_wrap or heading.plain == "Replica type"))
    return found


def _narrow(grid: list[_Column], rows: int, console: Console, width: int) -> Iterator[Text]:
    has_remarks = len(grid) > 1 and not grid[-1].is_right and not grid[-1].is_name and grid[-1].most > _REMARK
    for whole_names in (True, False):
        for below in (False, True) if has_remarks else (False,):
            beside = grid[:-1] if below else grid
            least = [one.least(whole_names=whole_names) for one in beside]
            if has_remarks and not below:
                least[-1] = max(least[-1], _REMARK)
            if sum(least) + _GAP * (len(least) - 1) <= width:
                widths = _shared(least, [one.most for one in beside], width)
                yield from _lines([one.heading for one in beside], beside, widths, console)
                for row in range(rows):
                    yield from _lines([one.cells[row] for one in beside], beside, widths, console)
                    if below and (remark := grid[-1].cells[row]).plain.strip():
                        heading = f"{grid[-1].heading.plain}: " if grid[-1].heading.plain else ""
                        yield from _indented(Text(heading).append_text(remark), console, width)
                return
    yield from _paragraphs(grid, rows, console, width)


def _shared(least: list[int], most: list[int], width: int) -> list[int]:
    """Widths between least and most; remaining space goes to the column that lacks most, one character at a time."""
    widths = list(least)
    for _ in range(width - sum(least) - _GAP * (len(least) - 1)):
        lacks = [high - now for high, now in zip(most, widths, strict=True)]
        if max(lacks) <= 0:
            break
        widths[lacks.index(max(lacks))] += 1
    return widths


def _lines(
    cells: Sequence[Text], columns: Sequence[_Column], widths: Sequence[int], console: Console
) -> Iterator[Text]:
    """A row: its cells wrapped, side by side."""
    wrapped = [
        _split_name(cell, width) if one.is_name else list(cell.wrap(console, width, overflow="fold"))
        for cell, one, width in zip(cells, columns, widths, strict=True)
    ]
    for i in range(max(map(len, wrapped))):
        line = Text()
        for parts, one, width in zip(wrapped, columns, widths, strict=True):
            part = parts[i].copy() if i < len(parts) else Text()
            part.rstrip()
            part.align("right" if one.is_right else "left", width)
            line.append_text(part).append(" " * _GAP)
        line.rstrip()
        yield line


def _indented(text: Text, console: Console, width: int) -> Iterator[Text]:
    for line in text.wrap(console, max(width - _INDENT, 1), overflow="fold"):
        line.rstrip()
        yield Text(" " * _INDENT).append_text(line)


def _paragraphs(grid: list[_Column], rows: int, console: Console, width: int) -> Iterator[Text]:
    """Each row as a paragraph: its name, and below it each heading with its value."""
    first = next((i for i, one in enumerate(grid) if one.is_name), 0)
    for row in range(rows):
        yield from grid[first].cells[row].wrap(console, width, overflow="fold")
        others = [one for i, one in enumerate(grid) if i != first and one.cells[row].plain.strip()]
        values = [f"{one.heading.plain} {one.cells[row].plain}".strip() for one in others]
        yield from _indented(Text(" | ".join(values)), console, width)


def _split_name(text: Text, width: int) -> list[Text]:
    """A name on as many lines as it needs, broken after ``/`` and spaces."""
    cuts, start, end = [], 0, 0
    for piece in _pieces(text.plain):
        if end > start and end + len(piece.rstrip()) - start > width:
            cuts.append(end)
            start = end
        end += len(piece)
    return list(text.divide(cuts))


def _pieces(name: str) -> list[str]:
    return re.findall(r"[^/ ]*[/ ]+|[^/ ]+", name)


def _longest(texts: Iterable[str]) -> int:
    return max(map(len, texts), default=0)
