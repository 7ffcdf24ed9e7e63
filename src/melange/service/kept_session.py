"""A session that shares traffic and capacities with earlier sessions of the same service under other settings."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from melange.service.session import Session

if TYPE_CHECKING:
    from melange.profile.profile import Profile
    from melange.workload.workload import Workload

_ValueT = TypeVar("_ValueT")
# Number of workloads and of profiles to cache: a user changes a few settings back and forth. A profile of all bundled
# offers takes 4 MB.
_MOST_KEPT = 24
# Keys of ``plan`` that change the offers, and not only how many are rented.
_OF_CAPACITY = {"carbon_price_per_kg", "grid_g_per_kwh", "pue", "drop_unservable"}
_OF_PROFILE = {"model", "variants", "engine", "slo", "profile", "offers", "folder"}


class Kept:
    """A cache of workloads and profiles by their inputs; the oldest entries are dropped first."""

    def __init__(self) -> None:
        self.workloads: OrderedDict[str, Workload] = OrderedDict()
        self.profiles: OrderedDict[str, Profile] = OrderedDict()


class KeptSession(Session):
    """A session that reuses cached traffic and capacities.

    The rate scales the traffic and changes no capacity, so another rate costs one solution of the program.

    Parameters
    ----------
    source
        A ``service.yaml``.
    settings
        ``key.key=value`` each, overriding the service.
    kept
        The cache of earlier sessions; files that the service names are assumed not to change.
    """

    def __init__(self, source: str | Path, *, settings: Sequence[str] = (), kept: Kept) -> None:
        super().__init__(source, settings=settings)
        self._kept = kept

    @property
    def _traffic_key(self) -> str:
        service = self._needed()
        section = service.workload
        is_number = isinstance(section.rate, int | float) and not service.classes
        classes = service.model_dump_json(include={"classes"})
        shown = section.model_dump_json(exclude={"rate"} if is_number else set())
        return f"{service.folder}|{service.model}|{is_number}|{shown}|{classes}"

    @cached_property
    def _workload(self) -> Workload:
        service = self._needed()
        rate = None if service.classes else service.workload.rate
        found = _found(self._kept.workloads, self._traffic_key, lambda: super(KeptSession, self)._workload)
        return found.at_rate(rate) if isinstance(rate, int | float) else found

    @cached_property
    def _profile(self) -> Profile:
        service = self._needed()
        of_service = service.model_dump_json(include=_OF_PROFILE)
        of_plan = service.plan.model_dump_json(include=_OF_CAPACITY)
        key = f"{self._traffic_key}|{of_service}|{of_plan}"
        return _found(self._kept.profiles, key, lambda: super(KeptSession, self)._profile)


def _found(kept: OrderedDict[str, _ValueT], key: str, make: Callable[[], _ValueT]) -> _ValueT:
    if key not in kept:
        kept[key] = make()
        if len(kept) > _MOST_KEPT:
            kept.popitem(last=False)
    kept.move_to_end(key)
    return kept[key]
