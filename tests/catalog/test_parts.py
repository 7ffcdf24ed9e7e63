"""Which part a row of somebody's catalog is about."""

import pytest

from melange.catalog.bundled import accelerators
from melange.catalog.parts import Part, find_part, provider_named


@pytest.mark.parametrize(
    ("provider", "name", "memory", "instance_type", "described", "part"),
    [
        ("runpod", "H100", None, "1x_H100_SECURE", "H100", "H100-PCIe-80GB"),
        ("runpod", "A100-80GB", 80, "1x_A100-80GB_SECURE", "A100 PCIe", "A100-PCIe-80GB"),
        ("runpod", "A100-80GB-SXM", 80, "1x_A100-80GB-SXM_SECURE", "A100-80GB-SXM", "A100-80GB"),
        ("runpod", "H100-SXM", None, "1x_H100-SXM_SECURE", "", "H100-80GB"),
        ("runpod", "H100-NVL", None, "1x_H100-NVL_SECURE", "", "H100-NVL-94GB"),
        ("runpod", "H100", 80, "NVIDIA H100 80GB HBM3", "", "H100-80GB"),
        ("runpod", "H200", None, "1x_H200_SECURE", "", "H200"),
        ("runpod", "H200", 141, "NVIDIA H200 NVL", "", "H200-NVL"),
        ("aws", "H100", 80, "p5.48xlarge", "H100", "H100-80GB"),
        ("aws", "A100", 40, "p4d.24xlarge", "A100", "A100-40GB"),
        ("azure", "A100", 80, "Standard_NC24ads_A100_v4", "", "A100-PCIe-80GB"),
        ("azure", "A100-80GB", None, "Standard_ND96amsr_A100_v4", "", "A100-80GB"),
        ("lambda", "A100", 40, "gpu_1x_a100", "A100", "A100-PCIe-40GB"),
        ("lambda", "A100", 40, "gpu_1x_a100_sxm4", "A100", "A100-40GB"),
        ("lambda", "A100", 40, "gpu_8x_a100", "A100", "A100-40GB"),
        ("lambdalabs", "A100", 40, "gpu_2x_a100", "", "A100-PCIe-40GB"),
        ("hyperstack", "H100-80G-PCIe-NVLink", 80, "n3-H100x8-NVLink", "", "H100-PCIe-80GB"),
        ("hyperstack", "H100-80G-SXM5", 80, "n3-H100-SXM5x8", "", "H100-80GB"),
        ("shadeform", "H100", 80, "scaleway_H100x2", "H100", "H100-PCIe-80GB"),
        ("shadeform", "H100", 80, "lambdalabs_H100-sxm5x2", "H100", "H100-80GB"),
        ("vast", "H100", 93.6, "1x-H100_NVL-32-65536", "H100", "H100-NVL-94GB"),
        ("vast", "A100", 80, "1x-A100_PCIE-32-65536", "A100", "A100-PCIe-80GB"),
        ("gcp", "H100-MEGA", None, "a3-megagpu-8g", "", "H100-80GB"),
        ("somebody", "H100", 94, "", "", "H100-NVL-94GB"),
        ("somebody", "GH200", 96, "", "", "GH200-96GB"),
        ("somebody", "L40S-48GB", None, "", "", "L40S"),
        ("somebody", "V100-32GB", None, "", "", "V100-32GB"),
        ("somebody", "A100", None, "", "", None),
        ("somebody", "H100", 40, "", "", None),
    ],
)
def test_the_part_of_a_row(
    provider: str, name: str, memory: float | None, instance_type: str, described: str, part: str | None
) -> None:
    """Rows as SkyPilot's and gpuhunt's catalogs have them."""
    found = find_part(provider, name, memory_gib=memory, instance_type=instance_type, described=described)
    assert found == Part(name=part)


def test_an_unknown_form_is_assumed_aloud() -> None:
    """A provider that nothing is known of: the module, and the row is counted."""
    assert find_part("somebody", "A100-80GB") == Part(name="A100-80GB", is_assumed=True)


@pytest.mark.parametrize("name", accelerators())
def test_every_part_answers_to_its_own_name(name: str) -> None:
    """At providers that do not mean a card by a bare name."""
    for provider in ("aws", "somebody"):
        assert find_part(provider, name).name == name


def test_providers_have_one_name() -> None:
    """Those of gpuhunt and SkyPilot are ours."""
    assert [provider_named(name) for name in ("lambdalabs", "datacrunch", "do", "AWS")] == [
        "lambda",
        "verda",
        "digitalocean",
        "aws",
    ]
