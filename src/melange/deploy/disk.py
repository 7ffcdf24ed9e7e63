"""The disk of an instance: for the image, the container and the weights."""

from __future__ import annotations

import math

from melange.catalog.accelerator import Accelerator
from melange.catalog.bundled import models
from melange.catalog.variants import variant_of
from melange.plan.server import Server
from melange.units import GB

# Least size, whatever the weights, and the room for the machine's image and the container beside them: images of
# engines take up to 20 GB and Amazon's machine image 75 GB. A larger disk costs 0.1 USD per GB and month.
_LEAST_GB, _BESIDE_GB = 300, 100
# Room for files that the engine downloads in part before it links them, and sizes are rounded up.
_ROOM, _STEP_GB = 1.2, 50
# Weights in fp8 are at most half as large as the published ones, which the engine reads to make them.
_PUBLISHED_PER_FP8 = 2.0


def disk_gb(server: Server, accelerator: Accelerator | None, *, is_made_while_loading: bool) -> int:
    """Size of an instance's disk [GB].

    Parameters
    ----------
    server
        The plan's assumptions about a replica. Of a model that is not in the catalog, its weights are known to fit into
        the memory of the replica's accelerators.
    accelerator
        The accelerator; None: unknown.
    is_made_while_loading
        Whether the engine downloads the published weights and quantizes them while loading.

    Examples
    --------
    >>> [
    ...     disk_gb(Server(replica_type="a", replicas=1, model=name), None, is_made_while_loading=False)
    ...     for name in ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-405B")
    ... ]
    [300, 1100]
    """
    if server.model in models():
        published = models()[server.model]
        weight_bytes = (published if is_made_while_loading else variant_of(published, server.variant)).weight_bytes()
    elif accelerator is None:
        weight_bytes = 0.0
    else:
        memory_bytes = server.layout.accelerators * accelerator.memory_bytes
        weight_bytes = memory_bytes * (_PUBLISHED_PER_FP8 if is_made_while_loading else 1.0)
    needed = weight_bytes / GB * _ROOM + _BESIDE_GB
    return max(_LEAST_GB, math.ceil(needed / _STEP_GB) * _STEP_GB)
