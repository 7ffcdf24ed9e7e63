"""Fetched prices in the user's data folder; they replace bundled prices of the same kind."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path

from melange.catalog.bundled import offers
from melange.catalog.offer import Offer
from melange.errors import InputError
from melange.files import write_text
from melange.paths import user_folder

FILE = "prices.csv"
# The fields in which two prices of the same offer agree. The instance type may differ when a cheaper one appears.
Kind = tuple[str, str, str, int, str]


def data_folder() -> Path:
    """The folder of fetched prices: ``$MELANGE_DATA``, or ``melange`` in the user's data folder.

    If neither exists, a folder for this user next to temporary files.
    """
    if own := os.environ.get("MELANGE_DATA"):
        return Path(own)
    return user_folder("XDG_DATA_HOME", ".local", "share")


def current_offers() -> tuple[Offer, ...]:
    """The bundled offers, with newer fetched prices replacing older ones.

    Raises
    ------
    InputError
        The file of fetched prices cannot be read.
    """
    file = data_folder() / FILE
    try:
        changed_ns = file.stat().st_mtime_ns
    except OSError:
        return offers()
    return _current(file, changed_ns)


@lru_cache(maxsize=2)
def _current(file: Path, changed_ns: int) -> tuple[Offer, ...]:
    """The current offers for one state of the file; ``changed_ns`` is only a cache key."""
    del changed_ns
    return merged(offers(), fetched_offers(file))


def fetched_offers(file: Path) -> tuple[Offer, ...]:
    """The offers in a file of fetched prices; none if the file does not exist."""
    from melange.catalog.readers import read_own_table

    if not file.is_file():
        return ()
    try:
        return read_own_table(file)
    except InputError as error:
        raise InputError(
            f"{error}", hint=f"delete {file} to plan with the bundled prices, or run melange catalog update"
        ) from error


def kind_of(offer: Offer) -> Kind:
    """The kind of an offer: provider, region, accelerator, count, market."""
    return (offer.provider, offer.region, offer.accelerator, offer.accelerators, offer.market)


def merged(older: Sequence[Offer], newer: Iterable[Offer]) -> tuple[Offer, ...]:
    """The older offers, each replaced by a newer offer of its kind, followed by the newer offers of other kinds.

    An offer with an earlier date than the offer it would replace is left out. A price without a region is replaced by
    newer prices with regions.

    >>> from dataclasses import replace
    >>> one = offers()[0]
    >>> merged([one], [replace(one, cost_per_h=9.0)])[0].cost_per_h
    9.0
    >>> merged([one], [replace(one, cost_per_h=9.0, seen=date(2020, 1, 1))])[0].cost_per_h == one.cost_per_h
    True
    """
    by_kind = {kind_of(offer): offer for offer in older}
    for offer in newer:
        known = by_kind.get(kind_of(offer))
        if known is None or _is_newer(offer, known):
            by_kind[kind_of(offer)] = offer
        everywhere = by_kind.get(kind_of(replace(offer, region="")))
        if offer.region and everywhere is not None and _is_newer(offer, everywhere):
            del by_kind[kind_of(everywhere)]
    return tuple(by_kind.values())


def _is_newer(offer: Offer, known: Offer) -> bool:
    """Whether a price may replace a known price; a price without a date counts as of today."""
    return (offer.seen or date.max) >= (known.seen or date.min)


def save(fetched: Iterable[Offer], folder: Path, now: datetime) -> Path | None:
    """Write the file of fetched prices; keep the previous one next to it and return its path."""
    file, kept = folder / FILE, None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before = file.read_text(encoding="utf-8") if file.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{folder}: prices cannot be stored here: {error}", hint="set MELANGE_DATA to another folder"
        ) from error
    if before is not None:
        kept = folder / f"prices-until-{now:%Y%m%dT%H%M%S}.csv"
        write_text(kept, before)
    columns = [one.name for one in fields(Offer)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for offer in sorted(fetched, key=lambda one: (*kind_of(one), one.instance_type)):
        writer.writerow(["" if value is None else value for value in offer.to_json().values()])
    write_text(file, text.getvalue())
    return kept
