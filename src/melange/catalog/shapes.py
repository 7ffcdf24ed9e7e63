"""Facts in a cloud's instance type about its accelerators: the part, and the link between several of them."""

from __future__ import annotations

import re

from melange.catalog.accelerator import Accelerator

# Instance types with another link than that of their accelerator. Sources: the clouds' machine type pages.
_INTERCONNECTS: tuple[tuple[str, str], ...] = (
    (r"p[3-6]\w*[.-]", "nvlink"),  # AWS P3 to P6: NVLink or NVSwitch
    (r"g[4-7]\w*\.", "pcie"),  # AWS G4 to G7e
    (r"a[234]-", "nvlink"),  # Google A2, A3, A4
    (r"g[24]-", "pcie"),  # Google G2, G4
    (r"standard_nc(48|80)\w*_(a100_v4|h100_v5)", "nvlink"),  # Azure NC: a pair has a bridge ...
    (r"standard_nc96\w*_a100_v4", "pcie"),  # ... and two pairs meet over PCIe
    (r"standard_nd", "nvlink"),  # Azure ND
    (r"standard_n[cv]", "pcie"),  # the rest of NC and NV
)
# Instance types for which catalogs give only the family's name.
_PARTS: tuple[tuple[str, str], ...] = (
    (r"standard_nc\w*_a100_v4", "A100-PCIe-80GB"),
    (r"standard_nc\w*_h100_v5", "H100-NVL-94GB"),
)


def interconnect(instance_type: str, accelerator: Accelerator, accelerators: int) -> str:
    """``nvlink`` (or the vendor's equivalent) or ``pcie``; empty for a single accelerator.

    A bridge between two cards is an option that few clouds use: unless an instance type is known to have one, PCIe is
    assumed.

    >>> from melange.catalog.bundled import accelerators
    >>> interconnect("g6e.12xlarge", accelerators()["L40S"], 4)
    'pcie'
    >>> interconnect("a2-ultragpu-2g", accelerators()["A100-80GB"], 2)
    'nvlink'
    """
    if accelerators == 1:
        return ""
    for pattern, joined in _INTERCONNECTS:
        if re.match(pattern, instance_type, re.IGNORECASE):
            return joined
    switched = not accelerator.link.startswith("PCIe") and "bridge" not in accelerator.link
    return "nvlink" if switched else "pcie"


def part_of(instance_type: str) -> str | None:
    """The accelerator that this instance type is known to have; None if the catalog's own name is to be used.

    >>> part_of("Standard_NC24ads_A100_v4")
    'A100-PCIe-80GB'
    """
    for pattern, part in _PARTS:
        if re.match(pattern, instance_type, re.IGNORECASE):
            return part
    return None
