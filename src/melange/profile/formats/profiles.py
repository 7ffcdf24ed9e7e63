"""Profile files: our own, the Mélange release's and AIBrix's; and how to combine measured with estimated cells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from melange.errors import Caution, InputError
from melange.files import write_text
from melange.profile.formats.aibrix import aibrix_from, profile_from_aibrix
from melange.profile.formats.release import config_from_release, profile_from_release, release_from
from melange.profile.formats.tables import read_objects
from melange.profile.join import read_joined
from melange.profile.profile import ESTIMATED, Profile, ReplicaType
from melange.replica.engine import Engine
from melange.workload.workload import Workload

_ARRAYS = ("max_request_rate", "low", "high", "provenance")


def read_profile(path: str | Path, *more: str | Path) -> Profile:
    """Read a profile: ``profile.json``, a configuration of the release, or AIBrix profiles.

    Parameters
    ----------
    path
        The file. An AIBrix file may hold several profiles, as a list or one per line.
    more
        More files of our own, or of AIBrix's, with other replica types.

    Raises
    ------
    InputError
        A file of another kind; rates that are negative or not numbers; tables that are transposed or of the wrong
        shape; files that do not match. The error names file and field.
    """
    paths = [path, *more]
    found = [(f"{one}", content) for one in paths for content in read_objects(one)]
    place, first = found[0]
    if all("tputs" in content for _, content in found):
        return profile_from_aibrix([content for _, content in found], [place for place, _ in found])
    if all("melange" in content for _, content in found):
        return read_joined(paths)
    if len(found) > 1:
        raise InputError(f"{place}: several profiles can be combined only if all are melange's or all are AIBrix's")
    if "gpu_info" in first:
        return profile_from_release(first, place)
    raise InputError(
        f"{place}: unknown profile format: none of the keys 'melange', 'gpu_info', 'tputs'",
        hint="give a profile.json, a configuration of the Mélange release or an AIBrix profile",
    )


def read_melange_config(path: str | Path) -> tuple[Workload, Profile, dict[str, Any]]:
    """Read a whole configuration of the Mélange release, as the release interprets it.

    Returns
    -------
    tuple
        Traffic over numbered buckets; capacities; and plan settings: its slice factor, no headroom, the exact optimum.

    Raises
    ------
    InputError
        Missing keys, shares that do not add up to 1, rates that are negative or not numbers, tables of different
        shapes.
    """
    objects = read_objects(path)
    if len(objects) != 1:
        raise InputError(f"{path}: must hold one configuration, got {len(objects)}")
    return config_from_release(objects[0], f"{path}")


def write_melange_config(path: str | Path, workload: Workload, profile: Profile, *, slice_factor: int = 1) -> Path:
    """Write a configuration of the Mélange release."""
    return _write(path, [release_from(workload, profile, slice_factor)])


def write_aibrix_profile(path: str | Path, profile: Profile, *, created_s: float = 0.0) -> Path:
    """Write AIBrix profiles, one for each replica type; several are written one per line.

    Parameters
    ----------
    created_s
        Time when the profile was made, since 1970 [s].
    """
    return _write(path, aibrix_from(profile, created_s))


def combine(measured: Profile, estimated: Profile) -> Profile:
    """Combine two profiles over the same buckets; measured (and anchored) cells take precedence.

    A replica type of ``measured`` replaces the estimated types of its name, or, if there is none, those with its
    accelerator, degree, variant and (if it states one) engine. Offers are those of the estimate, which has more details
    of the price. A measured type without an estimated counterpart is added unchanged.
    """
    if measured.buckets.is_ordinal != estimated.buckets.is_ordinal:
        raise InputError(
            "profile: a file with numbered buckets without sizes cannot be combined with estimates",
            hint="use only one of the two, or give the measured rates with their bucket edges",
        )
    if measured.buckets != estimated.buckets:
        raise InputError(
            "profile: measured and estimated cells must have the same buckets",
            hint="set workload.buckets to the edges of the measured profile: "
            f"input {list(measured.buckets.input_edges)}, output {list(measured.buckets.output_edges)}",
        )
    matches = [_matching(one, estimated.replica_types) for one in measured.replica_types]
    arrays = {name: getattr(estimated, name).copy() for name in _ARRAYS}
    reason = estimated.reason.copy()
    offset = len(estimated.reasons)
    measured_reason = np.where(measured.reason > 0, measured.reason + offset, 0)
    for m, places in enumerate(matches):
        wins = measured.provenance[m] != ESTIMATED
        for name, values in arrays.items():
            values[places] = np.where(wins, getattr(measured, name)[m], values[places])
        reason[places] = np.where(wins, measured_reason[m], reason[places])
    extra = [m for m, places in enumerate(matches) if not places]
    return Profile(
        replica_types=(*estimated.replica_types, *(measured.replica_types[m] for m in extra)),
        buckets=estimated.buckets,
        **{name: np.concatenate([values, getattr(measured, name)[extra]]) for name, values in arrays.items()},
        reasons=(*estimated.reasons, *measured.reasons),
        reason=np.concatenate([reason, measured_reason[extra]]),
        slo=estimated.slo or measured.slo,
        model=estimated.model or measured.model,
        source="; ".join(filter(None, (measured.source, estimated.source))),
        cautions=(*measured.cautions, *estimated.cautions, *_disagreement(measured, estimated)),
        engines=_engines(measured, estimated, matches, extra),
    )


def _engines(
    measured: Profile, estimated: Profile, matches: Sequence[Sequence[int]], extra: Sequence[int]
) -> tuple[Engine | None, ...]:
    """Engines of all types of both profiles: the measured profile's engines if it has them."""
    engines = list(estimated.engines) or [None] * len(estimated.replica_types)
    known = measured.engines or (None,) * len(measured.replica_types)
    for engine, places in zip(known, matches, strict=True):
        for place in places:
            engines[place] = engine or engines[place]
    return (*engines, *(known[m] for m in extra))


def _matching(measured: ReplicaType, candidates: Sequence[ReplicaType]) -> list[int]:
    named = [r for r, one in enumerate(candidates) if one.name == measured.name]
    if named:
        return named
    return [
        r
        for r, one in enumerate(candidates)
        if one.offer.accelerator == measured.offer.accelerator
        and one.tensor_parallel == measured.tensor_parallel
        and one.variant == measured.variant
        and measured.engine in ("", one.engine)
    ]


def _disagreement(measured: Profile, estimated: Profile) -> list[Caution]:
    if measured.slo is None or estimated.slo is None or measured.slo == estimated.slo:
        return []
    return [Caution("slo", f"measured for {measured.slo}, estimated for {estimated.slo}; measure for the same")]


def _write(path: str | Path, documents: Sequence[dict[str, Any]]) -> Path:
    return write_text(path, "".join(json.dumps(one, ensure_ascii=False, allow_nan=False) + "\n" for one in documents))
