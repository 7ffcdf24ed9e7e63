"""What a name in the settings of a plan means: which replica types it binds. Resolved here and nowhere else.

A replica type goes by its own name, by its accelerator's, by its offer's (provider/region/instance type) and by its
instance type's. An offer holds several replica types where the model is split or quantised in several ways, and the
one that is served as published on a single accelerator has the offer's name: a name that is an offer's therefore binds
every replica type on that offer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from melange.errors import InputError, unknown
from melange.profile.profile import ReplicaType
from melange.workload.workload import Mask

# In the order in which a name is looked up.
OFFER, INSTANCE_TYPE, REPLICA_TYPE, ACCELERATOR = "offer", "instance type", "replica type", "accelerator"


def _names_by_kind(items: Sequence[ReplicaType]) -> dict[str, list[str]]:
    """The name of each replica type (R) of each kind."""
    return {
        OFFER: [item.offer.name for item in items],
        INSTANCE_TYPE: [item.offer.instance_type for item in items],
        REPLICA_TYPE: [item.name for item in items],
        ACCELERATOR: [item.offer.accelerator for item in items],
    }


def members(name: str, items: Sequence[ReplicaType], kinds: Sequence[str]) -> Mask:
    """Which replica types a name binds (R,): those of the first of ``kinds`` that knows it; none where none does."""
    names = _names_by_kind(items)
    for kind in (OFFER, INSTANCE_TYPE, REPLICA_TYPE, ACCELERATOR):
        if kind in kinds:
            found = np.array([one == name for one in names[kind]], bool)
            if found.any():
                return found
    return np.zeros(len(items), bool)


def check_names(names: Iterable[str], items: Sequence[ReplicaType], kinds: Sequence[str], place: str) -> None:
    """Refuse names that no replica type goes by, with the nearest that some does.

    Raises
    ------
    InputError
        Naming ``place``, the setting that holds the names.
    """
    by_kind = _names_by_kind(items)
    known = {name for kind in kinds for name in by_kind[kind] if name}
    for name in names:
        if name not in known:
            raise unknown(" or ".join(kinds), name, known, place=place)


def check_apart(required: Iterable[str], excluded: Iterable[str]) -> None:
    """Refuse names that are both required and excluded."""
    if both := set(required) & set(excluded):
        raise InputError(f"plan: {', '.join(sorted(both))} is both required and excluded")
