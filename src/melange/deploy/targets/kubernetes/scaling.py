"""The number of replicas of a type if traffic differs from the plan: KEDA on requests in flight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from melange.deploy.group import Group, LoadedGroup
from melange.deploy.targets.kubernetes.cluster_options import ScalingOptions
from melange.deploy.targets.kubernetes.objects import metadata
from melange.deploy.targets.kubernetes.pods import Object, labels_of

# Unneeded replicas are removed after this time [s]: loading a model again takes minutes, but an idle replica costs
# money.
COOLDOWN_S = 600
# Averaging window for requests in flight: requests take seconds, and one peak is not a trend.
_WINDOW = "2m"


def scaled_object(
    group: LoadedGroup, base: str, options: ScalingOptions, annotations: Mapping[str, str] | None = None
) -> Object:
    """A ScaledObject that keeps the planned number of requests in flight per replica.

    At the planned traffic, this gives the planned replicas; at other traffic, the number is proportional.
    """
    described = metadata(group.name, labels_of(group, base), options)
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {**described, **({"annotations": dict(annotations)} if annotations else {})},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": group.name},
            **bounds(group, options),
            "pollingInterval": 15,
            "cooldownPeriod": COOLDOWN_S,
            "advanced": {
                "horizontalPodAutoscalerConfig": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": COOLDOWN_S}}}
            },
            # If Prometheus cannot be queried, the planned number is the best guess.
            "fallback": {"failureThreshold": 4, "replicas": group.replicas},
            "triggers": [trigger(group, options)],
        },
    }


def bounds(group: Group, options: ScalingOptions) -> dict[str, int]:
    """Minimum and maximum number of replicas, as KEDA's fields."""
    return {
        "minReplicaCount": group.least_replicas(options.least_replicas),
        "maxReplicaCount": group.most_replicas,
    }


def trigger(group: LoadedGroup, options: ScalingOptions) -> dict[str, Any]:
    """The trigger on requests in flight per replica, queried from Prometheus.

    Prometheus may also have the metrics of the same service in other namespaces.
    """
    place = f',namespace="{options.namespace}"' if options.namespace else ""
    pods = f'pod=~"{group.name}-.*"{place}'
    metrics = " + ".join(f"sum(avg_over_time({name}{{{pods}}}[{_WINDOW}]))" for name in group.launch.busy)
    return {
        "type": "prometheus",
        "name": "requests-in-flight",
        "metricType": "AverageValue",
        "metadata": {
            "serverAddress": options.prometheus,
            "query": metrics,
            "threshold": f"{group.in_flight:.3g}",
        },
    }
