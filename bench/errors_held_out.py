"""Errors of estimates, as fitted and as held out: what bench/validation.py and bench/tried.py count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from calibrate import HeldOut

Array = npt.NDArray[np.float64]

HELD = ("accelerator", "model")
TITLES = {"fitted": "fitted", "accelerator": "accelerator held out", "model": "model held out"}
# What points tell of: rates of endless queues and of closed loops that wait, or step times.
RATES, STEPS = ("saturation", "rate"), ("TPOT",)


def residuals_of(held: HeldOut, kind: str) -> Array:
    """Logarithms of measured over predicted: ``fitted``, or of what was held out."""
    return {"fitted": held.fitted, "accelerator": held.accelerator, "model": held.model}[kind]


def relative(log_ratio: Array) -> Array:
    """Relative error of predicted step times."""
    return np.abs(np.exp(-log_ratio) - 1)


def rate_error(log_ratio: Array) -> Array:
    """Relative error of predicted rates, which are the inverse of step times."""
    return np.abs(np.exp(log_ratio) - 1)


def of_quantity(held: HeldOut, quantities: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which points tell of these."""
    return np.array([point.quantity in quantities for point in held.points])


def pooled(all_held: Mapping[str, HeldOut], kind: str, quantities: Sequence[str]) -> Array:
    """Relative errors over all eras: of rates where rates were measured, of step times where TPOT was."""
    change = relative if "TPOT" in quantities else rate_error
    parts = [change(residuals_of(held, kind)[of_quantity(held, quantities)]) for held in all_held.values()]
    return np.concatenate(parts)
