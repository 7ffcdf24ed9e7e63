"""The names of an accelerator: ours, and those in other tools' catalogs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from melange.catalog.accelerator import Accelerator
from melange.units import GIB

# A memory size within this share of ours means the same part: catalogs give nominal, driver or rounded sizes.
_MEMORY_TOLERANCE = 0.15


def _fold(name: str) -> str:
    """A name without vendor, case and punctuation: ``NVIDIA RTX 6000 Ada`` and ``RTX6000-Ada`` agree.

    >>> _fold("NVIDIA RTX 6000 Ada Generation"), _fold("RTX6000-Ada")
    ('rtx6000ada', 'rtx6000ada')
    """
    folded = re.sub(r"[^a-z0-9]", "", name.casefold())
    folded = re.sub(r"^(nvidia|amd|intel|google|aws)+", "", folded)
    return re.sub(r"^(geforce|tesla|instinct)|generation$", "", folded)


def find_accelerator(name: str, accelerators: Mapping[str, Accelerator], memory_gib: float | None = None) -> str | None:
    """Our name of an accelerator, from a name in another catalog and its memory, if given [GiB].

    With a memory size, the name may be that of a family (``A100``): the member with about this memory is returned. If
    the name is that of a single part, a memory size that is off by 15 % means another part, and the result is None.

    >>> from melange.catalog.bundled import accelerators
    >>> find_accelerator("A100", accelerators(), memory_gib=40), find_accelerator("h100", accelerators())
    ('A100-40GB', 'H100-80GB')
    >>> find_accelerator("A100", accelerators()) is None
    True
    """
    known = _names(tuple((name, facts.aliases) for name, facts in accelerators.items()))
    candidates = known.get(_fold(name), ())
    if memory_gib is not None:
        close = [
            candidate
            for candidate in candidates
            if abs(accelerators[candidate].memory_bytes / GIB / memory_gib - 1) <= _MEMORY_TOLERANCE
        ]
        return close[0] if close else None
    return candidates[0] if len(candidates) == 1 else None


@lru_cache(maxsize=8)
def _names(accelerators: tuple[tuple[str, tuple[str, ...]], ...]) -> Mapping[str, tuple[str, ...]]:
    """Our names by folded name or alias; several if the members of a family share one."""
    names: dict[str, tuple[str, ...]] = {}
    for name, aliases in accelerators:
        for alias in (name, *aliases):
            known = names.get(_fold(alias), ())
            if name not in known:
                names[_fold(alias)] = (*known, name)
    return names
