"""Fit the constants of each engine era to measurements, and write ``src/melange/replica/constants/*.toml``.

    python bench/calibrate.py MEASURED [--write]

MEASURED is a folder with the files that bench/measured.py reads. Without ``--write``, the script only prints the errors
of the current constants. With it, each accelerator and each model is also held out of a separate fit, in all eras at
once: the errors on the held-out points give the intervals. The script does nothing if the folder is missing.

The result is the maximum-a-posteriori estimate of the constants, by Levenberg-Marquardt: Gaussian priors on their
logarithms, pseudo-Huber loss on the logarithm of measured over predicted step time, and a weight of sqrt(n) for a
replica type with n points. There are two stages: first the constants of dense models, then those that only
mixture-of-experts models and latent caches have. In each stage, all modern engines are first fitted together; then each
is fitted with the common result as its prior, which is tighter for shares of peak (a property of the hardware) than for
host times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt

from era_files import MEASURED_BY, era_text, residuals_from
from measured import Point, read_points
from measured_folder import is_missing, parser_of
from melange.catalog.bundled import accelerators
from melange.replica.era import Constants, Era, find_era
from table import Misfits, Table, kind_of

Array = npt.NDArray[np.float64]

START = Constants(
    mbu=0.8,
    mba=0.6,
    mba_latent=0.5,
    mfu=0.6,
    mfu_fp8=0.5,
    mfu_fp4=0.3,
    mfu_experts=0.5,
    mfu_attention=0.4,
    t_step_s=0.3e-3,  # host time that does not overlap with the accelerator's work
    t_layer_s=30e-6,  # about ten kernels in a layer, with 3 us each to start and finish
    t_moe_layer_s=15e-6,  # five more kernels: router, sorting, gathering, summing
    t_latent_layer_s=20e-6,
    # Kernels of routed experts compute tiles of tokens, the last of each expert partly empty: half a tile of 32. Not
    # fitted: of 0, 8, 16, 24 and 32 tokens, 16 predicts held-out points best (bench/routed.py).
    expert_padding=16.0,
    t_quantize_layer_s=10e-6,  # three or four more kernels; only for engines in QUANTIZING
    t_sequence_s=2e-6,
    t_request_s=1e-4,
    t_stream_s=50e-6,
    link_latency_s=8e-6,
    pcie_latency_s=30e-6,  # no measurement separates the two PCIe constants from the server's own
    link_efficiency=0.7,
    pcie_efficiency=0.4,
)
# vLLM 0.2: Python code between the steps, no CUDA graphs, and measured offline.
HOST_BOUND = replace(
    START, t_step_s=1e-3, t_layer_s=4e-6, t_sequence_s=0.24e-3, t_request_s=15.6e-3, t_stream_s=0.0,
    t_quantize_layer_s=0.0, expert_padding=0.0,
)  # fmt: skip
# Eras without a front-end limit: vLLM sent 29,000 tokens per second (MiniMax on two B300) without any sign of one;
# offline there is no front end.
UNLIMITED = ("vllm-1", "trtllm-offline")
# Eras that quantize the inputs of fp8 experts in separate kernels. With this term in the other engines as well,
# held-out errors of TensorRT-LLM 1.0 (mixtures) and SGLang (latent attention) increase.
QUANTIZING = ("vllm-1",)
LARGEST = {
    "mbu": 0.92,
    "mba": 0.95,
    "mba_latent": 0.95,
    "mfu": 0.9,
    "mfu_fp8": 0.9,
    "mfu_fp4": 0.9,
    "mfu_experts": 1.0,
    # FlashAttention-2 reaches 50 to 73 % of peak on an A100, and 35 % on an H100; FlashAttention-3 up to 75 % (their
    # abstracts). The sweeps do not identify this share: with limits of 0.55, 0.7 and 0.9 they are fitted equally well.
    "mfu_attention": 0.6,
    "link_efficiency": 0.95,
    "t_step_s": 20e-3,
}
# Prior standard deviations of the logarithms.
DENSE = {
    "mbu": 0.2,
    "mba": 0.4,
    "mfu": 0.3,
    "mfu_fp8": 0.3,
    "mfu_fp4": 0.4,
    "mfu_attention": 0.5,
    "t_step_s": 0.7,
    "t_layer_s": 0.5,
    "t_sequence_s": 1.5,
    "t_request_s": 1.5,
    "t_stream_s": 0.7,
    "link_latency_s": 0.7,
    "link_efficiency": 0.5,
}
OTHER_KINDS = {"mfu_experts": 0.5, "mba_latent": 0.5} | dict.fromkeys(
    ("t_moe_layer_s", "t_quantize_layer_s", "t_latent_layer_s"), 0.7
)
# Factor on prior deviations for this era, measured with one model on two accelerators: with wider priors, a fit to
# either accelerator predicts the other worse.
PULL_ALONE = 0.35
HOST_BOUND_FREE = {
    name: DENSE[name] * PULL_ALONE for name in ("mbu", "mba", "mfu", "mfu_attention", "t_sequence_s", "t_request_s")
} | {"t_step_s": PULL_ALONE}
# Factor on the prior deviations of hardware constants when a single engine is fitted.
SHRINK = 0.3
SHRUNK = (
    "mbu",
    "mba",
    "mba_latent",
    "mfu",
    "mfu_fp8",
    "mfu_fp4",
    "mfu_experts",
    "mfu_attention",
    "link_efficiency",
)
LOSS_SCALE = 0.1  # errors of 10 % are normal; the influence of larger errors decreases
STRIDE = 0.02
ITERATIONS = 12
QUANTILES = np.linspace(0.005, 0.995, 100)

MODERN = ("vllm-1", "sglang", "trtllm", "trtllm-1.0", "trtllm-offline")
ALONE = "vllm-0.2"
FITTED = (
    *MODERN,
    ALONE,
)  # public_eras.py, which runs after this script, fits the other eras and the values for classes of hardware


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Logarithms of measured over predicted step time of an era's points, fitted and with points held out.

    Also the constants that were fitted without each accelerator, and without each model.
    """

    era: Era
    points: Sequence[Point]
    fitted: Array
    accelerator: Array
    model: Array
    without_accelerator: Mapping[str, Constants]
    without_model: Mapping[str, Constants]

    def constants_for(self, point: Point, held: str) -> Constants:
        """Constants fitted on all points (``fitted``), or without those of the point's ``accelerator`` or ``model``."""
        if held == "fitted":
            return self.era.constants
        if held == "accelerator":
            return self.without_accelerator[point.accelerator]
        return self.without_model[point.model.name]


def fit(
    tables: Sequence[Misfits],
    bases: Sequence[Constants],
    start: Mapping[str, float],
    spread: Mapping[str, float],
    limits: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """The most likely values of the constants in ``spread``, common to all tables; other constants are from the bases.

    A constant that is 0 in a base stays 0 there. Shares of peak are at most ``limits``; None: ``LARGEST``.
    """
    names = list(spread)
    center = np.log([start[name] for name in names])
    deviation = np.array([spread[name] for name in names])
    largest = np.log([(LARGEST if limits is None else limits).get(name, math.inf) for name in names])
    weight = np.concatenate([table.weight for table in tables])

    def log_ratio(values: Array) -> Array:
        found = {name: math.exp(value) for name, value in zip(names, values, strict=True)}
        return np.concatenate([table.log_ratio(_with(base, found)) for table, base in zip(tables, bases, strict=True)])

    def cost(ratio: Array, values: Array) -> float:
        misfit = weight * (np.sqrt(1 + (ratio / LOSS_SCALE) ** 2) - 1)
        return float(misfit.sum() + (((values - center) / deviation) ** 2).sum() / 2)

    values = np.minimum(center, largest)
    ratio, damping = log_ratio(values), 1e-2
    best = cost(ratio, values)
    for _ in range(ITERATIONS):
        slope = np.stack([(ratio - log_ratio(values - STRIDE * axis)) / STRIDE for axis in np.eye(len(names))], axis=1)
        curvature = weight / np.sqrt(1 + (ratio / LOSS_SCALE) ** 2) / LOSS_SCALE**2
        normal = slope.T @ (curvature[:, None] * slope) + np.diag(1 / deviation**2)
        gradient = slope.T @ (curvature * ratio) + (values - center) / deviation**2
        before = best
        for _ in range(6):
            step = np.clip(np.linalg.solve(normal + damping * np.diag(np.diag(normal)), gradient), -1, 1)
            trial = np.minimum(values - step, largest)
            found = log_ratio(trial)
            if (reached := cost(found, trial)) < best:
                values, ratio, best, damping = trial, found, reached, damping / 4
                break
            damping *= 4
        if not best < before * (1 - 1e-4):
            break
    return {name: math.exp(value) for name, value in zip(names, values, strict=True)}


def _with(base: Constants, found: Mapping[str, float]) -> Constants:
    """The base with the fitted values of those constants that are not 0 in it."""
    return replace(base, **{name: value for name, value in found.items() if getattr(base, name) > 0})


def start_of(era: str) -> Constants:
    """The starting values of a modern era, without the terms that it does not have."""
    absent = {"t_stream_s": era in UNLIMITED, "t_quantize_layer_s": era not in QUANTIZING}
    return replace(START, **{name: 0.0 for name, is_absent in absent.items() if is_absent})


def _shrunk(spread: Mapping[str, float]) -> dict[str, float]:
    return {name: value * (SHRINK if name in SHRUNK else 1.0) for name, value in spread.items()}


def fit_stage(
    tables: Mapping[str, Table], bases: Mapping[str, Constants], spread: Mapping[str, float]
) -> dict[str, Constants]:
    """Fit the constants in ``spread`` by era: first all eras together, then each with that result as its prior."""
    if not tables:
        return dict(bases)
    start = {name: getattr(START, name) for name in spread}
    pooled = fit(list(tables.values()), [bases[era] for era in tables], start, spread)
    return {
        era: _with(base, fit([tables[era]], [base], pooled, _shrunk(spread)) if era in tables else pooled)
        for era, base in bases.items()
    }


def fit_all(eras_by_name: Mapping[str, Era], points_by_era: Mapping[str, Sequence[Point]]) -> dict[str, Constants]:
    """Constants of every era from these points."""

    def tables(is_dense: bool) -> dict[str, Table]:
        chosen = {
            era: [point for point in points if (kind_of(point.model) == "dense") == is_dense]
            for era, points in points_by_era.items()
            if era in MODERN
        }
        return {era: Table(points, eras_by_name[era]) for era, points in chosen.items() if points}

    bases = {era: start_of(era) for era in points_by_era if era in MODERN}
    constants = fit_stage(tables(True), bases, DENSE)
    constants = fit_stage(tables(False), constants, OTHER_KINDS)
    if points_by_era.get(ALONE):
        table = Table(points_by_era[ALONE], eras_by_name[ALONE])
        start = {name: getattr(HOST_BOUND, name) for name in HOST_BOUND_FREE}
        constants[ALONE] = replace(HOST_BOUND, **fit([table], [HOST_BOUND], start, HOST_BOUND_FREE))
    elif ALONE in eras_by_name:
        constants[ALONE] = HOST_BOUND
    return constants


def hold_out(eras_by_name: Mapping[str, Era], points_by_era: Mapping[str, Sequence[Point]]) -> dict[str, HeldOut]:
    """Fitted and held-out residuals of every era, and its fitted constants."""
    fitted = fit_all(eras_by_name, points_by_era)
    cards = _folds(eras_by_name, points_by_era, _accelerator)
    models = _folds(eras_by_name, points_by_era, _model)
    return {
        era: HeldOut(
            era=replace(eras_by_name[era], constants=fitted[era]),
            points=points,
            fitted=Table(points, eras_by_name[era]).log_ratio(fitted[era]),
            accelerator=_unseen(eras_by_name[era], points, _accelerator, cards[era]),
            model=_unseen(eras_by_name[era], points, _model, models[era]),
            without_accelerator=cards[era],
            without_model=models[era],
        )
        for era, points in points_by_era.items()
    }


def _accelerator(point: Point) -> str:
    return point.accelerator


def _model(point: Point) -> str:
    return point.model.name


def _folds(
    eras_by_name: Mapping[str, Era], points_by_era: Mapping[str, Sequence[Point]], key: Callable[[Point], str]
) -> dict[str, dict[str, Constants]]:
    """Constants by era and held-out key, which is held out of all eras."""
    folds: dict[str, dict[str, Constants]] = {era: {} for era in points_by_era}
    for held in dict.fromkeys(key(point) for points in points_by_era.values() for point in points):
        rest = {era: [point for point in points if key(point) != held] for era, points in points_by_era.items()}
        for era, constants in fit_all(eras_by_name, rest).items():
            folds[era][held] = constants
    return folds


def _unseen(era: Era, points: Sequence[Point], key: Callable[[Point], str], without: Mapping[str, Constants]) -> Array:
    """Residuals of points with the constants that were fitted without points of the same key."""
    residuals = np.full(len(points), np.nan)
    for held in dict.fromkeys(map(key, points)):
        places = [place for place, point in enumerate(points) if key(point) == held]
        residuals[places] = Table([points[place] for place in places], era).log_ratio(without[held])
    return residuals


def errors(log_ratio: Array) -> str:
    """Text with the median and 90 % quantile of the relative error, and the quantiles of measured over predicted."""
    error, ratio = np.abs(np.exp(-log_ratio) - 1), np.exp(log_ratio)
    low, high = np.quantile(ratio, (0.1, 0.9))
    return (
        f"n {len(ratio):4}  median error {np.median(error):6.1%}  90 % {np.quantile(error, 0.9):6.1%}  "
        f"measured/predicted {low:.2f} to {high:.2f}"
    )


def report(era: Era, log_ratio: Array, points: Sequence[Point]) -> None:
    """Print errors by measured quantity, kind of model, accelerator and model."""
    print(f"\n{era.name}: {errors(log_ratio)}")
    keys: dict[str, Callable[[Point], str]] = {
        "measured": lambda point: point.quantity,
        "kind": lambda point: kind_of(point.model),
        "accelerator": lambda point: point.accelerator,
        "model": lambda point: f"{point.model.name} {point.model.weight_dtype}",
    }
    for title, key in keys.items():
        groups = [key(point) for point in points]
        for group in sorted(set(groups)):
            print(f"  {title:12} {group:42} {errors(log_ratio[[one == group for one in groups]])}")


def as_found(held: HeldOut, elsewhere: Array, measured: int, today: date) -> Era:
    """An era with the results of the fit.

    ``elsewhere`` holds the residuals of accelerators held out in all eras, from ``measured`` points.
    """
    era, points = held.era, held.points
    unseen = np.concatenate([held.accelerator, held.model]) if era.name in MODERN else held.accelerator
    kinds = np.array([kind_of(point.model) for point in points])
    both = np.concatenate([kinds, kinds]) if era.name in MODERN else kinds
    return replace(
        era,
        residuals=residuals_from(unseen, len(points)),
        residuals_by_kind={
            kind: residuals_from(unseen[both == kind], int((kinds == kind).sum())) for kind in sorted(set(kinds))
        },
        residuals_elsewhere=residuals_from(elsewhere, measured),
        accelerators=tuple(sorted({point.accelerator for point in points})),
        architectures=tuple(sorted({accelerators()[point.accelerator].architecture for point in points})),
        models=tuple(sorted({point.model.name for point in points})),
        kinds=tuple(sorted(set(kinds))),
        max_tokens=int(max(point.inputs + point.outputs for point in points)),
        measured_by=MEASURED_BY[era.name],
        date=today.isoformat(),
    )


def on_other_accelerators(all_held: Iterable[HeldOut]) -> Array:
    """Residuals of held-out accelerators in all eras: the same number of quantiles of each, for equal weights."""
    groups = []
    for held in all_held:
        cards = np.array([point.accelerator for point in held.points])
        groups += [np.quantile(held.accelerator[cards == card], QUANTILES) for card in sorted(set(cards))]
    return np.concatenate(groups)


def main() -> None:
    """Report the current errors; with ``--write``, fit and write the constants first."""
    parser = parser_of(__doc__)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    if is_missing(arguments.measured):
        return
    measured = {name: read_points(arguments.measured, name) for name in FITTED}
    points = {name: found.points for name, found in measured.items()}
    known = {name: find_era(name) for name in FITTED}
    if not arguments.write:
        for name, era in known.items():
            report(era, Table(points[name], era).log_ratio(era.constants), points[name])
        return
    folder = Path(__file__).parents[1] / "src" / "melange" / "replica" / "constants"
    all_held = hold_out(known, points)
    elsewhere = on_other_accelerators(all_held.values())
    measured_points = sum(len(held.points) for held in all_held.values())
    for name, held in all_held.items():
        found = as_found(held, elsewhere, measured_points, date.today())
        (folder / f"{name}.toml").write_text(era_text(found), encoding="utf-8")
        report(held.era, held.fitted, held.points)
        print(f"  accelerator held out: {errors(held.accelerator)}")
        print(f"  model held out:       {errors(held.model)}")


if __name__ == "__main__":
    main()
