"""Shows how much a few measured points per replica type improve the maximum rate under a TPOT limit.

    python bench/anchors.py MEASURED [--fit]

MEASURED is a folder with ``concurrency_sweeps.csv`` (see bench/calibrate.py). A replica type is a model in a precision
on an accelerator, with a degree and an engine. A curve is one size at three concurrencies or more. Limits are 7.5 to
100 ms, where they lie within a curve; the rate measured under a limit is the curve's, between its points along straight
lines of the logarithms; what the model says is the closed form's. 0 to 3 points anchor the model, one after the other,
each the point of the curve that is nearest to where the model, anchored so far, would run: the point that a user who
follows ``--suggest-measurements`` would measure. No point lies at the limit itself. The same with points of another
size of the same replica type. ``--fit`` looks for the shares of melange.profile.correction again.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from measured import ACCELERATOR_BY_NAME, DISAGGREGATED, ENGINE_BY_ERA, MODEL_BY_NAME, quantized
from melange.catalog.bundled import accelerators, find_model
from melange.catalog.model import Model
from melange.profile.anchor import anchored_rates, with_correction
from melange.profile.capacity import Replicas, Sizes, max_request_rate
from melange.profile.comparison import samples_of
from melange.profile.correction import SHARES, Sample, Shares, correction, prior_variance
from melange.profile.era import Era, find_era
from melange.profile.hardware import Hardware, replicas_of
from melange.profile.measurements import Measurement
from melange.profile.step import scaled
from melange.slo import Slo

NONE_MEDIAN, TWO_MEDIAN = 0.20, 0.10
LIMITS_S = (0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1)
NOISES = (0.03, 0.07, 0.12, 0.23)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Type:
    """One replica type and what was measured on it."""

    name: str
    era: Era
    model: Model
    replicas: Replicas
    points: list[Measurement]

    def curves(self) -> list[list[Measurement]]:
        """Points of one size by concurrency, where there are at least three."""
        by_size: dict[tuple[float, float], list[Measurement]] = defaultdict(list)
        for point in self.points:
            by_size[point.input_tokens, point.output_tokens].append(point)
        return [sorted(curve, key=lambda one: one.concurrency) for curve in by_size.values() if len(curve) >= 3]


def read_types(folder: Path) -> Iterable[Type]:
    """Every replica type of the sweeps whose model and accelerator are known."""
    with (folder / "concurrency_sweeps.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for era_name, engine in ENGINE_BY_ERA.items():
        by_type: dict[tuple[str, ...], dict[tuple[float, ...], list[tuple[float, float]]]] = {}
        for row in rows:
            degree = int(float(row["tp_size"] or 1))
            if row["backend"] != engine or row["model_path"] not in MODEL_BY_NAME or degree > 8:
                continue
            if row["system"] in DISAGGREGATED or float(row["silicon_tpot_ms"]) <= 0:
                continue
            precision = row["gemm_quant_mode"] or row["precision"] or "fp8"
            key = (row["model_path"], precision, row["system"], f"{degree}")
            load = (float(row["isl"]), float(row["osl"]), float(row["concurrency"]))
            times = (float(row["silicon_tpot_ms"]) / 1e3, float(row["silicon_ttft_ms"]) / 1e3)
            by_type.setdefault(key, {}).setdefault(load, []).append(times)
        for key, loads in by_type.items():
            yield _type(find_era(era_name), key, loads)


def _type(era: Era, key: tuple[str, ...], loads: dict[tuple[float, ...], list[tuple[float, float]]]) -> Type:
    name, precision, system, degree = key
    engine_is_sglang = era.name == "sglang"
    model = quantized(find_model(MODEL_BY_NAME[name]), precision, is_fp8_cache=not engine_is_sglang)
    card = ACCELERATOR_BY_NAME[system]
    hardware = Hardware(
        accelerator=card,
        tensor_parallel=int(degree),
        is_pcie=accelerators()[card].link.startswith("PCIe"),
    )
    points = [
        Measurement(
            input_tokens=inputs,
            output_tokens=outputs,
            concurrency=concurrency,
            tpot_s={"mean": float(np.median([tpot for tpot, _ in times]))},
            ttft_s={"mean": float(np.median([ttft for _, ttft in times]))},
            source=f"{name} {precision} {card} x {degree} {era.name} ({inputs:g}, {outputs:g}) at {concurrency:g}",
        )
        for (inputs, outputs, concurrency), times in loads.items()
    ]
    replicas = replicas_of(model, [hardware], accelerators(), era.with_settings(max_context=10**9))
    return Type(
        name=f"{model.name} {precision} {card} x {degree} {era.name}",
        era=era,
        model=model,
        replicas=replicas,
        points=points,
    )


def rate_of(point: Measurement) -> float:
    """Requests per second of a closed loop: concurrency over latency [1/s]."""
    latency_s = point.ttft_s["mean"] + (point.output_tokens - 1) * point.tpot_s["mean"]
    return point.concurrency / latency_s


def rate_under(curve: Sequence[Measurement], limit_s: float) -> float | None:
    """The measured rate of a curve at a TPOT limit [1/s]; None where the limit is beyond either end of the curve."""
    times_s = np.maximum.accumulate([point.tpot_s["mean"] for point in curve])
    rates = np.maximum.accumulate([rate_of(point) for point in curve])
    if not times_s[0] < limit_s < times_s[-1]:
        return None
    return math.exp(float(np.interp(math.log(limit_s), np.log(times_s), np.log(rates))))


def predicted(
    kind: Type, samples: Sequence[Sample], inputs: float, outputs: float, limit_s: float, shares: Shares = SHARES
) -> list[float]:
    """Rate, low and high under a TPOT limit [1/s]."""
    sizes = Sizes(inputs=np.full((1, 1, 1), inputs), outputs=np.full((1, 1, 1), outputs))
    slo = Slo(tpot_s=limit_s)
    if samples:
        found = correction(samples, sizes.inputs[0], sizes.outputs[0], prior_variance(kind.era.residuals), shares)
        rates = anchored_rates(with_correction(kind.replicas, found), kind.model, sizes, slo, found)
    else:
        residuals = kind.era.residuals
        rates = tuple(
            max_request_rate(
                replace(kind.replicas, cost=scaled(kind.replicas.cost, factor)), kind.model, sizes, slo.limits
            )
            for factor in (1.0, residuals.high, residuals.low)
        )
    return [float(one[0, 0, 0]) for one in rates]


def trial(
    kinds: Sequence[Type], most: int, *, same_size: bool, shares: Shares = SHARES
) -> tuple[list[np.ndarray], list[float]]:
    """By number of anchors: relative errors of the rate, and the share of rates within low and high."""
    errors: list[list[float]] = [[] for _ in range(most + 1)]
    within: list[list[bool]] = [[] for _ in range(most + 1)]
    for kind in kinds:
        curves = kind.curves()
        for index, curve in enumerate(curves):
            source = curve if same_size else curves[index - 1]
            if not same_size and len(curves) < 2:
                continue
            for limit_s in LIMITS_S:
                measured = rate_under(curve, limit_s)
                if measured is None:
                    continue
                anchors: list[Measurement] = []
                for count in range(most + 1):
                    samples, _ = samples_of(kind.replicas, kind.model, anchors)
                    size = (curve[0].input_tokens, curve[0].output_tokens)
                    rate, low, high = predicted(kind, samples, *size, limit_s, shares)
                    errors[count].append(abs(rate / measured - 1))
                    within[count].append(low <= measured <= high)
                    if len(anchors) == len(source):
                        break
                    anchors.append(_nearest(source, anchors, max(rate * size[1] * limit_s, 1.0)))
    return [np.array(one) for one in errors], [float(np.mean(one)) for one in within]


def _nearest(curve: Sequence[Measurement], taken: Sequence[Measurement], concurrency: float) -> Measurement:
    """The point of a curve, not taken yet, whose concurrency is nearest."""
    left = [point for point in curve if point not in taken]
    return min(left, key=lambda point: abs(math.log(point.concurrency / concurrency)))


def fit(kinds: Sequence[Type]) -> Shares:
    """The most likely shares: coordinate search on the likelihood of all types' ratios."""
    samples = [samples_of(kind.replicas, kind.model, kind.points)[0] for kind in kinds]
    samples = [listed for listed in samples if len(listed) >= 6]
    values = np.array([0.36, 0.41, 0.23, 0.22, 2.1]) * np.array([0.07] * 4 + [1.0])
    best, stride = _unlikelihood(values, samples), 0.5
    while stride > 0.02:
        before = best
        for place in range(len(values)):
            for direction in (1, -1):
                trial_values = values.copy()
                trial_values[place] *= math.exp(direction * stride)
                if (found := _unlikelihood(trial_values, samples)) < best:
                    values, best = trial_values, found
        if not best < before - 1e-3:
            stride /= 2
    whole = float(values[:3].sum())
    print(f"standard deviation of log ratios: {math.sqrt(whole):.3f} over {len(samples)} replica types")
    type_, size, noise, slope = (float(one) for one in values[:4] / whole)
    return Shares(type_=type_, size=size, noise=noise, slope=slope, reach=float(values[4]))


def _unlikelihood(values: np.ndarray, samples: Sequence[Sequence[Sample]]) -> float:
    type_, size, noise, slope, reach = values
    total = 0.0
    for listed in samples:
        place = np.array([(math.log(one.inputs), math.log(one.outputs)) for one in listed])
        x = np.array([math.log(max(one.batch, 1.0) / 24.0) for one in listed])
        ratio = np.array([one.log_ratio for one in listed])
        alike = np.exp(-((place[:, None] - place[None]) ** 2).sum(axis=2) / (2 * reach**2))
        covariance = type_ + (size + slope * np.outer(x, x)) * alike + noise * np.eye(len(x))
        factor = np.linalg.cholesky(covariance)
        white = np.linalg.solve(factor, ratio)
        total += 0.5 * float(white @ white) + float(np.log(np.diag(factor)).sum())
    return total


def main() -> None:
    """Print the errors with 0 to 3 anchors, and the bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", type=Path)
    parser.add_argument("--fit", action="store_true")
    arguments = parser.parse_args()
    if not (arguments.measured / "concurrency_sweeps.csv").exists():
        print(f"skipped: no concurrency_sweeps.csv in {arguments.measured}")
        return
    kinds = list(read_types(arguments.measured))
    print(f"{len(kinds)} replica types, {sum(len(kind.points) for kind in kinds)} points")
    if arguments.fit:
        print(f"in force: {asdict(SHARES)}\nmost likely: {asdict(fit(kinds))}")
        for noise in NOISES:
            rest = (1 - noise) / (SHARES.type_ + SHARES.size)
            shares = replace(SHARES, noise=noise, type_=SHARES.type_ * rest, size=SHARES.size * rest)
            errors, within = trial(kinds[::3], 2, same_size=True, shares=shares)
            print(
                f"noise {noise}: two anchors, median error {np.median(errors[2]):.1%}, interval holds {within[2]:.0%}"
            )
    print("maximum rate under a TPOT limit:")
    medians = []
    for same_size in (True, False):
        errors, within = trial(kinds, 3, same_size=same_size)
        for count, (found, held) in enumerate(zip(errors, within, strict=True)):
            print(
                f"  {count} anchors of {'the same' if same_size else 'another'} size: n {len(found):4}  median error "
                f"{np.median(found):6.1%}  90 % {np.quantile(found, 0.9):6.1%}  80 % interval holds {held:.0%}"
            )
            medians.append(float(np.median(found)))
    for name, bar, reached in (("no anchor", NONE_MEDIAN, medians[0]), ("two anchors", TWO_MEDIAN, medians[2])):
        print(f"bar: {name} <= {bar:.0%}: {reached:.1%} {'reached' if reached <= bar else 'NOT reached'}")


if __name__ == "__main__":
    main()
