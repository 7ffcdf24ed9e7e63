"""Variants of the fit that were tried to improve estimates for unseen accelerators and models, with their errors.

    python bench/tried.py MEASURED

Every variant is fitted and held out as in bench/validation.py, which includes this table in docs/validation.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

import calibrate
import table as tables
from calibrate import FITTED, HeldOut, hold_out
from curves import curves_of, rate_errors
from errors_held_out import HELD, RATES, STEPS, pooled
from measured import Point, read_points
from measured_folder import is_missing, parser_of
from melange.replica import step
from melange.replica.era import Era, find_era
from pages import percent, table

Array = npt.NDArray[np.float64]
Eras = Mapping[str, Era]
Points = Mapping[str, Sequence[Point]]

RELEASES = ("trtllm-1.0", "trtllm-offline")


def figures(all_held: Mapping[str, HeldOut]) -> list[str]:
    """Errors for held-out accelerators and models: saturation rate (median and 90 %), TPOT, rate under a limit."""
    curves = [curve for held in all_held.values() for curve in curves_of(held)]
    columns = []
    for kind in HELD:
        rate = pooled(all_held, kind, RATES)
        tpot, limit = pooled(all_held, kind, STEPS), rate_errors(curves, kind)
        medians = [np.median(rate), np.quantile(rate, 0.9), np.median(tpot), np.median(limit)]
        columns.append([percent(value) for value in medians])
    return [" / ".join(pair) for pair in zip(*columns, strict=True)]


def _in_quadrature(cost: step.StepCost, batch: Array, tokens: Array, stalled: Array | float = 0.0) -> Array:
    """Time of linear layers in which reading and arithmetic overlap only in part [s]."""
    touched = -np.expm1(cost.expert_decay * tokens)
    computed_s = cost.token_s * tokens + cost.output_s * batch + cost.padding_s * touched
    return np.asarray(np.hypot(cost.weights_s + cost.experts_s * touched, computed_s))


def variants(known: Eras, points: Points, in_force: Mapping[str, HeldOut]) -> Iterator[tuple[str, list[str]]]:
    """All variants by name, with their errors."""
    yield "**in force**", figures(in_force)
    evicting = {name: era.with_settings(is_fully_reserved=False) for name, era in known.items()}
    yield "TensorRT-LLM admits requests as vLLM does", figures(hold_out(evicting, points))
    start = replace(calibrate.START, t_step_s=1e-3, t_layer_s=4e-6, t_moe_layer_s=5e-6, t_latent_layer_s=5e-6)
    free = tuple(name for name in calibrate.SHRUNK if name not in calibrate.OTHER_KINDS)
    settings: dict[str, tuple[object, dict[str, Any]]] = {
        "no front end": (calibrate, {"UNLIMITED": calibrate.MODERN}),
        "fits that start from 1 ms a step and 4 us a layer": (calibrate, {"START": start}),
        "constants of experts and latent caches free in every engine": (calibrate, {"SHRUNK": free}),
        "errors of more than 6 %, not 10 %, pull less": (calibrate, {"LOSS_SCALE": 0.06}),
        "engines half as far from each other in what belongs to the hardware": (calibrate, {"SHRINK": 0.15}),
        "each replica type alike": (tables, {"SHARED": 1.0}),
        "each point alike": (tables, {"SHARED": 0.0}),
        "reading weights and arithmetic in quadrature, not the longer of them": (step, {"_linear_s": _in_quadrature}),
    }
    for name, (module, values) in settings.items():
        with patch.multiple(module, **values):
            yield name, figures(hold_out(known, points))
    joined = tuple(name for name in calibrate.MODERN if name not in RELEASES)
    with patch.multiple(calibrate, MODERN=joined):
        yield "TensorRT-LLM as one era, served and offline, all releases", figures(hold_out(*_as_one(known, points)))


def _as_one(known: Eras, points: Points) -> tuple[dict[str, Era], dict[str, list[Point]]]:
    """The eras and points with all of TensorRT-LLM as one era."""
    apart = {name: list(listed) for name, listed in points.items() if name not in RELEASES}
    apart["trtllm"] += [point for name in RELEASES for point in points[name]]
    return {name: known[name] for name in apart}, apart


def tried(known: Eras, points: Points, in_force: Mapping[str, HeldOut]) -> str:
    """The table of all variants."""
    rows = [[name, *values] for name, values in variants(known, points, in_force)]
    heads = ["", "saturation, median", "saturation, 90 %", "TPOT, median", "rate under a limit, median"]
    return table(heads, rows, numbers=4)


def main() -> None:
    """Print the table."""
    arguments = parser_of(__doc__).parse_args()
    if is_missing(arguments.measured):
        return
    known = {name: find_era(name) for name in FITTED}
    points = {name: read_points(arguments.measured, name).points for name in known}
    print(tried(known, points, hold_out(known, points)))


if __name__ == "__main__":
    main()
