"""Values that the tests of this folder share."""

from __future__ import annotations

from melange.catalog.offer import Offer
from melange.replica.era import Constants

# Datasheet figures at face value: times can be worked out by hand.
IDEAL = Constants(
    mbu=1.0,
    mba=1.0,
    mba_latent=1.0,
    mfu=1.0,
    mfu_fp8=1.0,
    mfu_fp4=1.0,
    mfu_experts=1.0,
    mfu_attention=1.0,
    t_step_s=0.0,
    t_layer_s=0.0,
    t_moe_layer_s=0.0,
    t_latent_layer_s=0.0,
    t_sequence_s=0.0,
    t_request_s=0.0,
    t_stream_s=0.0,
    link_latency_s=0.0,
    pcie_latency_s=0.0,
    link_efficiency=1.0,
    pcie_efficiency=1.0,
)


def offer(accelerator: str, accelerators: int = 1, **details: object) -> Offer:
    """An offer of this many accelerators, named after them."""
    fields: dict[str, object] = {
        "provider": "cloud",
        "region": "here",
        "instance_type": f"{accelerator.lower()}x{accelerators}",
        "accelerator": accelerator,
        "accelerators": accelerators,
        "cost_per_h": 1.0,
    }
    return Offer(**(fields | details))  # type: ignore[arg-type] # a mixed bag by design
