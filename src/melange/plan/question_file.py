"""The question of a plan in the plan's file.

The workload and the options are stored whole. So is the profile, unless it would make up nearly all of the file: then
only the rates of the types that the plan uses are stored, with a digest that identifies the full profile.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from melange.errors import Caution, InputError
from melange.files import Json
from melange.plan.options import Options
from melange.plan.question import Question
from melange.profile.profile import ESTIMATED, Profile, ReplicaType
from melange.records import items, mapping, one_line, records, text, value_of
from melange.replica.engine import engines_from_json, engines_to_json
from melange.slo import Slo
from melange.workload.frozen_array import frozen_array
from melange.workload.workload import Array, Mask, Workload

# Cells of a profile that a plan's file stores whole: about 3 MB of text. With more, writing and reading a plan takes
# over a tenth of a second. The rates left out matter only for types that a later plan could add: use --profile then.
_MOST_CELLS = 30_000
_LEFT_OUT = "the plan's file keeps only the rates of the types that it uses; give the profile again"
_ARRAYS = ("max_request_rate", "low", "high", "provenance", "reason")


def question_to_json(question: Question, used: Mask) -> Json:
    """The keys of a plan's file that hold its question; ``used`` are the plan's types (R,)."""
    profile = question.profile
    kept = np.ones(len(used), bool) if profile.max_request_rate.size <= _MOST_CELLS else used
    engines = profile.engines or (None,) * len(used)
    return {
        "workload": question.workload.to_json(),
        "options": question.options.to_json(),
        "replica_types": [replica_type.to_json() for replica_type in profile.replica_types],
        "profile": {
            "digest": _profile_digest(profile),
            "is_whole": bool(kept.all()),
            **{name: _rows(getattr(profile, name), kept) for name in _ARRAYS},
            "reasons": list(profile.reasons),
            "source": profile.source,
            "warnings": [caution.to_json() for caution in profile.cautions],
        },
        **engines_to_json([engine if here else None for engine, here in zip(engines, kept, strict=True)]),
    }


def question_from_json(content: Json) -> Question:
    """The question of a plan's file; files from before 0.2 have none, so it is built from what the file has."""
    workload = Workload.from_json(content["workload"])
    profile = _profile(content, workload)
    if "options" in content:
        return Question(workload=workload, profile=profile, options=Options.from_json(content["options"]))
    # The rates in such a file already have its confidence, with no interval around them.
    kept = {name: content[name] for name in ("headroom", "slices")} | {"confidence": content.get("confidence")}
    options = Options.from_json(kept)
    return Question(workload=workload, profile=profile, options=options)


def _profile_digest(profile: Profile) -> str:
    """Sixteen hexadecimal digits that change with the content of a profile."""
    told = hashlib.sha256()
    names = [replica_type.to_json() for replica_type in profile.replica_types]
    told.update(json.dumps([names, profile.buckets.to_json(), profile.model]).encode())
    for name in _ARRAYS[:3]:
        told.update(np.ascontiguousarray(getattr(profile, name)).tobytes())
    return told.hexdigest()[:16]


def _profile(content: Json, workload: Workload) -> Profile:
    replica_types = records(ReplicaType, content["replica_types"], "replica_types")
    shape = (len(replica_types), *workload.buckets.shape)
    stored = mapping(content.get("profile") or _stored_rates(content, len(replica_types)), "profile")
    values = {name: _filled(stored[name], shape, f"profile.{name}") for name in _ARRAYS}
    reasons = value_of(tuple[str, ...], stored["reasons"], "profile.reasons")
    missing = [row is None for row in stored["max_request_rate"]]
    if any(missing):
        values["reason"][missing] = len(reasons)
        reasons = (*reasons, _LEFT_OUT)
    return Profile(
        replica_types=replica_types,
        buckets=workload.buckets,
        max_request_rate=values["max_request_rate"],
        low=values["low"],
        high=values["high"],
        provenance=values["provenance"],  # type: ignore[arg-type] # checked there
        reasons=reasons,
        reason=values["reason"],  # type: ignore[arg-type] # checked there
        slo=value_of(Slo | None, content["slo"], "slo"),
        model=one_line(content["model"], "model"),
        source=text(stored["source"], "profile.source"),
        cautions=records(Caution, stored["warnings"], "profile.warnings"),
        engines=engines_from_json(content),
    )


def _stored_rates(content: Json, types: int) -> Json:
    """The profile in a file from before 0.2: the rates of the used types, or nothing."""
    rates = content.get("max_request_rate") or [None] * types
    known = [None if row is None else np.zeros_like(np.asarray(row, float)) for row in rates]
    return {
        **dict.fromkeys(("max_request_rate", "low", "high"), rates),
        "provenance": [None if row is None else row + ESTIMATED for row in known],
        "reason": known,
        "reasons": [""],
        "source": "the plan's own rates",
        "warnings": [],
    }


def _rows(values: Array, kept: Mask) -> list[Any]:
    """A table (I, O) for each type (R): one number if all its cells are equal, null if it is not stored."""
    return [_table(row) if here else None for row, here in zip(values, kept, strict=True)]


def _table(values: Array) -> Any:
    return values.flat[0].item() if (values == values.flat[0]).all() else values.tolist()


def _filled(rows: Any, shape: tuple[int, ...], place: str) -> Array:
    """Such tables as one array (R, I, O), zero where a table is missing."""
    tables = items(rows, place)
    if len(tables) != shape[0]:
        raise InputError(f"{place}: must hold {shape[0]} tables, one for each replica type, got {len(tables)}")
    values = np.zeros(shape)
    for r, (where, row) in enumerate(tables):
        if row is not None:
            values[r] = frozen_array(row, where, shape[1:] if isinstance(row, list | np.ndarray) else ())
    return values
