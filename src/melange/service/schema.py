"""The schema of a service.yaml: model, SLO, traffic and offers, with keys, types and defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from melange.catalog.grid import DEFAULT_PUE
from melange.catalog.price_rules import price_rule
from melange.errors import InputError
from melange.files import path_in
from melange.plan.options import Options
from melange.plan.schedule.contracts import Reserved, SavingsPlan, ScheduleOptions, Spot
from melange.plan.switching import StartUp, Switching
from melange.service.engine_section import EngineSection
from melange.service.regions_section import RegionsSection
from melange.service.traffic_sections import (
    ClassSection,
    Positive,
    Section,
    SloSection,
    WorkloadSection,
    check_classes,
    slo_of,
)
from melange.service.values import Names, as_list
from melange.slo import Slo
from melange.units import GB
from melange.workload.clock import parse_duration


def _by_region(value: Any) -> Any:
    return {"default": value} if isinstance(value, int | float) else value


def _as_engine(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _as_prices(value: Any) -> Any:
    """Rules for prices, each of which can be checked alone, so that a fault is reported with its line."""
    if isinstance(value, dict):
        for who, change in value.items():
            if isinstance(change, bool) or not isinstance(change, str | int | float):
                raise ValueError(  # noqa: TRY004 # pydantic takes no other
                    f"the rule for {who}: must be a change such as -30% or a price [USD/h], got {change!r}"
                )
            try:
                price_rule(str(who), change)
            except InputError as error:
                raise ValueError(str(error).removeprefix("offers.prices: ")) from None
    return value


def _check(make: Callable[[], object]) -> None:
    """Check the values of a section when it is read, and not only by the commands that use it."""
    try:
        make()
    except InputError as error:
        raise ValueError(f"{error}") from None


_SPOT, _SCHEDULE, _START_UP = Spot(), ScheduleOptions(), StartUp()  # whose defaults are the file's


class OffersSection(Section):
    """``offers``: what may be rented."""

    gpus: Names | None = None
    providers: Names | None = None
    regions: Names | None = None
    market: Names = ["on-demand"]
    file: str | None = None
    max: dict[str, int] = {}
    prices: Annotated[dict[str, float | str], BeforeValidator(_as_prices)] = {}


class ProfileSection(Section):
    """``profile``: where capacities come from."""

    source: Annotated[list[str], BeforeValidator(as_list), Field(min_length=1)] = ["estimate"]
    tensor_parallel: Annotated[list[int], BeforeValidator(as_list)] | None = None
    expert_parallel: Annotated[list[int], BeforeValidator(as_list)] | None = None
    pipeline_parallel: Annotated[list[int], BeforeValidator(as_list)] | None = None
    anchors: Names = []
    observed: str | None = None
    doubtful_anchors: bool = False
    step_times: Literal["own", "aiconfigurator"] = "own"
    simulate: bool = False
    max_context: Annotated[int, Field(ge=1)] | None = None
    min_kv_tokens: Annotated[int, Field(ge=0)] = 0
    prefix_routing: Literal["spread", "affinity"] = "spread"


class PlanSection(Section):
    """``plan``: what a plan must respect besides the traffic."""

    headroom: float = 0.1
    shares: Literal["continuous"] | None = None
    slices: int | None = None
    min_replicas: int | dict[str, int] = 1
    min_total_replicas: int = 0
    spare_replicas: int | dict[str, int] = 0
    spare_total_replicas: int = 0
    max_types: int | None = None
    require: Names = []
    exclude: Names = []
    budget_per_h: Positive | None = None
    drop_unservable: bool = False
    time_limit_s: float = 30.0
    gap: float = 1e-3
    seed: int = 0
    confidence: float | None = None
    objective: Literal["cost", "carbon"] = "cost"
    disaggregate: bool | Literal["auto"] = False
    carbon_price_per_kg: float = 0.0
    grid_g_per_kwh: Annotated[dict[str, float], BeforeValidator(_by_region)] = {}
    pue: float = DEFAULT_PUE

    def to_options(self, max_accelerators: Mapping[str, int], max_instances: Mapping[str, int]) -> Options:
        """With the limits of ``offers.max``, as the settings of :func:`melange.solve`."""
        if self.shares and self.slices:
            raise InputError("plan: shares: continuous and slices exclude each other", hint="remove one of the two")
        settings: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in self.model_dump(exclude={"shares", "disaggregate"}).items()
        }
        return Options(**settings, max_accelerators=max_accelerators, max_instances=max_instances)


class ReservedSection(Section):
    """A line of ``schedule.reserved``: a commitment."""

    term_years: Positive
    discount: float | None = None
    upfront_fraction: float = 0.0


class SavingsPlanSection(Section):
    """A line of ``schedule.savings_plans``: a commitment to spend."""

    term_years: Positive
    discount: float
    provider: str | None = None
    region: str | None = None
    family: str | None = None
    upfront_fraction: float = 0.0


class SpotSection(Section):
    """``schedule.spot``: how far a service leans on instances that may be taken away."""

    discount: float | None = None
    max_share: float = _SPOT.max_share
    max_share_per_pool: float = _SPOT.max_share_per_pool
    max_share_per_zone: float = _SPOT.max_share_per_zone
    zones: int = _SPOT.zones
    unavailable_fraction: float = _SPOT.unavailable_fraction
    outage: str | float = _SPOT.outage_s
    spare_pools: int = _SPOT.spare_pools


class ScheduleSection(Section):
    """``schedule``: how instances may be paid for over time."""

    reserved: list[ReservedSection] = []
    savings_plans: list[SavingsPlanSection] = []
    spot: SpotSection | None = None
    horizon_years: Positive | None = None
    start_up: str | float = _SCHEDULE.start_up_s
    drain: str | float = _SCHEDULE.drain_s
    min_up: str | float = _SCHEDULE.min_up_s
    short_fraction: float = _SCHEDULE.short_fraction

    @model_validator(mode="after")
    def _is_valid(self) -> ScheduleSection:
        _check(self.to_options)
        return self

    def to_options(self, start_up_s: float | None = None) -> ScheduleOptions:
        """As the settings of :func:`melange.plan_over_time`; ``start_up_s`` if the section does not give it [s]."""
        spot = None
        if self.spot is not None:
            given = self.spot.model_dump(exclude={"outage"})
            spot = Spot(**given, outage_s=parse_duration(self.spot.outage, name="schedule.spot.outage"))
        return ScheduleOptions(
            reserved=tuple(Reserved(**one.model_dump()) for one in self.reserved),
            savings_plans=tuple(SavingsPlan(**one.model_dump()) for one in self.savings_plans),
            spot=spot,
            horizon_years=self.horizon_years,
            start_up_s=parse_duration(self.start_up, name="schedule.start_up")
            if start_up_s is None or "start_up" in self.model_fields_set
            else start_up_s,
            min_up_s=parse_duration(self.min_up, name="schedule.min_up"),
            drain_s=parse_duration(self.drain, name="schedule.drain"),
            short_fraction=self.short_fraction,
        )


class StartUpSection(Section):
    """``start_up``: from the order of an instance to its first request."""

    boot: str | float = _START_UP.boot_s
    image_gb: float = _START_UP.image_bytes / GB
    pull_gb_per_s: Positive = _START_UP.pull_bytes_per_s / GB
    load_gb_per_s: Positive = _START_UP.load_bytes_per_s / GB

    @model_validator(mode="after")
    def _is_valid(self) -> StartUpSection:
        _check(self.to_start_up)
        return self

    def to_start_up(self) -> StartUp:
        """In seconds and bytes."""
        return StartUp(
            boot_s=parse_duration(self.boot, name="start_up.boot"),
            image_bytes=self.image_gb * GB,
            pull_bytes_per_s=self.pull_gb_per_s * GB,
            load_bytes_per_s=self.load_gb_per_s * GB,
        )


class SwitchingSection(Section):
    """``switching``: what a change from the fleet in force is weighed by."""

    expected: str | float
    drain: str | float = 60.0
    usd_per_instance: float = 0.0

    @model_validator(mode="after")
    def _is_valid(self) -> SwitchingSection:
        _check(lambda: self.to_switching(0.0))
        return self

    def to_switching(self, start_up_s: float) -> Switching:
        """In seconds."""
        return Switching(
            expected_s=parse_duration(self.expected, name="switching.expected"),
            start_up_s=start_up_s,
            drain_s=parse_duration(self.drain, name="switching.drain"),
            change_usd=self.usd_per_instance,
        )


class Service(Section):
    """A service as its file describes it; relative paths are relative to the file's folder."""

    model: str
    variants: Names = []
    engine: Annotated[EngineSection, BeforeValidator(_as_engine)] = EngineSection()
    slo: SloSection
    workload: WorkloadSection
    offers: OffersSection = OffersSection()
    profile: ProfileSection = ProfileSection()
    plan: PlanSection = PlanSection()
    schedule: ScheduleSection = ScheduleSection()
    start_up: StartUpSection | None = None
    switching: SwitchingSection | None = None
    regions: RegionsSection | None = None
    classes: Annotated[dict[str, ClassSection], AfterValidator(check_classes)] = {}
    folder: Path = Field(Path(), exclude=True)

    @model_validator(mode="after")
    def _is_consistent(self) -> Service:
        sections = {"workload": self.workload}
        sections |= {f"classes.{name}.workload": one.workload for name, one in self.classes.items() if one.workload}
        for key, section in sections.items():
            if section.prefix_hit_rate and self.engine.enable_prefix_caching is False:
                raise ValueError(
                    f"{key}.prefix_hit_rate: {section.prefix_hit_rate:g} contradicts engine.enable_prefix_caching: "
                    "false: remove one of the two"
                )
        return self

    @property
    def is_simulated(self) -> bool:
        """Whether capacities are simulated; they always are under percentiles."""
        return self.profile.simulate or not self.to_slo().has_closed_form

    @property
    def is_estimated_anywhere(self) -> bool:
        """Whether capacities under every other SLO are estimates by closed form, for one class of requests."""
        return self.profile.source == ["estimate"] and not self.is_simulated and not self.classes

    def to_slo(self) -> Slo:
        """The SLO, including the classes."""
        return slo_of(self.slo, self.classes)

    def path(self, name: str) -> Path:
        """A path in the file, relative to the file's folder."""
        return path_in(self.folder, name)
