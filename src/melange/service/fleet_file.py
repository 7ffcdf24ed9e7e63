"""Read a ``fleet.yaml``: services that share what they may rent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from melange.errors import InputError
from melange.files import path_in
from melange.parsing import parse_yaml
from melange.plan.options import CARBON
from melange.records import one_line
from melange.service.reading import read_document, text_of_service
from melange.service.schema import PlanSection
from melange.service.traffic_sections import Positive, Section
from melange.service.values import Names


def _as_entry(value: Any) -> Any:
    return {"file": value} if isinstance(value, str) else value


class ServiceEntry(Section):
    """A line of ``services``: a file, and how it stands among the others."""

    file: str
    name: str = ""
    priority: int = 1


class SharedOffers(Section):
    """``offers``: what all services together may rent; names narrow what each one's own file allows."""

    gpus: Names | None = None
    providers: Names | None = None
    regions: Names | None = None
    max: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)


class SharedPlan(Section):
    """``plan``: of all services together."""

    budget_per_h: Positive | None = None
    gap: Annotated[float, Field(gt=0, lt=1)] = 0.01
    time_limit_s: Positive = 60.0


class FleetFile(Section):
    """Services on shared pools, as their file describes them; paths are relative to the file's folder."""

    services: list[Annotated[ServiceEntry, BeforeValidator(_as_entry)]] = Field(min_length=1)
    offers: SharedOffers = SharedOffers()
    plan: SharedPlan = SharedPlan()
    folder: Path = Field(Path(), exclude=True)

    def path(self, entry: ServiceEntry) -> Path:
        """Where a service's own file is."""
        return path_in(self.folder, entry.file)


def is_fleet(path: str | Path) -> bool:
    """Whether a file lists services rather than describing one."""
    if Path(path).suffix not in {".yaml", ".yml"}:
        return False
    text = text_of_service(path)
    if "services" not in text:  # a service's own file, which is checked when it is read
        return False
    content = parse_yaml(text, f"{path}")
    return isinstance(content, dict) and "services" in content


def read_fleet(path: str | Path, settings: Sequence[str] = ()) -> FleetFile:
    """Read a ``fleet.yaml``.

    Parameters
    ----------
    path
        The file.
    settings
        ``key.key=value`` each, overriding the file; values are YAML.

    Raises
    ------
    InputError
        Not YAML, unknown keys, values out of range, or two services with the same name: every fault, with its line.
    """
    fleet = read_document(FleetFile, path, settings, holds="services")
    named = [entry.model_copy(update={"name": entry.name or Path(entry.file).stem}) for entry in fleet.services]
    names = [one_line(entry.name, f"{path}: services: name") for entry in named]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(
            f"{path}: services: two are named {twice[0]}", hint="give one a name: {file: other/chat.yaml, name: other}"
        )
    return fleet.model_copy(update={"services": named})


def refuse_own_aims(plan: PlanSection, place: str, source: Path) -> None:
    """Check that a service has the same objective as the joint plan: the least cost.

    Raises
    ------
    InputError
        The service has a budget of its own, or minimizes emissions.
    """
    if plan.budget_per_h is not None:
        raise InputError(
            f"{place}: plan.budget_per_h maximizes traffic within a budget, but services with shared pools are "
            "planned for all of their traffic",
            hint=f"remove it, or give all services one budget in {source}: plan: {{budget_per_h: ...}}",
        )
    if plan.objective == CARBON:
        raise InputError(
            f"{place}: plan.objective: carbon is for a single service; services with shared pools are planned "
            "together for the lowest cost",
            hint="remove it, or set plan.carbon_price_per_kg, which counts emissions as a cost",
        )
