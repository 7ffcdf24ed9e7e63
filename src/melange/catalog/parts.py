"""The part that a catalog's row means: one name can be an SXM module at one provider and a PCIe card at another."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from melange.catalog.bundled import accelerators
from melange.catalog.names import find_accelerator
from melange.catalog.shapes import part_of
from melange.units import GIB

SXM, PCIE, NVL = "SXM", "PCIe", "NVL"

# Our own parts of the families with several forms, by form.
_PARTS_BY_FORM: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "A100": {SXM: ("A100-40GB", "A100-80GB"), PCIE: ("A100-PCIe-40GB", "A100-PCIe-80GB")},
    "H100": {SXM: ("H100-80GB",), PCIE: ("H100-PCIe-80GB",), NVL: ("H100-NVL-94GB",)},
    "H200": {SXM: ("H200",), NVL: ("H200-NVL",)},
}
# The form that each provider means by a name without one. Sources: the providers' own listings of instance types; for
# RunPod the names that SkyPilot's catalog gives with them (A100 PCIe), for Shadeform its naming (H100, H100-sxm5).
_FORM_BY_PROVIDER: Mapping[str, str] = {
    **dict.fromkeys(("runpod", "shadeform", "scaleway", "hyperstack", "ovh", "ovhcloud", "vultr", "cudo"), PCIE),
    **dict.fromkeys(("aws", "gcp", "azure", "oci", "nebius", "lambda", "coreweave", "crusoe", "verda"), SXM),
    **dict.fromkeys(("digitalocean", "together", "gmicloud", "massedcompute", "mithril"), SXM),
}
# Instance types whose form differs from their provider's usual one.
_FORM_BY_SHAPE: tuple[tuple[str, str, str], ...] = (
    ("lambda", r"gpu_[124]x_a100", PCIE),  # Lambda: one, two and four A100 of 40 GB are cards, eight are modules
)
# Names of one provider in several catalogs.
_PROVIDER_BY_ALIAS = {"lambdalabs": "lambda", "datacrunch": "verda", "do": "digitalocean", "ovhcloud": "ovh"}
_WORDS = ((PCIE, r"pci-?e"), (NVL, r"nvl(?!ink)"), (SXM, r"sxm|hbm3|nvlink|mega|hgx"))
_MEMORY_IN_NAME = re.compile(r"[-_ ]?(\d{2,3}) ?GB?\b", re.IGNORECASE)
_MEMORY_TOLERANCE = 0.15  # as in names.py


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The accelerator of a row.

    Parameters
    ----------
    name
        Our own name; None if we have no figures for the accelerator.
    is_assumed
        Whether neither the row nor its provider's conventions state the form (SXM, PCIe).
    """

    name: str | None
    is_assumed: bool = False


def provider_named(name: str) -> str:
    """Our own name of a provider, from a catalog's name for it.

    >>> provider_named("lambdalabs"), provider_named("aws")
    ('lambda', 'aws')
    """
    folded = name.casefold()
    return _PROVIDER_BY_ALIAS.get(folded, folded)


def find_part(
    provider: str, name: str, *, memory_gib: float | None = None, instance_type: str = "", described: str = ""
) -> Part:
    """The accelerator that a row of a catalog means.

    The form is taken from the name, then from the rest of the row's description, then from the instance type, then from
    the provider's convention. If none of them gives the form, the SXM module is assumed and marked as such.

    Parameters
    ----------
    provider
        The provider that rents it out.
    name
        The accelerator, as named in the catalog.
    memory_gib
        Its memory, if the catalog gives it [GiB].
    instance_type
        The provider's name for the machine.
    described
        The catalog's description of the accelerator, if there is one.

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
    # GH200 is a part of its own, as is GB200.
    if family is None or re.search(r"gh200|gb200", name, re.IGNORECASE):
        return Part(name=_plain(name, memory_gib))
    form = _form_said(name, described, instance_type) or _form_meant(provider_named(provider), instance_type)
    told = memory_gib or _memory_in(name)
    forms = _PARTS_BY_FORM[family]
    if form not in forms:
        form = None
    found = _by_memory(forms[form or SXM], told)
    if found is None and form is None:
        # The memory may determine the form: an H100 of 94 GB is an NVL.
        return Part(name=_by_memory(tuple(part for parts in forms.values() for part in parts), told))
    # The form is in doubt only for families whose cards are rented under the bare name.
    return Part(name=found, is_assumed=form is None and found is not None and PCIE in forms)


def _form_said(*texts: str) -> str | None:
    """The form stated by the first of these texts that states one."""
    for text in texts:
        for form, pattern in _WORDS:
            if re.search(pattern, text, re.IGNORECASE):
                return form
    return None


def _form_meant(provider: str, instance_type: str) -> str | None:
    """The form that a provider means if it states none."""
    for owner, pattern, form in _FORM_BY_SHAPE:
        if provider == owner and re.fullmatch(pattern, instance_type, re.IGNORECASE):
            return form
    return _FORM_BY_PROVIDER.get(provider)


def _memory_in(name: str) -> float | None:
    """The memory stated in a name [GiB]."""
    found = _MEMORY_IN_NAME.search(name)
    return float(found[1]) if found else None


def _by_memory(parts: tuple[str, ...], memory_gib: float | None) -> str | None:
    """The part with about this memory; without a memory, the only part."""
    if memory_gib is None:
        return parts[0] if len(parts) == 1 else None
    for part in parts:
        if abs(accelerators()[part].memory_bytes / GIB / memory_gib - 1) <= _MEMORY_TOLERANCE:
            return part
    return None


def _plain(name: str, memory_gib: float | None) -> str | None:
    """A part with a single form, by its name or by its name without the memory in it (``L40S-48GB``)."""
    found = find_accelerator(name, accelerators(), memory_gib)
    if found is None and (told := _memory_in(name)) is not None:
        found = find_accelerator(_MEMORY_IN_NAME.sub("", name), accelerators(), memory_gib or told)
    return found
