"""Errors of estimates on fitted and on held-out points, for bench/validation.py and bench/tried.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from calibrate import HeldOut

Array = npt.NDArray[np.float64]

HELD = ("accelerator", "model")
TITLES = {"fitted": "fitted", "accelerator": "accelerator held out", "model": "model held out"}
# Quantities of points: rates of endless queues and of closed loops with waiting requests, and step times.
RATES, STEPS = ("saturation", "rate"), ("TPOT",)


def residuals_of(held: HeldOut, kind: str) -> Array:
    """Logarithms of measured over predicted step times: ``fitted``, or with ``accelerator`` or ``model`` held out."""
    return {"fitted": held.fitted, "accelerator": held.accelerator, "model": held.model}[kind]


def relative(log_ratio: Array) -> Array:
    """Relative error of predicted step times."""
    return np.abs(np.exp(-log_ratio) - 1)


def rate_error(log_ratio: Array) -> Array:
    """Relative error of predicted rates, which are the inverse of step times."""
    return np.abs(np.exp(log_ratio) - 1)


def of_quantity(held: HeldOut, quantities: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Mask of the points with one of these quantities."""
    return np.array([point.quantity in quantities for point in held.points])


def pooled(all_held: Mapping[str, HeldOut], kind: str, quantities: Sequence[str]) -> Array:
    """Relative errors over all eras: of rates if the quantities are rates, of step times for TPOT."""
    change = relative if "TPOT" in quantities else rate_error
    parts = [change(residuals_of(held, kind)[of_quantity(held, quantities)]) for held in all_held.values()]
    return np.concatenate(parts)
