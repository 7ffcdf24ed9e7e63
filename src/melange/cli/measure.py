"""The command that measures a running server."""

from __future__ import annotations

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

from melange.cli.flags import with_flags
from melange.cli.stderr import say
from melange.cli.terminal import JsonFlag, OutOption, SetOption, need_live, parse_pairs, save_and_print
from melange.errors import InputError, MelangeError
from melange.units import S_PER_MIN, count_of

if TYPE_CHECKING:
    from melange.measure.campaign import News, Result
    from melange.measure.endpoint import Endpoint
    from melange.measure.search import Effort
    from melange.measure.subject import Subject
    from melange.service.session import Session

_INTERRUPTED = 130  # the shells' exit code for Ctrl-C


@dataclass(frozen=True)
class _Flags:
    """What to measure, how, and for how long."""

    url: Annotated[str, typer.Option(help="Address of the server: http://host:8000, with or without /v1.")] = ""
    replica_type: Annotated[
        str,
        typer.Option(
            help="Replica type of the server: one of the service's, or its accelerator (L4, 'A10G tp2'); "
            "without a service, any name."
        ),
    ] = ""
    slo: Annotated[
        str | None, typer.Option(help="SLO instead of the service's: tpot_ms=60,ttft_ms=500,attainment=0.95.")
    ] = None
    workload: Annotated[
        str | None,
        typer.Option(help="Workload instead of the service's: a workload.json, or the name of a bundled data set."),
    ] = None
    rate: Annotated[float | None, typer.Option(help="Requests per second of that workload.")] = None
    cost_per_h: Annotated[
        float | None, typer.Option(help="Price of the server's instance when there is no service [USD/h].")
    ] = None
    model: Annotated[str, typer.Option(help="Model name on the server, when it serves several.")] = ""
    api_key_env: Annotated[
        str, typer.Option(metavar="NAME", help="Environment variable with the server's API key.")
    ] = "MELANGE_API_KEY"
    budget: Annotated[
        str | None,
        typer.Option(
            help="Time limit for starting new tests, for example 30m; default: stop when the plan no longer changes."
        ),
    ] = None
    buckets: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="Number of sizes to measure, regardless of the plan."),
    ] = None
    requests: Annotated[int, typer.Option(min=1, max=1_000_000, help="Minimum requests counted at each rate.")] = 60
    precision: Annotated[
        float,
        typer.Option(help="Stop when the passing and the failing rate differ by less than this fraction."),
    ] = 0.05
    journal: Annotated[
        Path | None,
        typer.Option(help="File that keeps each point as it is measured; default: named after the replica type."),
    ] = None
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the existing journal.")] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Connect, print the expected time and cost, and stop.")] = (
        False
    )


@with_flags
def measure(
    flags: _Flags,
    source: Annotated[
        Path | None,
        typer.Argument(metavar="SERVICE", help="The service.yaml that contains the server's replica type."),
    ] = None,
    settings: SetOption = None,
    out: OutOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure the highest rate of a running server within the SLO."""
    import asyncio  # imports only a quarter of what all commands would import

    _check(flags.url)
    session = _session(source, flags, settings or [])
    run = _Campaign(flags=flags, session=session, effort=_effort(flags))
    try:
        result = asyncio.run(run.run())
    except KeyboardInterrupt:
        run.say_how_to_go_on("stopped")
        raise SystemExit(_INTERRUPTED) from None
    except MelangeError:
        run.say_how_to_go_on("stopped early")
        raise
    if result is not None:
        _print(result, run, out, as_json)


def _check(url: str) -> None:
    need_live("measure", "aiohttp")
    if not re.match(r"https?://[^/]", url):
        raise InputError(f"--url must be the http address of a server, got {url!r}", hint="--url http://localhost:8000")


def _effort(flags: _Flags) -> Effort:
    from melange.measure.search import Effort

    return Effort(requests=flags.requests, precision=flags.precision)


def _session(source: Path | None, flags: _Flags, settings: list[str]) -> Session:
    """The service, or the flags that replace it."""
    from melange.service.session import Session

    if source is not None and flags.cost_per_h is not None:
        raise InputError("--cost-per-h applies only without a service: the service's offers already have prices")
    given: dict[str, dict[str, Any]] = {}
    if flags.slo is not None:
        given["slo"] = {**parse_pairs(flags.slo, "--slo", "tpot_ms=60,ttft_ms=500,statistic=p90")}
    if flags.workload is not None:
        kind = "file" if flags.workload.endswith(".json") or Path(flags.workload).exists() else "dataset"
        given["workload"] = {kind: flags.workload, "rate": flags.rate}
    elif source is not None and flags.rate is not None:
        settings = [*settings, f"workload.rate={flags.rate}"]
    session = Session(source, settings=settings, flags=given)
    _ = session.slo  # report all input errors before connecting to a server
    if source is None and flags.workload is None:
        raise InputError("a workload is needed", hint="--workload workload.json, or a service.yaml")
    _ = session.workload()
    if session.service is not None:
        session.subject(flags.replica_type)
    return session


@dataclass(slots=True, kw_only=True)
class _Campaign:
    """One run of the command, and the output if it stops early."""

    flags: _Flags
    session: Session
    effort: Effort
    subject: Subject | None = None
    journal: Path | None = None
    kept_points: int = 0

    def _subject(self, endpoint: Endpoint) -> Subject:
        """The subject of the measurement, with what the server reports about itself."""
        from melange.measure.lone_server import LoneServer, server_subject

        session, flags = self.session, self.flags
        if session.service is not None:
            return session.subject(flags.replica_type)
        server = LoneServer(
            name=flags.replica_type or endpoint.model,
            limits=endpoint.limits(),
            model=endpoint.model,
            cost_per_h=flags.cost_per_h,
        )
        return server_subject(server, session.slo, session.workload(), session.options)

    async def run(self) -> Result | None:
        """Connect, print the expected time and cost, measure."""
        from melange.measure.campaign import header_of, run_campaign
        from melange.measure.endpoint import connect
        from melange.measure.journal import Journal
        from melange.measure.load import client_session

        flags, budget = self.flags, self._budget_s()
        async with client_session(os.environ.get(flags.api_key_env, "")) as session:
            endpoint = await connect(session, flags.url, flags.model)
            self.subject = subject = self._subject(endpoint)
            self._say_what_it_takes(endpoint)
            if flags.dry_run:
                return None
            self.journal = path = flags.journal or Path(f"measure-{_file_name(subject.replica_type)}.jsonl")
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
                    most_buckets=flags.buckets,
                    budget_s=budget,
                    progress=told,
                )

    def _budget_s(self) -> float | None:
        from melange.workload.clock import parse_duration

        return None if self.flags.budget is None else parse_duration(self.flags.budget, name="--budget")

    def _check_journal(self, path: Path) -> None:
        is_there = path.exists() and path.stat().st_size > 0
        if is_there and not self.flags.resume:
            raise InputError(
                f"{path}: already exists", hint="continue it with --resume, name another with --journal, or delete it"
            )
        if self.flags.resume and not is_there:
            raise InputError(f"{path}: no journal to resume", hint="leave out --resume, or name the journal: --journal")

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
            most_buckets=self.flags.buckets,
            budget_s=self._budget_s(),
        )
        layout.console(stderr=not self.flags.dry_run).print(page)

    def say_how_to_go_on(self, why: str) -> None:
        """Print where the points are saved and how to use them."""
        if self.kept_points:
            are = "is" if self.kept_points == 1 else "are"
            say(
                f"{why}: {count_of(self.kept_points, 'load point')} {are} kept in {self.journal}; the same command "
                "with --resume continues from there"
            )


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-") or "server"


@contextmanager
def _news() -> Iterator[Callable[[News], None]]:
    """A line on stderr per measurement, and on a terminal the current step with the time."""
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


def _print(result: Result, run: _Campaign, out: Path | None, as_json: bool) -> None:
    from melange.present.terminal.measuring import result_page

    subject = run.subject
    assert subject is not None
    save_and_print(
        result.profile,
        out,
        as_json,
        lambda _: result_page(result, subject),
        more={"campaign": result.to_json()} if as_json else None,
    )
