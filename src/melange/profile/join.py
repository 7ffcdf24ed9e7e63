"""Join separately measured profiles of several replica types into one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from melange.errors import InputError
from melange.profile.profile import Profile
from melange.replica.engine import Engine

# Fields that must be equal in all profiles, with the hint if they differ; a missing value agrees with any.
_ALIKE: dict[str, tuple[Callable[[Profile], Any], str]] = {
    "is_ordinal": (lambda one: one.buckets.is_ordinal, "give rates with their edges, or files that number all sizes"),
    "input_edges": (lambda one: list(one.buckets.input_edges), "measure each for the same workload"),
    "output_edges": (lambda one: list(one.buckets.output_edges), "measure each for the same workload"),
    "slo": (lambda one: one.slo, "measure each for the same SLO"),
    "model": (lambda one: one.model, "use the same model, under the same name, on each server"),
}


def join(profiles: Sequence[Profile], places: Sequence[str]) -> Profile:
    """One profile with all replica types of several profiles.

    Parameters
    ----------
    profiles
        Profiles over the same buckets, for one SLO and one model, as far as they state them; no repeated type names.
    places
        The name of each profile in errors: its file.

    Raises
    ------
    InputError
        Two profiles differ in one of these; the error names their files and the field.
    """
    if len(profiles) == 1:
        return profiles[0]
    for field, (value_of, hint) in _ALIKE.items():
        _check_alike(field, [value_of(one) for one in profiles], places, hint)
    _check_names(profiles, places)
    offsets = np.cumsum([0, *(len(one.reasons) for one in profiles)])
    return Profile(
        replica_types=tuple(item for one in profiles for item in one.replica_types),
        buckets=profiles[0].buckets,
        **{
            name: np.concatenate([getattr(one, name) for one in profiles])
            for name in ("max_request_rate", "low", "high", "provenance")
        },
        reasons=tuple(sentence for one in profiles for sentence in one.reasons),
        # In each profile, index 0 means "no reason".
        reason=np.concatenate(
            [np.where(one.reason > 0, one.reason + offset, 0) for one, offset in zip(profiles, offsets, strict=False)]
        ),
        slo=next((one.slo for one in profiles if one.slo), None),
        model=next((one.model for one in profiles if one.model), ""),
        source="; ".join(dict.fromkeys(one.source for one in profiles if one.source)),
        cautions=tuple(dict.fromkeys(caution for one in profiles for caution in one.cautions)),
        engines=_engines(profiles),
    )


def read_joined(paths: Sequence[str | Path]) -> Profile:
    """One profile of all replica types in several profile files; raises errors of :func:`join` and of reading."""
    return join([Profile.read(path) for path in paths], [f"{path}" for path in paths])


def _engines(profiles: Sequence[Profile]) -> tuple[Engine | None, ...]:
    """Engines of all types; empty if none is known."""
    engines = [engine for one in profiles for engine in one.engines or (None,) * len(one.replica_types)]
    return tuple(engines) if any(engines) else ()


def _check_alike(field: str, values: Sequence[Any], places: Sequence[str], hint: str) -> None:
    """Reject files that disagree."""
    said = [(value, place) for value, place in zip(values, places, strict=True) if value not in (None, "")]
    for value, place in said[1:]:
        first, first_place = said[0]
        if value != first:
            raise InputError(
                f"{first_place} and {place}: {field} must be the same in both, got {first} and {value}", hint=hint
            )


def _check_names(profiles: Sequence[Profile], places: Sequence[str]) -> None:
    """Reject files that contain replica types of the same name."""
    place_by_name: dict[str, str] = {}
    for one, place in zip(profiles, places, strict=True):
        for item in one.replica_types:
            if item.name in place_by_name:
                raise InputError(
                    f"{place_by_name[item.name]} and {place}: replica_types: both contain {item.name!r}",
                    hint="name each server with melange measure --replica-type; to combine measurements of one "
                    "service, use its journals: melange profile service.yaml --anchor A.jsonl --anchor B.jsonl",
                )
        place_by_name |= {item.name: place for item in one.replica_types}
