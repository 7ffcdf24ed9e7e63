"""Kubernetes without additional systems: Deployments, and the balancer that was simulated."""

from __future__ import annotations

from datetime import date

from melange.deploy.elsewhere import not_by_size
from melange.deploy.group import base_name, cautions_of, groups_of
from melange.deploy.manifest import Manifest
from melange.deploy.target import Target
from melange.deploy.targets.kubernetes.cluster_balancer import balancer_objects
from melange.deploy.targets.kubernetes.cluster_files import cluster_cautions, manifest_of
from melange.deploy.targets.kubernetes.cluster_options import ScalingOptions
from melange.deploy.targets.kubernetes.inference_pools import gateway_objects
from melange.deploy.targets.kubernetes.objects import server_objects
from melange.deploy.targets.kubernetes.pods import Object
from melange.deploy.targets.kubernetes.scaling import scaled_object
from melange.deploy.targets.kubernetes.words import least_words, routing_words
from melange.plan.plan import Plan

_ABOUT = """\
Apply: kubectl apply -k ., or kubectl apply -f manifests/ if that folder has no other files; as a base of your own
kustomization: resources: [this folder]. First: kubectl create secret generic {secret} --from-literal=HF_TOKEN=...
(not needed for open models).

{routing}

A replica is a pod with the planned accelerators on the planned instances. A rollout starts a new replica before it
stops an old one, which needs room for one more replica of the type. A stopping replica gets no new requests, finishes
its requests for up to {drain} s, then exits.{scaling}
"""
_SCALED = """\
 KEDA scales each type by its requests in flight, from {least} to twice the planned replicas, if available; at the
planned traffic this gives the planned replicas. With least_replicas=1 it can scale down when there is less traffic.
"""


def _render(plan: Plan, options: ScalingOptions, written: date) -> Manifest:
    groups, base = groups_of(plan, options), base_name(plan, options)
    is_scaled = options.scaling == "keda"
    objects: dict[str, list[Object]] = {}
    for group in groups:
        objects[f"{group.key}.yaml"] = server_objects(group, groups, plan, base, options, is_scaled=is_scaled)
    cautions = [*cautions_of(groups), *cluster_cautions(groups, options)]
    if options.routing == "balancer":
        objects["balancer.yaml"] = balancer_objects(plan, groups, base, options)
    elif options.routing == "gateway":
        objects["route.yaml"] = gateway_objects(plan, groups, base, options)
        cautions += not_by_size(plan, "an HTTPRoute", "routing=balancer, or a proxy that sets x-melange-type")
    if is_scaled:
        objects["scaling.yaml"] = [scaled_object(group, base, options) for group in groups]
    about = _ABOUT.format(
        secret=options.hf_secret,
        routing=routing_words(options, base),
        drain=max(group.launch.drain_s for group in groups),
        scaling=_SCALED.format(least=least_words(options)).rstrip() if is_scaled else "",
    )
    return manifest_of("kubernetes", plan, written, about, objects, cautions, options)


TARGET = Target(
    name="kubernetes",
    about="Plain Kubernetes manifests and a kustomize base, with Melange's balancer or the cluster's gateway in front.",
    options=ScalingOptions,
    render=_render,
)
