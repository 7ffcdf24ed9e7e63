"""One file describes a service: model, SLO, traffic, what can be rented. This reads it and runs the stages on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from melange.errors import InputError, unknown
from melange.files import read_text
from melange.plan.options import Options
from melange.slo import Slo
from melange.units import MS_PER_S
from melange.workload.workload import DEFAULT_INPUT_EDGES, DEFAULT_OUTPUT_EDGES, Buckets


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str | int | float) else value


def _positive(value: float) -> float:
    if not value > 0 or value == float("inf"):
        raise ValueError(f"must be > 0 and finite, got {value:g}")
    return value


Names = Annotated[list[str], BeforeValidator(_as_list)]
Positive = Annotated[float, AfterValidator(_positive)]


class _Section(BaseModel):
    """A mapping of the file; keys that it does not know are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class SloSection(_Section):
    """``slo``: limits in milliseconds."""

    ttft_ms: Positive | None = None
    tpot_ms: Positive | None = None
    ntpot_ms: Positive | None = None
    latency_ms: Positive | None = None
    statistic: str = "mean"
    attainment: float | None = None

    def to_slo(self) -> Slo:
        """In seconds."""
        limits = {
            f"{metric}_s": limit / MS_PER_S
            for metric in ("ttft", "tpot", "ntpot", "latency")
            if (limit := getattr(self, f"{metric}_ms")) is not None
        }
        return Slo(**limits, statistic=self.statistic, attainment=self.attainment)


class BucketsSection(_Section):
    """``workload.buckets``: upper edges."""

    input: list[int] = list(DEFAULT_INPUT_EDGES)
    output: list[int] = list(DEFAULT_OUTPUT_EDGES)

    def to_buckets(self) -> Buckets:
        """As the noun."""
        return Buckets(input_edges=tuple(self.input), output_edges=tuple(self.output))


class WorkloadSection(_Section):
    """``workload``: exactly one source of sizes, and a rate."""

    trace: str | None = None
    dataset: str | dict[str, float] | None = None
    histogram: str | None = None
    metrics: Names | None = None
    file: str | None = None
    rate: Positive | str | None = None
    window: str | float | None = None
    start: str | float | None = Field(None, alias="from")
    end: str | float | None = Field(None, alias="to")
    format: str | None = None
    columns: dict[str, str] | None = None
    buckets: BucketsSection = BucketsSection()
    size: Literal["mean", "upper"] = "mean"

    @property
    def source(self) -> tuple[str, Any]:
        """Which source was named, and its value."""
        named = [
            (key, value)
            for key in ("trace", "dataset", "histogram", "metrics", "file")
            if (value := getattr(self, key)) is not None
        ]
        if len(named) != 1:
            found = ", ".join(key for key, _ in named) or "none"
            raise InputError(
                f"workload: exactly one of trace, dataset, histogram, metrics, file is needed, got {found}",
                hint="for example workload: {dataset: azure-conversation, rate: 16}",
            )
        return named[0]


class OffersSection(_Section):
    """``offers``: what may be rented."""

    gpus: Names | None = None
    providers: Names | None = None
    regions: Names | None = None
    market: Names = ["on-demand"]
    file: str | None = None
    max: dict[str, int] = {}


class ProfileSection(_Section):
    """``profile``: where capacities come from."""

    source: Annotated[list[str], BeforeValidator(_as_list), Field(min_length=1)] = ["estimate"]
    tensor_parallel: Annotated[list[int], BeforeValidator(_as_list)] | None = None
    anchors: Names = []
    step_times: Literal["own", "aiconfigurator"] = "own"
    simulate: bool = False


class PlanSection(_Section):
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

    def to_options(self, max_accelerators: Mapping[str, int], max_instances: Mapping[str, int]) -> Options:
        """With the limits of ``offers.max``, as the settings of :func:`melange.solve`."""
        if self.shares and self.slices:
            raise InputError("plan: shares: continuous and slices exclude each other", hint="remove one of the two")
        settings: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in self.model_dump(exclude={"shares"}).items()
        }
        return Options(**settings, max_accelerators=max_accelerators, max_instances=max_instances)


class Service(_Section):
    """A service as its file describes it; relative paths are relative to the file's folder."""

    model: str
    variants: Names = []
    engine: str = "vllm"
    slo: SloSection
    workload: WorkloadSection
    offers: OffersSection = OffersSection()
    profile: ProfileSection = ProfileSection()
    plan: PlanSection = PlanSection()
    folder: Path = Field(Path(), exclude=True)

    @property
    def is_simulated(self) -> bool:
        """Whether capacities are found by simulation: those under percentiles always are."""
        return self.profile.simulate or self.slo.statistic != "mean"

    def path(self, name: str) -> Path:
        """A path of the file, made relative to where the file is."""
        return self.folder / Path(name).expanduser()


def read_service(path: str | Path, settings: Sequence[str] = ()) -> Service:
    """Read a ``service.yaml``.

    Parameters
    ----------
    path
        The file.
    settings
        ``key.key=value`` each, replacing what the file says; values are YAML.

    Raises
    ------
    InputError
        Not YAML, unknown keys (with the nearest known one), values out of range: every fault, with its line.
    """
    text = read_text(path)
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else f"{path}"
        raise InputError(f"{place}: not valid YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: must hold a mapping with model, slo and workload", hint="melange init writes one")
    for setting in settings:
        _set(content, setting)
    if "folder" in content:
        raise unknown("key", "folder", Service.model_fields, place=str(path))
    try:
        return Service.model_validate(content | {"folder": Path(path).parent})
    except ValidationError as error:
        raise InputError(_faults(path, text, error, settings)) from error


def read_section(content: Mapping[str, Any], settings: Sequence[str] = ()) -> WorkloadSection:
    """A ``workload`` section that was given by flags; absent ones are None.

    Raises
    ------
    InputError
        As :func:`read_service`.
    """
    given = {key: _without_none(value) for key, value in content.items() if value is not None}
    return _section(WorkloadSection, "workload", given, settings)


def read_plan_section(content: Mapping[str, Any], settings: Sequence[str] = ()) -> PlanSection:
    """A ``plan`` section for inputs that come without a service.

    Raises
    ------
    InputError
        As :func:`read_service`; also a setting outside of ``plan``.
    """
    return _section(PlanSection, "plan", dict(content), settings)


def read_slo_section(content: Mapping[str, Any]) -> SloSection:
    """An ``slo`` section that was given by flags.

    Raises
    ------
    InputError
        As :func:`read_service`.
    """
    return _section(SloSection, "slo", dict(content), ())


S = TypeVar("S", bound=_Section)


def _section(kind: type[S], name: str, content: dict[str, Any], settings: Sequence[str]) -> S:
    whole: dict[str, Any] = {name: content}
    for setting in settings:
        _set(whole, setting)
    if set(whole) != {name}:
        stray = ", ".join(sorted(set(whole) - {name}))
        raise InputError(
            f"--set {stray}: only {name}.* applies here", hint=f"without a service.yaml there is no {stray}"
        )
    try:
        return kind.model_validate(whole[name])
    except ValidationError as error:
        raise InputError(_faults("", "", error, settings, (name,))) from error


def _without_none(value: Any) -> Any:
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


# Keys of which the file may hold one: naming another on the command line replaces it.
_ALTERNATIVES = (
    ("plan.shares", "plan.slices"),
    tuple(f"workload.{source}" for source in ("trace", "dataset", "histogram", "metrics", "file")),
)


def _set(content: dict[str, Any], setting: str) -> None:
    """Apply one ``key.key=value``."""
    name, equals, value = setting.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise InputError(f"--set {setting}: must be KEY=VALUE", hint="for example --set workload.rate=32")
    target = content
    for depth, key in enumerate(keys[:-1]):
        inner = target.setdefault(key, {})
        if not isinstance(inner, dict):
            raise InputError(f"--set {setting}: {'.'.join(keys[: depth + 1])} holds a value, not keys")
        target = inner
    for alternatives in _ALTERNATIVES:
        if name in alternatives:
            for other in alternatives:
                target.pop(other.rpartition(".")[2], None)
    try:
        target[keys[-1]] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"--set {setting}: the value is not valid YAML") from error


def _faults(
    path: str | Path, text: str, error: ValidationError, settings: Sequence[str], within: tuple[str, ...] = ()
) -> str:
    """All faults that pydantic found, one a line, each with its place and the nearest known key."""
    lines: dict[str, str] = {}  # the first fault of each key: a union reports one for every branch
    for fault in error.errors():
        keys = [*within, *(key for key in fault["loc"] if _is_key(key))]
        name = ".".join(str(key) for key in keys)
        line = _line(text, keys)
        place = f"{path}:{line}" if line else f"{path}"
        if any(setting.startswith(f"{name}=") for setting in settings):
            place = "--set"
        if fault["type"] == "extra_forbidden":
            section = ".".join(map(str, keys[:-1]))
            known = _known_keys(keys[:-1])
            where = ": ".join(part for part in (place, section) if part)
            message = str(unknown("key", str(keys[-1]), known, place=where))
        elif fault["type"] == "missing":
            message = f"{place}: {name} is needed".removeprefix(": ")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            found = "" if "got" in message else f", got {fault['input']!r}"
            message = f"{place}: {name}: {message[:1].lower()}{message[1:]}{found}".removeprefix(": ")
        lines.setdefault(name, message)
    return "\n".join(lines.values())


def _is_key(key: str | int) -> bool:
    """Whether a part of pydantic's location is a key of the file, and not the name of a branch of a union."""
    if isinstance(key, int):
        return True
    return key not in {"str", "float", "int", "bool"} and not any(mark in key for mark in ("function-", "[", "constr"))


def _known_keys(keys: Sequence[str | int]) -> list[str]:
    """The keys that the mapping at ``keys`` may have."""
    section: type[BaseModel] = Service
    for key in keys:
        annotation = section.model_fields[str(key)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        section = annotation
    return [field.alias or name for name, field in section.model_fields.items() if not field.exclude]


def _line(text: str, keys: Sequence[str | int]) -> int | None:
    """The line of the deepest of ``keys`` that the file has; None where it has none of them."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    line = None
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            found = [(k, v) for k, v in node.value if k.value == str(key)]
            if not found:
                break
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
        else:
            break
    return line
