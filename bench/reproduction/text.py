"""Markdown: paragraphs, numbered items and tables."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

WIDTH = 118
SHORT_NAME = {"L4": "L4", "A10G": "A10G", "A100-80GB": "A100", "H100-80GB": "H100"}


def prose(text: str) -> list[str]:
    """One paragraph, wrapped."""
    kept = " ".join(text.split()).replace(" %", "\0%")  # a figure and its sign stay on one line
    return [
        line.replace("\0", " ") for line in textwrap.wrap(kept, WIDTH, break_long_words=False, break_on_hyphens=False)
    ]


def numbered(items: Iterable[str]) -> list[str]:
    """A numbered list of paragraphs, wrapped."""
    lines: list[str] = []
    for number, item in enumerate(items, 1):
        first, *rest = prose(item)
        lines += [f"{number}. {first}", *(f"   {line}" for line in rest)]
    return lines


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A table with its first column left-aligned and the others right-aligned."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows]


def percent(part: float, digits: int = 0) -> str:
    """``83 %``."""
    return f"{100 * part:.{digits}f} %"


def fleet_of(fleet: dict[str, int]) -> str:
    """``2 L4 + 1 A100``."""
    return " + ".join(f"{count} {SHORT_NAME[name]}" for name, count in fleet.items() if count)


def sentence(words: str) -> str:
    """The words with a capital letter."""
    return words[0].upper() + words[1:]
