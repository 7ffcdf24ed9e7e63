"""The question of a plan: traffic, capacities of replica types, and settings, as one value.

Every planning function takes it and every plan carries it, so that later steps (explanations, certificates, drift, the
next plan) use the same limits as the plan.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from melange.catalog.grid import DEFAULT
from melange.errors import InputError, unknown
from melange.plan.bindings import (
    ACCELERATOR,
    ACCELERATOR_IN_REGION,
    INSTANCE_TYPE,
    OFFER,
    REGION,
    REPLICA_TYPE,
    Bindings,
    check_apart,
    check_names,
)
from melange.plan.confidence import at_confidence
from melange.plan.options import Options
from melange.profile.profile import Profile
from melange.workload.workload import Workload

# Settings that may be given by name, and what such a name may refer to.
_BY_TYPE, _COUNTED = ("min_replicas", "spare_replicas"), (REPLICA_TYPE, ACCELERATOR)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """A planning question.

    Parameters
    ----------
    workload
        Request rate by bucket (I, O) [1/s].
    profile
        Max request rate by replica type and bucket (R, I, O) [1/s], over the same buckets.
    options
        Requirements for the plan besides the traffic.

    Raises
    ------
    InputError
        The buckets of workload and profile differ, or the options name something that is not in the profile.
    """

    workload: Workload
    profile: Profile
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        for name, kind in (("workload", Workload), ("profile", Profile), ("options", Options)):
            if not isinstance(getattr(self, name), kind):
                raise TypeError(f"{name} must be of type {kind.__name__}, got {type(getattr(self, name)).__name__}")
        if self.workload.buckets != self.profile.buckets:
            raise InputError(
                "the workload and the profile have different buckets",
                hint="make the profile for the workload's buckets",
            )
        slo = self.profile.slo
        classes = tuple(one.name for one in slo.classes) if slo else ()
        if slo and classes != self.workload.buckets.classes:
            raise InputError(
                f"the workload has the classes {list(self.workload.buckets.classes)}, but the SLO has {list(classes)}",
                hint="make the profile for the workload's classes",
            )
        _check_names(self.profile, self.options)
        object.__setattr__(self, "options", by_replica_type(self.profile, self.options))

    def with_options(self, **changes: Any) -> Question:
        """The same question with some settings changed."""
        return replace(self, options=replace(self.options, **changes))

    def at_rate(self, request_rate: float) -> Question:
        """The same question at another total rate [1/s]."""
        return replace(self, workload=self.workload.at_rate(request_rate))

    def at_confidence(self) -> Question:
        """The question that is solved: the same one with the rates at its confidence."""
        if self.options.confidence is None:
            return self
        profile = at_confidence(self.profile, self.options.confidence)
        return Question(workload=self.workload, profile=profile, options=replace(self.options, confidence=None))


def question_of(question: Question | Workload, profile: Profile | None, options: Options | None) -> Question:
    """The question of a call that was given either a question or its parts."""
    if isinstance(question, Question):
        if profile is not None or options is not None:
            raise TypeError("a question already contains its profile and options: give them only once")
        return question
    if profile is None:
        raise TypeError("a workload needs a profile")
    return Question(workload=question, profile=profile, options=options or Options())


def _check_names(profile: Profile, options: Options) -> None:
    """Check that the names in the options are known."""
    items = profile.replica_types
    rented = (OFFER, INSTANCE_TYPE, REPLICA_TYPE)
    check_names(options.max_instances, items, rented, "offers.max (max_instances)", others=(ACCELERATOR,))
    cards = (ACCELERATOR, ACCELERATOR_IN_REGION, REGION)
    check_names(options.max_accelerators, items, cards, "offers.max (max_accelerators)")
    for key in _BY_TYPE:
        counts = getattr(options, key)
        check_names(() if isinstance(counts, int) else counts, items, _COUNTED, f"plan.{key}")
    for key in ("require", "exclude"):
        check_names(getattr(options, key), items, (REPLICA_TYPE, ACCELERATOR), f"plan.{key}")
    check_apart(options.require, options.exclude)
    regions = {item.offer.region for item in items} | {DEFAULT}
    for name in options.grid_g_per_kwh:
        if name not in regions:
            raise unknown("region", name, sorted(regions - {""}), place="plan.grid_g_per_kwh")


def by_replica_type(profile: Profile, options: Options) -> Options:
    """The options with counts by replica type name only; a type's own name takes precedence over its accelerator's."""
    items = profile.replica_types
    changes: dict[str, Any] = {}
    names = {item.name for item in items}
    for key in _BY_TYPE:
        counts = getattr(options, key)
        if isinstance(counts, int) or counts.keys() <= names:
            continue
        found: dict[str, int] = {}
        for name in sorted(counts, key=names.__contains__):
            found |= {items[r].name: counts[name] for r in Bindings(items, _COUNTED).positions(name).tolist()}
        changes[key] = found
    return replace(options, **changes) if changes else options
