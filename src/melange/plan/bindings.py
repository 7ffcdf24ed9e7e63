"""Resolve names in a plan's settings to replica types. This is the only place that does it.

A replica type goes by its own name, by its accelerator's, by its offer's (provider/region/instance type) and by its
instance type's. An offer holds several replica types where the model is split or quantized in several ways, and the
one that is served as published on a single accelerator has the offer's name: a name that is an offer's therefore binds
every replica type on that offer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from melange.errors import InputError, unknown
from melange.profile.profile import ReplicaType
from melange.workload.workload import Mask

# What a name may be; where several are possible, it is looked up in the order that the caller gives.
OFFER, INSTANCE_TYPE, REPLICA_TYPE, ACCELERATOR = "offer", "instance type", "replica type", "accelerator"
REGION, ACCELERATOR_IN_REGION = "region", "region/accelerator"


def names_of(items: Sequence[ReplicaType], kind: str) -> list[str]:
    """The name of each replica type (R) of a kind."""
    if kind == OFFER:
        return [item.offer.name for item in items]
    if kind == INSTANCE_TYPE:
        return [item.offer.instance_type for item in items]
    if kind == ACCELERATOR:
        return [item.offer.accelerator for item in items]
    if kind == REGION:
        return [item.offer.region for item in items]
    if kind == ACCELERATOR_IN_REGION:
        return [f"{item.offer.region}/{item.offer.accelerator}" for item in items]
    return [item.name for item in items]


class Bindings:
    """The replica types that names bind, for many names at once.

    Parameters
    ----------
    items
        The replica types (R).
    kinds
        What a name may be, in the order in which it is looked up.
    """

    def __init__(self, items: Sequence[ReplicaType], kinds: Sequence[str]) -> None:
        self._positions: list[dict[str, list[int]]] = []
        for kind in kinds:
            found: dict[str, list[int]] = defaultdict(list)
            for position, name in enumerate(names_of(items, kind)):
                found[name].append(position)
            self._positions.append(found)

    def positions(self, name: str) -> npt.NDArray[np.int64]:
        """Those of the first kind that knows the name; none where none does."""
        return np.array(next((found[name] for found in self._positions if name in found), ()), np.int64)


def members(name: str, items: Sequence[ReplicaType], kinds: Sequence[str]) -> Mask:
    """Which replica types a name binds (R,): those of the first of ``kinds`` that knows it; none where none does."""
    bound = np.zeros(len(items), bool)
    bound[Bindings(items, kinds).positions(name)] = True
    return bound


def check_names(names: Iterable[str], items: Sequence[ReplicaType], kinds: Sequence[str], place: str) -> None:
    """Reject unknown names, suggesting the nearest known ones.

    Raises
    ------
    InputError
        Naming ``place``, the setting that holds the names.
    """
    if not (given := list(names)):
        return
    known = {name for kind in kinds for name in names_of(items, kind) if name}
    for name in given:
        if name not in known:
            raise unknown(" or ".join(kinds), name, known, place=place)


def check_one_meaning(
    accelerators: Iterable[str], items: Sequence[ReplicaType], kinds: Sequence[str], place: str
) -> None:
    """Reject an ambiguous name: an accelerator's and also one of ``kinds``, with different instances.

    Raises
    ------
    InputError
        Naming ``place`` and what to write instead.
    """
    for name in accelerators:
        rented = members(name, items, kinds)
        by_accelerator = members(name, items, (ACCELERATOR,))
        held = {items[r].accelerators for r in np.flatnonzero(by_accelerator | rented).tolist()}
        if rented.any() and ((rented != by_accelerator).any() or held != {1}):
            whole = sorted({items[r].offer.name for r in np.flatnonzero(rented).tolist()})
            raise InputError(
                f"{place}: {name!r} is both an accelerator and an instance type or replica type, unclear which is "
                "meant",
                hint=f"give instances another name than their accelerator; its offer is {', '.join(whole[:3])}",
            )


def check_apart(required: Iterable[str], excluded: Iterable[str]) -> None:
    """Reject names that are both required and excluded."""
    if both := set(required) & set(excluded):
        raise InputError(f"plan: {', '.join(sorted(both))} is both required and excluded")
