"""The cluster's own gateway in front of replica types: one pool each, and a route with weights."""

from __future__ import annotations

from collections.abc import Sequence

from melange.deploy.as_yaml import yaml_text
from melange.deploy.elsewhere import weights_of
from melange.deploy.group import Group
from melange.deploy.targets.kubernetes.cluster_options import ClusterOptions
from melange.deploy.targets.kubernetes.objects import metadata
from melange.deploy.targets.kubernetes.pods import Object, labels_of, selector_of
from melange.plan.plan import Plan

TYPE_HEADER = "x-melange-type"
_GROUP = "inference.networking.k8s.io"
# Most rules of one route in Gateway API.
_MOST_RULES = 16
_PICKER_IMAGE = "registry.k8s.io/gateway-api-inference-extension/epp:v1.4.0"
_PICKER_PORT, _HEALTH_PORT = 9002, 9003
# How a pool chooses a replica: by the shortest queue and the emptiest KV cache.
_PICKER_CONFIG = {
    "apiVersion": "inference.networking.x-k8s.io/v1alpha1",
    "kind": "EndpointPickerConfig",
    "plugins": [
        {"type": "queue-scorer"},
        {"type": "kv-cache-utilization-scorer"},
        {"type": "max-score-picker"},
    ],
    "schedulingProfiles": [
        {
            "name": "default",
            "plugins": [
                {"pluginRef": "queue-scorer", "weight": 2},
                {"pluginRef": "kv-cache-utilization-scorer", "weight": 2},
                {"pluginRef": "max-score-picker"},
            ],
        }
    ],
}


def gateway_objects(plan: Plan, groups: Sequence[Group], base: str, options: ClusterOptions) -> list[Object]:
    """The route, and for each replica type its pool with its endpoint picker."""
    objects = [route(plan, groups, base, options)]
    for group in groups:
        objects += [pool(group, base, options), *_picker(group, base, options)]
    return objects


def route(plan: Plan, groups: Sequence[Group], base: str, options: ClusterOptions) -> Object:
    """Routes requests by weights, or to the type in a header, which a proxy that knows sizes can set."""
    backends = [
        {"group": _GROUP, "kind": "InferencePool", "name": group.name, "weight": weight}
        for group, weight in zip(groups, weights_of(plan), strict=True)
    ]
    # Streams have no time limit.
    timeouts = {"request": "0s"}
    named = [
        {
            "matches": [
                {
                    "path": {"type": "PathPrefix", "value": "/"},
                    "headers": [{"type": "Exact", "name": TYPE_HEADER, "value": group.key}],
                }
            ],
            "backendRefs": [{**backend, "weight": 1}],
            "timeouts": timeouts,
        }
        for group, backend in zip(groups, backends, strict=True)
    ]
    rules = named if 1 < len(named) < _MOST_RULES else []
    by_weight = {
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
        "backendRefs": backends,
        "timeouts": timeouts,
    }
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": metadata(
            base, {"app.kubernetes.io/name": base, "app.kubernetes.io/managed-by": "melange"}, options
        ),
        "spec": {"parentRefs": [{"name": options.gateway}], "rules": [*rules, by_weight]},
    }


def pool(group: Group, base: str, options: ClusterOptions) -> Object:
    """The replicas of a type, for a gateway."""
    return {
        "apiVersion": f"{_GROUP}/v1",
        "kind": "InferencePool",
        "metadata": metadata(group.name, labels_of(group, base), options),
        "spec": {
            "targetPorts": [{"number": group.launch.port}],
            "selector": {"matchLabels": selector_of(group, base)},
            # Without its picker, a pool still sends requests to any of its replicas.
            "endpointPickerRef": {
                "name": picker_name(group),
                "port": {"number": _PICKER_PORT},
                "failureMode": "FailOpen",
            },
        },
    }


def picker_name(group: Group) -> str:
    """Name of the service that picks a replica in a pool."""
    return f"{group.name}-epp"


def _picker(group: Group, base: str, options: ClusterOptions) -> list[Object]:
    """The endpoint picker of a pool: account, permissions, configuration, deployment and service."""
    name = picker_name(group)
    pods = {"app.kubernetes.io/name": base, "app.kubernetes.io/component": "picker", "melange/pool": group.key}
    labels = pods | {"app.kubernetes.io/managed-by": "melange"}
    described = metadata(name, labels, options)
    read = ["get", "list", "watch"]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    grpc = {"grpc": {"port": _HEALTH_PORT, "service": "inference-extension"}}
    picker = {
        "name": "picker",
        "image": _PICKER_IMAGE,
        "args": [
            *("--pool-name", group.name, "--pool-namespace", "$(NAMESPACE)", "--config-file", "/config/config.yaml"),
            "--metrics-endpoint-auth=false",
        ],
        "env": [{"name": "NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}],
        "ports": [
            {"name": "grpc", "containerPort": _PICKER_PORT},
            {"name": "health", "containerPort": _HEALTH_PORT},
        ],
        "readinessProbe": {**grpc, "periodSeconds": 2},
        "livenessProbe": {**grpc, "periodSeconds": 10},
        "volumeMounts": [{"name": "config", "mountPath": "/config", "readOnly": True}],
    }
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": described},
        {
            "apiVersion": role["apiGroup"] + "/v1",
            "kind": "Role",
            "metadata": described,
            "rules": [
                {"apiGroups": [""], "resources": ["pods"], "verbs": read},
                {"apiGroups": [_GROUP], "resources": ["inferencepools"], "verbs": read},
                {
                    "apiGroups": ["inference.networking.x-k8s.io"],
                    "resources": ["inferenceobjectives", "inferencemodelrewrites"],
                    "verbs": read,
                },
            ],
        },
        {
            "apiVersion": role["apiGroup"] + "/v1",
            "kind": "RoleBinding",
            "metadata": described,
            "roleRef": role,
            "subjects": [{"kind": "ServiceAccount", "name": name}],
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": described,
            "data": {"config.yaml": yaml_text([_PICKER_CONFIG])},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": described,
            "spec": {
                # Two pickers would both consider the same replica idle.
                "replicas": 1,
                "selector": {"matchLabels": pods},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "serviceAccountName": name,
                        "enableServiceLinks": False,
                        "containers": [picker],
                        "volumes": [{"name": "config", "configMap": {"name": name}}],
                    },
                },
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": described,
            "spec": {
                "selector": pods,
                "ports": [{"name": "grpc", "port": _PICKER_PORT, "appProtocol": "http2"}],
            },
        },
    ]
