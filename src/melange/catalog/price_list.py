"""Offers as read from somebody's price list, and what went wrong on the way."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from melange.catalog.bundled import accelerators
from melange.catalog.names import find_accelerator
from melange.catalog.offer import Offer
from melange.catalog.shapes import interconnect, part_of
from melange.errors import Caution, InputError
from melange.files import read_text
from melange.parsing import csv_rows

# Faulty rows that an error spells out before it counts the rest: enough to see what is wrong. A judgment.
_SHOWN_FAULTS = 5
# Characters of a header that are read: those of catalogs have 300.
_MOST_HEADER = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceList:
    """Offers of a price list, with what its reader should know.

    Parameters
    ----------
    offers
        What can be rented; the cheapest where zones of one region differ.
    cautions
        Rows that were left out, and why.
    """

    offers: tuple[Offer, ...]
    cautions: tuple[Caution, ...] = ()


@dataclass(slots=True)
class Faults:
    """Rows that cannot be used, gathered so that they are reported together.

    Parameters
    ----------
    messages
        What is wrong with each, with its place.
    """

    messages: list[str] = field(default_factory=list)

    def add(self, message: str) -> None:
        """Remember one."""
        self.messages.append(message)

    def check(self) -> None:
        """Raise if there was any: the first few in full, and how many more."""
        if self.messages:
            more = len(self.messages) - _SHOWN_FAULTS
            shown = self.messages[:_SHOWN_FAULTS] + ([f"... and {more} more rows"] if more > 0 else [])
            raise InputError("\n".join(shown), hint="correct or remove these rows")


def rows_of(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and row of a CSV file, with the column names in lower case."""
    rows = csv_rows(read_text(path).removeprefix("\ufeff").splitlines(keepends=True), f"{path}")
    _, names = next(rows, (1, []))
    header = [column.strip().casefold() for column in names]
    for line, values in rows:
        if any(values):
            yield line, dict(zip(header, (value.strip() for value in values), strict=False))


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
    """A number above zero, or a ValueError that says what was found."""
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{column} must be a number, got {text!r}") from None
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{column} must be > 0 and finite, got {text}")
    return value


def whole(text: str, column: str) -> int:
    """A whole number above zero, or a ValueError that says what was found."""
    value = positive(text, column)
    if value != int(value):
        raise ValueError(f"{column} must be a whole number, got {text}")
    return int(value)


@dataclass(slots=True)
class Gathering:
    """The offers of somebody's catalog as they come in; of one shape in one region the cheapest stays.

    Parameters
    ----------
    faults
        Rows that cannot be used.
    skipped
        How many rows each accelerator has that we do not know.
    cheapest
        The offer that stays, by provider, region, instance type and market.
    names
        Our own name of an accelerator, by its name and memory [GiB] there; None where it is not known.
    """

    faults: Faults = field(default_factory=Faults)
    skipped: Counter[str] = field(default_factory=Counter)
    cheapest: dict[tuple[str, str, str, str], Offer] = field(default_factory=dict)
    names: dict[tuple[str, float | None], str | None] = field(default_factory=dict)

    def accelerator(self, name: str, memory_gib: float | None, instance_type: str) -> str | None:
        """Our own name; None, and counted, where it is not known."""
        key = (name, memory_gib)
        if key not in self.names:
            self.names[key] = find_accelerator(name, accelerators(), memory_gib)
        known = part_of(instance_type) or self.names[key]
        if known is None:
            self.skipped[name] += 1
        return known

    def add(
        self, provider: str, region: str, shape: tuple[str, str, int], price: float, spot: bool, source: str
    ) -> None:
        """One price of one shape (instance type, accelerator, count)."""
        instance_type, accelerator, count = shape
        market = "spot" if spot else "on-demand"
        key = (provider, region, instance_type, market)
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
        )

    def finish(self, path: Path) -> PriceList:
        """The price list, after all faults were reported."""
        self.faults.check()
        if not self.cheapest:
            raise InputError(f"{path}: holds no offer of an accelerator that we know")
        cautions = []
        if self.skipped:
            names = ", ".join(name for name, _ in self.skipped.most_common(5))
            more = f" and {len(self.skipped) - 5} others" if len(self.skipped) > 5 else ""
            cautions.append(
                Caution(
                    "unknown-accelerator",
                    f"{path}: {self.skipped.total()} rows were left out: we have no figures of {names}{more}",
                )
            )
        return PriceList(offers=tuple(self.cheapest.values()), cautions=tuple(cautions))
