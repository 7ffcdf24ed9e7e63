"""Configurations of the Mélange authors' release: capacities, traffic and slice factor in one JSON object.

``{"gpu_info": {NAME: {"cost" [USD/h], "tputs"[in][out] [1/s]}}, "workload_distribution"[in][out],
"total_request_rate" [1/s], "slice_factor"}``. The file names no sizes, so its buckets are numbered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from melange.catalog.offer import Offer
from melange.errors import InputError
from melange.files import Json
from melange.profile.formats.tables import rates
from melange.profile.profile import MEASURED, Profile, ReplicaType
from melange.records import number
from melange.workload.workload import Array, Buckets, Workload

# How far the shares of a workload may be from adding up to 1: only by float rounding.
_SUM_TOLERANCE = 1e-6
_ZERO = "the file gives it a rate of 0"


def profile_from_release(content: Json, place: str) -> Profile:
    """The capacities of a configuration (its ``gpu_info``)."""
    gpus = content.get("gpu_info")
    if not isinstance(gpus, dict) or not gpus:
        raise InputError(f"{place}: gpu_info must hold at least one GPU by name")
    tables = {name: _tputs(info, f"{place}: gpu_info.{name}") for name, info in gpus.items()}
    shapes = {name: table.shape for name, table in tables.items()}
    first = next(iter(shapes))
    for name, shape in shapes.items():
        if shape != shapes[first]:
            raise InputError(
                f"{place}: gpu_info.{name}.tputs must be {_by(shapes[first])} as {first}'s, got {_by(shape)}"
            )
    costs = {name: number(info.get("cost"), f"{place}: gpu_info.{name}.cost") for name, info in gpus.items()}
    types = tuple(named_type(name, cost, f"{place}: gpu_info.{name}") for name, cost in costs.items())
    return measured_profile(types, Buckets.ordinal(*shapes[first]), np.stack(list(tables.values())), source=place)


# Files of other stages: what each is for, by its kind.
_USE_OF = {
    "plan": "melange plan service.yaml --incumbent plan.json plans near it, melange validate plan.json tests it",
    "profile": "melange plan service.yaml --profile profile.json",
    "workload": "melange plan service.yaml --workload workload.json",
}


def config_from_release(content: Json, place: str) -> tuple[Workload, Profile, dict[str, Any]]:
    """Traffic, capacities and the settings with which the release plans."""
    if stage := str(content.get("melange", "")).partition("/")[0]:
        raise InputError(
            f"{place}: is a {stage} file; a service.yaml is needed, or a configuration of the release",
            hint=_USE_OF.get(stage, "melange init writes a service.yaml"),
        )
    for key in ("gpu_info", "workload_distribution", "total_request_rate", "slice_factor"):
        if key not in content:
            raise InputError(
                f"{place}: the key '{key}' is missing",
                hint="a configuration of the release holds gpu_info, workload_distribution, total_request_rate and "
                "slice_factor",
            )
    profile = profile_from_release(content, place)
    shares = rates(content["workload_distribution"], f"{place}: workload_distribution")
    shape = profile.buckets.shape
    if shares.shape != shape:
        looks = " (it looks transposed)" if shares.T.shape == shape else ""
        raise InputError(
            f"{place}: workload_distribution must be {_by(shape)} as the tputs, got {_by(shares.shape)}{looks}",
            hint="rows are input sizes, columns are output sizes",
        )
    total = float(shares.sum())
    if abs(total - 1) > _SUM_TOLERANCE:
        raise InputError(
            f"{place}: workload_distribution must add up to 1, got {total:.6g}",
            hint="divide every share by their sum",
        )
    rate = number(content["total_request_rate"], f"{place}: total_request_rate")
    if rate <= 0:
        raise InputError(f"{place}: total_request_rate must be > 0, got {rate:g}")
    factor = number(content["slice_factor"], f"{place}: slice_factor")
    if factor < 1 or factor != int(factor):
        raise InputError(f"{place}: slice_factor must be a whole number >= 1, got {factor:g}")
    workload = Workload.at_upper_edges(profile.buckets, shares * rate, source=place)
    return workload, profile, {"slices": int(factor), "headroom": 0.0, "gap": 0.0}


def release_from(workload: Workload, profile: Profile, slice_factor: int) -> Json:
    """A configuration of the release.

    The release has no instances of several replicas: each is written as one GPU with the total rate of its replicas.
    """
    if workload.buckets != profile.buckets:
        raise InputError("release configuration: workload and profile must have the same buckets")
    replicas = np.array([replica_type.replicas_per_instance for replica_type in profile.replica_types], float)
    tables = (profile.max_request_rate * replicas[:, None, None]).tolist()
    pairs = zip(profile.replica_types, tables, strict=True)
    return {
        "gpu_info": {one.name: {"cost": float(one.cost_per_h), "tputs": table} for one, table in pairs},
        "workload_distribution": (workload.request_rate / workload.total_rate).tolist(),
        "total_request_rate": workload.total_rate,
        "slice_factor": slice_factor,
    }


def named_type(name: str, cost_per_h: float, place: str) -> ReplicaType:
    """A replica type for which a file has only name and price."""
    try:
        offer = Offer(
            provider="", region="", instance_type=name, accelerator=name, accelerators=1, cost_per_h=cost_per_h
        )
    except InputError as error:
        raise InputError(f"{place}: {error}", hint=error.hint) from error
    return ReplicaType(name=name, offer=offer)


def measured_profile(types: tuple[ReplicaType, ...], buckets: Buckets, rate: Array, **details: Any) -> Profile:
    """A profile with all cells marked as measured, as the file states."""
    return Profile(
        replica_types=types,
        buckets=buckets,
        max_request_rate=rate,
        low=rate,
        high=rate,
        provenance=np.full(rate.shape, MEASURED, np.int8),
        reasons=("", _ZERO),
        reason=np.where(rate > 0, 0, 1).astype(np.int32),
        **details,
    )


def _tputs(info: object, place: str) -> Array:
    if not isinstance(info, Mapping) or "tputs" not in info:
        raise InputError(f"{place}: must hold cost and tputs")
    return rates(info["tputs"], f"{place}.tputs")


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
