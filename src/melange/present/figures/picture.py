"""A picture with its caption and numbers."""

from __future__ import annotations

from dataclasses import dataclass

from melange.present.figures.figure import Figure
from melange.present.figures.theme import finding_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One of several views of a picture.

    Parameters
    ----------
    label
        What distinguishes this view from the others.
    figure
        The figure; its title states the finding.
    """

    label: str
    figure: Figure

    @property
    def finding(self) -> str:
        """The figure's title as plain text."""
        return finding_of(self.figure)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture with its caption and numbers.

    Parameters
    ----------
    name
        Name of its files and HTML ids.
    about
        What it shows.
    caption
        How to read it, and its assumptions.
    variants
        The views; the first is shown first.
    choice
        What the variants differ in; empty if there is only one.
    header, rows
        The numbers behind the picture.
    min_width
        Below this width, the picture scrolls sideways [px].
    """

    name: str
    about: str
    caption: str
    variants: tuple[Variant, ...]
    choice: str = ""
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    min_width: int = 0
