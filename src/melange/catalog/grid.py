"""CO2 equivalent of a kWh by region, used if a plan does not set it."""

from __future__ import annotations

from collections.abc import Mapping

# Power of the data center over power of its servers; 0.9 of AI data centers are within 1.05 to 1.40 ("Energy use of
# AI inference", 2025).
DEFAULT_PUE = 1.2
# Yearly means [g CO2e/kWh], looked up on 2026-11-26: the United States in 2024 by the EIA; Germany and the Netherlands
# in 2024 by Ember (Our World in Data, carbon intensity of electricity); Japan by the same, quoted by others.
_UNITED_STATES, _GERMANY, _NETHERLANDS, _JAPAN = 385.0, 344.0, 253.0, 470.0
_BY_BEGINNING = {
    "us-": _UNITED_STATES,
    "eastus": _UNITED_STATES,
    "westus": _UNITED_STATES,
    "centralus": _UNITED_STATES,
    "eu-central-1": _GERMANY,
    "germany": _GERMANY,
    "europe-west3": _GERMANY,
    "europe-west4": _NETHERLANDS,
    "westeurope": _NETHERLANDS,
    "ap-northeast-1": _JAPAN,
    "japan": _JAPAN,
}
# World mean in 2024, for all other regions (IEA, Emissions Factors 2024).
WORLD_G_PER_KWH = 450.0
DEFAULT = "default"


def grid_intensity(region: str, given: Mapping[str, float]) -> float:
    """CO2 equivalent of a kWh in a region [g/kWh].

    The given value for the region, or for ``default``; otherwise the value of its country, or of the world.

    >>> grid_intensity("us-east-1", {}), grid_intensity("", {}), grid_intensity("us-east-1", {"default": 30.0})
    (385.0, 450.0, 30.0)
    """
    if region in given:
        return given[region]
    if DEFAULT in given:
        return given[DEFAULT]
    folded = region.casefold()
    return next((found for name, found in _BY_BEGINNING.items() if folded.startswith(name)), WORLD_G_PER_KWH)
