"""The command that measures a running server."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melange.cli.stages import parse_pairs
from melange.cli.terminal import JsonFlag, OutOption, SetOption, finish, need_live
from melange.errors import InputError, MelangeError
from melange.units import S_PER_MIN

if TYPE_CHECKING:
    from melange.measure.campaign import News, Result
    from melange.measure.endpoint import Endpoint
    from melange.measure.search import Effort
    from melange.measure.subject import Subject
    from melange.service.schema import Service
    from melange.slo import Slo
    from melange.workload.workload import Workload

INTERRUPTED = 130  # what shells call an end by Ctrl-C


def measure(
    source: Annotated[
        Path | None,
        typer.Argument(metavar="SERVICE", help="The service.yaml whose replica type the server is one of."),
    ] = None,
    url: Annotated[str, typer.Option(help="Where the server is: http://host:8000, with or without /v1.")] = "",
    replica_type: Annotated[
        str,
        typer.Option(
            help="What the server is: a replica type of the service, or the name of its accelerator (L4, 'A10G tp2'); "
            "without a service, what to call it."
        ),
    ] = "",
    slo: Annotated[
        str | None, typer.Option(help="In place of the service's: tpot_ms=60,ttft_ms=500,statistic=p90.")
    ] = None,
    workload: Annotated[
        str | None, typer.Option(help="In place of the service's: a workload.json, or the name of a bundled data set.")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Requests a second of that workload.")] = None,
    cost_per_h: Annotated[
        float | None, typer.Option(help="Price of the server's instance, where there is no service [USD/h].")
    ] = None,
    model: Annotated[str, typer.Option(help="What the server calls the model, where it serves several.")] = "",
    api_key_env: Annotated[
        str, typer.Option(metavar="NAME", help="The environment variable that holds the server's key.")
    ] = "MELANGE_API_KEY",
    budget: Annotated[
        str | None, typer.Option(help="Start no test after so much time: 30m. Default: until the plan is settled.")
    ] = None,
    buckets: Annotated[
        int | None, typer.Option(min=1, help="Measure so many sizes, whether the plan is settled or not.")
    ] = None,
    requests: Annotated[int, typer.Option(min=1, help="Requests counted at each rate, at least.")] = 60,
    precision: Annotated[
        float, typer.Option(help="How near the rate that holds and the one that fails must be.")
    ] = 0.05,
    journal: Annotated[
        Path | None, typer.Option(help="Where points are kept as they are measured; default: after the replica type.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the journal that is there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Connect, say what it would take, and stop.")] = False,
    settings: SetOption = None,
    out: OutOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure what a running server can do within the SLO, the request sizes that matter first."""
    from melange.measure.search import Effort
    from melange.workload.clock import parse_duration

    _check(url)
    effort = Effort(requests=requests, precision=precision)
    inputs = _inputs(source, slo, workload, rate, replica_type, cost_per_h, settings or [])
    task = _Task(
        url=url,
        model=model,
        api_key=os.environ.get(api_key_env, ""),
        inputs=inputs,
        effort=effort,
        most_buckets=buckets,
        budget_s=None if budget is None else parse_duration(budget, name="--budget"),
        journal=journal,
        is_resumed=resume,
        is_dry=dry_run,
    )
    try:
        result = asyncio.run(task.run())
    except KeyboardInterrupt:
        task.say_how_to_go_on("stopped")
        raise SystemExit(INTERRUPTED) from None
    except MelangeError:
        task.say_how_to_go_on("it ended early")
        raise
    if result is not None:
        _print(result, task, out, as_json)


def _check(url: str) -> None:
    need_live("measure", "aiohttp")
    if not re.match(r"https?://[^/]", url):
        raise InputError(f"--url must be the http address of a server, got {url!r}", hint="--url http://localhost:8000")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inputs:
    """What is measured and what for, before the server has said anything."""

    service: Service | None
    slo: Slo
    workload: Workload
    name: str
    cost_per_h: float | None
    settings: list[str]

    def subject(self, endpoint: Endpoint) -> Subject:
        """With what the server says of itself."""
        from melange.measure.server import Server, server_subject
        from melange.service.schema import read_plan_section

        if self.service is not None:
            from melange.catalog.catalog import load_catalog
            from melange.service.stages import subject_of

            return subject_of(self.service, self.slo, self.workload, load_catalog(), self.name)
        server = Server(
            name=self.name or endpoint.model,
            limits=endpoint.limits(),
            model=endpoint.model,
            cost_per_h=self.cost_per_h,
        )
        options = read_plan_section({}, self.settings).to_options({}, {})
        return server_subject(server, self.slo, self.workload, options)


def _inputs(
    source: Path | None,
    slo: str | None,
    workload: str | None,
    rate: float | None,
    name: str,
    cost_per_h: float | None,
    settings: list[str],
) -> _Inputs:
    """From a service, from flags, or from a service that flags change."""
    from melange.service.schema import read_section, read_service, read_slo_section
    from melange.service.stages import workload_of

    service = None if source is None else read_service(source, settings)
    if service is not None and cost_per_h is not None:
        raise InputError("--cost-per-h is for servers without a service: a service's offers have prices")
    if slo is not None:
        limits: dict[str, Any] = {**parse_pairs(slo, "--slo", "tpot_ms=60,ttft_ms=500,statistic=p90")}
        objective = read_slo_section(limits).to_slo()
    elif service is not None:
        objective = service.slo.to_slo()
    else:
        raise InputError("an SLO is needed", hint="--slo tpot_ms=60, or a service.yaml")
    if workload is not None:
        kind = "file" if workload.endswith(".json") or Path(workload).exists() else "dataset"
        traffic = workload_of(read_section({kind: workload, "rate": rate}), Path)
    elif service is not None:
        traffic = workload_of(service.workload, service.path)
        traffic = traffic if rate is None else traffic.at_rate(rate)
    else:
        raise InputError("a workload is needed", hint="--workload workload.json, or a service.yaml")
    return _Inputs(
        service=service, slo=objective, workload=traffic, name=name, cost_per_h=cost_per_h, settings=settings
    )


@dataclass(slots=True, kw_only=True)
class _Task:
    """One run of the command, and what to say where it ends early."""

    url: str
    model: str
    api_key: str
    inputs: _Inputs
    effort: Effort
    most_buckets: int | None
    budget_s: float | None
    journal: Path | None
    is_resumed: bool
    is_dry: bool
    subject: Subject | None = None
    kept_points: int = 0

    async def run(self) -> Result | None:
        """Connect, say what it will take, measure."""
        from melange.measure.campaign import header_of, run_campaign
        from melange.measure.endpoint import connect
        from melange.measure.journal import Journal
        from melange.measure.load import client_session

        async with client_session(self.api_key) as session:
            endpoint = await connect(session, self.url, self.model)
            self.subject = subject = self.inputs.subject(endpoint)
            self._say_what_it_takes(endpoint)
            if self.is_dry:
                return None
            self.journal = path = self.journal or Path(f"measure-{_file_name(subject.replica_type)}.jsonl")
            self._check_journal(path)
            with Journal(path, header_of(subject, endpoint, self.effort)) as journal, _news() as tell:

                def told(news: News) -> None:
                    self.kept_points = journal.count
                    tell(news)

                return await run_campaign(
                    session,
                    endpoint,
                    subject,
                    journal,
                    effort=self.effort,
                    most_buckets=self.most_buckets,
                    budget_s=self.budget_s,
                    progress=told,
                )

    def _check_journal(self, path: Path) -> None:
        is_there = path.exists() and path.stat().st_size > 0
        if is_there and not self.is_resumed:
            raise InputError(
                f"{path}: is there already", hint="--resume goes on with it, --journal names another, or delete it"
            )
        if self.is_resumed and not is_there:
            raise InputError(f"{path}: no journal to go on with", hint="leave --resume out, or name it: --journal")

    def _say_what_it_takes(self, endpoint: Endpoint) -> None:
        from melange.measure.outlook import outlook
        from melange.measure.worth import choose
        from melange.present.terminal import layout
        from melange.present.terminal.measuring import outlook_page

        assert self.subject is not None
        profile = self.subject.profile_of(())
        order = choose(self.subject, profile).buckets
        page = outlook_page(
            outlook(self.subject, profile, order, self.effort),
            self.subject,
            f"{endpoint}",
            most_buckets=self.most_buckets,
            budget_s=self.budget_s,
        )
        layout.console(stderr=not self.is_dry).print(page)

    def say_how_to_go_on(self, why: str) -> None:
        """Where the points are and how to use them."""
        if self.kept_points:
            print(
                f"{why}: {self.kept_points} load points are kept in {self.journal}; the same command with --resume "
                "goes on from there",
                file=sys.stderr,
            )


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-") or "server"


@contextmanager
def _news() -> Iterator[Callable[[News], None]]:
    """A line on stderr for all that was measured, and on a terminal what is being done now, with the time."""
    from melange.present.terminal import layout

    console, began = layout.console(stderr=True), time.monotonic()

    def clock() -> str:
        minutes, seconds = divmod(int(time.monotonic() - began), S_PER_MIN)
        return f"{minutes:02d}:{seconds:02d}"

    if not sys.stderr.isatty():
        yield lambda news: console.print(f"{clock()} {news.text}", markup=False) if news.is_done else None
        return
    with console.status("measuring") as status:

        def tell(news: News) -> None:
            if news.is_done:
                console.print(f"{clock()} {news.text}", markup=False)
            else:
                status.update(f"{clock()} {news.text}")

        yield tell


def _print(result: Result, task: _Task, out: Path | None, as_json: bool) -> None:
    from melange.present.terminal.measuring import result_page

    subject = task.subject
    assert subject is not None
    finish(
        result.profile,
        out,
        as_json,
        lambda _: result_page(result, subject),
        more={"campaign": result.to_json()} if as_json else None,
    )
