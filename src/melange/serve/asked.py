"""Requests to the HTTP API, and the command lines that answer them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from melange.files import Json

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
SERVICE, PLAN, PAGE = "service.yaml", "plan.json", "page.html"


def _file_name(name: str) -> str:
    if not _NAME.fullmatch(name) or name in (SERVICE, PLAN, PAGE):
        raise ValueError(f"{name!r} is not a valid file name: letters, digits, '.', '_' and '-', at most 100")
    return name


FileName = Annotated[str, AfterValidator(_file_name)]


class Asked(BaseModel):
    """A request; keys that it does not know are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    verb: ClassVar[str]
    page: ClassVar[str] = ""

    def arguments(self) -> list[str]:
        """The command's arguments; its files are in the job's folder."""
        raise NotImplementedError

    def documents(self) -> Mapping[str, object]:
        """The files that the request contains."""
        return {}

    def uploads(self) -> Mapping[str, str]:
        """Numbers of uploaded files, by the names in the service."""
        return {}


class OfService(Asked):
    """A request about a service."""

    service: Json | str = Field(description="The content of a service.yaml: as JSON, or as YAML text.")
    files: dict[FileName, str] = Field(
        {}, description="Uploaded files that the service names: file name to the id of the upload."
    )
    settings: dict[str, Any] = Field({}, description="Keys of the service to override: workload.rate to 32.")
    quick: bool = Field(False, description="Plan by closed form only, without simulation.")

    def documents(self) -> Mapping[str, object]:
        """The service's file."""
        return {SERVICE: self.service}

    def uploads(self) -> Mapping[str, str]:
        """The uploads named in the request."""
        return self.files

    def _common(self) -> list[str]:
        settings = [f"--set={key}={json.dumps(value)}" for key, value in self.settings.items()]
        return [SERVICE, *settings, *(("--quick",) if self.quick else ())]


class PlanAsked(OfService):
    """The cheapest fleet; the result is a plan.json."""

    verb: ClassVar[str] = "plan"
    incumbent: Json | None = Field(None, description="The current plan.json.")
    drop_unservable: bool = Field(False, description="Plan for the remaining sizes when some cannot be served.")

    def arguments(self) -> list[str]:
        """Arguments of melange plan."""
        flags = ("--incumbent=" + PLAN,) if self.incumbent is not None else ()
        return [*self._common(), *flags, *(("--drop-unservable",) if self.drop_unservable else ()), "--json"]

    def documents(self) -> Mapping[str, object]:
        """The files of the service and the current plan."""
        return {SERVICE: self.service} | ({} if self.incumbent is None else {PLAN: self.incumbent})


class WhatIfAsked(OfService):
    """A service under other assumptions, side by side."""

    verb: ClassVar[str] = "what-if"
    prices: list[str] = Field([], description="Other prices: H100=-30%.")
    rates: list[str] = Field([], description="Other traffic: x2, +20% or requests/s.")
    without: list[str] = Field([], description="Without an accelerator, replica type, provider, region or market.")
    changes: list[str] = Field([], description="Other values of keys: slo.tpot_ms=100.")
    save: str | None = Field(None, description="Find what would save this share of the cost: 20%.")

    def arguments(self) -> list[str]:
        """Arguments of melange what-if."""
        flags = [
            *(f"--price={one}" for one in self.prices),
            *(f"--rate={one}" for one in self.rates),
            *(f"--without={one}" for one in self.without),
            *(f"--change={one}" for one in self.changes),
            *(() if self.save is None else (f"--save={self.save}",)),
        ]
        return [*self._common(), *flags, "--json"]


class ExploreAsked(OfService):
    """A service by size, rate and SLO; the result is an HTML page."""

    verb: ClassVar[str] = "explore"
    page: ClassVar[str] = PAGE

    def arguments(self) -> list[str]:
        """Arguments of melange explore."""
        return [*self._common(), f"--out={PAGE}"]


class ValidateAsked(Asked):
    """A plan in simulation; the result is a report.json."""

    verb: ClassVar[str] = "validate"
    plan: Json = Field(description="The content of a plan.json.")
    trace: str | None = Field(None, description="The id of an uploaded log to replay.")
    trace_name: FileName = Field("log.parquet", description="Its name; the suffix says its format.")
    requests: int | None = Field(None, ge=1, le=1_000_000)
    seeds: int | None = Field(None, ge=1, le=100)
    scale: float = Field(1.0, gt=0, description="Times the traffic of the plan.")
    scenario: str | None = Field(None, description="For example ramp or loss.")

    def arguments(self) -> list[str]:
        """Arguments of melange validate."""
        flags = [
            f"--{name}={value}"
            for name, value in (
                ("trace", self.trace and self.trace_name),
                ("requests", self.requests),
                ("seeds", self.seeds),
                ("scale", self.scale if self.scale != 1 else None),
                ("scenario", self.scenario),
            )
            if value is not None
        ]
        return [PLAN, *flags, "--json"]

    def documents(self) -> Mapping[str, object]:
        """The file of the plan."""
        return {PLAN: self.plan}

    def uploads(self) -> Mapping[str, str]:
        """The uploaded log."""
        return {} if self.trace is None else {self.trace_name: self.trace}


class DeployAsked(Asked):
    """Manifests or a gateway's configuration for a plan."""

    verb: ClassVar[str] = "deploy"
    plan: Json = Field(description="The content of a plan.json.")
    to: str = Field(description="The target: kubernetes, haproxy, ...")
    replicas: list[str] = Field([], description="Running replicas: NAME=URL.")
    options: dict[str, str] = Field({}, description="Options of the target.")

    def arguments(self) -> list[str]:
        """Arguments of melange deploy."""
        options = [f"--option={key}={value}" for key, value in self.options.items()]
        return [PLAN, f"--to={self.to}", *(f"--replica={one}" for one in self.replicas), *options, "--json"]

    def documents(self) -> Mapping[str, object]:
        """The file of the plan."""
        return {PLAN: self.plan}
