"""ScaledObjects of a schedule: one per Deployment, in replicas, with the heading of their files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from itertools import pairwise
from typing import Any

import numpy as np

from melange.deploy.as_yaml import yaml_text
from melange.deploy.group import base_of_model, type_keys
from melange.deploy.heading import comments, heading_of_schedule, paragraphs
from melange.deploy.schedule_options import ScalerOptions
from melange.deploy.targets.kubernetes.cluster_options import LABEL, MOST_REPLICAS, check_name
from melange.errors import Caution
from melange.plan.schedule.schedule import Schedule
from melange.profile.profile import ReplicaType
from melange.units import S_PER_MIN

# Relative difference that Kubernetes' autoscaler ignores: the default of --horizontal-pod-autoscaler-tolerance.
TOLERANCE = 0.1


def deployment_names(schedule: Schedule, base: str | None) -> dict[str, str]:
    """The Deployment of each replica type, named as by the target kubernetes; ``base`` replaces the model's name."""
    names = [one.name for one in schedule.replica_types]
    before = base_of_model(schedule.model) if base is None else base
    made = {name: f"{before}-{key}" for name, key in zip(names, type_keys(names), strict=True)}
    for one in made.values():
        check_name("deployment", one, LABEL)
    return made


def scaled_object(
    name: str, options: ScalerOptions, triggers: Sequence[object], bounds: tuple[int, int], stable_s: int
) -> dict[str, Any]:
    """A ScaledObject of a Deployment, with its least and most replicas, and how long it waits to scale down [s]."""
    least, most = (min(count, MOST_REPLICAS) for count in bounds)
    place = {"namespace": options.namespace} if options.namespace else {}
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": name, **place},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicaCount": min(least, most),
            "maxReplicaCount": most,
            "pollingInterval": int(S_PER_MIN / 2),
            "advanced": {
                "horizontalPodAutoscalerConfig": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": stable_s}}}
            },
            "triggers": list(triggers),
        },
    }


def files_of(
    schedule: Schedule, written: date, about: str, cautions: Iterable[Caution], documents: Mapping[str, Any]
) -> dict[str, str]:
    """One document per file, each below the heading."""
    facts = heading_of_schedule(schedule, written, cautions, _reserved(schedule))
    heading = comments([*facts, *paragraphs(about)])
    return {name: f"{heading}\n\n{yaml_text([document])}" for name, document in documents.items()}


def _reserved(schedule: Schedule) -> str:
    reserved = [f"{int(n)} x {one.name}" for one, n in zip(schedule.replica_types, schedule.reserved, strict=True) if n]
    return f"Reserved instances run all the time and are not scaled here: {', '.join(reserved) or 'none'}." + (
        " Run them in Deployments of their own." if reserved else ""
    )


def common_cautions(schedule: Schedule, scaled: Sequence[ReplicaType]) -> list[Caution]:
    """What no ScaledObject of a schedule can do."""
    said = []
    if across := [one.name for one in scaled if one.machines > 1]:
        words = "one replica spans several machines, but a Deployment has one pod for each replica"
        said.append(Caution("machines", f"{', '.join(across)}: {words}"))
    return [*said, *not_deferred(schedule)]


def not_deferred(schedule: Schedule) -> list[Caution]:
    """A caution about requests that the schedule holds back, which no target does."""
    if schedule.deferred is None:
        return []
    names = ", ".join(one.name for one in schedule.deferred.classes)
    words = "the schedule sends its requests later than they arrive, which these files do not do: send them"
    return [Caution("deferred", f"{names}: {words} in the planned hours")]


def ignored_steps(replicas: Iterable[int]) -> list[tuple[int, int]]:
    """Changes between successive counts that the autoscaler ignores because they are small.

    >>> ignored_steps([4, 5, 20, 21, 21])
    [(20, 21)]
    """
    counts = [*replicas]
    pairs = [(one, other) for one, other in pairwise(counts) if one and one != other]
    return [(one, other) for one, other in pairs if abs(other / one - 1) <= TOLERANCE]


def capped(name: str, most: int | None, needed: float) -> list[Caution]:
    """A caution if the user's maximum is below what a scheduled hour needs."""
    if most is None or most >= np.ceil(needed - 1e-9):
        return []
    words = f"most={most} is less than the {int(np.ceil(needed - 1e-9))} instances that the schedule's busiest hour"
    return [Caution("most", f"{name}: {words} needs beyond the reserved ones: requests will be short")]
