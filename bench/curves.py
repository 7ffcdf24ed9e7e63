"""Maximum rates under a TPOT limit: measured, from concurrency sweeps, and predicted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from calibrate import HeldOut
from measured import Point
from melange.catalog.bundled import accelerators
from melange.replica.capacity import Replicas, Sizes, max_request_rate
from melange.replica.era import Constants, Residuals
from melange.replica.hardware import Hardware, replicas_of
from melange.replica.step import scaled

Array = npt.NDArray[np.float64]

LIMITS_S = tuple(limit / 1e3 for limit in (10, 15, 20, 25, 30, 40, 50, 60))
MULTIPLES = (1.25, 1.5, 2.0, 3.0)
LEAST_POINTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One size on one replica type, by concurrency.

    Parameters
    ----------
    points
        Points by increasing concurrency; TPOT and rate are made monotonic.
    """

    held: HeldOut
    points: tuple[Point, ...]

    @property
    def tpot_s(self) -> Array:
        """Measured TPOT, made monotonic (C,) [s]."""
        return np.maximum.accumulate([point.step_s for point in self.points])

    @property
    def rate(self) -> Array:
        """Measured rate, made monotonic (C,) [1/s]."""
        return np.maximum.accumulate([point.cycle_rate for point in self.points])

    def limits_s(self) -> Array:
        """Limits between the lowest and the highest TPOT of the curve [s]."""
        tpot = self.tpot_s
        wanted = [*LIMITS_S, *(tpot[0] * multiple for multiple in MULTIPLES)]
        return np.array([limit for limit in wanted if tpot[0] <= limit <= tpot[-1]])

    def measured(self, limits_s: Array) -> Array:
        """Highest rate under each limit, interpolated in logarithms; 0 below the lowest TPOT [1/s]."""
        tpot = np.log(self.tpot_s) + 1e-9 * np.arange(len(self.points))
        rate = np.exp(np.interp(np.log(limits_s), tpot, np.log(self.rate)))
        return np.where(np.log(limits_s) < tpot[0] - 1e-6, 0.0, rate)

    def predicted(self, limits_s: Array, constants: Constants, factor: float = 1.0) -> Array:
        """The same by the closed form, with all step times multiplied by ``factor``, up to the measured concurrency."""
        point = self.points[0]
        era = replace(self.held.era, constants=constants).with_settings(max_context=10**9)
        replicas = _many(point, replicas_of(point.model, [hardware_of(point)], accelerators(), era), len(limits_s))
        most = np.minimum(replicas.max_sequences, self.points[-1].concurrency)
        replicas = replace(replicas, cost=scaled(replicas.cost, factor), max_sequences=most)
        sizes = Sizes(inputs=np.full((1, 1, 1), point.inputs), outputs=np.full((1, 1, 1), point.outputs))
        limits = {"tpot": limits_s[:, None, None]}
        return max_request_rate(replicas, point.model, sizes, limits)[:, 0, 0]  # type: ignore[arg-type] # one a replica

    def interval(self, limits_s: Array, constants: Constants, residuals: Residuals) -> tuple[Array, Array]:
        """The rates ``low`` and ``high`` of an estimate [1/s]."""
        slow, fast = (self.predicted(limits_s, constants, factor) for factor in (residuals.high, residuals.low))
        return slow, fast


def hardware_of(point: Point) -> Hardware:
    """The hardware on which a point was measured."""
    is_pcie = point.tensor_parallel > 1 and accelerators()[point.accelerator].link.startswith("PCIe")
    return Hardware(accelerator=point.accelerator, tensor_parallel=point.tensor_parallel, is_pcie=is_pcie)


def curves_of(held: HeldOut) -> list[Curve]:
    """Sizes of replica types with three or more concurrencies at which requests hardly wait before the first token."""
    by_curve: dict[tuple[object, ...], list[Point]] = defaultdict(list)
    for point in held.points:
        if point.quantity == "TPOT":
            by_curve[point.model, point.accelerator, point.tensor_parallel, point.inputs, point.outputs].append(point)
    return [
        Curve(held=held, points=tuple(sorted(points, key=lambda point: point.concurrency)))
        for points in by_curve.values()
        if len(points) >= LEAST_POINTS
    ]


def _many(point: Point, replicas: Replicas, count: int) -> Replicas:
    """The same replica several times along the first axis."""
    return replace(
        replicas,
        kv_tokens=np.repeat(replicas.kv_tokens, count, axis=0),
        max_sequences=np.repeat(replicas.max_sequences, count, axis=0),
        max_batched_tokens=np.repeat(replicas.max_batched_tokens, count, axis=0),
    )


def rate_errors(curves: Sequence[Curve], held: str) -> Array:
    """Relative errors of the maximum rate, at all limits of all curves."""
    errors = []
    for curve in curves:
        limits_s = curve.limits_s()
        if len(limits_s):
            constants = curve.held.constants_for(curve.points[0], held)
            errors.append(np.abs(curve.predicted(limits_s, constants) / curve.measured(limits_s) - 1))
    return np.concatenate(errors) if errors else np.array([])
