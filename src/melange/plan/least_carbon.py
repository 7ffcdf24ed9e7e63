"""A plan of least emissions compared with the cheapest plan."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from melange.files import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastCarbon:
    """A plan of least emissions against the cheapest plan, with emissions at the load that headroom leaves.

    Parameters
    ----------
    emitted_kg_per_h
        Emissions of the plan's instances at that load [kg CO2e/h].
    bound_kg_per_h
        No plan under the same settings emits less [kg CO2e/h]; None if nothing is proven.
    cheapest_per_h
        Cost of the cheapest plan [USD/h].
    cheapest_kg_per_h
        Emissions of the cheapest plan's instances at that load [kg CO2e/h].
    """

    emitted_kg_per_h: float
    bound_kg_per_h: float | None
    cheapest_per_h: float
    cheapest_kg_per_h: float

    def to_json(self) -> Json:
        """As a JSON object."""
        return asdict(self)
