"""Scenarios: a ramp, a sudden doubling of the rate, a replica that is lost and restarted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from melange.errors import InputError, unknown
from melange.replica.simulated.cluster import Event

# Time from the order to the first request of a replica [s]: an instance boots, an image is pulled, weights load. A
# longer time demands more of the remaining replicas; a shorter one hides the cost of a loss. Chosen by judgment:
# minutes at most clouds, more for hundreds of GB of weights, less if instances are kept warm.
_START_UP_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A course of events.

    Parameters
    ----------
    name
        Name in one word.
    rate
        Share of the time, 0-1, and the factor on the rate at that time; linear in between; empty: constant.
    lost_replicas
        Replicas that are lost at half time, of the type that has most; they come back after ``start_up_s``.
    start_up_s
        Time until a lost replica is replaced [s].
    """

    name: str = "steady"
    rate: tuple[tuple[float, float], ...] = ()
    lost_replicas: int = 0
    start_up_s: float = _START_UP_S

    def __post_init__(self) -> None:
        if self.lost_replicas < 0 or not self.start_up_s >= 0:
            raise InputError("scenario: lost_replicas and start_up_s must be >= 0")

    def events(self, type_of: npt.NDArray[np.int64], until_s: float) -> tuple[Event, ...]:
        """Replicas that leave and join, among those of the given types (n,)."""
        if not self.lost_replicas:
            return ()
        most = int(np.bincount(type_of).argmax())
        lost = np.flatnonzero(type_of == most)[: self.lost_replicas].tolist()
        gone = tuple(Event(at_s=until_s / 2, replica=replica, is_up=False) for replica in lost)
        return (*gone, *(Event(at_s=until_s / 2 + self.start_up_s, replica=replica, is_up=True) for replica in lost))


STEADY_SCENARIO = Scenario()
# A ramp around the planned rate, which a plan holds on average but not at its end; twice the rate, which no headroom
# covers; the loss of one replica, which spare replicas cover.
SCENARIOS = {
    "steady": STEADY_SCENARIO,
    "ramp": Scenario(name="ramp", rate=((0.0, 0.5), (1.0, 1.5))),
    "double": Scenario(name="double", rate=((0.0, 1.0), (0.5, 1.0), (0.5, 2.0), (1.0, 2.0))),
    "lost-replica": Scenario(name="lost-replica", lost_replicas=1),
}


def find_scenario(name: str) -> Scenario:
    """A scenario by name.

    Raises
    ------
    InputError
        The name is not known; the message has the nearest ones.
    """
    if name not in SCENARIOS:
        raise unknown("scenario", name, SCENARIOS)
    return SCENARIOS[name]
