"""Steps of finite benchmark runs and their times, for fitting constants to such runs.

All requests of a run are present from the start, so the requests that share a step do not depend on the step times. The
steps are therefore counted once, by the rules of :mod:`melange.replica.simulated.batching`; for any constants, the
times of all runs are then a single sum in NumPy. The package's own simulation, which ``public_runs.py`` uses, agrees
within 1 %.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from melange.catalog.bundled import accelerators
from melange.catalog.model import Model
from melange.replica import step
from melange.replica.era import Constants, Era
from melange.replica.hardware import kv_tokens_of
from melange.replica.step import StepCost, step_cost
from public_points import Run

Array = npt.NDArray[np.float64]

NO_WINDOW = 1e12  # infinity times no running requests is not 0
# A replica type with n runs has the weight n ** (1 - SHARED), as in table.py.
SHARED = 0.5


@dataclass(slots=True)
class _Request:
    inputs: int
    outputs: int
    made: int = 0

    @property
    def context(self) -> int:
        return self.inputs + self.made

    @property
    def left(self) -> int:
        return self.outputs - self.made


class Steps:
    """The steps of one run: the number of equal steps, and the content of each (S,)."""

    NAMES = ("count", "batch", "context", "window_context", "prefill", "pairs", "window_pairs", "admitted")

    def __init__(self, run: Run, era: Era, layers: tuple[int, int, int, int], kv_tokens: float) -> None:
        self.rows: list[tuple[float, ...]] = []
        self.full, self.sliding, self.window, self.state = layers
        self.capacity, self.settings = kv_tokens, era.settings
        self.sequences, self.budget = era.settings.limits_on(accelerators()[run.accelerator])
        pairs = zip(run.inputs.tolist(), run.outputs.tolist(), strict=True)
        self.waiting = deque(_Request(inputs, outputs) for inputs, outputs in pairs)
        self.running: list[_Request] = []
        self.partial: _Request | None = None
        self.done = 0
        while self.waiting or self.running or self.partial:
            if not self._prompts():
                self._decode()

    def _held(self, tokens: int) -> int:
        block = self.settings.block_tokens
        rounded = -(-tokens // block) * block
        windowed = min(rounded, self.window) if self.sliding else 0
        return self.full * rounded + self.sliding * windowed + self.state

    def _used(self, more: int = 0) -> int:
        reading = self._held(self.partial.context) if self.partial else 0
        return sum(self._held(one.context + more) for one in self.running) + reading

    def _has_room(self, one: _Request) -> bool:
        if self.settings.is_fully_reserved:
            held = sum(self._held(other.inputs + other.outputs) for other in self.running)
            return held + self._held(one.inputs + one.outputs) <= self.capacity or not self.running
        return self._used(1) + self._held(one.context) <= self.capacity or not self.running

    def _prompts(self) -> bool:
        """Count one step that processes prompts; False if none can be processed."""
        is_chunked = self.settings.is_chunked
        batch = len(self.running) if is_chunked else 0
        budget = self.budget - batch
        prefill, pairs, window_pairs, admitted = 0, 0.0, 0.0, 0
        ready: list[_Request] = []
        while budget > 0 and (self.partial or self.waiting):
            one = self.partial
            if one is None:
                one = self.waiting[0]
                if len(self.running) + len(ready) >= self.sequences or not self._fits(one, ready):
                    break
                if not is_chunked and prefill and prefill + one.context > self.budget:
                    break
                self.waiting.popleft()
                self.done = 0
                admitted += 1
            chunk = min(one.context - self.done, budget) if is_chunked else one.context
            budget -= chunk
            prefill += chunk
            pairs += chunk * (self.done + 0.5 * chunk)
            window_pairs += _attended(self.done + chunk, self.window) - _attended(self.done, self.window)
            self.done += chunk
            self.partial = one if self.done < one.context else None
            if self.partial is None:
                ready.append(one)
        if prefill == 0:
            return False
        self._add(1, batch, prefill, pairs, window_pairs, admitted)
        if is_chunked:
            self._advance(1)
        for one in ready:
            one.made += 1
            if one.left > 0:
                self.running.append(one)
        return True

    def _fits(self, one: _Request, ready: Sequence[_Request]) -> bool:
        before = list(self.running)
        self.running = before + list(ready)
        has_room = self._has_room(one)
        self.running = before
        return has_room

    def _decode(self) -> None:
        """Count all equal steps until the next change, after preempting requests if the cache is full."""
        while len(self.running) > 1 and self._used(1) > self.capacity:
            last = self.running.pop()
            self.waiting.appendleft(last)
        steps = min(one.left for one in self.running)
        grown = len(self.running) * (self.full or 1)
        room = (self.capacity - self._used(1)) / grown
        if not self.settings.is_fully_reserved and room < steps:
            steps = max(int(room), 1)
        self._add(steps, len(self.running), 0, 0.0, 0.0, 0)
        self._advance(steps)

    def _advance(self, steps: int) -> None:
        for one in self.running:
            one.made += steps
        self.running = [one for one in self.running if one.left > 0]

    def _add(self, steps: int, batch: int, prefill: int, pairs: float, window_pairs: float, admitted: int) -> None:
        context = sum(one.context for one in self.running) + batch * (steps - 1) / 2 if batch else 0.0
        windowed = sum(min(one.context + steps // 2, self.window) for one in self.running) if batch else 0.0
        self.rows.append((steps, batch, context, windowed, prefill, pairs, window_pairs, admitted))


def _attended(position: float, window: float) -> float:
    return 0.5 * position**2 if position <= window else window * position - 0.5 * window**2


_ROWS: dict[tuple[object, ...], Array] = {}


def _rows_of(run: Run, era: Era, layers: tuple[int, int, int, int], kv_tokens: float) -> Array:
    """The steps of a run, computed once for each engine's limits."""
    key = (id(run), era.settings, kv_tokens)
    if key not in _ROWS:
        _ROWS[key] = np.array(Steps(run, era, layers, kv_tokens).rows, float)
    return _ROWS[key]


class Bursts:
    """Runs of one era, with weights and measured over predicted times, like :class:`table.Table`."""

    # The columns of the steps of all runs, by the names of Steps.
    count: Array
    batch: Array
    context: Array
    window_context: Array
    prefill: Array
    pairs: Array
    window_pairs: Array
    admitted: Array

    def __init__(self, runs: Sequence[Run], era: Era) -> None:
        self.era = era
        facts, kept, found = accelerators(), [], []
        keys: dict[tuple[Model, str, int, bool], int] = {}
        where = []
        for run in runs:
            shape = run.model.kv_shape(run.tensor_parallel)
            kv_tokens = kv_tokens_of(run.model, facts[run.accelerator], run.tensor_parallel, era.settings)
            layers = (shape.full_layers, shape.sliding_layers, shape.window or 0, shape.state_units)
            if kv_tokens < (shape.full_layers + shape.sliding_layers) * int((run.inputs + run.outputs).max()):
                continue
            kept.append(run)
            where.append(keys.setdefault((run.model, run.accelerator, run.tensor_parallel, run.is_pcie), len(keys)))
            found.append(_rows_of(run, era, layers, kv_tokens))
        self.runs, self.types, self.where = kept, list(keys), np.array(where, int)
        self.left_out = len(runs) - len(kept)
        columns = np.concatenate(found) if found else np.zeros((0, len(Steps.NAMES)))
        for name, values in zip(Steps.NAMES, columns.T, strict=True):
            setattr(self, name, values)
        self.run_of = np.repeat(np.arange(len(found)), [len(one) for one in found])
        self.measured_s = np.array([_measured_s(run) for run in kept])
        self.is_alone = np.array([run.is_alone for run in kept], bool)
        self.is_served = np.array([run.is_served for run in kept], bool)
        counts = np.bincount(self.where, minlength=len(keys))[self.where]
        weight = counts**-SHARED
        self.weight = weight / weight.mean() if len(kept) else weight

    def costs(self, constants: Constants) -> StepCost:
        """Coefficients of each step (S,)."""
        costs = [
            step_cost(
                model,
                accelerators()[card],
                tensor_parallel=degree,
                is_pcie=is_pcie,
                constants=constants,
            )
            for model, card, degree, is_pcie in self.types
        ]
        place = self.where[self.run_of]
        return StepCost(
            **{
                field.name: np.array([min(getattr(one, field.name), NO_WINDOW) for one in costs], float)[place]
                for field in fields(StepCost)
            }
        )

    def predicted_s(self, constants: Constants) -> Array:
        """Predicted time of each run, without the first token if its request ran alone (N,) [s]."""
        cost = self.costs(constants)
        tokens = self.batch + self.prefill
        step_s = np.asarray(step._linear_s(cost, self.batch, tokens))
        step_s = step_s + cost.context_s * self.context + cost.window_context_s * self.window_context
        step_s = step_s + cost.position_s * self.pairs + cost.window_position_s * self.window_pairs
        one_shot = cost.one_shot_s + cost.one_shot_token_s * tokens
        step_s = step_s + np.minimum(one_shot, cost.ring_s + cost.ring_token_s * tokens)
        step_s = step_s + cost.host_s + cost.sequence_s * self.batch + cost.request_s * self.admitted
        streamed_s = np.where(self.is_served[self.run_of], cost.stream_s, 0.0) * self.batch
        time_s = self.count * np.maximum(step_s, streamed_s)
        is_first = self.is_alone[self.run_of] & (self.prefill > 0)
        total = np.bincount(self.run_of, np.where(is_first, 0.0, time_s), minlength=len(self.runs))
        return np.asarray(total)

    def log_ratio(self, constants: Constants) -> Array:
        """Logarithm of measured over predicted time of every run (N,)."""
        return np.asarray(np.log(self.measured_s / self.predicted_s(constants)))


def _measured_s(run: Run) -> float:
    """Measured time of the steps that count [s]: all steps, or those after the first token of a single request."""
    tokens = run.outputs.sum() - 1 if run.is_alone else run.outputs.sum()
    return float(tokens / run.measured)
