"""Measured points of one era as arrays, so that the closed form is evaluated on all of them at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from measured import Point
from melange.catalog.bundled import accelerators
from melange.replica.capacity import Replicas, Sizes, largest_batch, mean_step_s, prompt_times_s
from melange.replica.era import Constants, Era, kind_of
from melange.replica.hardware import Hardware, replicas_of
from melange.replica.step import StepCost, step_cost

Array = npt.NDArray[np.float64]

__all__ = ["Misfits", "Table", "column", "kind_of"]

# Some of the requests in flight are in prefill: C = B (1 + own / (o step)), solved by iteration.
ROUNDS = 3
# A replica type with n points has the weight n ** (1 - SHARED): from equal weights of points (0) to equal weights of
# types (1).
SHARED = 0.5
NO_WINDOW = 1e12  # replaces infinity, since infinity times 0 is not 0: models with and without a window are stacked


class Misfits(Protocol):
    """What a fit needs of measurements: their weights, and their misfits for any constants."""

    weight: Array

    def log_ratio(self, constants: Constants) -> Array:
        """Logarithm of measured over predicted time of every measurement (N,)."""


class Table:
    """Points of one era along the replica axis (R, 1, 1); values independent of the constants are computed once."""

    def __init__(self, points: Sequence[Point], era: Era) -> None:
        self.points, self.era = points, era.with_settings(max_context=10**9)
        keys = [(point.model, point.accelerator, point.tensor_parallel) for point in points]
        self.types = list(dict.fromkeys(keys))
        place_by_type = {key: place for place, key in enumerate(self.types)}
        self.where = np.array([place_by_type[key] for key in keys])
        self.hardware = [
            Hardware(accelerator=card, tensor_parallel=degree, is_pcie=degree > 1 and _is_pcie(card))
            for _, card, degree in self.types
        ]
        self.sizes = Sizes(
            inputs=column([point.inputs for point in points]), outputs=column([point.outputs for point in points])
        )
        self.most, self.budget = np.ones((len(points), 1, 1)), np.ones((len(points), 1, 1))
        for place, (model, _, _) in enumerate(self.types):
            chosen = self.where == place
            replicas = replicas_of(model, [self.hardware[place]], accelerators(), self.era)
            sizes = Sizes(inputs=self.sizes.inputs[chosen], outputs=self.sizes.outputs[chosen])
            self.most[chosen] = np.maximum(largest_batch(replicas, model, sizes), 1.0)
            self.budget[chosen] = replicas.max_batched_tokens
        self.concurrency = column([point.concurrency for point in points])
        self.step_s = column([point.step_s for point in points])
        self.rate = column([point.rate if point.is_saturated else point.cycle_rate for point in points])
        # An endless queue is measured without a server, so that no front end sends tokens.
        self.is_offline = np.array([point.is_saturated for point in points])[:, None, None]
        self.is_tpot = np.array([point.quantity == "TPOT" for point in points])[:, None, None]
        counts = Counter(self.where.tolist())
        weight = np.array([counts[place] ** -SHARED for place in self.where.tolist()])
        self.weight = weight / weight.mean()

    def replicas(self, constants: Constants) -> Replicas:
        """One replica for each point."""
        costs = [
            step_cost(
                model,
                accelerators()[card],
                tensor_parallel=degree,
                is_pcie=hardware.is_pcie,
                constants=constants,
            )
            for (model, card, degree), hardware in zip(self.types, self.hardware, strict=True)
        ]
        columns = {
            field.name: np.array([min(getattr(cost, field.name), NO_WINDOW) for cost in costs], float)
            for field in fields(StepCost)
        }
        settings = self.era.settings
        cost = StepCost(**{name: values[self.where][:, None, None] for name, values in columns.items()})
        return Replicas(
            cost=replace(cost, stream_s=np.where(self.is_offline, 0.0, cost.stream_s)),
            kv_tokens=self.most,
            max_sequences=self.most,
            max_batched_tokens=self.budget,
            block_tokens=settings.block_tokens,
            is_chunked=settings.is_chunked,
            max_context=10**9,
        )

    def running(self, replicas: Replicas) -> Array:
        """Mean number of decoding requests at the concurrency of each point, at most as many as fit (R, 1, 1)."""
        batch = np.minimum(self.concurrency, self.most)
        for _ in range(ROUNDS):
            step_s = mean_step_s(replicas, self.sizes, batch)
            own_s, _ = prompt_times_s(replicas, self.sizes, batch)
            share = 1 + own_s / (self.sizes.outputs * step_s)
            batch = np.minimum(self.concurrency / share, self.most)
        return batch

    def log_ratio(self, constants: Constants) -> Array:
        """Logarithm of measured over predicted step time of every point (R,).

        If a rate was measured, the step time follows from it by Little's law: ``B / (o rate)``.
        """
        replicas = self.replicas(constants)
        batch = self.running(replicas)
        step_s = mean_step_s(replicas, self.sizes, batch)
        measured_s = np.where(self.is_tpot, self.step_s, batch / (self.sizes.outputs * self.rate))
        return np.asarray(np.log(measured_s / step_s))[:, 0, 0]


def column(values: Sequence[float]) -> Array:
    """Values along the replica axis (R, 1, 1)."""
    return np.array(values, float)[:, None, None]


def _is_pcie(card: str) -> bool:
    return accelerators()[card].link.startswith("PCIe")
