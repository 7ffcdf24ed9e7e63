"""What one class of requests attained in simulation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassResult:
    """One class of requests in simulation.

    Parameters
    ----------
    name
        Name of the class.
    target
        Share of its requests that must meet its limits, 0-1.
    attainment, low, high
        Share that met them, and the ends of its 95 % interval, 0-1.
    requests
        Number of its requests that were counted.
    times
        Times of its requests, by metric and statistic [s]; empty if not asked for.
    """

    name: str
    target: float
    attainment: float
    low: float
    high: float
    requests: int
    times: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether its target is met, with confidence."""
        return self.low >= self.target
