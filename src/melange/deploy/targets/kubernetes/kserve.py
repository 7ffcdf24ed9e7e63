"""KServe: one LLMInferenceService per replica type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

from melange.deploy.elsewhere import not_by_size, weights_of
from melange.deploy.group import Group, LoadedGroup, base_name, cautions_of, groups_of
from melange.deploy.launch import Start
from melange.deploy.manifest import Manifest
from melange.deploy.target import Target, option
from melange.deploy.targets.kubernetes.cluster_balancer import balancer_objects
from melange.deploy.targets.kubernetes.cluster_files import cluster_cautions, manifest_of
from melange.deploy.targets.kubernetes.cluster_options import ScalingOptions
from melange.deploy.targets.kubernetes.objects import annotations_of, disruption_budget, metadata, service
from melange.deploy.targets.kubernetes.pods import Object, labels_of, pod_spec, selector_of
from melange.deploy.targets.kubernetes.scaling import COOLDOWN_S, trigger
from melange.deploy.targets.kubernetes.words import routing_words
from melange.errors import InputError
from melange.plan.plan import Plan

# Path where KServe puts the downloaded model.
_MOUNT = "/mnt/models"
# KServe's own routes have the same limit on weights as Gateway API.
_ABOUT = """\
Apply: kubectl apply -k . in a cluster with KServe (LLMInferenceService v1alpha2). First: kubectl create secret
generic {secret} --from-literal=HF_TOKEN=... (not needed for open models).

{routing}

Each replica type is an LLMInferenceService with the plan's replicas{scaling}. KServe downloads the model to {mount};
the command line comes from the plan and replaces KServe's own.
"""
_GROUPED = """\
KServe's route splits requests over the types by weights of 10,000 (router.route.group), for the model name {model} on
KServe's gateway.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class KServeOptions(ScalingOptions):
    """The options of KServe.

    Parameters
    ----------
    scaling
        ``fixed``, the planned number; ``keda``, by requests in flight; ``wva``, by llm-d's variant autoscaler with the
        cost of a replica.
    """

    scaling: Literal["fixed", "keda", "wva"] = option(  # type: ignore[assignment] # one word more
        "fixed", "Fixed as planned, by requests in flight (keda), or by cost of variants (wva)."
    )

    def __post_init__(self) -> None:
        ScalingOptions.__post_init__(self)


def _render(plan: Plan, options: KServeOptions, written: date) -> Manifest:
    groups, base = groups_of(plan, options, start=Start(mount=_MOUNT)), base_name(plan, options)
    weights = weights_of(plan)
    objects: dict[str, list[Object]] = {}
    for group, weight in zip(groups, weights, strict=True):
        objects[f"{group.key}.yaml"] = [
            _inference_service(group, groups, base, weight, plan, options),
            service(group, base, options),
            disruption_budget(group.name, selector_of(group, base), labels_of(group, base), options),
        ]
    cautions = [*cautions_of(groups), *cluster_cautions(groups, options)]
    if options.routing == "balancer":
        objects["balancer.yaml"] = balancer_objects(plan, groups, base, options)
    elif options.routing == "gateway":
        cautions += not_by_size(plan, "KServe's route", "routing=balancer")
    grouped = _GROUPED.format(model=groups[0].launch.served_name)
    about = _ABOUT.format(
        secret=options.hf_secret,
        routing=grouped if options.routing == "gateway" else routing_words(options, base),
        scaling={"fixed": "", "keda": ", scaled by requests in flight", "wva": ", scaled by cost of variants"}[
            options.scaling
        ],
        mount=_MOUNT,
    )
    return manifest_of("kserve", plan, written, about, objects, cautions, options)


def _inference_service(
    group: LoadedGroup, groups: Sequence[Group], base: str, weight: int, plan: Plan, options: KServeOptions
) -> Object:
    template = pod_spec(group, groups, base, options)
    (engine,) = template["containers"]
    # KServe merges this container with its own, whose probes may use TLS.
    engine["name"] = "main"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        engine[probe]["httpGet"] = {"path": "/health", "port": group.launch.port, "scheme": "HTTP"}
    described = metadata(group.name, labels_of(group, base), options)
    return {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceService",
        "metadata": {**described, "annotations": annotations_of(group, plan.fingerprint)},
        "spec": {
            "model": {"uri": _uri(group), "name": group.launch.served_name},
            "labels": selector_of(group, base),
            "annotations": {
                "prometheus.io/scrape": "true",
                "prometheus.io/path": "/metrics",
                "prometheus.io/port": str(group.launch.port),
            },
            "parallelism": _parallelism(group),
            **_replicas(group, options),
            "rolloutStrategy": {"maxSurge": 1, "maxUnavailable": 0},
            **_router(base, weight, options),
            "template": template,
        },
    }


def _parallelism(group: Group) -> Object:
    """The parallelism by which KServe counts accelerators; the command line contains it as well."""
    layout = group.server.layout
    found: Object = {"tensor": layout.tensor_parallel}
    if layout.pipeline_parallel > 1:
        found["pipeline"] = layout.pipeline_parallel
    if layout.expert_parallel > 1:
        found |= {"data": layout.data_parallel, "dataLocal": layout.data_parallel, "expert": True}
    return found


def _uri(group: Group) -> str:
    """The URI from which KServe downloads the model."""
    model = group.launch.model
    if "://" in model:
        return model
    if model.startswith(("/", "./", "../", "~")):
        raise InputError(
            f"kserve: {model} is a path, but KServe downloads from a URI", hint="--option model=pvc://claim/path"
        )
    return f"hf://{model}"


def _replicas(group: LoadedGroup, options: KServeOptions) -> Object:
    if options.scaling == "fixed":
        return {"replicas": group.replicas}
    least = group.least_replicas(options.least_replicas)
    pace = {"pollingInterval": 15, "cooldownPeriod": COOLDOWN_S}
    if options.scaling == "keda":
        how: Object = {"keda": {**pace, "triggers": [trigger(group, options)]}}
    else:
        how = {"wva": {"variantCost": f"{group.replica_cost_per_h:.4f}", "keda": pace}}
    return {"scaling": {"minReplicas": least, "maxReplicas": group.most_replicas, **how}}


def _router(base: str, weight: int, options: KServeOptions) -> Object:
    if options.routing != "gateway":
        return {}
    return {"router": {"gateway": {"refs": [_gateway(options)]}, "route": {"group": base, "weight": weight}}}


def _gateway(options: KServeOptions) -> Object:
    place = {"namespace": options.namespace} if options.namespace else {}
    return {"name": options.gateway, **place}


TARGET = Target(
    name="kserve",
    about="KServe: one LLMInferenceService per replica type, with Melange's balancer or KServe's gateway in front.",
    options=KServeOptions,
    render=_render,
)
