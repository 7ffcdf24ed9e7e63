"""Variants of the terms for mixtures and latent caches, and of attention over prompts, judged on points left out.

    python bench/routed.py MEASURED

MEASURED is a folder with the files that bench/measured.py and bench/public_points.py read; the script does nothing if
it is missing. For each variant, the second stage of bench/calibrate.py (mixtures and latent caches) is fitted again:
with all points, and without each accelerator and each model. The table shows errors on these points, pooled over all
modern engines, and errors of rates of the GPUStack lab's runs, a source that no fit of these constants uses. Constants
of dense models are fitted once for each fold and limit of ``mfu_attention``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

import bursts
import calibrate
import table as tables
from calibrate import MODERN, QUANTIZING, START, fit_stage, start_of
from errors_held_out import rate_error, relative
from measured import Point, read_points
from measured_folder import is_missing, parser_of
from melange.catalog.accelerator import Accelerator
from melange.catalog.model import Model
from melange.replica import coefficients, step
from melange.replica.era import Constants, Era, find_era, kind_of
from melange.replica.step import StepCost
from pages import percent, table
from public_points import Run, read_runs, why_left_out

Array = npt.NDArray[np.float64]
Points = Mapping[str, Sequence[Point]]
Fits = Mapping[tuple[str, str], Mapping[str, Constants]]

LAB = "gpustack"
KEYS: dict[str, Callable[[Point], str]] = {
    "accelerator": lambda point: point.accelerator,
    "model": lambda point: point.model.name,
}
EVERYTHING = ("", "")
# Times that the hidden states of the k experts of a token pass through memory: gathered, written, and summed.
PASSES = 4


def is_routed(point: Point) -> bool:
    """Whether the second stage of the fit uses a point."""
    return kind_of(point.model) != "dense"


def without(points: Points, fold: tuple[str, str]) -> dict[str, list[Point]]:
    """The points of every era, except those of the held-out accelerator or model."""
    key, held = fold
    return {era: [one for one in listed if not key or KEYS[key](one) != held] for era, listed in points.items()}


def folds(points: Points) -> list[tuple[str, str]]:
    """All points, then each accelerator and each model with points of the second stage."""
    routed = [point for listed in points.values() for point in listed if is_routed(point)]
    return [EVERYTHING, *((key, held) for key, of in KEYS.items() for held in dict.fromkeys(map(of, routed)))]


def tables_of(known: Mapping[str, Era], points: Points, *, routed: bool) -> dict[str, tables.Table]:
    """The points of one stage by era."""
    chosen = {era: [one for one in listed if is_routed(one) == routed] for era, listed in points.items()}
    return {era: tables.Table(listed, known[era]) for era, listed in chosen.items() if listed}


def dense_fits(known: Mapping[str, Era], points: Points) -> Fits:
    """Constants after the first stage, by fold."""
    return {
        fold: fit_stage(
            tables_of(known, without(points, fold), routed=False),
            {era: start_of(era) for era in points},
            calibrate.DENSE,
        )
        for fold in folds(points)
    }


def fit_routed(known: Mapping[str, Era], points: Points, dense: Mapping[str, Constants]) -> dict[str, Constants]:
    """Constants after the second stage."""
    of_stage = ("t_quantize_layer_s", "expert_padding")
    bases = {
        era: replace(constants, **{name: getattr(start_of(era), name) for name in of_stage})
        for era, constants in dense.items()
    }
    return fit_stage(tables_of(known, points, routed=True), bases, calibrate.OTHER_KINDS)


def on_lab(runs: Sequence[Run], constants: Mapping[str, Constants]) -> Array:
    """Logarithm of measured over predicted time of the lab's runs, which the constants have not seen (N,)."""
    eras = [find_era(run.engine) for run in runs]
    ratios = [bursts.Bursts([run], era).log_ratio(constants[era.name]) for run, era in zip(runs, eras, strict=True)]
    return np.concatenate(ratios)


def row_of(name: str, known: Mapping[str, Era], points: Points, dense: Fits, runs: Sequence[Run]) -> list[str]:
    """Errors of one variant: fitted, each accelerator and each model held out, and on the lab's runs."""
    fits = {fold: fit_routed(known, without(points, fold), constants) for fold, constants in dense.items()}
    errors: dict[str, list[Array]] = {"": [], "accelerator": [], "model": []}
    for fold, constants in fits.items():
        key, held = fold
        for era, listed in points.items():
            mine = [one for one in listed if is_routed(one) and (not key or KEYS[key](one) == held)]
            if mine:
                errors[key].append(relative(tables.Table(mine, known[era]).log_ratio(constants[era])))
    pooled = map(np.concatenate, errors.values())
    cells = [f"{percent(np.median(one))} ({percent(np.quantile(one, 0.9))})" for one in pooled]
    lab = [run for run in runs if run.source == LAB and not why_left_out(run)]
    ratio = on_lab(lab, fits[EVERYTHING])
    is_vllm = np.array([run.engine.startswith("vllm") for run in lab])
    of_lab = [ratio[is_vllm], ratio[~is_vllm]]
    cells += [f"{percent(np.median(rate_error(one)))}, {np.exp(np.median(one)):.2f}" for one in of_lab]
    return [name, *cells]


def _no_overlap(cost: StepCost, batch: Array, tokens: Array, stalled: Array | float = 0.0) -> Array:
    """Linear layers in which reading the routed experts does not overlap with arithmetic [s]."""
    touched = -np.expm1(cost.expert_decay * tokens)
    computed_s = cost.token_s * tokens + cost.output_s * batch + cost.padding_s * touched
    return np.asarray(np.maximum(cost.weights_s, computed_s) + cost.experts_s * touched)


def _with_traffic(model: Model, accelerator: Accelerator, constants: Constants) -> float:
    """The arithmetic of a token, and the passes of its hidden states between experts through memory [s]."""
    moved = PASSES * 2.0 * model.hidden_size * model.experts_per_token * model.moe_layers
    plain_s = coefficients.token_s(model, accelerator, constants)
    return plain_s + moved / (accelerator.bandwidth_bytes_per_s * constants.mba)


VARIANTS: dict[str, tuple[object, dict[str, Any]]] = {
    "**in force**": (calibrate, {"START": START}),
    "no padding of tiles": (calibrate, {"START": replace(START, expert_padding=0.0)}),
    "padding of 8 tokens": (calibrate, {"START": replace(START, expert_padding=8.0)}),
    "padding of 24 tokens": (calibrate, {"START": replace(START, expert_padding=24.0)}),
    "padding of 32 tokens": (calibrate, {"START": replace(START, expert_padding=32.0)}),
    "no kernels that quantize inputs": (calibrate, {"QUANTIZING": ()}),
    "kernels that quantize inputs in vLLM and SGLang": (calibrate, {"QUANTIZING": (*QUANTIZING, "sglang")}),
    "kernels that quantize inputs in every engine": (calibrate, {"QUANTIZING": MODERN}),
    "hidden states of experts pass through memory four times": (step, {"token_s": _with_traffic}),
    "reading experts does not overlap with arithmetic": (step, {"_linear_s": _no_overlap}),
}
LIMITS = {"attention over prompts up to 0.9 of peak": 0.9, "attention over prompts up to 0.75 of peak": 0.75}


def main() -> None:
    """Print the table."""
    arguments = parser_of(__doc__).parse_args()
    if is_missing(arguments.measured):
        return
    known = {name: find_era(name) for name in MODERN}
    points = {name: read_points(arguments.measured, name).points for name in MODERN}
    runs = read_runs(arguments.measured)
    dense = dense_fits(known, points)
    rows = []
    for name, (module, values) in VARIANTS.items():
        with patch.multiple(module, **values):
            rows.append(row_of(name, known, points, dense, runs))
    for name, largest in LIMITS.items():
        with patch.multiple(calibrate, LARGEST=calibrate.LARGEST | {"mfu_attention": largest}):
            rows.append(row_of(name, known, points, dense_fits(known, points), runs))
    heads = ["", "fitted", "accelerator held out", "model held out", "lab, vLLM (mixtures)", "lab, other engines"]
    print(table(heads, rows, numbers=5))


if __name__ == "__main__":
    main()
