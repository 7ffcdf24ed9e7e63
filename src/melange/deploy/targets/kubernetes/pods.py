"""The pods of replicas: one engine each, on the nodes that the plan rents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from melange.deploy.group import Group
from melange.deploy.heading import one_line
from melange.deploy.node import Node
from melange.deploy.targets.kubernetes.cluster_options import ClusterOptions

Object = dict[str, Any]

SERVICE_LABEL, TYPE_LABEL = "melange/service", "melange/replica-type"
_RESOURCE_BY_VENDOR = {
    "nvidia": "nvidia.com/gpu",
    "amd": "amd.com/gpu",
    "intel": "habana.ai/gaudi",
    "google": "google.com/tpu",
    "aws": "aws.amazon.com/neuron",
}
# GKE's names of accelerators (cloud.google.com/gke-accelerator), and those of machine types whose name differs.
_GKE_ACCELERATOR = {
    "L4": "nvidia-l4",
    "T4": "nvidia-tesla-t4",
    "V100-16GB": "nvidia-tesla-v100",
    "A100-40GB": "nvidia-tesla-a100",
    "A100-80GB": "nvidia-a100-80gb",
    "H100-80GB": "nvidia-h100-80gb",
    "H200": "nvidia-h200-141gb",
    "B200": "nvidia-b200",
    "GB200": "nvidia-gb200",
    "RTXPRO6000": "nvidia-rtx-pro-6000",
}
_GKE_MACHINE = {"a3-megagpu-8g": "nvidia-h100-mega-80gb"}
# Interval of the probes while a server is loading [s].
_LOOK_S = 10


def labels_of(group: Group, base: str) -> dict[str, str]:
    """Labels of a group's objects and pods."""
    return {
        "app.kubernetes.io/name": base,
        "app.kubernetes.io/component": "replica",
        "app.kubernetes.io/managed-by": "melange",
        **selector_of(group, base),
    }


def selector_of(group: Group, base: str) -> dict[str, str]:
    """The labels that select a group's pods: our own labels, because operators set Kubernetes' common ones."""
    return {SERVICE_LABEL: base, TYPE_LABEL: group.key}


def pod_spec(group: Group, groups: Sequence[Group], base: str, options: ClusterOptions) -> Object:
    """The pod of one replica."""
    launch, node = group.launch, group.node
    volumes: list[Object] = [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
    if options.cache_claim:
        volumes.append({"name": "weights", "persistentVolumeClaim": {"claimName": options.cache_claim}})
    spec: Object = {
        # Otherwise a Service called vllm in the namespace would set VLLM_PORT.
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": launch.drain_s + 30,
        "containers": [container(group, options)],
        "volumes": volumes,
        "tolerations": tolerations(node),
    }
    if selector := node_selector(node, options):
        spec["nodeSelector"] = selector
    if others := [one.key for one in groups if one.key != group.key and _is_same_node(one.node, node)]:
        spec["affinity"] = _apart_from(others, base)
    return spec


def container(group: Group, options: ClusterOptions) -> Object:
    """The engine, started as the plan assumes."""
    launch = group.launch
    resource = _RESOURCE_BY_VENDOR.get(group.node.vendor, "nvidia.com/gpu")
    devices = {resource: str(launch.accelerators)}
    health = {"httpGet": {"path": "/health", "port": "http"}}
    mounts: list[Object] = [{"name": "shm", "mountPath": "/dev/shm"}]
    if options.cache_claim:
        mounts.append({"name": "weights", "mountPath": "/root/.cache/huggingface"})
    return {
        "name": "engine",
        "image": launch.image,
        "command": list(launch.command[:1]),
        "args": [literal(word) for word in launch.command[1:]],
        "env": [hf_token(options)],
        "ports": [{"name": "http", "containerPort": launch.port}],
        "resources": {"requests": devices, "limits": devices},
        "startupProbe": {
            **health,
            "periodSeconds": _LOOK_S,
            "failureThreshold": math.ceil(launch.startup_s / _LOOK_S),
            "timeoutSeconds": 5,
        },
        "readinessProbe": {**health, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 2},
        # A server under full load responds late, so it is restarted only after a minute without a response.
        "livenessProbe": {**health, "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 6},
        "lifecycle": {"preStop": {"exec": {"command": ["/bin/sh", "-c", launch.drain_script]}}},
        "securityContext": {"allowPrivilegeEscalation": False},
        "volumeMounts": mounts,
    }


def literal(text: str) -> str:
    """Escape an argument: the kubelet would substitute variables for ``$(NAME)``."""
    return text.replace("$", "$$")


def hf_token(options: ClusterOptions) -> Object:
    """A reference to the token; open models need none."""
    reference = {"name": options.hf_secret, "key": "HF_TOKEN", "optional": True}
    return {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": reference}}


def node_selector(node: Node, options: ClusterOptions) -> dict[str, str]:
    """Labels of the rented nodes in their provider's clusters."""
    labels: dict[str, str] = {}
    if node.instance_type:
        labels["node.kubernetes.io/instance-type"] = one_line(node.instance_type)
    if node.region:
        labels["topology.kubernetes.io/region"] = one_line(node.region)
    if node.provider == "gcp":
        if name := _GKE_MACHINE.get(node.instance_type) or _GKE_ACCELERATOR.get(node.accelerator):
            labels["cloud.google.com/gke-accelerator"] = name
        if node.is_spot:
            labels["cloud.google.com/gke-spot"] = "true"
    if node.provider == "aws":
        labels |= _aws_market(node, options)
    if node.provider == "azure" and node.is_spot:
        labels["kubernetes.azure.com/scalesetpriority"] = "spot"
    return {key: value for key, value in labels.items() if _is_label_value(value)}


def _aws_market(node: Node, options: ClusterOptions) -> Mapping[str, str]:
    if options.aws_nodes == "managed":
        # Managed node groups have no label for reservations.
        words = {"spot": "SPOT", "on-demand": "ON_DEMAND"}
        return {"eks.amazonaws.com/capacityType": words[node.market]} if node.market in words else {}
    return {"karpenter.sh/capacity-type": node.market}


def tolerations(node: Node) -> list[Object]:
    """Tolerations of the taints that keep other pods off such nodes."""
    resource = _RESOURCE_BY_VENDOR.get(node.vendor, "nvidia.com/gpu")
    tolerated: list[Object] = [{"key": resource, "operator": "Exists", "effect": "NoSchedule"}]
    if node.provider == "azure":
        tolerated.append({"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"})
    if node.is_spot and node.provider in {"gcp", "azure"}:
        key, value = {
            "gcp": ("cloud.google.com/gke-spot", "true"),
            "azure": ("kubernetes.azure.com/scalesetpriority", "spot"),
        }[node.provider]
        tolerated.append({"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"})
    return tolerated


def _is_label_value(text: str) -> bool:
    """Whether the text is a valid label value; a price list's region names may be invalid."""
    plain = text.replace("-", "").replace("_", "").replace(".", "")
    return 0 < len(text) <= 63 and plain.isascii() and plain.isalnum() and text[0].isalnum() and text[-1].isalnum()


def _is_same_node(one: Node, other: Node) -> bool:
    return (one.provider, one.region, one.instance_type, one.market) == (
        other.provider,
        other.region,
        other.instance_type,
        other.market,
    )


def _apart_from(others: Sequence[str], base: str) -> Object:
    """Anti-affinity with pods of other types: on their nodes, this pod would take accelerators that they need."""
    selector = {
        "matchLabels": {SERVICE_LABEL: base},
        "matchExpressions": [{"key": TYPE_LABEL, "operator": "In", "values": list(others)}],
    }
    term = {"labelSelector": selector, "topologyKey": "kubernetes.io/hostname"}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
