"""Pools: limited resources that services share, and what an instance of each type draws from them.

Arrays have the axes (pool J, replica type R).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from melange.errors import InputError, unknown
from melange.plan.bindings import ACCELERATOR, ACCELERATOR_IN_REGION, INSTANCE_TYPE, OFFER, REGION, Bindings, names_of
from melange.plan.question import Question
from melange.profile.profile import Profile, ReplicaType
from melange.workload.workload import Array, Mask

# Largest size of a pool: beyond it counts are no longer exact.
_MOST = 10_000_000
_CARDS, _INSTANCES = (ACCELERATOR, ACCELERATOR_IN_REGION, REGION), (OFFER, INSTANCE_TYPE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pools:
    """What all services together may rent.

    Parameters
    ----------
    max_accelerators
        At most this many accelerators, by accelerator name, by region, or by both (``us-east-1/H100-80GB``).
    max_instances
        At most this many instances, by offer name (provider/region/instance type) or instance type.
    budget_per_h
        Highest cost allowed for all instances [USD/h]; None: no limit.

    Raises
    ------
    InputError
        A limit that is negative or not a number.
    """

    max_accelerators: Mapping[str, int] = field(default_factory=dict)
    max_instances: Mapping[str, int] = field(default_factory=dict)
    budget_per_h: float | None = None

    def __post_init__(self) -> None:
        for name, most in (*self.max_accelerators.items(), *self.max_instances.items()):
            if not 0 <= most <= _MOST:
                raise InputError(f"offers.max.{name} must be 0 to {_MOST:,}, got {most}")
        if self.budget_per_h is not None and not (np.isfinite(self.budget_per_h) and self.budget_per_h > 0):
            raise InputError(f"plan.budget_per_h must be > 0 and finite, got {self.budget_per_h:g}")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the pools (J), pools of accelerators first."""
        return (*self.max_accelerators, *self.max_instances)

    @property
    def most(self) -> Array:
        """Units in each pool (J,)."""
        return np.array([*self.max_accelerators.values(), *self.max_instances.values()], float)

    def with_stock(self, profiles: Iterable[Profile]) -> Pools:
        """These pools, and the stocks of offers in price lists, which services also share."""
        stock = dict(self.max_instances)
        for profile in profiles:
            for one in profile.replica_types:
                if (most := one.offer.max_instances) is not None:
                    stock[one.offer.name] = min(most, stock.get(one.offer.name, most))
        return Pools(max_accelerators=self.max_accelerators, max_instances=stock, budget_per_h=self.budget_per_h)

    def draw(self, items: Sequence[ReplicaType]) -> Array:
        """Use of each pool by one instance of each type (J, R)."""
        taken = np.zeros((len(self.names), len(items)))
        cards, rented = Bindings(items, _CARDS), Bindings(items, _INSTANCES)
        held = np.array([one.accelerators for one in items], float)
        machines = np.array([one.machines for one in items], float)
        for j, name in enumerate(self.names):
            if j < len(self.max_accelerators):
                where = cards.positions(name)
                taken[j, where] = held[where]
            else:
                where = rented.positions(name)
                taken[j, where] = machines[where]
        return taken

    def bounded(self, question: Question, most: Array | None = None) -> Question:
        """The question of one service, limited to ``most`` (J,) of each pool; None: the whole pool."""
        items, options = question.profile.replica_types, question.options
        left = self.most if most is None else most
        drawn: Mask = np.asarray(self.draw(items).any(axis=1), bool)
        changes: dict[str, Any] = {}
        for key, names, start in (
            ("max_accelerators", tuple(self.max_accelerators), 0),
            ("max_instances", tuple(self.max_instances), len(self.max_accelerators)),
        ):
            merged = dict(getattr(options, key))
            for j, name in enumerate(names, start):
                if drawn[j]:
                    there = max(0, int(np.floor(left[j] + 1e-9)))
                    merged[name] = min(there, merged.get(name, there))
            changes[key] = merged
        return question.with_options(**changes)


def pools_of(
    most_by_name: Mapping[str, int],
    items: Sequence[ReplicaType],
    known: Mapping[str, str],
    budget_per_h: float | None = None,
) -> Pools:
    """The pools that the names in a file refer to: an accelerator, a region, both, an offer or an instance type.

    Parameters
    ----------
    most_by_name
        Sizes of the pools by the names in the file.
    items
        Replica types of all services.
    known
        Accelerator names of the catalog, by the accelerator names in the file.
    budget_per_h
        Budget of all services [USD/h].

    Raises
    ------
    InputError
        A name that refers to nothing, or to two different things.
    """
    cards: dict[str, int] = {}
    instances: dict[str, int] = {}
    names = [_named(items, kinds) for kinds in (_CARDS, _INSTANCES)]
    for given, most in most_by_name.items():
        region, slash, accelerator = given.rpartition("/")
        own = f"{region}{slash}{known[accelerator]}" if accelerator in known and given not in names[1] else given
        is_card, is_instance = own in names[0] or given in known, given in names[1]
        if is_card and is_instance:
            both = [Pools(max_accelerators={own: 0}), Pools(max_instances={given: 0})]
            if (both[0].draw(items) != both[1].draw(items)).any():
                raise InputError(
                    f"offers.max: {given!r} is both an accelerator or region and an instance type, unclear which is "
                    "meant",
                    hint="name the offer, as provider/region/instance type",
                )
        if not (is_card or is_instance):
            known_names = names[0] | names[1]
            raise unknown("accelerator, region, offer or instance type", given, known_names, place="offers.max")
        place, key = (cards, own) if is_card else (instances, given)
        if key in place:
            raise InputError(f"offers.max: {given!r} limits {key} twice", hint="keep one of the two")
        place[key] = most
    return Pools(max_accelerators=cards, max_instances=instances, budget_per_h=budget_per_h)


def _named(items: Sequence[ReplicaType], kinds: Sequence[str]) -> set[str]:
    return {name for kind in kinds for name in names_of(items, kind) if name and not name.startswith("/")}
