"""The objects of one replica type: its pods, their service, and their disruption budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from melange.deploy.group import Group
from melange.deploy.heading import one_line
from melange.deploy.targets.kubernetes.cluster_options import ClusterOptions
from melange.deploy.targets.kubernetes.pods import Object, labels_of, pod_spec, selector_of
from melange.plan.plan import Plan


def metadata(name: str, labels: Mapping[str, str], options: ClusterOptions) -> Object:
    """Name, labels, and the namespace if one is given."""
    place = {"namespace": options.namespace} if options.namespace else {}
    return {"name": name, **place, "labels": dict(labels)}


def annotations_of(group: Group, fingerprint: str) -> dict[str, str]:
    """Annotations with the source plan and the type's full name in it."""
    return {"melange/plan": fingerprint, "melange/replica-type-name": one_line(group.replica_type)}


def deployment(
    group: Group,
    groups: Sequence[Group],
    base: str,
    fingerprint: str,
    options: ClusterOptions,
    labels: Mapping[str, str] | None = None,
    replicas: int | None = None,
) -> Object:
    """Deployment of a type's replicas; a new replica is ready before an old one is removed.

    Parameters
    ----------
    group, groups
        The type, and all types of the plan.
    base, fingerprint
        Base name of all objects, and fingerprint of the plan.
    options
        The user's options.
    labels
        Additional labels of the deployment and its pods.
    replicas
        Number of replicas; None: as planned. Negative: an autoscaler sets the number.
    """
    more = dict(labels or {})
    count = group.replicas if replicas is None else replicas
    selector = selector_of(group, base)
    template = {
        "metadata": {
            "labels": labels_of(group, base) | more,
            # The plan is not named here: a new plan must not restart servers that are unchanged.
            "annotations": {
                "prometheus.io/scrape": "true",
                "prometheus.io/path": "/metrics",
                "prometheus.io/port": str(group.launch.port),
            },
        },
        "spec": pod_spec(group, groups, base, options),
    }
    described = metadata(group.name, labels_of(group, base) | more, options)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {**described, "annotations": annotations_of(group, fingerprint)},
        "spec": {
            **({"replicas": count} if count >= 0 else {}),
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            # Time for loading the model before a rollout counts as stuck.
            "progressDeadlineSeconds": group.launch.startup_s + 600,
            "selector": {"matchLabels": selector},
            "template": template,
        },
    }


def server_objects(
    group: Group,
    groups: Sequence[Group],
    plan: Plan,
    base: str,
    options: ClusterOptions,
    labels: Mapping[str, str] | None = None,
    *,
    is_scaled: bool,
) -> list[Object]:
    """The deployment, service and disruption budget of a type.

    Parameters
    ----------
    labels
        Additional labels of the pods.
    is_scaled
        Whether an autoscaler owns the number of replicas: then the deployment sets none, so that applying the files
        again does not undo the autoscaler's changes.
    """
    replicas = -1 if is_scaled else None
    return [
        deployment(group, groups, base, plan.fingerprint, options, labels, replicas),
        service(group, base, options),
        disruption_budget(group.name, selector_of(group, base), labels_of(group, base), options),
    ]


def service(group: Group, base: str, options: ClusterOptions, selector: Mapping[str, str] | None = None) -> Object:
    """A headless service: its name resolves to the replicas that are ready."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(group.name, labels_of(group, base), options),
        "spec": {
            "clusterIP": "None",
            "selector": dict(selector or selector_of(group, base)),
            "ports": [{"name": "http", "port": group.launch.port, "targetPort": group.launch.port}],
        },
    }


def disruption_budget(
    name: str, selector: Mapping[str, str], labels: Mapping[str, str], options: ClusterOptions
) -> Object:
    """Allow one disruption at a time: a pod drained for maintenance is back before the next one is removed."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(name, labels, options),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": dict(selector)}},
    }
