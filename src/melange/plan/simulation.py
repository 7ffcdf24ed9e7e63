"""Result of simulating a plan once."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from melange.files import Json
from melange.records import record


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """The share of requests that meet the SLO's limits under a plan, simulated once as it is, with no headroom added.

    Parameters
    ----------
    attainment, low
        Share of requests that met every limit by themselves, and the lower end of its 95 % interval, 0-1.
    requests, seeds
        Counted requests of one run, and runs: without the warm-up, and without the end of steady traffic.
    policy
        How requests were balanced.
    target
        Share of requests that must meet every limit, 0-1; None if the SLO asks for no share.
    arrivals
        Which requests were simulated, in words.
    rate
        Requests per second, on average [1/s]; None in files without it.
    """

    attainment: float
    low: float
    requests: int
    seeds: int
    policy: str
    target: float | None = None
    arrivals: str = ""
    rate: float | None = None

    def to_json(self) -> Json:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Json) -> Simulation:
        """From the JSON object that :meth:`to_json` makes."""
        return record(cls, content, "simulation")
