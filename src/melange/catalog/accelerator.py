"""Facts about an accelerator: memory, bandwidth, arithmetic, links. Prices are in offers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from melange.errors import InputError
from melange.files import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """Physical facts of one accelerator; no price.

    Parameters
    ----------
    name
        The name used everywhere: ``A10G``, ``A100-80GB``, ``H100-80GB``.
    vendor, architecture
        Maker and generation.
    memory_bytes
        Device memory as reported by its driver, after the part for error correction [bytes].
    bandwidth_bytes_per_s
        Peak memory bandwidth [bytes/s].
    flops_by_dtype
        Peak dense throughput by data type (``bf16``, ``fp16``, ``fp8``, ``int8``, ``fp4``) [1/s].
    link
        The link between accelerators of one instance, in words (``NVLink4/NVSwitch``, ``PCIe``).
    link_bandwidth_bytes_per_s
        Bandwidth of that link for one accelerator, one direction [bytes/s].
    pcie_bandwidth_bytes_per_s
        The same over PCIe, for instances that have the accelerator without its link [bytes/s].
    tdp_w
        Thermal design power: the highest sustained power draw [W]; 0: unknown.
    source
        Datasheet or data set of these figures.
    notes
        Remarks (power-limited, two dies, ...).
    aliases
        Other names, here and in other tools' files.
    checked
        When these figures were last checked against their source; None if unknown.
    """

    name: str
    vendor: str
    architecture: str
    memory_bytes: float
    bandwidth_bytes_per_s: float
    flops_by_dtype: Mapping[str, float]
    link: str
    link_bandwidth_bytes_per_s: float
    pcie_bandwidth_bytes_per_s: float
    source: str
    tdp_w: float = 0.0
    notes: str = ""
    aliases: tuple[str, ...] = ()
    checked: date | None = None

    def flops(self, dtype: str) -> float:
        """Peak dense throughput of a product in this data type [1/s].

        An accelerator computes unsupported types in its own 16-bit type: an A100 unpacks int4 weights to bf16, and a T4
        unpacks fp8 to fp16.

        >>> from melange.catalog.bundled import accelerators
        >>> accelerators()["A100-80GB"].flops("fp8") / 1e12
        312.0
        """
        for candidate in (dtype, "bf16", "fp16"):
            if candidate in self.flops_by_dtype:
                return self.flops_by_dtype[candidate]
        raise InputError(f"{self.name}: no throughput is known for {dtype}, bf16 or fp16")

    def to_json(self) -> Json:
        """As a JSON object."""
        return {
            "name": self.name,
            "vendor": self.vendor,
            "architecture": self.architecture,
            "memory_bytes": self.memory_bytes,
            "bandwidth_bytes_per_s": self.bandwidth_bytes_per_s,
            "flops_by_dtype": dict(self.flops_by_dtype),
            "link": self.link,
            "link_bandwidth_bytes_per_s": self.link_bandwidth_bytes_per_s,
            "pcie_bandwidth_bytes_per_s": self.pcie_bandwidth_bytes_per_s,
            "tdp_w": self.tdp_w,
            "source": self.source,
            "notes": self.notes,
            "aliases": list(self.aliases),
            "checked": self.checked.isoformat() if self.checked else None,
        }
