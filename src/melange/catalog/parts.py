"""Which part a catalog's row is about: the same name means an SXM module to one provider and a PCIe card to another."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from melange.catalog.bundled import accelerators
from melange.catalog.names import find_accelerator
from melange.catalog.shapes import part_of
from melange.units import GIB

SXM, PCIE, NVL = "SXM", "PCIe", "NVL"

# Our own parts of the families that come in several forms, by form.
_PARTS_BY_FORM: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "A100": {SXM: ("A100-40GB", "A100-80GB"), PCIE: ("A100-PCIe-40GB", "A100-PCIe-80GB")},
    "H100": {SXM: ("H100-80GB",), PCIE: ("H100-PCIe-80GB",), NVL: ("H100-NVL-94GB",)},
    "H200": {SXM: ("H200",), NVL: ("H200-NVL",)},
}
# What each provider means by a name that says no form. Sources: the providers' own listings of instance types; for
# RunPod the names that SkyPilot's catalog gives beside them (A100 PCIe), for Shadeform its naming (H100, H100-sxm5).
_FORM_BY_PROVIDER: Mapping[str, str] = {
    **dict.fromkeys(("runpod", "shadeform", "scaleway", "hyperstack", "ovh", "ovhcloud", "vultr", "cudo"), PCIE),
    **dict.fromkeys(("aws", "gcp", "azure", "oci", "nebius", "lambda", "coreweave", "crusoe", "verda"), SXM),
    **dict.fromkeys(("digitalocean", "together", "gmicloud", "massedcompute", "mithril"), SXM),
}
# Shapes that differ from what their provider means otherwise.
_FORM_BY_SHAPE: tuple[tuple[str, str, str], ...] = (
    ("lambda", r"gpu_[124]x_a100", PCIE),  # Lambda: one, two and four A100 of 40 GB are cards, eight are modules
)
# Names of one provider in several catalogs.
_PROVIDER_BY_ALIAS = {"lambdalabs": "lambda", "datacrunch": "verda", "do": "digitalocean", "ovhcloud": "ovh"}
_WORDS = ((PCIE, r"pci-?e"), (NVL, r"nvl(?!ink)"), (SXM, r"sxm|hbm3|nvlink|mega|hgx"))
_MEMORY_IN_NAME = re.compile(r"[-_ ]?(\d{2,3}) ?GB?\b", re.IGNORECASE)
_MEMORY_TOLERANCE = 0.15  # as names.py


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The accelerator of a row.

    Parameters
    ----------
    name
        Our own name; None where we have no figures of it.
    is_assumed
        Whether the form (SXM, PCIe) was said neither by the row nor by its provider's conventions.
    """

    name: str | None
    is_assumed: bool = False


def provider_named(name: str) -> str:
    """Our own name of a provider that a catalog names its way.

    >>> provider_named("lambdalabs"), provider_named("aws")
    ('lambda', 'aws')
    """
    folded = name.casefold()
    return _PROVIDER_BY_ALIAS.get(folded, folded)


def find_part(
    provider: str, name: str, *, memory_gib: float | None = None, instance_type: str = "", described: str = ""
) -> Part:
    """The accelerator that a row of a catalog is about.

    The form is taken from the name, then from what else the row says of the accelerator, then from the instance type,
    then from what its provider is known to mean. Where nothing tells, the SXM module is assumed, and said to be.

    Parameters
    ----------
    provider
        Who rents it out.
    name
        The accelerator, as the catalog names it.
    memory_gib
        Its memory, where the catalog tells [GiB].
    instance_type
        What the provider calls the machine.
    described
        The accelerator in other words, where the catalog has them.

    >>> find_part("runpod", "H100").name, find_part("aws", "H100").name
    ('H100-PCIe-80GB', 'H100-80GB')
    >>> find_part("vast", "A100", memory_gib=80, instance_type="1x-A100_PCIE-32-65536").name
    'A100-PCIe-80GB'
    >>> find_part("somebody", "H100")
    Part(name='H100-80GB', is_assumed=True)
    """
    if (known := part_of(instance_type)) is not None:
        return Part(name=known)
    family = next((one for one in _PARTS_BY_FORM if re.search(rf"(?<![a-z]){one}", name, re.IGNORECASE)), None)
    # GH200 is a part of its own, and so is GB200.
    if family is None or re.search(r"gh200|gb200", name, re.IGNORECASE):
        return Part(name=_plain(name, memory_gib))
    form = _form_said(name, described, instance_type) or _form_meant(provider_named(provider), instance_type)
    told = memory_gib or _memory_in(name)
    forms = _PARTS_BY_FORM[family]
    if form not in forms:
        form = None
    found = _by_memory(forms[form or SXM], told)
    if found is None and form is None:
        # The memory may tell the form: an H100 of 94 GB is an NVL.
        return Part(name=_by_memory(tuple(part for parts in forms.values() for part in parts), told))
    # Only families of which cards are rented under the bare name leave a doubt.
    return Part(name=found, is_assumed=form is None and found is not None and PCIE in forms)


def _form_said(*texts: str) -> str | None:
    """The form that the first of these texts that says any says."""
    for text in texts:
        for form, pattern in _WORDS:
            if re.search(pattern, text, re.IGNORECASE):
                return form
    return None


def _form_meant(provider: str, instance_type: str) -> str | None:
    """The form that a provider means where it says none."""
    for owner, pattern, form in _FORM_BY_SHAPE:
        if provider == owner and re.fullmatch(pattern, instance_type, re.IGNORECASE):
            return form
    return _FORM_BY_PROVIDER.get(provider)


def _memory_in(name: str) -> float | None:
    """The memory that a name says [GiB]."""
    found = _MEMORY_IN_NAME.search(name)
    return float(found[1]) if found else None


def _by_memory(parts: tuple[str, ...], memory_gib: float | None) -> str | None:
    """The one of these parts that has about this memory; with no memory the only one."""
    if memory_gib is None:
        return parts[0] if len(parts) == 1 else None
    for part in parts:
        if abs(accelerators()[part].memory_bytes / GIB / memory_gib - 1) <= _MEMORY_TOLERANCE:
            return part
    return None


def _plain(name: str, memory_gib: float | None) -> str | None:
    """A part that has one form only, by its name or by its name without the memory in it (``L40S-48GB``)."""
    found = find_accelerator(name, accelerators(), memory_gib)
    if found is None and (told := _memory_in(name)) is not None:
        found = find_accelerator(_MEMORY_IN_NAME.sub("", name), accelerators(), memory_gib or told)
    return found
