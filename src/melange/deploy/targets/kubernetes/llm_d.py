"""llm-d: deployments with its labels, and variants with their costs for its autoscaler."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal

from melange.deploy.elsewhere import not_by_size
from melange.deploy.group import Group, LoadedGroup, base_name, cautions_of, groups_of
from melange.deploy.manifest import Manifest
from melange.deploy.target import Target, option
from melange.deploy.targets.kubernetes.cluster_balancer import balancer_objects
from melange.deploy.targets.kubernetes.cluster_files import cluster_cautions, manifest_of
from melange.deploy.targets.kubernetes.cluster_options import ScalingOptions
from melange.deploy.targets.kubernetes.inference_pools import gateway_objects
from melange.deploy.targets.kubernetes.objects import metadata, server_objects
from melange.deploy.targets.kubernetes.pods import Object, labels_of
from melange.deploy.targets.kubernetes.scaling import scaled_object
from melange.deploy.targets.kubernetes.words import least_words, routing_words
from melange.plan.plan import Plan

_ABOUT = """\
Apply: kubectl apply -k . in a cluster with llm-d. First: kubectl create secret generic {secret}
--from-literal=HF_TOKEN=... (not needed for open models).

{routing}

{scaling}
"""
_SCALED = """\
Each replica type is a variant of llm-d's workload variant autoscaler, with the cost of a replica: KEDA runs as many as
it requests (wva_desired_replicas), from {least} to twice the planned. Releases of the autoscaler without the kind
VariantAutoscaling read the same from the annotations of scaling.yaml: remove variants.yaml from the kustomization then.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmDOptions(ScalingOptions):
    """The options of llm-d.

    Parameters
    ----------
    scaling
        ``wva``, by llm-d's variant autoscaler, or ``fixed``, the planned number.
    """

    scaling: Literal["wva", "fixed"] = option(  # type: ignore[assignment] # other words than KEDA's
        "wva", "By llm-d's variant autoscaler, or fixed as planned."
    )

    def __post_init__(self) -> None:
        ScalingOptions.__post_init__(self)


def _render(plan: Plan, options: LlmDOptions, written: date) -> Manifest:
    groups, base = groups_of(plan, options), base_name(plan, options)
    is_scaled = options.scaling == "wva"
    objects: dict[str, list[Object]] = {}
    for group in groups:
        serving = {"llm-d.ai/inferenceServing": "true", "llm-d.ai/model": base, "llm-d.ai/variant": group.key}
        objects[f"{group.key}.yaml"] = server_objects(group, groups, plan, base, options, serving, is_scaled=is_scaled)
    cautions = [*cautions_of(groups), *cluster_cautions(groups, options)]
    if options.routing == "balancer":
        objects["balancer.yaml"] = balancer_objects(plan, groups, base, options)
    elif options.routing == "gateway":
        objects["route.yaml"] = gateway_objects(plan, groups, base, options)
        cautions += not_by_size(plan, "llm-d's gateway", "routing=balancer, or a proxy that sets x-melange-type")
    if is_scaled:
        objects["scaling.yaml"] = [_scaled(group, base, options) for group in groups]
        objects["variants.yaml"] = [_variant(group, base, options) for group in groups]
    about = _ABOUT.format(
        secret=options.hf_secret,
        routing=routing_words(options, base),
        scaling=_SCALED.format(least=least_words(options))
        if is_scaled
        else "The number of replicas is fixed, as planned.",
    )
    return manifest_of("llm-d", plan, written, about, objects, cautions, options)


def _variant(group: Group, base: str, options: LlmDOptions) -> Object:
    return {
        "apiVersion": "llmd.ai/v1alpha1",
        "kind": "VariantAutoscaling",
        "metadata": metadata(group.name, labels_of(group, base), options),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": group.name},
            "modelID": group.launch.served_name,
            "variantCost": _cost(group),
        },
    }


def _scaled(group: LoadedGroup, base: str, options: LlmDOptions) -> Object:
    told = {
        "llm-d.ai/managed": "true",
        "llm-d.ai/model-id": group.launch.served_name,
        "llm-d.ai/variant-cost": _cost(group),
    }
    made = scaled_object(group, base, options, told)
    place = f',namespace="{options.namespace}"' if options.namespace else ""
    made["spec"]["triggers"] = [
        {
            "type": "prometheus",
            "name": "wva-desired-replicas",
            "metricType": "AverageValue",
            "metadata": {
                "serverAddress": options.prometheus,
                "query": f'wva_desired_replicas{{variant_name="{group.name}"{place}}}',
                "threshold": "1",
                "activationThreshold": "0",
            },
        }
    ]
    return made


def _cost(group: Group) -> str:
    """Cost of one replica, in USD per hour."""
    return f"{group.replica_cost_per_h:.4f}"


TARGET = Target(
    name="llm-d",
    about="llm-d: deployments with its labels, and variants with their costs for its autoscaler.",
    options=LlmDOptions,
    render=_render,
)
