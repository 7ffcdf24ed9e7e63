"""Resolve names in a plan's settings to replica types. This is the only place that does it.

A replica type has four names: its own, its accelerator's, its offer's (provider/region/instance type) and its instance
type's. An offer holds several replica types if the model is split or quantized in several ways. The replica type that
serves the model as published on a single accelerator has the offer's name: the name of an offer therefore binds every
replica type on that offer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from melange.catalog.bundled import accelerators as bundled_accelerators
from melange.errors import InputError, near, some_of, unknown
from melange.profile.profile import ReplicaType
from melange.workload.workload import Mask

# What a name may refer to; if several are possible, they are looked up in the order that the caller gives.
OFFER, INSTANCE_TYPE, REPLICA_TYPE, ACCELERATOR = "offer", "instance type", "replica type", "accelerator"
REGION, ACCELERATOR_IN_REGION = "region", "region/accelerator"
# What to name instead of an instance.
_NAMED_INSTEAD = (REPLICA_TYPE, ACCELERATOR)


def names_of(items: Sequence[ReplicaType], kind: str) -> list[str]:
    """The names of one kind, one for each replica type (R)."""
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
        """The types bound by the first kind that knows the name; empty if no kind knows it."""
        return np.array(next((found[name] for found in self._positions if name in found), ()), np.int64)


def members(name: str, items: Sequence[ReplicaType], kinds: Sequence[str]) -> Mask:
    """Which replica types a name binds (R,), by the first of ``kinds`` that knows it; none if no kind knows it."""
    bound = np.zeros(len(items), bool)
    bound[Bindings(items, kinds).positions(name)] = True
    return bound


class Chosen:
    """The replica types that names of ``require`` or ``exclude`` mean: a replica type, or all types of an accelerator.

    Parameters
    ----------
    items
        The replica types (R).
    """

    def __init__(self, items: Sequence[ReplicaType]) -> None:
        # The names of the types are read once, not once for each of thousands of excluded types.
        self._count = len(items)
        self._by_kind = (Bindings(items, (REPLICA_TYPE,)), Bindings(items, (ACCELERATOR,)))

    def members(self, names: Iterable[str]) -> Mask:
        """Which types (R,) any of the names means."""
        bound = np.zeros(self._count, bool)
        for name in names:
            for one in self._by_kind:
                bound[one.positions(name)] = True
        return bound


def check_names(
    names: Iterable[str], items: Sequence[ReplicaType], kinds: Sequence[str], place: str, *, others: Sequence[str] = ()
) -> None:
    """Reject unknown names, suggesting the nearest known ones.

    Parameters
    ----------
    names
        The names to check.
    items
        The replica types (R).
    kinds
        What a name may be.
    place
        The setting that holds the names, for errors.
    others
        What names in the same place of a file may be as well, to suggest.

    Raises
    ------
    InputError
        A name is unknown, is of another kind, or is an accelerator that is not offered.
    """
    if not (given := list(names)):
        return
    known = {name for kind in kinds for name in names_of(items, kind) if name}
    for name in given:
        if name not in known:
            if ACCELERATOR in kinds and name in bundled_accelerators():
                offered = sorted(set(names_of(items, ACCELERATOR)))
                listed = some_of(list(dict.fromkeys([*near(name, offered), *offered])))
                raise InputError(f"{place}: no offer has {name}", hint=f"offered: {listed}")
            _refuse_instances(name, items, kinds, place)
            others_near = {one for kind in others for one in names_of(items, kind) if one} - {name}
            raise unknown(_either((*kinds, *others)), name, known | others_near, place=place)


def _either(kinds: Sequence[str]) -> str:
    *first, last = kinds
    return f"{', '.join(first)} or {last}" if first else last


def _refuse_instances(name: str, items: Sequence[ReplicaType], kinds: Sequence[str], place: str) -> None:
    """Reject the name of an instance where replica types are named: one instance may hold any of several."""
    for kind in (OFFER, INSTANCE_TYPE):
        rented = np.flatnonzero(members(name, items, (kind,))).tolist()
        if rented and kind not in kinds:
            own, cards = (sorted({one[r] for r in rented}) for one in (names_of(items, k) for k in _NAMED_INSTEAD))
            raise InputError(
                f"{place}: {name!r} is an {kind}, but must be a {_either(kinds)}",
                hint=f"its replica types: {some_of(own)}; its accelerator: {some_of(cards)}",
            )


def check_one_meaning(
    accelerators: Iterable[str], items: Sequence[ReplicaType], kinds: Sequence[str], place: str
) -> None:
    """Reject an ambiguous name: an accelerator's name that is also one of ``kinds``, with different instances.

    Raises
    ------
    InputError
        A name is ambiguous; the message names ``place`` and says what to write instead.
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
