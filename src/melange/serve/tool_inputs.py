"""Inputs of the MCP tools: the verbs of the HTTP API, with files of a folder and kept results by id."""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from melange.errors import InputError
from melange.files import Json, path_of, read_json
from melange.records import shown
from melange.serve.asked import SERVICE, Asked, DeployAsked, ExploreAsked, PlanAsked, ValidateAsked, WhatIfAsked

_EXAMPLE = (
    "model: meta-llama/Llama-3.1-8B-Instruct\n"
    "slo: {ttft_ms: 2000, tpot_ms: 80}\n"
    "workload: {dataset: azure-conversation, rate: 8}\n"
    "offers: {providers: [aws], regions: [us-east-1]}"
)
_PLAN_ID = "The id of a result of the tool plan."


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """What tools may use on the server.

    Parameters
    ----------
    root
        The folder whose files may be read, and where new files may be written; None: no access to files.
    result_of
        Returns a kept result by its id; raises KeyError.
    """

    root: Path | None
    result_of: Callable[[str], Json]

    def file(self, name: str) -> Path:
        """A file of the folder.

        Raises
        ------
        InputError
            The path is outside the folder, or the server has no folder.
        """
        if self.root is None:
            raise InputError(f"{shown(name)}: this server reads and writes no files", hint="send the content itself")
        root = self.root.resolve()
        found = (root / path_of(name)).resolve()
        if not found.is_relative_to(root):
            raise InputError(
                f"{shown(name)}: is outside the folder that this server may use, {root}",
                hint="melange mcp --folder names another",
            )
        return found

    def new_file(self, name: str, ending: str) -> Path:
        """A path in the folder for a result; existing files are not replaced.

        Raises
        ------
        InputError
            As in :meth:`file`; also a file that exists, or a wrong suffix.
        """
        place = self.file(name)
        if place.suffix != ending:
            raise InputError(f"out: {shown(name)}: the name must end in {ending}")
        # A plan of several services or regions writes one file for each beside it.
        if place.exists() or any(place.parent.glob(f"{glob.escape(place.stem)}-*{ending}")):
            raise InputError(f"out: {shown(name)}: exists already", hint="choose a new name, or remove the file first")
        return place

    def plan(self, number: str, file: str, key: str) -> Json:
        """A plan by its id, or from a file of the folder.

        Raises
        ------
        InputError
            Neither or both are given, or there is no such result.
        """
        if bool(number) == bool(file):
            raise InputError(f"{key}: give either its id or a file", hint="the tool plan returns an id")
        if file:
            return read_json(self.file(file))
        try:
            return self.result_of(number)
        except KeyError:
            raise InputError(f"{key}: no result has the id {shown(number)}", hint="the tool plan returns one") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """The command of a tool: arguments, and the documents that they name.

    Parameters
    ----------
    arguments
        Command-line arguments after the verb.
    documents
        Files of the job, by name.
    reads_folder
        Whether the command reads a service in the server's folder, and the files named in the service.
    """

    arguments: list[str]
    documents: Mapping[str, object] = field(default_factory=dict)
    reads_folder: bool = False


class ToolInput(BaseModel):
    """The input of a tool; keys that it does not know are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    verb: ClassVar[str]
    title: ClassVar[str]
    # Fields that name files; only a server with a folder has them.
    of_folder: ClassVar[frozenset[str]] = frozenset()
    only_reads: ClassVar[bool] = True

    def command(self, shelf: Shelf) -> Command:
        """The command that answers the request."""
        raise NotImplementedError


class _OfService(ToolInput):
    service: str = Field("", description=f"The text of a service.yaml, for example:\n{_EXAMPLE}")
    service_file: str = Field("", description="Instead of service: the path of a service.yaml in the folder.")
    settings: dict[str, Any] = Field(
        {}, description="Keys of the service to override, for example {'workload.rate': 32}."
    )
    quick: bool = Field(False, description="Plan by closed form only: seconds, no simulation.")

    of_folder: ClassVar[frozenset[str]] = frozenset({"service_file"})

    def _answered(self, asked: Asked, shelf: Shelf) -> Command:
        """The command of a request to the HTTP API, with the service's own file if one is named."""
        if bool(self.service.strip()) == bool(self.service_file):
            raise InputError("service: give either the text of a service.yaml or, where there is one, its file")
        arguments, documents = asked.arguments(), dict(asked.documents())
        if not self.service_file:
            return Command(arguments=arguments, documents=documents)
        del documents[SERVICE]
        arguments[arguments.index(SERVICE)] = str(shelf.file(self.service_file))
        return Command(arguments=arguments, documents=documents, reads_folder=True)

    def _common(self) -> Json:
        return {"service": self.service, "settings": self.settings, "quick": self.quick}


class PlanInput(_OfService):
    """Find the cheapest fleet of GPUs that meets the SLO of a service, and certify it by simulation.

    Takes seconds to minutes. The answer's id is what validate, deploy and a later plan (as incumbent) take.
    """

    verb: ClassVar[str] = "plan"
    title: ClassVar[str] = "Plan a fleet"
    of_folder: ClassVar[frozenset[str]] = frozenset({"service_file", "incumbent_file", "out"})
    only_reads: ClassVar[bool] = False

    incumbent: str = Field("", description=f"The current plan, whose fleet is kept if it costs no more. {_PLAN_ID}")
    incumbent_file: str = Field("", description="Instead of incumbent: a plan.json in the folder.")
    drop_unservable: bool = Field(False, description="Plan for the remaining sizes when some cannot be served.")
    out: str = Field("", description="Also save the plan to this new file in the folder, such as plan.json.")

    def command(self, shelf: Shelf) -> Command:
        """Arguments of melange plan."""
        has_incumbent = self.incumbent or self.incumbent_file
        incumbent = shelf.plan(self.incumbent, self.incumbent_file, "incumbent") if has_incumbent else None
        asked = PlanAsked(incumbent=incumbent, drop_unservable=self.drop_unservable, **self._common())
        found = self._answered(asked, shelf)
        if self.out:
            found.arguments.append(f"--out={shelf.new_file(self.out, '.json')}")
        return found


class WhatIfInput(_OfService):
    """Compare a service with itself under other prices, traffic or restrictions, or find what would save a share."""

    verb: ClassVar[str] = "what-if"
    title: ClassVar[str] = "What if"

    prices: list[str] = Field([], description="Other prices, each a variant: 'H100=-30%', 'H100 spot=-30%'.")
    rates: list[str] = Field([], description="Other traffic, each a variant: 'x2', '+20%' or requests/s.")
    without: list[str] = Field(
        [], description="Without an accelerator, replica type, provider, region or market, each a variant."
    )
    changes: list[str] = Field([], description="Other values of keys, each a variant: 'slo.tpot_ms=100'.")
    save: str = Field("", description="Find the smallest change that saves this share of the cost: '20%'.")

    def command(self, shelf: Shelf) -> Command:
        """Arguments of melange what-if."""
        kept = self.model_dump(include={"prices", "rates", "without", "changes"})
        return self._answered(WhatIfAsked(save=self.save or None, **kept, **self._common()), shelf)


class ExploreInput(_OfService):
    """What a service costs, and with which fleet, at other request rates and under other latency limits."""

    verb: ClassVar[str] = "explore"
    title: ClassVar[str] = "Explore rates and limits"
    of_folder: ClassVar[frozenset[str]] = frozenset({"service_file", "out"})
    only_reads: ClassVar[bool] = False

    out: str = Field("", description="Also write a page with charts to this new file in the folder: explore.html.")

    def command(self, shelf: Shelf) -> Command:
        """Arguments of melange explore, as JSON."""
        found = self._answered(ExploreAsked(**self._common()), shelf)
        page = [f"--out={shelf.new_file(self.out, '.html')}"] if self.out else []
        kept = [one for one in found.arguments if not one.startswith("--out=")]
        return Command(arguments=[*kept, "--json", *page], documents=found.documents, reads_folder=found.reads_folder)


class ValidateInput(ToolInput):
    """Simulate a plan request by request, and report the share that met the SLO."""

    verb: ClassVar[str] = "validate"
    title: ClassVar[str] = "Validate a plan"
    of_folder: ClassVar[frozenset[str]] = frozenset({"plan_file", "trace_file"})

    plan: str = Field("", description=_PLAN_ID)
    plan_file: str = Field("", description="Instead of plan: a plan.json in the folder.")
    trace_file: str = Field("", description="Replay this request log, a file in the folder, at the planned rate.")
    requests: int | None = Field(None, ge=2, le=1_000_000, description="Requests per run; default: 10000.")
    seeds: int | None = Field(None, ge=1, le=100, description="Runs, each with different requests; default: 5.")
    scale: float = Field(1.0, gt=0, description="Multiple of the planned rate.")
    scenario: str | None = Field(None, description="steady, ramp, double or lost-replica.")

    def command(self, shelf: Shelf) -> Command:
        """Arguments of melange validate."""
        kept = self.model_dump(include={"requests", "seeds", "scale", "scenario"})
        asked = ValidateAsked(plan=shelf.plan(self.plan, self.plan_file, "plan"), **kept)
        trace = [f"--trace={shelf.file(self.trace_file)}"] if self.trace_file else []
        return Command(arguments=[*asked.arguments(), *trace], documents=asked.documents())


class DeployInput(ToolInput):
    """Write the manifests, launch commands or gateway configuration of a plan; nothing is applied."""

    verb: ClassVar[str] = "deploy"
    title: ClassVar[str] = "Write manifests"
    of_folder: ClassVar[frozenset[str]] = frozenset({"plan_file"})

    plan: str = Field("", description=_PLAN_ID)
    plan_file: str = Field("", description="Instead of plan: a plan.json in the folder.")
    to: str = Field(
        description="The target, for example kubernetes, docker, haproxy or nginx; an unknown one lists all."
    )
    replicas: list[str] = Field([], description="Running replicas, for gateways: 'L40S=http://host:port'.")
    options: dict[str, str] = Field({}, description="Options of the target.")

    def command(self, shelf: Shelf) -> Command:
        """Arguments of melange deploy."""
        plan = shelf.plan(self.plan, self.plan_file, "plan")
        asked = DeployAsked(plan=plan, to=self.to, replicas=self.replicas, options=self.options)
        return Command(arguments=asked.arguments(), documents=asked.documents())


TOOLS: dict[str, type[ToolInput]] = {
    kind.verb: kind for kind in (PlanInput, WhatIfInput, ExploreInput, ValidateInput, DeployInput)
}


def schema_of(kind: type[ToolInput], *, has_folder: bool) -> Json:
    """The JSON schema of a tool's input, without file fields if the server has no folder."""
    schema = kind.model_json_schema()
    schema["properties"] = {
        name: value for name, value in schema["properties"].items() if has_folder or name not in kind.of_folder
    }
    for value in schema["properties"].values():
        value.pop("title", None)
    return {key: value for key, value in schema.items() if key not in ("title", "description")}
