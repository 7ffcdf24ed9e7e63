"""The result of a price update, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from melange.catalog.update import PriceChange, PriceUpdate
from melange.present.terminal.layout import add_column, table_of
from melange.units import count_of

# Rows shown before the rest is counted: one screen. Chosen by judgment.
_SHOWN = 30


def update_page(update: PriceUpdate) -> RenderableType:
    """Changed, new and rejected prices, and where the prices are stored."""
    parts: list[RenderableType] = [Text(_summary(update))]
    if update.moved:
        parts += [Text("\nChanged, largest changes first"), _table(update.moved), *_rest(update.moved)]
    if update.added:
        parts += [Text("\nNew"), _table(update.added), *_rest(update.added)]
    if update.held:
        parts += [
            Text("\nRejected: the old price stays; --accept-jumps accepts them"),
            _table(update.held, with_reason=True),
            *_rest(update.held),
        ]
    saved = f"saved to {update.file}" if update.file else "no price was accepted, nothing was written"
    parts.append(Text(f"\n{saved}" + (f"; previous prices: {update.kept}" if update.kept else "")))
    return Group(*parts)


def _summary(update: PriceUpdate) -> str:
    """The price update in one sentence."""
    counts = [
        ("changed", len(update.moved)),
        ("unchanged", update.unchanged),
        ("new", len(update.added)),
        ("rejected", len(update.held)),
        ("known but missing there (kept)", update.missing),
    ]
    told = ", ".join(f"{what}: {count:,}" for what, count in counts if count)
    were = "was" if update.elsewhere == 1 else "were"
    skipped = f"; {count_of(update.elsewhere, 'offer')} of other providers and regions {were} skipped"
    other = skipped if update.elsewhere else ""
    return f"Prices from {update.source}. {told[:1].upper()}{told[1:]}{other}."


def _table(changes: Sequence[PriceChange], *, with_reason: bool = False) -> RenderableType:
    """Old price, new price, and the change."""
    table = table_of("Offer", "Accelerators")
    for heading in ("Old USD/h", "New USD/h", "Change"):
        add_column(table, heading, right=True)
    if with_reason:
        table.add_column("Why")
    for one in changes[:_SHOWN]:
        cells = [
            one.new.name,
            f"{one.new.accelerators} x {one.new.accelerator}",
            f"{one.old.cost_per_h:,.2f}" if one.old else "-",
            f"{one.new.cost_per_h:,.2f}",
            f"{one.change:+.1%}" if one.old else "-",
        ]
        table.add_row(*cells, *([one.reason] if with_reason else []))
    return table


def _rest(changes: Sequence[PriceChange]) -> list[RenderableType]:
    """The number of rows not shown."""
    return [Text(f"... and {len(changes) - _SHOWN:,} more (--json lists all)")] if len(changes) > _SHOWN else []
