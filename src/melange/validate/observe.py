"""Aggregate simulations into a report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from melange.errors import Caution
from melange.files import Json
from melange.plan.class_result import ClassResult
from melange.replica.simulated.outcome import FAILED, GROWTH, LEAST_GAP_S, REFUSED, statistic_of
from melange.slo import DEFAULT_ATTAINMENT, METRICS, Slo
from melange.units import S_PER_H, TOKENS_PER_MTOK, percent
from melange.validate.attainment import AT_LIMIT, Interval, attainment, by_class, largest_ratio, metrics_of
from melange.validate.causes import causes, share_by_cause
from melange.validate.class_results import class_results
from melange.validate.report import PERCENTILES, Report, TypeReport
from melange.validate.simulate import Run, left_out_of
from melange.workload.workload import Array, Mask

# The quantiles that report.PERCENTILES names after the mean.
_QUANTILES = (0.5, 0.9, 0.95, 0.99)


def report(runs: Sequence[Run], *, target: float | None = None) -> Report:
    """The report on some runs of one plan under one policy.

    Parameters
    ----------
    runs
        At least one; of the same plan, policy and scenario, with different seeds or requests.
    target
        Share of requests that must meet the SLO, 0-1; None: the SLO's own attainment, or 0.99.
    """
    first = runs[0]
    plan, slo = first.plan, first.plan.slo
    wanted = target if target is not None else (slo.target if slo else DEFAULT_ATTAINMENT)
    view = _View(runs)
    samples = view.samples(slo) if slo else []
    classes = view.classes(slo, wanted) if slo else ()
    worst = min(classes, key=lambda one: one.low - one.target, default=None)
    held = attainment(samples) if slo else None
    return Report(
        slo=slo,
        policy=first.policy,
        scenario=first.scenario,
        steps=first.steps,
        source=first.arrivals.source,
        is_drawn=first.arrivals.is_shuffled,
        requests=len(first.arrivals),
        seeds=len(runs),
        counted=len(view.status),
        rate=float(np.mean([_rate(run) for run in runs])),
        attainment=held if worst is None else Interval(value=worst.attainment, low=worst.low, high=worst.high),
        target=wanted if worst is None else worst.target,
        statistics=_statistics(view, slo),
        times=view.times(np.ones(len(view.input_tokens), bool), np.ones(len(first.type_of), bool)),
        types=tuple(_type_report(view, t, slo) for t in range(len(first.types))),
        buckets=plan.workload.buckets,
        **_by_bucket(view, slo),
        goodput=_goodput(runs, samples),
        causes=_causes(runs, slo) if slo else {},
        preemptions=int(view.preemptions.sum()),
        retries=int(view.retries.sum()),
        refused=int((view.status == REFUSED).sum()),
        failed=int((view.status == FAILED).sum()),
        cost_per_mtok=_cost_per_mtok(runs),
        cost_per_h=_cost_per_h(first),
        **_queue(first),
        left_out=left_out_of(plan),
        classes=classes,
        cautions=_cautions(first),
    )


def _rate(run: Run) -> float:
    """Requests per second; of a replayed log only those that count, because its last ones also warm up the fleet."""
    if run.arrivals.is_shuffled:
        return run.arrivals.rate
    return run.arrivals.part(run.counted.start, run.counted.stop).rate


class _View:
    """The counted requests of all runs, one run after another (M,)."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs
        self.counted = [run.counted for run in runs]  # with one run, all arrays below are views, not copies
        by_run = [metrics_of(run.outcome) for run in runs]
        self.metrics = {name: self._all([values.pop(name) for values in by_run]) for name in METRICS}
        self.input_tokens = self._all([run.outcome.input_tokens for run in runs])
        self.output_tokens = self._all([run.outcome.output_tokens for run in runs])
        self.status = self._all([run.outcome.status for run in runs])
        self.preemptions = self._all([run.outcome.preemptions for run in runs])
        self.retries = self._all([run.outcome.retries for run in runs])
        classes = [run.outcome.class_of for run in runs if run.outcome.class_of is not None]
        self.class_of = self._all(classes) if classes else None
        self.type_of = self._all([type_of_requests(run) for run in runs])

    def _all(self, values: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        parts = [value[part] for value, part in zip(values, self.counted, strict=True)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def limit_ratio(self, slo: Slo) -> Array:
        """The largest metric of each request over its limit (M,)."""
        return largest_ratio(self.metrics, slo, self.class_of)

    def samples(self, slo: Slo) -> list[Mask]:
        """Whether each counted request met the SLO, run by run."""
        whole = self.limit_ratio(slo) <= AT_LIMIT
        counts = [part.stop - part.start for part in self.counted]
        ends = np.cumsum(counts)[:-1]
        return list(np.split(whole, ends))

    def classes(self, slo: Slo, target: float) -> tuple[ClassResult, ...]:
        """What each class attained, and its times; empty without classes."""
        if self.class_of is None:
            return ()
        ends = np.cumsum([part.stop - part.start for part in self.counted])[:-1]
        parts = zip(self.samples(slo), np.split(self.class_of, ends), strict=True)
        by_run = [by_class(is_met, class_of, slo) for is_met, class_of in parts]
        found = class_results(list(zip(*by_run, strict=True)), slo, target)
        places = [one.name for one in slo.classes]
        return tuple(replace(one, times=self.times(self.class_of == places.index(one.name), None)) for one in found)

    def times(self, requests: Mask, replicas: Mask | None) -> dict[str, dict[str, float]]:
        """Statistics of served requests among some (M,), and of gaps on some replicas (n,), if any."""
        found = {}
        for metric in METRICS:
            values = self.metrics[metric][requests]
            finite = values[np.isfinite(values)]
            found[metric] = _spread(finite) if len(finite) else dict.fromkeys(PERCENTILES, math.nan)
        if replicas is not None:
            gaps = np.sum([run.outcome.gaps[replicas].sum(axis=0) for run in self.runs], axis=0)
            found["itl"] = _gap_spread(gaps)
        return {metric: {k: v for k, v in values.items() if not math.isnan(v)} for metric, values in found.items()}


def type_of_requests(run: Run) -> npt.NDArray[np.int32]:
    """Position in ``run.types`` of the replica that each request ended at (N,); -1 if none took it."""
    by_replica = np.append(run.type_of, -1).astype(np.int32)  # index -1 is the last entry
    return np.asarray(by_replica[run.outcome.replica])


def _spread(values: Array) -> dict[str, float]:
    quantiles = np.quantile(values, _QUANTILES)
    return dict(zip(PERCENTILES, [float(values.mean()), *map(float, quantiles)], strict=True))


def _gap_spread(gaps: Array) -> dict[str, float]:
    """The same for times counted in bins, each taken at its middle."""
    total = gaps.sum()
    if total <= 0:
        return dict.fromkeys(PERCENTILES, math.nan)
    middle = LEAST_GAP_S * GROWTH ** (np.arange(len(gaps)) + 0.5)
    passed = np.cumsum(gaps) / total
    quantiles = [float(middle[min(int(np.searchsorted(passed, q)), len(middle) - 1)]) for q in _QUANTILES]
    return dict(zip(PERCENTILES, [float((gaps * middle).sum() / total), *quantiles], strict=True))


def _statistics(view: _View, slo: Slo | None) -> dict[str, float]:
    if slo is None or slo.classes:  # each class has its own
        return {}
    served = {metric: view.metrics[metric][np.isfinite(view.metrics[metric])] for metric in slo.limits}
    return {metric: statistic_of(values, slo.metric_statistic) for metric, values in served.items() if len(values)}


def _type_report(view: _View, t: int, slo: Slo | None) -> TypeReport:
    first = view.runs[0]
    requests, replicas = view.type_of == t, first.type_of == t
    served = view.limit_ratio(slo)[requests] <= AT_LIMIT if slo else np.ones(0)
    spans = [run.outcome.until_s for run in view.runs]

    def mean(name: str) -> float:
        parts = [getattr(run.outcome, name)[replicas].mean() / span for run, span in zip(view.runs, spans, strict=True)]
        return float(np.mean(parts))

    return TypeReport(
        name=first.plan.replica_types[first.types[t]].name,
        replicas=int(replicas.sum()),
        step_times=first.engines[t].source,
        requests=float(requests.mean()),
        attainment=float(served.mean()) if len(served) else 1.0,
        times=view.times(requests, replicas),
        planned_load=float(first.plan.load[first.types[t]]),
        busy=mean("busy_s"),
        kv=mean("kv_share_s"),
        peak_kv=max(float(run.outcome.peak_kv_share[replicas].max()) for run in view.runs),
        waiting=float(np.mean([run.outcome.waiting[:, replicas].mean() for run in view.runs])),
        preemptions=int(view.preemptions[requests].sum()),
    )


def _by_bucket(view: _View, slo: Slo | None) -> Json:
    buckets = view.runs[0].plan.workload.buckets
    shape = buckets.shape
    cell = buckets.cells(view.input_tokens, view.output_tokens, view.class_of).astype(np.int32)
    is_met = (view.limit_ratio(slo) <= AT_LIMIT).astype(float) if slo else np.ones(len(cell))
    counts = np.bincount(cell, minlength=shape[0] * shape[1])
    met = np.bincount(cell, is_met, minlength=len(counts))
    attained = np.divide(met, counts, out=np.full(len(counts), math.nan), where=counts > 0)
    return {
        "bucket_requests": counts.reshape(shape) / len(cell),
        "bucket_attainment": attained.reshape(shape),
        "bucket_times": {metric: _spread_by_cell(view.metrics[metric], cell, shape) for metric in METRICS},
    }


def _spread_by_cell(values: Array, cell: npt.NDArray[np.int32], shape: tuple[int, int]) -> dict[str, Array]:
    """Statistics of the served requests in each cell (I, O) by name; nan if none were served."""
    finite = np.isfinite(values)
    order = np.argsort(cell[finite], kind="stable")
    sorted_cells, sorted_values = cell[finite][order], values[finite][order]
    places, starts = np.unique(sorted_cells, return_index=True)
    table = np.full((len(PERCENTILES), shape[0] * shape[1]), math.nan)
    for place, part in zip(places, np.split(sorted_values, starts[1:]), strict=False):
        table[:, place] = list(_spread(part).values())
    return {name: row.reshape(shape) for name, row in zip(PERCENTILES, table, strict=True)}


def _goodput(runs: Sequence[Run], samples: Sequence[Mask]) -> float:
    if not samples:
        return math.nan
    return float(np.mean([_rate(run) * is_met.mean() for run, is_met in zip(runs, samples, strict=True)]))


def _causes(runs: Sequence[Run], slo: Slo) -> dict[str, float]:
    parts: dict[str, float] = {}
    for run in runs:
        cached = run.arrivals.cached_tokens
        cause = causes(run.outcome, slo, run.engines, type_of_requests(run), cached)
        for name, share in share_by_cause(cause[run.counted]).items():
            parts[name] = parts.get(name, 0.0) + share / len(runs)
    return dict(sorted(parts.items(), key=lambda pair: -pair[1]))


def _cost_per_h(run: Run) -> float:
    """Cost of the simulated replicas [USD/h], in whole instances."""
    types = [run.plan.replica_types[place] for place in run.types]
    counts = np.bincount(run.type_of, minlength=len(types))
    instances = [math.ceil(n / one.replicas_per_instance) for n, one in zip(counts, types, strict=True)]
    return float(sum(one.cost_per_h * n for n, one in zip(instances, types, strict=True)))


def _cost_per_mtok(runs: Sequence[Run]) -> dict[str, float]:
    """Cost over the tokens served between the first arrival and the last, at their own pace [USD per million]."""
    costs = []
    for run in runs:
        outcome, until_s = run.outcome, float(run.arrivals.arrival_s[-1])
        done = np.nan_to_num(outcome.finish_s, nan=math.inf) <= until_s
        hours = until_s / S_PER_H
        inputs, outputs = float(outcome.input_tokens[done].sum()), float(outcome.output_tokens[done].sum())
        if outputs and hours:
            costs.append(_cost_per_h(run) * hours * TOKENS_PER_MTOK / np.array([inputs, outputs, inputs + outputs]))
    mean = np.mean(costs, axis=0) if costs else []
    return dict(zip(("input", "output", "total"), map(float, mean), strict=False))


def _queue(run: Run) -> Json:
    waiting = [run.outcome.waiting[:, run.type_of == t].sum(axis=1) for t in range(len(run.types))]
    return {
        "queue_s": tuple(run.outcome.sample_s.tolist()),
        "queue": tuple(tuple(row.tolist()) for row in waiting),
    }


def _cautions(run: Run) -> tuple[Caution, ...]:
    said = []
    estimated = [
        run.plan.replica_types[place].name
        for place, engine in zip(run.types, run.engines, strict=True)
        if engine.source == "estimated"
    ]
    if estimated:
        what = f"step times of {', '.join(estimated)} are estimated, not measured"
        said.append(Caution("estimated", f"{what}; --steps slow simulates the slowest tenth of measured step times"))
    if left_out := left_out_of(run.plan):
        what = f"{percent(left_out, 2)} of the requests have sizes that the plan leaves out"
        said.append(Caution("left-out", f"{what}; they were not simulated"))
    return tuple(said)
