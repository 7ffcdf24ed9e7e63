"""Round-trip times between two places: a bundled table, and the user's own figures.

The table (``data/round_trips.csv``) has medians over the 30 days before 9 April 2024 between Azure's regions, as
published by Microsoft ("Azure network round-trip latency statistics", read on 26 November 2026). Regions of other
providers in the same part of a country count as the same place.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from melange.catalog.bundled import table
from melange.errors import InputError, unknown
from melange.files import read_text
from melange.parsing import table_rows
from melange.units import MS_PER_S

# Round trip between users and a region at the same place, and between two regions at one place [s]. Chosen by judgment.
NEAR_S = 0.01
_COLUMNS = ("from", "to", "ms")
# The place of each region.
_PLACES: Mapping[str, str] = {
    "us-east-1": "virginia",
    "us-east4": "virginia",
    "eastus": "virginia",
    "eastus2": "virginia",
    "us-central1": "iowa",
    "centralus": "iowa",
    "us-west-2": "washington",
    "us-west1": "washington",
    "westus2": "washington",
    "ca-central-1": "toronto",
    "northamerica-northeast2": "toronto",
    "canadacentral": "toronto",
    "sa-east-1": "sao-paulo",
    "southamerica-east1": "sao-paulo",
    "brazilsouth": "sao-paulo",
    "eu-west-1": "dublin",
    "northeurope": "dublin",
    "eu-west-2": "london",
    "europe-west2": "london",
    "uksouth": "london",
    "eu-west-3": "paris",
    "europe-west9": "paris",
    "francecentral": "paris",
    "europe-west4": "amsterdam",
    "westeurope": "amsterdam",
    "eu-central-1": "frankfurt",
    "europe-west3": "frankfurt",
    "germanywestcentral": "frankfurt",
    "ap-south-1": "pune",
    "asia-south1": "pune",
    "centralindia": "pune",
    "ap-southeast-1": "singapore",
    "asia-southeast1": "singapore",
    "southeastasia": "singapore",
    "ap-northeast-1": "tokyo",
    "asia-northeast1": "tokyo",
    "japaneast": "tokyo",
    "ap-northeast-2": "seoul",
    "asia-northeast3": "seoul",
    "koreacentral": "seoul",
    "ap-southeast-2": "sydney",
    "australia-southeast1": "sydney",
    "australiaeast": "sydney",
}

Trips = Mapping[tuple[str, str], float]


@cache
def bundled_trips() -> Trips:
    """Round trips between places, in both directions [s]."""
    return _both_ways(table("round_trips.csv"), "round_trips.csv")


def read_trips(path: Path) -> Trips:
    """Round trips from the user's own table: columns ``from``, ``to`` and ``ms``, for regions, places or any names [s].

    Raises
    ------
    InputError
        The file cannot be read, a column is missing, or a row is not a round trip.
    """
    return _both_ways(read_text(path), str(path))


def _both_ways(text: str, place: str) -> Trips:
    rows = table_rows(text, place)
    names = next(rows, (1, []))[1]
    lacking = set(_COLUMNS) - set(names)
    if lacking:
        raise InputError(f"{place}: column {min(lacking)!r} is missing", hint="columns: from,to,ms")
    at = [names.index(name) for name in _COLUMNS]
    trips: dict[tuple[str, str], float] = {}
    for line, row in rows:
        start, end, ms = (row[column] if column < len(row) else "" for column in at)
        try:
            value = float(ms)
        except ValueError:
            value = float("nan")
        if not 0 <= value <= 10 * MS_PER_S:
            raise InputError(f"{place}: line {line}: ms must be 0 to 10,000, got {ms!r}")
        trips[start, end] = trips[end, start] = value / MS_PER_S
    return trips


def round_trip_s(start: str, end: str, own: Trips) -> float | None:
    """The round trip between two places or regions [s]; None if no table has it.

    ``own`` figures take precedence over the bundled table.

    >>> round_trip_s("tokyo", "eu-central-1", {}), round_trip_s("us-east-1", "eastus", {})
    (0.223, 0.01)
    """
    if (start, end) in own:
        return own[start, end]
    here, there = _PLACES.get(start, start), _PLACES.get(end, end)
    if here == there:
        return NEAR_S
    return own.get((here, there), bundled_trips().get((here, there)))


def check_place(name: str, own: Trips, where: str) -> None:
    """Reject a place that is in no table.

    Raises
    ------
    InputError
        The place is unknown; the error gives the nearest known ones.
    """
    known = {*_PLACES, *(start for start, _ in bundled_trips()), *(start for start, _ in own)}
    if name not in known:
        raise unknown("place", name, sorted(known), place=where)
