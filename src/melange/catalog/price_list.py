"""Offers read from a price list, with the problems found in it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from melange.catalog.bundled import accelerators
from melange.catalog.offer import Offer
from melange.catalog.parts import Part, find_part
from melange.catalog.shapes import interconnect
from melange.errors import Caution, InputError, first_of, some_of
from melange.files import read_text
from melange.parsing import csv_rows, table_rows
from melange.units import count_of

# Faulty rows listed in an error before the rest is counted: enough to see the problem. Chosen by judgment.
_SHOWN_FAULTS = 5
# Most characters of a header that are read: headers of catalogs have 300.
_MOST_HEADER = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceList:
    """Offers of a price list, with cautions for its reader.

    Parameters
    ----------
    offers
        The offers; if zones of one region differ, the cheapest.
    cautions
        Rows that were left out, and why.
    """

    offers: tuple[Offer, ...]
    cautions: tuple[Caution, ...] = ()


@dataclass(slots=True)
class Faults:
    """Unusable rows, collected so that they are reported together.

    Parameters
    ----------
    messages
        The fault of each row, with its place.
    """

    messages: list[str] = field(default_factory=list)

    def add(self, message: str) -> None:
        """Record one fault."""
        self.messages.append(message)

    def check(self) -> None:
        """Raise if there are faults: the first few in full, and the number of the others."""
        if self.messages:
            raise InputError(first_of(self.messages, what="row"), hint="fix or remove these rows")


def rows_of(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and row of a CSV file, with the column names in lower case."""
    rows = table_rows(read_text(path), f"{path}")
    _, names = next(rows, (1, []))
    header = [column.strip().casefold() for column in names]
    for line, values in rows:
        if any(values):
            yield line, dict(zip(header, (value.strip() for value in values), strict=False))


def whole_rows_of(path: Path, faults: Faults) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of another tool's catalog with a cell for each column; other rows, as in a truncated file, are faults."""
    cells = len(set(columns_of(path)))
    for line, row in rows_of(path):
        if len(row) < cells:
            faults.add(f"{path}:{line}: must have {cells} cells, got {len(row)}")
        else:
            yield line, row


def columns_of(path: Path) -> list[str]:
    """Column names of a CSV file, in lower case."""
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            line = stream.readline(_MOST_HEADER).removeprefix("\ufeff")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    _, names = next(csv_rows([line], f"{path}"), (1, []))
    return [column.strip().casefold() for column in names]


def positive(text: str, column: str) -> float:
    """A number above zero, or a ValueError that shows the text."""
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{column} must be a number, got {text!r}") from None
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{column} must be > 0 and finite, got {text}")
    return value


def whole(text: str, column: str) -> int:
    """An integer above zero, or a ValueError that shows the text."""
    value = positive(text, column)
    if value != int(value):
        raise ValueError(f"{column} must be a whole number, got {text}")
    return int(value)


def _rows(count: int) -> str:
    """A number of rows, with the verb of the sentence."""
    return f"{count:,} row was" if count == 1 else f"{count:,} rows were"


@dataclass(slots=True)
class Gathering:
    """Collects the offers of another tool's catalog; for each instance type and region it keeps the cheapest.

    An unusable row is left out and counted: the catalog is not ours, and one mistake in it must not make the other rows
    unusable.

    Parameters
    ----------
    faults
        Unusable rows.
    skipped
        Number of rows by unknown accelerator.
    flagged
        Number of rows by flag, for flags that mark a price as not available to everyone.
    assumed
        Number of rows by provider and name whose form (SXM, PCIe) neither the row nor a known convention states.
    cheapest
        The offer to keep, by provider, region, instance type, accelerator, count and market.
    parts
        The part, by all fields that determine it.
    """

    faults: Faults = field(default_factory=Faults)
    skipped: Counter[str] = field(default_factory=Counter)
    flagged: Counter[str] = field(default_factory=Counter)
    assumed: Counter[str] = field(default_factory=Counter)
    cheapest: dict[tuple[str, str, str, str, int, str], Offer] = field(default_factory=dict)
    parts: dict[tuple[str, str, float | None, str, str], Part] = field(default_factory=dict)

    def accelerator(
        self, provider: str, name: str, memory_gib: float | None, instance_type: str, described: str = ""
    ) -> str | None:
        """Our own name; None if it is unknown, which is counted."""
        key = (provider, name, memory_gib, instance_type, described)
        if key not in self.parts:
            self.parts[key] = find_part(
                provider, name, memory_gib=memory_gib, instance_type=instance_type, described=described
            )
        part = self.parts[key]
        if part.name is None:
            self.skipped[name] += 1
        elif part.is_assumed:
            self.assumed[f"{name} of {provider}"] += 1
        return part.name

    def add(
        self,
        provider: str,
        region: str,
        shape: tuple[str, str, int],
        price: float,
        market: str,
        source: str,
        seen: date | None = None,
    ) -> None:
        """Add one price of one shape (instance type, accelerator, count)."""
        instance_type, accelerator, count = shape
        key = (provider, region, instance_type, accelerator, count, market)
        if key in self.cheapest and self.cheapest[key].cost_per_h <= price:
            return
        self.cheapest[key] = Offer(
            provider=provider,
            region=region,
            instance_type=instance_type,
            accelerator=accelerator,
            accelerators=count,
            cost_per_h=price,
            market=market,
            interconnect=interconnect(instance_type, accelerators()[accelerator], count),
            source=source,
            seen=seen,
        )

    def finish(self, path: Path) -> PriceList:
        """The price list, with a caution for each kind of row that was left out."""
        if not self.cheapest:
            self.faults.check()
            raise InputError(f"{path}: no offer for a known accelerator")
        return PriceList(offers=tuple(self.cheapest.values()), cautions=tuple(self._cautions(path)))

    def _cautions(self, path: Path) -> Iterator[Caution]:
        """Cautions about rows that were left out, and about rows whose form was assumed."""
        if self.skipped:
            names = ", ".join(name for name, _ in self.skipped.most_common(5))
            more = f" and {count_of(len(self.skipped) - 5, 'other')}" if len(self.skipped) > 5 else ""
            yield Caution(
                "unknown-accelerator",
                f"{path}: {_rows(self.skipped.total())} skipped, unknown accelerators: {names}{more}",
            )
        if self.faults.messages:
            count = len(self.faults.messages)
            shown = "; ".join(self.faults.messages[:_SHOWN_FAULTS])
            more = f"; and {count - _SHOWN_FAULTS} more" if count > _SHOWN_FAULTS else ""
            yield Caution("bad-rows", f"{path}: {_rows(count)} skipped: {shown}{more}")
        if self.flagged:
            names = some_of(f"{name} ({count})" for name, count in self.flagged.most_common())
            yield Caution(
                "flagged-rows",
                f"{path}: {_rows(self.flagged.total())} skipped, whose price is not available to everyone: {names}; "
                "if it is available to you, add it to your own offers.csv",
            )
        if self.assumed:
            names = some_of(name for name, _ in self.assumed.most_common())
            yield Caution(
                "assumed-part",
                f"{path}: {_rows(self.assumed.total())} assumed to be SXM modules, but may be PCIe cards: {names}; "
                "your own offers.csv can name the exact part",
            )
