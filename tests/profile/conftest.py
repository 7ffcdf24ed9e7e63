"""Named small cases: one model, four cards, a few offers."""

from __future__ import annotations

import pytest

from melange.catalog.accelerator import Accelerator
from melange.catalog.bundled import accelerators, find_model
from melange.catalog.model import Model
from melange.catalog.offer import Offer
from melange.profile.era import Constants

# Datasheet figures at face value: times can be worked out by hand.
IDEAL = Constants(
    mbu=1.0,
    mba=1.0,
    mfu=1.0,
    mfu_attention=1.0,
    t_step_s=0.0,
    t_layer_s=0.0,
    t_sequence_s=0.0,
    t_request_s=0.0,
    link_latency_s=0.0,
    pcie_latency_s=0.0,
    link_efficiency=1.0,
    pcie_efficiency=1.0,
)


def offer(accelerator: str, accelerators: int = 1, **details: object) -> Offer:
    """An offer of so many accelerators, named after them."""
    fields: dict[str, object] = {
        "provider": "cloud",
        "region": "here",
        "instance_type": f"{accelerator.lower()}x{accelerators}",
        "accelerator": accelerator,
        "accelerators": accelerators,
        "cost_per_h": 1.0,
    }
    return Offer(**(fields | details))  # type: ignore[arg-type] # a mixed bag by design


@pytest.fixture
def llama() -> Model:
    """Llama-2-7b: 6.7 billion weights, 0.5 MiB of KV cache a token."""
    return find_model("meta-llama/Llama-2-7b-hf")


@pytest.fixture
def plain() -> Accelerator:
    """A card of round figures: 100 GB, 1 TB/s, 100 TFLOPS, links of 100 and 10 GB/s."""
    return Accelerator(
        name="plain",
        vendor="test",
        architecture="Hopper",
        memory_bytes=100e9,
        bandwidth_bytes_per_s=1e12,
        flops_by_dtype={"bf16": 100e12, "fp8": 200e12},
        link="NVLink",
        link_bandwidth_bytes_per_s=100e9,
        pcie_bandwidth_bytes_per_s=10e9,
        source="invented",
    )


@pytest.fixture
def cards() -> dict[str, Accelerator]:
    """The bundled accelerators."""
    return dict(accelerators())
