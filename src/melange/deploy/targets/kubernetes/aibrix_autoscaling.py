"""AIBrix: deployments with its labels, and an autoscaler and a GPU profile for each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any, Literal

from melange.deploy.elsewhere import not_by_size
from melange.deploy.group import Group, LoadedGroup, base_name, cautions_of, groups_of
from melange.deploy.launch import Start
from melange.deploy.manifest import Manifest
from melange.deploy.plan_in_use import plan_in_use
from melange.deploy.target import Target, option
from melange.deploy.targets.kubernetes.cluster_balancer import balancer_objects
from melange.deploy.targets.kubernetes.cluster_files import cluster_cautions, manifest_of
from melange.deploy.targets.kubernetes.cluster_options import ClusterOptions, check_least
from melange.deploy.targets.kubernetes.objects import metadata, server_objects
from melange.deploy.targets.kubernetes.pods import Object, labels_of
from melange.deploy.targets.kubernetes.words import routing_words
from melange.errors import Caution
from melange.plan.plan import Plan
from melange.profile.formats.aibrix import aibrix_from

_OPTIMIZER = "aibrix-gpu-optimizer.aibrix-system.svc.cluster.local:8080"
_ABOUT = """\
Apply: kubectl apply -k . in a cluster with AIBrix. First: kubectl create secret generic {secret}
--from-literal=HF_TOKEN=... (not needed for open models). Clients request the model {model}: AIBrix does not allow
slashes in names.

{routing}

{scaling} The GPU optimizer reads profiles from its Redis, one key each: {profiles}
"""
_GATEWAY = """\
Requests go to AIBrix's own gateway, through its Service {base}: spread over all replicas, by the strategy in
a request's header routing-strategy.
"""
_SCALING = {
    "in-flight": "Each type is scaled by its requests in flight: the planned replicas at the planned traffic.",
    "optimizer": "Each type is scaled by AIBrix's GPU optimizer, which makes its own plan from the profiles.",
    "fixed": "The number of replicas is fixed, as planned.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AibrixOptions(ClusterOptions):
    """The options of AIBrix.

    Parameters
    ----------
    scaling
        ``in-flight``, by requests in flight; ``optimizer``, by AIBrix's GPU optimizer with the profiles; ``fixed``, the
        planned number.
    least_replicas
        Minimum of each type, however little traffic there is; None: the planned number.
    """

    scaling: Literal["in-flight", "optimizer", "fixed"] = option(
        "in-flight", "By requests in flight, by AIBrix's GPU optimizer, or fixed as planned."
    )
    least_replicas: int | None = option(None, "Minimum replicas per type; null: as planned.")

    def __post_init__(self) -> None:
        ClusterOptions.__post_init__(self)
        check_least("least_replicas", self.least_replicas)


def _render(plan: Plan, options: AibrixOptions, written: date) -> Manifest:
    base = base_name(plan, options)
    groups = groups_of(plan, options, start=Start(served_name=base))
    is_scaled = options.scaling != "fixed"
    objects: dict[str, list[Object]] = {}
    for group in groups:
        known = {
            "model.aibrix.ai/name": base,
            "model.aibrix.ai/port": str(group.launch.port),
            "model.aibrix.ai/min_replicas": str(group.least_replicas(options.least_replicas)),
        }
        objects[f"{group.key}.yaml"] = [
            *server_objects(group, groups, plan, base, options, known, is_scaled=is_scaled),
            *([_autoscaler(group, base, options)] if is_scaled else []),
        ]
    cautions = [*cautions_of(groups), *cluster_cautions(groups, options)]
    if options.routing == "balancer":
        objects["balancer.yaml"] = balancer_objects(plan, groups, base, options)
    elif options.routing == "gateway":
        objects["model.yaml"] = [_model_service(groups[0], base, options)]
        cautions += not_by_size(plan, "AIBrix's gateway", "routing=balancer")
        cautions.append(Caution("routing", "AIBrix's gateway has no weights: replicas of all types count equally"))
    about = _ABOUT.format(
        secret=options.hf_secret,
        model=base,
        routing=_GATEWAY.format(base=base) if options.routing == "gateway" else routing_words(options, base),
        scaling=_SCALING[options.scaling],
        profiles="; ".join(
            f"redis-cli -x SET aibrix:profile_{base}_{group.name} < profiles/{group.key}.json" for group in groups
        ),
    )
    profiles = _profiles(plan, groups, written)
    return manifest_of("aibrix", plan, written, about, objects, cautions, options, profiles)


def _autoscaler(group: LoadedGroup, base: str, options: AibrixOptions) -> Object:
    if options.scaling == "optimizer":
        place = options.namespace or "default"
        strategy, source = (
            "KPA",
            {
                "metricSourceType": "domain",
                "protocolType": "http",
                "endpoint": _OPTIMIZER,
                "path": f"/metrics/{place}/{group.name}",
                "targetMetric": "vllm:deployment_replicas",
                # In hundredths: 100 gives one replica for each one requested.
                "targetValue": "100",
            },
        )
    else:
        strategy, source = (
            "APA",
            {
                "metricSourceType": "pod",
                "protocolType": "http",
                "port": str(group.launch.port),
                "path": "/metrics",
                "targetMetric": "num_requests_running",
                "targetValue": f"{group.in_flight:.3g}",
            },
        )
    return {
        "apiVersion": "autoscaling.aibrix.ai/v1alpha1",
        "kind": "PodAutoscaler",
        "metadata": metadata(group.name, labels_of(group, base), options),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": group.name},
            "minReplicas": group.least_replicas(options.least_replicas),
            "maxReplicas": group.most_replicas,
            "scalingStrategy": strategy,
            "metricsSources": [source],
        },
    }


def _model_service(group: Group, base: str, options: AibrixOptions) -> Object:
    """A Service with the model's name, which AIBrix's gateway expects, in front of all of its replicas."""
    labels = {"app.kubernetes.io/name": base, "app.kubernetes.io/managed-by": "melange"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(base, labels | {"model.aibrix.ai/name": base}, options),
        "spec": {
            "selector": {"model.aibrix.ai/name": base},
            "ports": [{"name": "http", "port": group.launch.port, "targetPort": group.launch.port}],
        },
    }


def _profiles(plan: Plan, groups: Sequence[Group], written: date) -> dict[str, str]:
    """A profile for each deployment, for one replica: its rates and its part of an instance's price."""
    profile = plan_in_use(plan).question.at_confidence().profile
    types = tuple(
        replace(
            one,
            name=group.name,
            offer=replace(one.offer, accelerators=one.layout.accelerators, cost_per_h=group.replica_cost_per_h),
        )
        for one, group in zip(profile.replica_types, groups, strict=True)
    )
    created_s = datetime(written.year, written.month, written.day, tzinfo=UTC).timestamp()
    documents: list[Any] = aibrix_from(replace(profile, replica_types=types), created_s)
    return {
        f"profiles/{group.key}.json": json.dumps(document) + "\n"
        for group, document in zip(groups, documents, strict=True)
    }


TARGET = Target(
    name="aibrix",
    about="AIBrix: deployments with its labels, one PodAutoscaler and GPU profile per replica type.",
    options=AibrixOptions,
    render=_render,
)
