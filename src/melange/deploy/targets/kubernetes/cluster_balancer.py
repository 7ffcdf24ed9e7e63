"""Melange's balancer in a cluster: its plan, and how it finds replicas."""

from __future__ import annotations

from collections.abc import Sequence

from melange.deploy.group import Group
from melange.deploy.plan_in_use import plan_text
from melange.deploy.targets.gateways.routes import routes_of
from melange.deploy.targets.kubernetes.cluster_options import ClusterOptions
from melange.deploy.targets.kubernetes.objects import disruption_budget, metadata
from melange.deploy.targets.kubernetes.pods import Object, literal
from melange.deploy.tellable import check_tellable
from melange.plan.plan import Plan

_PORT = 8080
# User and group "nonroot", as in distroless images.
_NOBODY = 65532


def balancer_objects(plan: Plan, groups: Sequence[Group], base: str, options: ClusterOptions) -> list[Object]:
    """The plan as a ConfigMap, the balancers' deployment, their service and their disruption budget.

    Raises
    ------
    InputError
        The plan's requests have no sizes, the plan is too large, or the balancer cannot parse the name of a type.
    """
    routes_of(plan)  # raises an error for a plan without sizes
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata(f"{base}-plan", _labels(base), options),
            "data": {"plan.json": plan_text(plan)},
        },
        _deployment(plan, groups, base, options),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata(f"{base}-balancer", _labels(base), options),
            "spec": {"selector": _selector(base), "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        },
        disruption_budget(f"{base}-balancer", _selector(base), _labels(base), options),
    ]


def replica_arguments(groups: Sequence[Group], hosts: Sequence[str]) -> list[str]:
    """``NAME=http://host:port`` of each type; rejects names that a line cannot hold."""
    check_tellable(group.replica_type for group in groups)
    return [
        f"{group.replica_type}=http://{host}:{group.launch.port}" for group, host in zip(groups, hosts, strict=True)
    ]


def _labels(base: str) -> dict[str, str]:
    return _selector(base) | {"app.kubernetes.io/managed-by": "melange"}


def _selector(base: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": base, "app.kubernetes.io/component": "balancer"}


def _deployment(plan: Plan, groups: Sequence[Group], base: str, options: ClusterOptions) -> Object:
    drain_s = max(group.launch.drain_s for group in groups)
    replicas = replica_arguments(groups, [group.name for group in groups])
    discover = ["python", "-m", "melange.deploy.live.discover", "--out", "/replicas/replicas.txt"]
    away = {"labelSelector": {"matchLabels": _selector(base)}, "topologyKey": "kubernetes.io/hostname"}
    keys = {"name": options.keys_secret, "key": "MELANGE_BALANCE_KEYS", "optional": True}
    balance = {
        "name": "balancer",
        "image": options.balancer_image,
        "command": ["melange"],
        "args": [
            *("balance", "/plan/plan.json", "--replicas", "/replicas/replicas.txt"),
            *("--host", "0.0.0.0", "--port", str(_PORT), "--drain", str(drain_s)),
            *(("--balancers", str(options.balancers)) if options.balancers > 1 else ()),
        ],
        "env": [{"name": "MELANGE_BALANCE_KEYS", "valueFrom": {"secretKeyRef": keys}}],
        "ports": [{"name": "http", "containerPort": _PORT}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 2, "failureThreshold": 2},
        # Balancers accept requests until all clients know that they are leaving.
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}},
        "securityContext": _locked(),
        "volumeMounts": [
            {"name": "plan", "mountPath": "/plan", "readOnly": True},
            {"name": "replicas", "mountPath": "/replicas", "readOnly": True},
            {"name": "scratch", "mountPath": "/tmp"},
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(f"{base}-balancer", _labels(base), options),
        "spec": {
            "replicas": options.balancers,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": _selector(base)},
            "template": {
                # A changed plan restarts the balancers.
                "metadata": {"labels": _labels(base), "annotations": {"melange/plan": plan.fingerprint}},
                "spec": {
                    "enableServiceLinks": False,
                    "automountServiceAccountToken": False,
                    "terminationGracePeriodSeconds": drain_s + 30,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": _NOBODY,
                        "runAsGroup": _NOBODY,
                        "fsGroup": _NOBODY,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "affinity": {
                        "podAntiAffinity": {
                            "preferredDuringSchedulingIgnoredDuringExecution": [
                                {"weight": 100, "podAffinityTerm": away}
                            ]
                        }
                    },
                    # Wait for the first replicas; afterwards, another container keeps the file up to date.
                    "initContainers": [_discoverer("find-replicas", [*discover, "--once", *replicas], options)],
                    "containers": [balance, _discoverer("follow-replicas", [*discover, *replicas], options)],
                    "volumes": [
                        {"name": "plan", "configMap": {"name": f"{base}-plan"}},
                        {"name": "replicas", "emptyDir": {}},
                        {"name": "scratch", "emptyDir": {}},
                    ],
                },
            },
        },
    }


def _discoverer(name: str, command: list[str], options: ClusterOptions) -> Object:
    return {
        "name": name,
        "image": options.balancer_image,
        "command": command[:1],
        "args": [literal(word) for word in command[1:]],
        "securityContext": _locked(),
        "volumeMounts": [{"name": "replicas", "mountPath": "/replicas"}],
    }


def _locked() -> Object:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
