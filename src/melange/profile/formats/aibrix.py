"""Profiles of AIBrix's GPU optimizer: one GPU each, and transposed, ``tputs[out][in]``.

``{"gpu", "cost" [USD/h], "tputs"[out][in] [1/s], "indexes": [[out...], [in...]] [tokens], "created", "slos"}``.
AIBrix assigns a request to the nearest size of ``indexes``; here they are the upper edges of buckets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from melange.errors import Caution, InputError
from melange.files import Json
from melange.profile.formats.release import measured_profile, named_type
from melange.profile.formats.tables import rates
from melange.profile.profile import Profile
from melange.records import number, placed, record
from melange.slo import Slo
from melange.workload.workload import Array, Buckets

_SLO_FIELD_BY_KEY = {"e2e": "latency_s", "ttft": "ttft_s", "tpot": "tpot_s"}
# Objectives of AIBrix without a counterpart here: throughputs, and time over all tokens, prompt included.
_OTHER_SLO_KEYS = ("tput", "tt", "tpat")


def profile_from_aibrix(contents: Sequence[Json], places: Sequence[str]) -> Profile:
    """One profile from several of AIBrix's, which must have the same sizes."""
    tables, types, slos = [], [], []
    first: Buckets | None = None
    cautions: list[Caution] = []
    for content, place in zip(contents, places, strict=True):
        name = str(content.get("gpu") or "")
        if not name:
            raise InputError(f"{place}: the key 'gpu' is missing")
        buckets = _buckets(content, place)
        first = first or buckets
        if buckets != first:
            raise InputError(f"{place}: indexes must be the same in all profiles, but {name}'s differ from {places[0]}")
        tables.append(_tputs(content, buckets, place))
        types.append(named_type(name, number(content.get("cost"), f"{place}: cost"), place))
        slos.append(_slo(content.get("slos"), place, cautions))
    if first is None:
        raise InputError("no AIBrix profile was given")
    if any(slo != slos[0] for slo in slos):
        cautions.append(Caution("slo", "the profiles were made for different SLOs; make them for the same one"))
    files = ", ".join(dict.fromkeys(places))
    with placed(files):
        profile = measured_profile(tuple(types), first, np.stack(tables), source=files)
    return replace(profile, slo=slos[0], cautions=tuple(dict.fromkeys(cautions)))


def aibrix_from(profile: Profile, created_s: float) -> list[Json]:
    """One AIBrix profile for each replica type; an instance of several replicas is one GPU with their total rate.

    Rates are written as floats: from integers, AIBrix makes an integer table of traffic, in which every share is 0, and
    plans no GPU at all.
    """
    if profile.buckets.classes:
        raise InputError("an AIBrix profile has no request classes", hint="profile each class as a separate service")
    outputs, inputs = list(profile.buckets.output_edges), list(profile.buckets.input_edges)
    documents: list[Json] = []
    for r, one in enumerate(profile.replica_types):
        table = profile.max_request_rate[r].T * float(one.replicas_per_instance)
        documents.append(
            {
                "gpu": one.name,
                "cost": float(one.cost_per_h),
                "tputs": table.tolist(),
                "indexes": [outputs, inputs],
                "created": float(created_s),
                "slos": _slos(profile.slo),
            }
        )
    return documents


def _buckets(content: Json, place: str) -> Buckets:
    indexes = content.get("indexes")
    if not isinstance(indexes, list) or len(indexes) != 2 or not all(isinstance(axis, list) for axis in indexes):
        raise InputError(f"{place}: indexes must be [[output sizes], [input sizes]]")
    outputs, inputs = (
        [number(edge, f"{place}: indexes[{axis}][{n}]") for n, edge in enumerate(edges)]
        for axis, edges in enumerate(indexes)
    )
    try:
        return Buckets(input_edges=tuple(inputs), output_edges=tuple(outputs))  # type: ignore[arg-type] # checked there
    except InputError as error:
        raise InputError(f"{place}: indexes: {error}", hint=error.hint) from error


def _tputs(content: Json, buckets: Buckets, place: str) -> Array:
    table = rates(content.get("tputs"), f"{place}: tputs")
    inputs, outputs = buckets.shape
    if table.shape != (outputs, inputs):
        looks = " (it looks transposed)" if table.shape == (inputs, outputs) else ""
        found = " x ".join(map(str, table.shape))
        raise InputError(
            f"{place}: tputs must be {outputs} x {inputs} as the indexes, got {found}{looks}",
            hint="AIBrix's rows are output sizes, its columns are input sizes",
        )
    return table.T


def _slo(slos: object, place: str, cautions: list[Caution]) -> Slo | None:
    if not isinstance(slos, dict):
        return None
    others = [f"{key} {slos[key]}" for key in _OTHER_SLO_KEYS if key in slos]
    if others:
        cautions.append(Caution("slo", f"the profile also has {', '.join(others)}, which is not supported here"))
    known = {key: field for key, field in _SLO_FIELD_BY_KEY.items() if key in slos}
    limits = {field: number(slos[key], f"{place}: slos.{key}") for key, field in known.items()}
    if not limits:
        return None
    percentile = number(slos.get("percentile", 0), f"{place}: slos.percentile")
    try:
        return record(Slo, limits | {"statistic": f"p{percentile:g}" if percentile else "mean"}, place)
    except InputError as error:
        raise InputError(f"{place}: {error}", hint=error.hint) from error


def _slos(slo: Slo | None) -> Json:
    if slo is None:
        return {"percentile": 0}
    # AIBrix cannot express limits on requests. Rates that meet them for most requests also meet them in the mean.
    percentile = 0.0 if slo.has_closed_form else float(slo.statistic[1:])
    limits = {key: value for key, field in _SLO_FIELD_BY_KEY.items() if (value := getattr(slo, field)) is not None}
    return {"percentile": int(percentile) if percentile == int(percentile) else percentile, **limits}
