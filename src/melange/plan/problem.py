"""The numbers of one planning problem: loads, costs and limits, without names of buckets or provenance.

A problem keeps only what can matter: buckets with traffic that some type serves, and types that are allowed.
Arrays have the axes (replica type R, bucket B), where the buckets of the grid lie in one row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from melange.plan.bindings import (
    ACCELERATOR,
    ACCELERATOR_IN_REGION,
    INSTANCE_TYPE,
    OFFER,
    REGION,
    REPLICA_TYPE,
    Bindings,
    Chosen,
)
from melange.plan.options import Options
from melange.plan.question import Question
from melange.profile.profile import Profile, ReplicaType
from melange.workload.workload import Array, Mask, Workload

# Smaller parts of a count, a cost and a share are rounding noise. Sums over thousands of buckets err by about 1e-13; a
# threshold near that would rent an instance for noise, and a much larger one would round a needed instance away.
ROUNDING = 1e-9

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Limit:
    """At most ``most`` of something that several replica types draw from.

    Parameters
    ----------
    name
        What is limited, in words.
    members
        The types that draw from it (K,).
    weight
        How much of it one instance of each of these types takes (K,).
    most
        How much there is.
    """

    name: str
    members: Positions
    weight: Array
    most: float

    def taken(self, instances: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Use of the limit by fleets (..., R), as (...)."""
        part: npt.NDArray[Any] = instances[..., self.members] @ self.weight
        return part


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Requirement:
    """At least one instance of the types in ``member`` must be used.

    Parameters
    ----------
    name
        Replica type or accelerator, as named in the request.
    member
        Which types satisfy it (R,).
    """

    name: str
    member: Mask


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """One planning problem in numbers.

    Parameters
    ----------
    names
        Replica type names (R,).
    types, cells
        Positions of the types in the profile (R,), and of the buckets in the flattened grid (B,).
    load
        Replicas that each bucket keeps busy if one type carries all of it, request rate / max request rate (R, B);
        infinite if the type cannot serve the bucket.
    cost
        Price of an instance (R,) [USD/h].
    replicas
        Replicas that an instance holds (R,).
    headroom
        Share of capacity kept free, 0-1.
    least, most
        Least instances of a type that is used, and most instances of any type (R,).
    spare
        Replicas of a type that may be lost while it still carries its own share (R,).
    limits, requirements
        Limits that several types share, and types that must be used.
    spare_total, min_total, max_types, slices, budget_per_h
        As in :class:`~melange.plan.options.Options`.
    """

    names: tuple[str, ...]
    types: Positions
    cells: Positions
    load: Array
    cost: Array
    replicas: Array
    headroom: float
    least: Positions
    most: Positions
    spare: Array
    limits: tuple[Limit, ...] = ()
    requirements: tuple[Requirement, ...] = ()
    spare_total: int = 0
    min_total: int = 0
    max_types: int | None = None
    slices: int | None = None
    budget_per_h: float | None = None

    @property
    def capacity(self) -> Array:
        """Load that one instance of each type takes (R,), (1 - h) p_r."""
        return (1.0 - self.headroom) * self.replicas

    def carried(self, instances: npt.ArrayLike) -> Array:
        """Load that these instances of each type take once its spare replicas are set aside (R,)."""
        count = np.asarray(instances, float)
        kept = self.replicas * count - self.spare * (count > 0)
        carried: Array = (1.0 - self.headroom) * np.maximum(kept, 0.0)
        return carried

    def carried_after_loss(self, instances: npt.ArrayLike, lost: int) -> Array:
        """Load that the fleet takes when ``spare_total`` replicas of the type ``lost`` are gone (R,)."""
        kept = self.replicas * np.asarray(instances, float)
        kept[lost] = max(0.0, kept[lost] - self.spare_total)
        carried: Array = (1.0 - self.headroom) * kept
        return carried

    def only(self, kept: Mask) -> Problem:
        """The same problem with some of its types (R,)."""
        where, place = np.flatnonzero(kept), np.cumsum(kept) - 1
        limits = tuple(
            Limit(name=limit.name, members=place[limit.members[part]], weight=limit.weight[part], most=limit.most)
            for limit in self.limits
            if (part := kept[limit.members]).any()
        )
        requirements = tuple(Requirement(name=item.name, member=item.member[where]) for item in self.requirements)
        return _replaced(
            self,
            names=tuple(self.names[r] for r in where),
            types=self.types[where],
            load=self.load[where],
            cost=self.cost[where],
            replicas=self.replicas[where],
            least=self.least[where],
            most=self.most[where],
            spare=self.spare[where],
            limits=limits,
            requirements=requirements,
        )

    def with_changes(self, **changes: object) -> Problem:
        """The same problem with some fields changed."""
        return _replaced(self, **changes)


def _replaced(problem: Problem, **changes: object) -> Problem:
    values = {name: getattr(problem, name) for name in Problem.__slots__}
    return Problem(**(values | changes))


def loads(workload: Workload, profile: Profile) -> Array:
    """Replicas that each bucket keeps busy on each type (R, I x O): request rate / max request rate.

    It is 0 if a bucket has no traffic, and infinite if a type cannot serve a bucket that has traffic.
    """
    rate = workload.request_rate.ravel()
    capacity = profile.max_request_rate.reshape(len(profile.replica_types), -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = rate / capacity
    return np.where(rate > 0, ratio, 0.0)


def allowed_types(question: Question) -> Mask:
    """Which types may be used (R,): those that are neither excluded nor limited to no instances."""
    items = question.profile.replica_types
    none = np.zeros(len(items), bool)
    for limit in limits_of(items, question.options):
        none[limit.members[limit.weight > limit.most]] = True
    if question.options.exclude:
        none |= Chosen(items).members(question.options.exclude)
    allowed: Mask = ~none
    return allowed


def build(question: Question, allowed: Mask, served: Mask, *, availability: bool = True) -> Problem:
    """The problem of the ``allowed`` types (R,) and ``served`` buckets (I x O,), availability limited or not."""
    profile, options = question.profile, question.options
    where, cells = np.flatnonzero(allowed), np.flatnonzero(served)
    items = tuple(profile.replica_types[r] for r in where)
    replicas = np.array([item.replicas_per_instance for item in items], float)
    spare = np.array([spare_of(item, options) for item in items], float)
    least = np.ceil(np.array([_for(item, options.min_replicas) for item in items], float) / replicas)
    load = loads(question.workload, profile)[np.ix_(where, cells)]
    limits = limits_of(items, options) if availability else ()
    return Problem(
        names=tuple(item.name for item in items),
        types=where,
        cells=cells,
        load=load,
        cost=np.array([item.cost_per_h for item in items]),
        replicas=replicas,
        headroom=options.headroom,
        least=np.maximum(least, 1).astype(np.int64),
        most=_most(load, replicas, least, spare, limits, options),
        spare=spare,
        limits=limits,
        requirements=_requirements(items, options.require),
        spare_total=options.spare_total_replicas,
        min_total=options.min_total_replicas,
        max_types=options.max_types,
        slices=options.slices,
        budget_per_h=options.budget_per_h,
    )


def _most(
    load: Array, replicas: Array, least: Array, spare: Array, limits: tuple[Limit, ...], options: Options
) -> Positions:
    """Largest useful and available number of instances of each type (R,)."""
    alone = np.where(np.isfinite(load), load, 0.0).sum(axis=1) / (1.0 - options.headroom)
    lost = np.maximum(spare, options.spare_total_replicas)
    enough = np.ceil((alone + lost) / replicas * (1 + ROUNDING))
    enough = np.maximum.reduce([enough, least, np.ceil(options.min_total_replicas / replicas), np.ones(len(replicas))])
    enough = most_within(enough, limits)
    most: Positions = enough.astype(np.int64)
    return most


def most_within(most: Array, limits: Sequence[Limit]) -> Array:
    """The most instances of each type (R,), each alone within the limits: solvers leave out limits of a single type."""
    most = most.copy()
    for limit in limits:
        drawn = limit.members
        most[drawn] = np.minimum(most[drawn], np.floor(limit.most / limit.weight + ROUNDING))
    return most


def limits_of(items: tuple[ReplicaType, ...], options: Options) -> tuple[Limit, ...]:
    """Limits shared by types: availability of an offer, instance type or type, and of accelerators over offers."""
    limits = []
    most_by_name: dict[str, int] = dict(options.max_instances)
    for offer in {item.offer.name: item.offer for item in items}.values():
        if offer.max_instances is not None:
            most_by_name[offer.name] = min(offer.max_instances, most_by_name.get(offer.name, offer.max_instances))
    if not most_by_name and not options.max_accelerators:
        return ()
    rented = Bindings(items, (OFFER, INSTANCE_TYPE, REPLICA_TYPE))
    cards = Bindings(items, (ACCELERATOR, ACCELERATOR_IN_REGION, REGION))
    machines = np.array([item.machines for item in items], float)
    for name, most in most_by_name.items():
        bound = rented.positions(name)
        limits.append(Limit(name=f"instances of {name}", members=bound, weight=machines[bound], most=most))
    for name, most in options.max_accelerators.items():
        bound = cards.positions(name)
        held = np.array([items[r].accelerators for r in bound], float)
        limits.append(Limit(name=f"accelerators of {name}", members=bound, weight=held, most=most))
    return tuple(limit for limit in limits if len(limit.members))


def _requirements(items: Sequence[ReplicaType], names: Sequence[str]) -> tuple[Requirement, ...]:
    """Each name of ``require``, and which types (R,) meet it."""
    if not names:
        return ()
    chosen = Chosen(items)
    return tuple(Requirement(name=name, member=chosen.members([name])) for name in names)


def spare_of(item: ReplicaType, options: Options) -> int:
    """Replicas of a type that may be lost while it still carries its own share."""
    return _for(item, options.spare_replicas)


def _for(item: ReplicaType, count: int | Mapping[str, int]) -> int:
    return count.get(item.name, 0) if isinstance(count, Mapping) else count
