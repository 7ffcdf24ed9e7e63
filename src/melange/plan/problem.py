"""The numbers of one planning problem: loads, costs and limits, without names of buckets or provenance.

A problem keeps only what can matter: buckets with traffic that some type serves, and types that are allowed.
Arrays have the axes (replica type R, bucket B), where the buckets of the grid lie in one row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from melange.errors import InputError, unknown
from melange.plan.options import Options
from melange.profile.profile import Profile, ReplicaType
from melange.workload.workload import Array, Workload

# Shares of a count below this are rounding noise of the arithmetic, not a whole instance.
ROUNDING = 1e-9

Positions = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Limit:
    """At most ``most`` of something that several replica types draw from.

    Parameters
    ----------
    name
        What is limited, in words.
    weight
        How much of it one instance of each type takes (R,).
    most
        How much there is.
    """

    name: str
    weight: Array
    most: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Requirement:
    """At least one instance of the types in ``member`` must be used.

    Parameters
    ----------
    name
        Replica type or accelerator, as it was asked for.
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
        Where the types stand in the profile (R,) and the buckets in the flattened grid (B,).
    load
        Replicas that each bucket keeps busy if one type carries all of it, request rate / max request rate (R, B);
        infinite where the type cannot serve the bucket.
    cost
        Price of an instance (R,) [USD/h].
    replicas
        Replicas that an instance holds (R,).
    headroom
        Share of capacity kept free, 0-1.
    least, most
        Instances of a type that is used, and at all (R,).
    spare
        Replicas of a type that may be lost while it carries its own share (R,).
    limits, requirements
        What several types share, and what must be used.
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
        """Load that one instance takes (R,), (1 - h) p_r."""
        return (1.0 - self.headroom) * self.replicas

    def carried(self, instances: npt.ArrayLike) -> Array:
        """Load that so many instances of each type take once its spare replicas are set aside (R,)."""
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
        where = np.flatnonzero(kept)
        limits = tuple(
            Limit(name=limit.name, weight=limit.weight[where], most=limit.most)
            for limit in self.limits
            if limit.weight[where].any()
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
        """The same problem with some fields set anew."""
        return _replaced(self, **changes)


def _replaced(problem: Problem, **changes: object) -> Problem:
    values = {name: getattr(problem, name) for name in Problem.__slots__}
    return Problem(**(values | changes))


def loads(workload: Workload, profile: Profile) -> Array:
    """Replicas that each bucket keeps busy on each type (R, I x O): request rate / max request rate.

    0 where a bucket has no traffic, infinite where a type cannot serve a bucket that has.
    """
    rate = workload.request_rate.ravel()
    capacity = profile.max_request_rate.reshape(len(profile.replica_types), -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = rate / capacity
    return np.where(rate > 0, ratio, 0.0)


def allowed_types(profile: Profile, options: Options) -> Mask:
    """Which types may be used (R,): those that are neither excluded nor limited to none."""
    _check_names(profile, options)
    limits = limits_of(profile.replica_types, options)
    none = np.zeros(len(profile.replica_types), bool)
    for limit in limits:
        none |= limit.weight > limit.most
    excluded = np.array([is_named(item, options.exclude) for item in profile.replica_types])
    allowed: Mask = ~(none | excluded)
    return allowed


def build(
    workload: Workload, profile: Profile, options: Options, allowed: Mask, served: Mask, *, availability: bool = True
) -> Problem:
    """The problem of the ``allowed`` types (R,) and ``served`` buckets (I x O,), availability limited or not."""
    where, cells = np.flatnonzero(allowed), np.flatnonzero(served)
    items = tuple(profile.replica_types[r] for r in where)
    replicas = np.array([item.replicas_per_instance for item in items], float)
    spare = np.array([_for(item, options.spare_replicas) for item in items], float)
    least = np.ceil(np.array([_for(item, options.min_replicas) for item in items], float) / replicas)
    load = loads(workload, profile)[np.ix_(where, cells)]
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
        requirements=tuple(
            Requirement(name=name, member=np.array([is_named(item, (name,)) for item in items], bool))
            for name in options.require
        ),
        spare_total=options.spare_total_replicas,
        min_total=options.min_total_replicas,
        max_types=options.max_types,
        slices=options.slices,
        budget_per_h=options.budget_per_h,
    )


def _most(
    load: Array, replicas: Array, least: Array, spare: Array, limits: tuple[Limit, ...], options: Options
) -> Positions:
    """Instances beyond which one more of a type is of no use, or cannot be had (R,)."""
    alone = np.where(np.isfinite(load), load, 0.0).sum(axis=1) / (1.0 - options.headroom)
    lost = np.maximum(spare, options.spare_total_replicas)
    enough = np.ceil((alone + lost) / replicas * (1 + ROUNDING))
    enough = np.maximum.reduce([enough, least, np.ceil(options.min_total_replicas / replicas), np.ones(len(replicas))])
    for limit in limits:
        drawn = limit.weight > 0
        enough[drawn] = np.minimum(enough[drawn], np.floor(limit.most / limit.weight[drawn] + ROUNDING))
    most: Positions = enough.astype(np.int64)
    return most


def limits_of(items: tuple[ReplicaType, ...], options: Options) -> tuple[Limit, ...]:
    """What the types share: availability of one type, of an offer over its types, of an accelerator over offers."""
    limits = []
    offers = {item.offer.name: item.offer.max_instances for item in items if item.offer.max_instances is not None}
    names = {item.name for item in items}
    for name, most in options.max_instances.items():
        if name in names:
            weight = np.array([float(item.name == name) for item in items])
            limits.append(Limit(name=f"instances of {name}", weight=weight, most=most))
        else:
            offers[name] = min(most, offers.get(name) or most) if offers.get(name) != 0 else 0
    for name, most in offers.items():
        weight = np.array([float(item.offer.name == name) for item in items])
        limits.append(Limit(name=f"instances of {name}", weight=weight, most=most))
    for name, most in options.max_accelerators.items():
        weight = np.array([item.offer.accelerators * float(item.offer.accelerator == name) for item in items])
        limits.append(Limit(name=f"accelerators of {name}", weight=weight, most=most))
    return tuple(limit for limit in limits if limit.weight.any())


def is_named(item: ReplicaType, names: tuple[str, ...]) -> bool:
    """Whether a type is among ``names``, by its own name or its accelerator's."""
    return item.name in names or item.offer.accelerator in names


def _for(item: ReplicaType, count: int | Mapping[str, int]) -> int:
    return count.get(item.name, 0) if isinstance(count, Mapping) else count


def _check_names(profile: Profile, options: Options) -> None:
    """Names that the options mention must be known."""
    types = {item.name for item in profile.replica_types}
    offers = {item.offer.name for item in profile.replica_types}
    accelerators = {item.offer.accelerator for item in profile.replica_types}
    known: tuple[tuple[str, object, set[str], str], ...] = (
        ("max_instances", options.max_instances, types | offers, "replica type or offer"),
        ("max_accelerators", options.max_accelerators, accelerators, "accelerator"),
        ("min_replicas", options.min_replicas, types, "replica type"),
        ("spare_replicas", options.spare_replicas, types, "replica type"),
        ("require", options.require, types | accelerators, "replica type or accelerator"),
        ("exclude", options.exclude, types | accelerators, "replica type or accelerator"),
    )
    for key, value, names, what in known:
        for name in () if isinstance(value, int) else value:  # type: ignore[attr-defined]
            if name not in names:
                raise unknown(what, name, names, place=f"plan.{key}")
    if both := set(options.require) & set(options.exclude):
        raise InputError(f"plan: {', '.join(sorted(both))} is both required and excluded")
