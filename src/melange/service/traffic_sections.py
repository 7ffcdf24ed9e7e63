"""``slo``, ``workload`` and ``classes`` of a service.yaml: the traffic, and the limits of its requests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from melange.errors import InputError
from melange.plan.schedule.contracts import Deferral
from melange.service.values import Names
from melange.slo import REQUESTS, RequestClass, Slo
from melange.units import MS_PER_S, ms
from melange.workload.clock import parse_duration
from melange.workload.fields import Choice
from melange.workload.object_storage import remote_url
from melange.workload.warehouse import WarehouseTable
from melange.workload.workload import DEFAULT_INPUT_EDGES, DEFAULT_OUTPUT_EDGES, Buckets


def _positive(value: float) -> float:
    if not value > 0 or value == float("inf"):
        raise ValueError(f"must be > 0 and finite, got {value:g}")
    return value


# Keys of ``workload`` that name a source of sizes.
SOURCES = ("trace", "table", "dataset", "histogram", "metrics", "file", "rates")
LOGS = ("trace", "table")  # ... of sources with arrival times

# A number above 0.
Positive = Annotated[float, AfterValidator(_positive)]


class Section(BaseModel):
    """A mapping of the file; keys that it does not know are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


# The class of requests that ``slo`` applies to, if there are others.
DEFAULT_CLASS = "default"
# Most classes of a service, including the default: the engine's queue is simulated with as many levels of priority.
_MOST_CLASSES = 8
# Least share of requests in a class: a simulation sees too few requests of a rarer class to measure its attainment.
_LEAST_SHARE = 0.01


class SloSection(Section):
    """``slo``: limits in milliseconds."""

    ttft_ms: Positive | None = None
    tpot_ms: Positive | None = None
    ntpot_ms: Positive | None = None
    latency_ms: Positive | None = None
    statistic: str = REQUESTS
    attainment: float | None = None

    @classmethod
    def of(cls, slo: Slo) -> SloSection:
        """The section for an SLO."""
        limits = {f"{metric}_ms": ms(limit) for metric, limit in slo.limits.items()}
        return cls(**limits, statistic=slo.statistic, attainment=slo.attainment)

    def to_slo(self) -> Slo:
        """In seconds."""
        limits = {
            f"{metric}_s": limit / MS_PER_S
            for metric in ("ttft", "tpot", "ntpot", "latency")
            if (limit := getattr(self, f"{metric}_ms")) is not None
        }
        return Slo(**limits, statistic=self.statistic, attainment=self.attainment)


class BucketsSection(Section):
    """``workload.buckets``: upper edges."""

    input: list[int] = list(DEFAULT_INPUT_EDGES)
    output: list[int] = list(DEFAULT_OUTPUT_EDGES)

    def to_buckets(self) -> Buckets:
        """As the dataclass."""
        return Buckets(input_edges=tuple(self.input), output_edges=tuple(self.output))


class WorkloadSection(Section):
    """``workload``: exactly one source of sizes, and a rate."""

    trace: str | None = None
    table: str | None = None
    connection: str | None = None
    dataset: str | dict[str, float] | None = None
    histogram: str | None = None
    metrics: Names | None = None
    file: str | None = None
    rates: str | None = None
    sizes: str | None = None
    over: Literal["day", "week"] | None = None
    time_zone: str | None = None
    empty_windows: Literal["missing", "zero"] | None = None
    rate: Positive | str | None = None
    window: str | float | None = None
    start: str | float | None = Field(None, alias="from")
    end: str | float | None = Field(None, alias="to")
    format: str | None = None
    columns: dict[str, str] | None = None
    where: dict[str, Choice] | None = None
    model: Names | None = None
    buckets: BucketsSection = BucketsSection()
    size: Literal["mean", "upper"] = "mean"
    prefix_hit_rate: Annotated[float, Field(ge=0, lt=1)] | None = None

    @property
    def source(self) -> tuple[str, Any]:
        """The named source and its value."""
        named = [(key, value) for key in SOURCES if (value := getattr(self, key)) is not None]
        if len(named) != 1:
            found = ", ".join(key for key, _ in named) or "none"
            raise InputError(
                f"workload: exactly one of {', '.join(SOURCES)} is needed, got {found}",
                hint="for example workload: {dataset: azure-conversation, rate: 16}",
            )
        return named[0]

    def log(self, path: Callable[[str], Path]) -> Path | str | WarehouseTable:
        """The log of requests that is the source: a file, with its name resolved by ``path``, an address, or a table.

        Raises
        ------
        InputError
            A table without a connection, or an invalid connection.
        """
        if self.table is None:
            return remote_url(self.trace) or path(self.trace or "")
        if self.connection is None:
            raise InputError(
                "workload.table needs workload.connection",
                hint="workload: {table: logs.requests, connection: 'postgres://reader:${PGPASSWORD}@host/database'}",
            )
        return WarehouseTable(table=self.table, connection=self.connection)


class ClassSection(Section):
    """A class of ``classes``: requests with an SLO of their own, on the same replicas as the others.

    With a ``deadline`` a schedule chooses when they are sent; ``slo`` counts from then on.
    """

    slo: SloSection
    share: Annotated[float, Field(ge=_LEAST_SHARE, lt=1)] | None = None
    workload: WorkloadSection | None = None
    priority: int = 0
    deadline: str | float | None = None

    @field_validator("slo")
    @classmethod
    def _binds_requests(cls, section: SloSection) -> SloSection:
        try:
            slo = section.to_slo()
        except InputError as error:
            raise ValueError(f"{error}; for example slo: {{latency_ms: 600000}}") from None
        if not slo.is_on_requests or slo.target >= 1:
            raise ValueError("with classes, limits apply to each request, and some may miss: attainment: 0.99")
        return section

    @field_validator("deadline")
    @classmethod
    def _is_hours(cls, value: str | float | None) -> str | float | None:
        try:
            if value is not None:
                Deferral(name="NAME", deadline_s=parse_duration(value, name="deadline"))
        except InputError as error:
            words = str(error).removeprefix("classes.NAME.deadline ").removeprefix("deadline ")
            raise ValueError(f"{words}; for example deadline: 24h") from None
        return value

    @model_validator(mode="after")
    def _says_its_traffic(self) -> ClassSection:
        if (self.share is None) == (self.workload is None):
            raise ValueError("exactly one of share (of workload's requests) and workload (its own requests) is needed")
        if self.workload is not None and "buckets" in self.workload.model_fields_set:
            raise ValueError("workload.buckets: classes share the buckets of the service's workload: remove it")
        return self


def check_classes(classes: dict[str, ClassSection]) -> dict[str, ClassSection]:
    """Reject names with another meaning, and shares that leave nothing for the first class."""
    if DEFAULT_CLASS in classes:
        raise ValueError(f"{DEFAULT_CLASS} is the name of requests of no other class; their limits are in slo")
    if len(classes) >= _MOST_CLASSES:
        raise ValueError(f"at most {_MOST_CLASSES - 1} classes are planned for, got {len(classes)}")
    for name in classes:
        if not name.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"a class is named by letters, digits, - and _, got {name!r}")
    total = sum(one.share or 0.0 for one in classes.values())
    if total > 1 - _LEAST_SHARE:
        raise ValueError(
            f"shares must leave at least {_LEAST_SHARE:g} for the requests of no class, got {total:g} in total"
        )
    return classes


def slo_of(section: SloSection, classes: dict[str, ClassSection]) -> Slo:
    """The SLO of a service, with its classes."""
    slo = section.to_slo()
    if not classes:
        return slo
    if not slo.is_on_requests or slo.target >= 1:
        raise InputError(
            "slo: with classes, limits apply to each request, and some may miss",
            hint="remove slo.statistic, and set slo.attainment below 1",
        )
    first = RequestClass(name=DEFAULT_CLASS, slo=slo)
    others = (RequestClass(name=name, slo=one.slo.to_slo(), priority=one.priority) for name, one in classes.items())
    return Slo.from_json(slo.to_json() | {"classes": [one.to_json() for one in (first, *others)]})
