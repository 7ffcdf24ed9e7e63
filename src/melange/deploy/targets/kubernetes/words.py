"""What the files of cluster targets say of where requests go."""

from __future__ import annotations

from melange.deploy.targets.kubernetes.cluster_options import ClusterOptions, ScalingOptions

_BY_BALANCER = """\
Requests go to the Service {base}-balancer (port 80, the OpenAI interface): Melange's balancer sends each size where
the plan says, to the least full replica, by the policy that was simulated. Several balancers each hold the plan's
shares over their own requests. Its image is built from the Dockerfile of Melange's repository: docker build -t {image}
.
"""
_BY_GATEWAY = """\
Requests go to the Gateway {gateway}, by an HTTPRoute that splits them over an InferencePool a replica type by weights
of 10,000; the cluster needs Gateway API and its inference extension. A request whose header x-melange-type names a type
goes there: a proxy that knows sizes can set it.
"""


def routing_words(options: ClusterOptions, base: str) -> str:
    """A paragraph on it."""
    if options.routing == "balancer":
        return _BY_BALANCER.format(base=base, image=options.balancer_image).strip()
    if options.routing == "gateway":
        return _BY_GATEWAY.format(gateway=options.gateway).strip()
    return "Nothing sends requests to replica types."


def least_words(options: ScalingOptions) -> str:
    """Where scaling ends at little traffic."""
    return "the planned" if options.least_replicas is None else str(options.least_replicas)
