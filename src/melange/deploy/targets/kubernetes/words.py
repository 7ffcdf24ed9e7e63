"""Text about request routing in the files of cluster targets."""

from __future__ import annotations

from melange.deploy.targets.kubernetes.cluster_options import ClusterOptions, ScalingOptions

_BY_BALANCER = """\
Requests go to the Service {base}-balancer (port 80, OpenAI API): Melange's balancer routes each request by size, to the
least loaded replica, with the simulated policy. Several balancers each keep the plan's shares over their own requests.
To build its image: docker build -t {image} . in Melange's repository.
"""
_BY_GATEWAY = """\
Requests go to the Gateway {gateway}, with an HTTPRoute that splits them over one InferencePool per replica type by
weights of 10,000; the cluster needs Gateway API and its inference extension. The header x-melange-type sends a request
to the named type: a proxy that knows sizes can set it.
"""


def routing_words(options: ClusterOptions, base: str) -> str:
    """A paragraph on routing."""
    if options.routing == "balancer":
        return _BY_BALANCER.format(base=base, image=options.balancer_image).strip()
    if options.routing == "gateway":
        return _BY_GATEWAY.format(gateway=options.gateway).strip()
    return "Nothing routes requests to replica types."


def least_words(options: ScalingOptions) -> str:
    """The lower end of scaling at little traffic, in words."""
    return "the planned" if options.least_replicas is None else str(options.least_replicas)
