"""The observation of a controller in one iteration: the fleet, failures, and the traffic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

from melange.files import Json
from melange.records import items, mapping, number, record
from melange.workload.workload import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeSeen:
    """The instances of one replica type.

    Parameters
    ----------
    ready
        Number of instances that take requests.
    starting_s
        Time since the order of each instance that does not serve yet [s].
    draining_s
        Time since the drain of each instance began [s].
    drained
        Number of draining instances that have no requests left and can be stopped.
    failures
        Failures since the last iteration, one sentence per instance: a refused order, a failed start.
    """

    ready: int = 0
    starting_s: tuple[float, ...] = ()
    draining_s: tuple[float, ...] = ()
    drained: int = 0
    failures: tuple[str, ...] = ()

    @property
    def starting(self) -> int:
        """Instances that do not serve yet."""
        return len(self.starting_s)

    def late(self, patience_s: float) -> int:
        """Number of starting instances that should serve by now."""
        return sum(age_s > patience_s for age_s in self.starting_s)

    def ending(self, drain_s: float) -> int:
        """Number of draining instances that may be stopped: without requests, or after their drain time."""
        return max(min(self.drained, len(self.draining_s)), sum(age_s >= drain_s for age_s in self.draining_s))

    def to_json(self) -> Json:
        """As a JSON object."""
        return {name: value for name, value in asdict(self).items() if value}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observation:
    """One observation.

    Parameters
    ----------
    at_s
        Time, by a clock that continues over restarts (Unix time) [s].
    fleet
        The instances by replica type name; types without instances may be left out.
    request_rate
        Arrivals per second by size over the last window (I, O) [1/s]; None: unknown.
    note
        A remark on reading the traffic; empty: none.
    """

    at_s: float
    fleet: Mapping[str, TypeSeen] = field(default_factory=dict)
    request_rate: Array | None = None
    note: str = ""

    def of(self, name: str) -> TypeSeen:
        """The instances of a type."""
        return self.fleet.get(name, TypeSeen())

    def to_json(self) -> Json:
        """As a JSON object."""
        return {
            "at_s": self.at_s,
            "fleet": {name: one.to_json() for name, one in self.fleet.items()},
            "request_rate": None if self.request_rate is None else self.request_rate.tolist(),
            "note": self.note,
        }

    @classmethod
    def from_json(cls, content: Json) -> Observation:
        """From the JSON object that :meth:`to_json` makes."""
        rate = content["request_rate"]
        return cls(
            at_s=number(content["at_s"], "at_s"),
            fleet=fleet_from(content["fleet"], "fleet"),
            request_rate=None if rate is None else rates_from(rate, "request_rate"),
            note=str(content["note"]),
        )


def fleet_from(content: object, place: str) -> dict[str, TypeSeen]:
    """The fleet in a document."""
    return {name: record(TypeSeen, one, f"{place}.{name}") for name, one in mapping(content, place).items()}


def rates_from(content: object, place: str) -> Array:
    """The rates by size (I, O) in a document."""
    return np.array([[number(value, at) for at, value in items(row, where)] for where, row in items(content, place)])
