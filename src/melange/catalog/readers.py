"""Read price lists: an ``offers.csv``, or another tool's catalog."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path

from melange.catalog import gpuhunt, skypilot
from melange.catalog.bundled import accelerators, offers
from melange.catalog.generated_prices import is_generated, read_generated
from melange.catalog.names import find_accelerator
from melange.catalog.offer import INTERCONNECTS, MARKETS, Offer
from melange.catalog.plausible import implausible_prices
from melange.catalog.price_list import Faults, PriceList, columns_of, positive, rows_of, whole
from melange.catalog.shapes import interconnect
from melange.errors import InputError, unknown
from melange.files import path_of
from melange.paths import files_below

# Columns of the user's own price list: the first name is ours, the others are common names for the same.
_ALIASES_BY_COLUMN: Mapping[str, tuple[str, ...]] = {
    "provider": ("provider", "cloud", "vendor"),
    "region": ("region", "location"),
    "instance_type": ("instance_type", "instance", "instance_name", "machine_type"),
    "accelerator": ("accelerator", "gpu", "gpu_name", "gpu_type"),
    "accelerators": ("accelerators", "gpu_count", "gpus", "accelerator_count", "count"),
    "cost_per_h": ("cost_per_h", "price", "price_per_hour", "usd_per_hour", "cost", "cost_per_hour"),
    "market": ("market", "tier"),
    "interconnect": ("interconnect", "link"),
    "max_instances": ("max_instances", "available", "max"),
    "term_years": ("term_years",),
    "upfront_fraction": ("upfront_fraction",),
    "source": ("source",),
    "seen": ("seen", "date"),
}
_REQUIRED = ("accelerator", "cost_per_h")
_MARKET_BY_WORD = {"": "on-demand", "ondemand": "on-demand", "preemptible": "spot", "interruptible": "spot"}


def read_offers(path: str | Path) -> tuple[Offer, ...]:
    """Offers of a price list: the user's own table, or a catalog of SkyPilot or gpuhunt.

    Parameters
    ----------
    path
        A CSV file with the columns of :class:`~melange.catalog.offer.Offer` (``accelerator`` and ``cost_per_h``, the
        price of the whole instance [USD/h], are required; ``accelerators`` is 1 if absent), or a catalog of SkyPilot or
        gpuhunt: one of its files, or the folder.

    Raises
    ------
    InputError
        The file cannot be read or lacks a column; or rows of the user's own table are faulty: a price that is not above
        zero, an unknown accelerator and so on. Several rows are reported together, each with file and line. Faulty rows
        of a catalog are left out and counted, unless all rows are faulty.
    """
    return read_price_list(path).offers


def read_price_list(path: str | Path) -> PriceList:
    """The same as :func:`read_offers`, with cautions about skipped rows and implausible prices."""
    found = read_catalog(path_of(path))
    return replace(found, cautions=(*found.cautions, *implausible_prices(found.offers, offers(), str(path))))


def read_catalog(place: Path) -> PriceList:
    """A price list in any known format, without checks of its prices."""
    if place.is_dir():
        return _read_folder(place)
    if not place.is_file():
        raise InputError(
            f"{place}: no such file or folder", hint="give an offers.csv, or a catalog folder of SkyPilot or gpuhunt"
        )
    if is_generated(place):
        return read_generated(place)
    columns = set(columns_of(place))
    for module, read in _READERS:
        if columns >= module:
            return read({_provider_of(place): place}, place)
    return _read_table(place, columns)


_READERS = ((skypilot.COLUMNS, skypilot.read_skypilot), (gpuhunt.COLUMNS, gpuhunt.read_gpuhunt))


def _read_folder(folder: Path) -> PriceList:
    """A catalog of SkyPilot or gpuhunt, in the latest version for each provider."""
    paths = sorted((one for one in files_below(folder) if one.suffix == ".csv"), key=_version_of)
    columns = {path: set(columns_of(path)) for path in paths}
    for needed, read in _READERS:
        files = {_provider_of(path): path for path in paths if columns[path] >= needed}
        if files:
            return read(files, folder)
    raise InputError(
        f"{folder}: no catalog of SkyPilot (InstanceType, AcceleratorName, ...) or gpuhunt "
        "(instance_name, gpu_name, ...) in this folder",
        hint="give the folder with their CSV files, or your own offers.csv",
    )


def _provider_of(path: Path) -> str:
    """The provider of a catalog's file: ``aws.csv`` and ``aws/vms.csv`` are both for aws."""
    return path.resolve().parent.name if path.stem in {"vms", "instances"} else path.stem


def _version_of(path: Path) -> tuple[int, str]:
    """The version in a SkyPilot path, and the path: for sorting, later versions last."""
    versions = [int(part[1:]) for part in path.parts if re.fullmatch(r"v\d+", part)]
    return (versions[-1] if versions else 0, str(path))


def read_own_table(path: Path) -> tuple[Offer, ...]:
    """Offers of the user's own table, even if it looks like another format."""
    return _read_table(path, set(columns_of(path))).offers


def _read_table(path: Path, columns: set[str]) -> PriceList:
    """Read the user's own price list."""
    named = {
        column: next((name for name in names if name in columns), None) for column, names in _ALIASES_BY_COLUMN.items()
    }
    absent = [column for column in _REQUIRED if named[column] is None]
    if absent:
        raise InputError(
            f"{path}:1: the column {' and the column '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing; "
            f"found {', '.join(sorted(columns - {''})) or 'no columns'}",
            hint="the columns of an offers.csv are " + ", ".join(_ALIASES_BY_COLUMN),
        )
    faults = Faults()
    listed = []
    for line, row in rows_of(path):
        cells = {column: row.get(name, "") if name else "" for column, name in named.items()}
        if row.get("spot", "").casefold() in {"true", "1", "yes"}:
            cells["market"] = cells["market"] or "spot"
        try:
            listed.append(_offer_of(cells, str(path)))
        except (ValueError, InputError) as error:
            faults.add(f"{path}:{line}: {error}")
    faults.check()
    if not listed:
        raise InputError(f"{path}: no offers in this file", hint="write a header line and one line per offer")
    return PriceList(offers=tuple(listed))


def _offer_of(cells: Mapping[str, str], path: str) -> Offer:
    """One row of the user's own price list."""
    name = find_accelerator(cells["accelerator"], accelerators())
    if name is None:
        raise unknown("accelerator", cells["accelerator"], accelerators())
    count = whole(cells["accelerators"], "accelerators") if cells["accelerators"] else 1
    market = cells["market"].casefold().replace("_", "-").replace(" ", "-")
    joined = cells["interconnect"].casefold()
    if joined not in INTERCONNECTS:
        raise ValueError(f"interconnect must be nvlink, pcie or empty, got {cells['interconnect']!r}")
    market = _MARKET_BY_WORD.get(market, market)
    if market not in MARKETS:
        raise ValueError(f"market must be one of {', '.join(MARKETS)}, got {cells['market']!r}")
    instance_type = cells["instance_type"] or f"{count}x-{name}"
    limit = cells["max_instances"]
    if limit and not limit.isdecimal():
        raise ValueError(f"max_instances must be a whole number >= 0, got {limit!r}")
    return Offer(
        provider=cells["provider"],
        region=cells["region"],
        instance_type=instance_type,
        accelerator=name,
        accelerators=count,
        cost_per_h=positive(cells["cost_per_h"], "cost_per_h"),
        market=market,
        interconnect=joined or interconnect(instance_type, accelerators()[name], count),
        max_instances=int(limit) if limit else None,
        term_years=_term(cells["term_years"]),
        upfront_fraction=_fraction(cells["upfront_fraction"]),
        source=" ".join(cells["source"].split()) or path,
        seen=_day(cells["seen"]),
    )


def _term(text: str) -> float | None:
    """A term in years, or a ValueError that shows the text."""
    return positive(text, "term_years") if text else None


def _fraction(text: str) -> float | None:
    """A share, or a ValueError that shows the text."""
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"upfront_fraction must be a number from 0 to 1, got {text!r}") from None


def _day(text: str) -> date | None:
    """A date, or a ValueError that shows the text."""
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise ValueError(f"seen must be a date such as 2026-08-22, got {text!r}") from None
