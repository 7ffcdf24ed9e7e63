"""Improvement of the maximum rate under a TPOT limit by a few measured points (anchors) per replica type.

    python bench/anchors.py MEASURED [--fit]

MEASURED is a folder with the files that bench/measured.py reads. A replica type is a model with a precision on an
accelerator, with a degree and an engine; its constants were fitted without any point of its accelerator, or of its
model. A curve is one size at three or more concurrencies; the limits are those of bench/curves.py. The model is
corrected by 0 to 3 points, added one after the other. Each is the point of the curve that is nearest to the operating
point of the model corrected so far: the point that a user of ``--suggest-measurements`` would measure. No point lies
exactly at the limit. The same is done with points of another size of the same replica type. ``--fit`` fits the shares
of melange.profile.correction again.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from calibrate import FITTED, HeldOut, hold_out
from curves import Curve, curves_of, hardware_of
from measured import Point, measurement_of, read_points
from melange.catalog.bundled import accelerators
from melange.profile.anchor import anchored_rates, with_correction
from melange.profile.comparison import samples_of
from melange.profile.correction import SHARES, Sample, Shares, correction, prior_variance
from melange.replica.capacity import Replicas, Sizes, max_request_rate
from melange.replica.era import Residuals, find_era
from melange.replica.hardware import replicas_of
from melange.replica.step import scaled
from melange.slo import Slo

NONE_MEDIAN, TWO_MEDIAN = 0.20, 0.10
NOISES = (0.03, 0.07, 0.12, 0.23)
MOST = 3
HELD = ("accelerator", "model")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Type:
    """One replica type: the model fitted without its points, and the measured curves."""

    replicas: Replicas
    residuals: Residuals
    curves: list[Curve]

    @property
    def points(self) -> list[Point]:
        """All points of its curves."""
        return [point for curve in self.curves for point in curve.points]

    def samples(self, points: Sequence[Point]) -> list[Sample]:
        """Points compared with the model."""
        return samples_of(self.replicas, points[0].model, [measurement_of(one) for one in points])[0] if points else []


def types_of(held: HeldOut, kind: str) -> list[Type]:
    """All replica types of an era that have curves; ``kind`` is what was held out."""
    by_type: dict[tuple[object, ...], list[Curve]] = defaultdict(list)
    for curve in curves_of(held):
        point = curve.points[0]
        by_type[point.model, point.accelerator, point.tensor_parallel].append(curve)
    return [_type(held, kind, curves) for curves in by_type.values()]


def _type(held: HeldOut, kind: str, curves: list[Curve]) -> Type:
    point = curves[0].points[0]
    era = replace(held.era, constants=held.constants_for(point, kind)).with_settings(max_context=10**9)
    replicas = replicas_of(point.model, [hardware_of(point)], accelerators(), era)
    residuals = find_era(era.name).known_of(point.model, accelerators()[point.accelerator])
    return Type(replicas=replicas, residuals=residuals, curves=curves)


def predicted(
    kind: Type, samples: Sequence[Sample], curve: Curve, limit_s: float, shares: Shares = SHARES
) -> list[float]:
    """Rate and its interval under a TPOT limit, with no more concurrent requests than were measured [1/s]."""
    point = curve.points[-1]
    sizes = Sizes(inputs=np.full((1, 1, 1), point.inputs), outputs=np.full((1, 1, 1), point.outputs))
    most = np.minimum(kind.replicas.max_sequences, point.concurrency)
    replicas, slo = replace(kind.replicas, max_sequences=most), Slo(tpot_s=limit_s, statistic="mean")
    rates: tuple[np.ndarray, ...]
    if samples:
        variance = prior_variance(kind.residuals)
        found = correction(samples, sizes.inputs[0], sizes.outputs[0], variance, shares)
        rates = anchored_rates(with_correction(replicas, found), point.model, sizes, slo.limits, found)
    else:
        rates = tuple(
            max_request_rate(replace(replicas, cost=scaled(replicas.cost, factor)), point.model, sizes, slo.limits)
            for factor in (1.0, kind.residuals.high, kind.residuals.low)
        )
    return [float(one[0, 0, 0]) for one in rates]


def trial(
    kinds: Sequence[Type], most: int, *, same_size: bool, shares: Shares = SHARES
) -> tuple[list[np.ndarray], list[float]]:
    """By number of anchors: relative errors of the rate, and the share of measured rates within the interval."""
    errors: list[list[float]] = [[] for _ in range(most + 1)]
    within: list[list[bool]] = [[] for _ in range(most + 1)]
    for kind in kinds:
        for index, curve in enumerate(kind.curves):
            source = curve if same_size else kind.curves[index - 1]
            if not same_size and len(kind.curves) < 2:
                continue
            limits_s = curve.limits_s()
            for limit_s, measured in zip(limits_s, curve.measured(limits_s), strict=True):
                anchors: list[Point] = []
                for count in range(most + 1):
                    rate, low, high = predicted(kind, kind.samples(anchors), curve, float(limit_s), shares)
                    errors[count].append(abs(rate / measured - 1))
                    within[count].append(low <= measured * (1 + 1e-9) and measured <= high * (1 + 1e-9))
                    if len(anchors) == len(source.points):
                        break
                    anchors.append(nearest(source, anchors, max(rate * curve.points[0].outputs * limit_s, 1.0)))
    return [np.array(one) for one in errors], [float(np.mean(one)) for one in within]


def nearest(curve: Curve, taken: Sequence[Point], concurrency: float) -> Point:
    """The point of a curve with the nearest concurrency, among those not taken yet."""
    left = [point for point in curve.points if point not in taken]
    return min(left, key=lambda point: abs(math.log(point.concurrency / concurrency)))


def fit(kinds: Sequence[Type]) -> Shares:
    """The maximum-likelihood shares for the ratios of all types, by coordinate search."""
    samples = [kind.samples(kind.points) for kind in kinds]
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


def report_fit(kinds: Sequence[Type]) -> None:
    """Print the current and the most likely shares, and the errors with several noise shares."""
    likely = fit(kinds)
    print(f"current: {asdict(SHARES)}\nmost likely: {asdict(likely)}")
    trials = {f"noise {noise}": _with_noise(noise) for noise in NOISES} | {"most likely": likely}
    for name, shares in trials.items():
        errors, within = trial(kinds[::3], 2, same_size=True, shares=shares)
        print(f"{name}: two anchors, median error {np.median(errors[2]):.1%}, interval covers {within[2]:.0%}")


def _with_noise(noise: float) -> Shares:
    rest = (1 - noise) / (SHARES.type_ + SHARES.size)
    return replace(SHARES, noise=noise, type_=SHARES.type_ * rest, size=SHARES.size * rest)


def main() -> None:
    """Print the errors with 0 to 3 anchors, and whether they meet the targets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", type=Path)
    parser.add_argument("--fit", action="store_true")
    arguments = parser.parse_args()
    if not (arguments.measured / "concurrency_sweeps.csv").exists():
        print(f"skipped: no concurrency_sweeps.csv in {arguments.measured}")
        return
    points = {name: read_points(arguments.measured, name).points for name in FITTED}
    all_held = hold_out({name: find_era(name) for name in FITTED}, points)
    for held in HELD:
        kinds = [kind for era in all_held.values() for kind in types_of(era, held)]
        print(f"{held} held out: {len(kinds)} replica types, {sum(len(kind.points) for kind in kinds)} points")
        if arguments.fit:
            report_fit(kinds)
        medians = []
        for same_size in (True, False):
            errors, within = trial(kinds, MOST, same_size=same_size)
            for count, (found, inside) in enumerate(zip(errors, within, strict=True)):
                print(
                    f"  {count} anchors of {'the same' if same_size else 'another'} size: n {len(found):4}  median "
                    f"{np.median(found):6.1%}  90 % {np.quantile(found, 0.9):6.1%}  80 % interval covers {inside:.0%}"
                )
                medians.append(float(np.median(found)))
        for name, bar, reached in (("no anchor", NONE_MEDIAN, medians[0]), ("two anchors", TWO_MEDIAN, medians[2])):
            print(f"  target: {name} <= {bar:.0%}: {reached:.1%} {'met' if reached <= bar else 'NOT MET'}")


if __name__ == "__main__":
    main()
