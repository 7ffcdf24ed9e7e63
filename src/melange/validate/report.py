"""The dataclass of the validate stage: the result of simulating a plan, with confidence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from melange.errors import Caution
from melange.files import Json, dump_document, read_as, write_document
from melange.plan.class_result import ClassResult
from melange.records import record
from melange.slo import METRICS, Slo
from melange.validate.attainment import Interval
from melange.workload.workload import Array, Buckets

PERCENTILES = ("mean", "p50", "p90", "p95", "p99")
# The metrics whose times a report has: the SLO's metrics, and the gaps between tokens.
TIMES = (*METRICS, "itl")
# Fields that JSON stores unchanged.
_STORED_AS_THEY_ARE = (
    *(
        "policy",
        "scenario",
        "steps",
        "source",
        "is_drawn",
        "requests",
        "seeds",
        "rate",
        "target",
        "statistics",
        "times",
        "goodput",
    ),
    *("causes", "preemptions", "retries", "refused", "failed", "cost_per_mtok", "cost_per_h", "left_out"),
)

_Times = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeReport:
    """One replica type in simulation.

    Parameters
    ----------
    name, replicas
        Name of the type, and number of its replicas.
    step_times
        Source of its step times: ``estimated``, ``anchored``, ``measured``.
    requests
        Share of the requests that it took, 0-1.
    attainment
        Share of these requests that met the SLO, 0-1.
    times
        Times by metric and statistic [s].
    planned_load
        Share of its capacity that the plan's traffic takes, 0-1.
    busy, kv, peak_kv
        Share of the time in which a replica ran steps; mean and peak share of its KV cache that was held, 0-1.
    waiting
        Requests that waited at a replica, on average.
    preemptions
        Number of times that KV cache was taken away and computed again, over all of its requests.
    """

    name: str
    replicas: int
    step_times: str
    requests: float
    attainment: float
    times: _Times
    planned_load: float
    busy: float
    kv: float
    peak_kv: float
    waiting: float
    preemptions: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Report:
    """The result of simulating one plan under one policy.

    Parameters
    ----------
    slo
        The SLO of the requests; None if the plan has none, and then attainment is not reported.
    policy, scenario, steps
        The balancing policy, the events during the run, and the step times that were used.
    source, is_drawn
        Source of the requests, and whether their times were drawn rather than replayed.
    requests, seeds
        Requests of one run, and runs.
    counted
        Requests of all runs that count: not the warm-up at the start of each run, nor, with steady traffic, its end. 0
        in files without it.
    rate
        Requests per second [1/s].
    attainment
        Share of arrived requests that met every limit, with its 95 % interval; None without an SLO.
    target
        Requested share, 0-1.
    statistics
        The SLO's own statistic of each of its metrics; for limits on requests, the percentile at their attainment [s].
    times
        Times by metric (the SLO's four, and ``itl``) and statistic (``mean``, ``p50`` to ``p99``) [s].
    types
        The replica types.
    buckets
        The grid of sizes of the tables below.
    bucket_requests, bucket_attainment
        Share of the requests, and share of those that met the SLO, by bucket (I, O); the latter nan if none arrived.
    bucket_times
        Times by metric and statistic for each bucket (I, O) [s]; nan if nothing was served.
    goodput
        Requests per second that met the SLO [1/s].
    causes
        Share of all requests that missed the SLO, by cause.
    preemptions, retries
        Number of times that KV cache was taken away and computed again, and that a request was sent to a second
        replica, over all counted requests.
    refused, failed
        Counted requests that were too long for their replica, and counted requests that got no answer.
    cost_per_mtok
        Plan cost over a million tokens served: ``input``, ``output``, ``total`` [USD].
    cost_per_h
        Cost of the fleet [USD/h].
    queue_s, queue
        Moments [s], and number of requests that waited at each type at these moments, in the first run (T, S).
    left_out
        Share of the plan's own traffic that it does not carry and that was not simulated, 0-1.
    classes
        What each class of requests attained; empty without classes. With classes, ``attainment`` and ``target`` are
        those of the class that is nearest to its target.
    cautions
        Warnings.
    """

    slo: Slo | None
    policy: str
    scenario: str
    steps: str
    source: str
    is_drawn: bool
    requests: int
    seeds: int
    rate: float
    attainment: Interval | None
    target: float
    statistics: Mapping[str, float]
    times: _Times
    types: tuple[TypeReport, ...]
    buckets: Buckets
    bucket_requests: Array
    bucket_attainment: Array
    bucket_times: Mapping[str, Mapping[str, Array]]
    goodput: float
    causes: Mapping[str, float]
    preemptions: int
    retries: int
    refused: int
    failed: int
    cost_per_mtok: Mapping[str, float]
    cost_per_h: float
    queue_s: tuple[float, ...]
    queue: tuple[tuple[float, ...], ...]
    left_out: float = 0.0
    counted: int = 0
    classes: tuple[ClassResult, ...] = ()
    cautions: tuple[Caution, ...] = field(default=())

    @property
    def holds(self) -> bool:
        """Whether the requested share of requests met the SLO, with confidence."""
        return self.attainment is not None and self.attainment.low >= self.target

    def to_json(self) -> Json:
        """As a JSON object."""
        return {
            "slo": self.slo.to_json() if self.slo else None,
            "policy": self.policy,
            "scenario": self.scenario,
            "steps": self.steps,
            "source": self.source,
            "is_drawn": self.is_drawn,
            "requests": self.requests,
            "seeds": self.seeds,
            "counted": self.counted,
            "rate": self.rate,
            "attainment": asdict(self.attainment) if self.attainment else None,
            "target": self.target,
            "holds": self.holds,
            "statistics": dict(self.statistics),
            "times": {metric: dict(values) for metric, values in self.times.items()},
            "types": [asdict(one) | {"times": {k: dict(v) for k, v in one.times.items()}} for one in self.types],
            "bucket_requests": self.bucket_requests.tolist(),
            "bucket_attainment": _listed(self.bucket_attainment),
            "bucket_times": {
                metric: {name: _listed(table) for name, table in tables.items()}
                for metric, tables in self.bucket_times.items()
            },
            "goodput": self.goodput,
            "causes": dict(self.causes),
            "preemptions": self.preemptions,
            "retries": self.retries,
            "refused": self.refused,
            "failed": self.failed,
            "cost_per_mtok": dict(self.cost_per_mtok),
            "cost_per_h": self.cost_per_h,
            "queue_s": list(self.queue_s),
            "queue": [list(row) for row in self.queue],
            "left_out": self.left_out,
            "classes": [asdict(one) | {"holds": one.holds} for one in self.classes],
            "warnings": [caution.to_json() for caution in self.cautions],
        } | self.buckets.to_json()

    @classmethod
    def from_json(cls, content: Json) -> Report:
        """From the JSON object that :meth:`to_json` makes."""
        return cls(
            **{name: content[name] for name in _STORED_AS_THEY_ARE},
            counted=content.get("counted", 0),
            slo=Slo.from_json(content["slo"]) if content["slo"] else None,
            attainment=Interval(**content["attainment"]) if content["attainment"] else None,
            types=tuple(TypeReport(**one) for one in content["types"]),
            buckets=Buckets.from_json(content),
            bucket_requests=np.array(content["bucket_requests"], float),
            bucket_attainment=_array(content["bucket_attainment"]),
            bucket_times={
                metric: {name: _array(table) for name, table in tables.items()}
                for metric, tables in content["bucket_times"].items()
            },
            queue_s=tuple(content["queue_s"]),
            queue=tuple(tuple(row) for row in content["queue"]),
            classes=tuple(record(ClassResult, _without_verdict(one)) for one in content.get("classes", ())),
            cautions=tuple(Caution(**caution) for caution in content["warnings"]),
        )

    def dumps(self) -> str:
        """The text of a ``report.json``."""
        return dump_document("report", self.to_json())

    def save(self, path: str | Path) -> Path:
        """Write a ``report.json``."""
        return write_document(path, "report", self.to_json())

    @classmethod
    def read(cls, path: str | Path) -> Report:
        """Read a ``report.json``."""
        return read_as(path, "report", cls.from_json)


def _without_verdict(content: Mapping[str, object]) -> Mapping[str, object]:
    return {name: value for name, value in content.items() if name != "holds"}


def _listed(table: Array) -> list[list[float | None]]:
    return [[None if math.isnan(value) or math.isinf(value) else value for value in row] for row in table.tolist()]


def _array(table: Sequence[Sequence[float | None]]) -> Array:
    return np.array([[math.nan if value is None else value for value in row] for row in table], float)
