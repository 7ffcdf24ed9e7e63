"""Classes of hardware on which engines reach other shares of peak performance than on their main target hardware."""

from __future__ import annotations

import re
from functools import cache

from melange.catalog.accelerator import Accelerator

# In order of precedence.
CONSUMER, PRE_AMPERE, ROCM, OTHER, DATACENTER = "consumer", "pre-ampere", "rocm", "other", "datacenter"
CLASSES = (CONSUMER, PRE_AMPERE, ROCM, OTHER, DATACENTER)
# Architectures with tensor cores without bf16; every engine has special kernels for them.
_PRE_AMPERE = ("Volta", "Turing")
# GeForce and Titan cards by their usual names: they have no direct access to each other's memory.
_CONSUMER = re.compile(
    r"(geforce|rtx|gtx|titan)[ _-]*(\d{4}(?!\s*ada)|v|rtx|xp)(?![a-z]*ada)[ _-]*(ti|super|d|s)*\b", re.IGNORECASE
)


def class_of(accelerator: Accelerator) -> str:
    """``consumer``, ``pre-ampere`` (which includes consumer cards of that age), ``rocm``, ``other``, or ``datacenter``.

    >>> from melange.catalog.bundled import accelerators
    >>> [class_of(accelerators()[name]) for name in ("RTX4090", "RTX6000Ada", "T4", "MI300X", "H100-80GB", "Gaudi3")]
    ['consumer', 'datacenter', 'pre-ampere', 'rocm', 'datacenter', 'other']
    """
    return _class_of(accelerator.vendor, accelerator.architecture, accelerator.name)


@cache
def _class_of(vendor: str, architecture: str, name: str) -> str:
    if vendor == "amd":
        return ROCM
    if vendor != "nvidia":
        return OTHER
    if architecture in _PRE_AMPERE:
        return PRE_AMPERE
    return CONSUMER if _CONSUMER.match(name) else DATACENTER
