"""How many replicas of a type there are when traffic is not what was planned: KEDA on requests in flight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from melange.deploy.group import Group
from melange.deploy.targets.kubernetes.cluster_options import ScalingOptions
from melange.deploy.targets.kubernetes.objects import metadata
from melange.deploy.targets.kubernetes.pods import Object, labels_of

# Replicas that are not needed for this long go [s]: loading a model again takes minutes, an idle one costs its price.
COOLDOWN_S = 600
# The length of time over which the number in flight is averaged: requests take seconds, and one peak is no trend.
_WINDOW = "2m"


def scaled_object(
    group: Group, base: str, options: ScalingOptions, annotations: Mapping[str, str] | None = None
) -> Object:
    """A ScaledObject that keeps as many requests in flight on a replica as the plan has there.

    At the planned traffic it comes to the planned replicas; below and above, in proportion.
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
            # When Prometheus cannot be asked, what was planned is right more often than nothing.
            "fallback": {"failureThreshold": 4, "replicas": group.replicas},
            "triggers": [trigger(group, options)],
        },
    }


def bounds(group: Group, options: ScalingOptions) -> dict[str, int]:
    """Fewest and most replicas, in KEDA's words."""
    return {
        "minReplicaCount": group.least_replicas(options.least_replicas),
        "maxReplicaCount": group.most_replicas,
    }


def trigger(group: Group, options: ScalingOptions) -> dict[str, Any]:
    """What a replica may have in flight, asked of Prometheus."""
    pods = f'pod=~"{group.name}-.*"'
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
