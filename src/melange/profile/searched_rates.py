"""Replace rates of a profile by maximum rates measured under load."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from melange.errors import Caution
from melange.profile.measurement import Measurement
from melange.profile.profile import MEASURED, Profile
from melange.replica.capacity import Sizes
from melange.slo import Slo
from melange.workload.workload import Mask

# A searched maximum rate applies to a bucket whose planned size is within this share of the measured size.
_SAME_SIZE = 0.1


def with_searched_rates(
    profile: Profile, sizes: Sizes, slo: Slo, points: Sequence[Measurement], where: Mask
) -> tuple[Profile, list[Caution]]:
    """The profile with measured maximum rates in place of other rates, and cautions about those that were not used.

    Parameters
    ----------
    sizes
        The sizes that buckets are planned for (1, I, O).
    slo
        The objective of the profile's rates.
    points
        The measured points; those with a ``max_request_rate`` are used.
    where
        Mask of the replica types that the points belong to (R,).
    """
    arrays = {name: getattr(profile, name).copy() for name in ("max_request_rate", "low", "high", "provenance")}
    reasons, reason = profile.reasons, profile.reason.copy()
    cautions = []
    for point in points:
        if point.max_request_rate is None:
            continue
        cell, why = _searched_cell(point, sizes, slo)
        if cell is None:
            cautions.append(Caution("anchor", f"{point.source}: its max_request_rate {why}; not used"))
            continue
        low, middle, high = point.rate_interval
        # If no rate failed, the high end comes from how fast the steps may be.
        least_high = np.maximum(middle, arrays["high"][where, cell[0], cell[1]]) if math.isinf(high) else high
        for name, value in (("low", low), ("max_request_rate", middle), ("high", least_high)):
            arrays[name][where, cell[0], cell[1]] = value
        arrays["provenance"][where, cell[0], cell[1]] = MEASURED
        reason[where, cell[0], cell[1]] = 0
        if point.max_request_rate == 0:
            reason[where, cell[0], cell[1]] = len(reasons)
            reasons = (*reasons, f"measured: not even one request alone meets {slo}")
    return replace(profile, **arrays, reasons=reasons, reason=reason), cautions


def _searched_cell(point: Measurement, sizes: Sizes, slo: Slo) -> tuple[tuple[int, int] | None, str]:
    """The cell for a point's maximum rate, planned at about its size for the same SLO; or why there is none."""
    if point.slo is None or not point.slo.agrees_with(slo):
        return None, f"was found under {point.slo}, but the service asks for {slo}"
    inputs, outputs = sizes.inputs[0], sizes.outputs[0]
    off = np.maximum(np.abs(inputs / point.input_tokens - 1), np.abs(outputs / point.output_tokens - 1))
    i, o = (int(place) for place in np.unravel_index(int(off.argmin()), off.shape))
    if off[i, o] > _SAME_SIZE:
        nearest = f"{inputs[i, o]:,.0f} in and {outputs[i, o]:,.0f} out"
        return None, f"has a size that matches no bucket (nearest: {nearest})"
    return (i, o), ""
