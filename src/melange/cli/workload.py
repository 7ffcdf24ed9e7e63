"""The command of the workload stage."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from melange.cli.flags import with_flags
from melange.cli.terminal import JsonFlag, OutOption, SetOption, events, parse_columns, parse_where, save_and_print
from melange.errors import InputError


@dataclass(frozen=True)
class _Flags:
    """A ``workload`` section of a service, as flags."""

    table: Annotated[str | None, typer.Option(help="A table of requests in a database: requests, logs.requests.")] = (
        None
    )
    connection: Annotated[
        str | None,
        typer.Option(help="With --table: its URL; ${NAME} is taken from the environment, also for passwords."),
    ] = None
    dataset: Annotated[
        str | None, typer.Option(help="A bundled data set, or a mixture: '{arena: 0.8, sharegpt: 0.2}'.")
    ] = None
    histogram: Annotated[str | None, typer.Option(help="A histogram file: rates or shares by request size.")] = None
    metrics: Annotated[
        list[str] | None,
        typer.Option(help="Saved /metrics output of vLLM, vLLM on Ray or SGLang; twice: earlier, later."),
    ] = None
    model: Annotated[
        list[str] | None, typer.Option(help="With --metrics: only this model of the server (repeatable: summed).")
    ] = None
    rate: Annotated[
        str | None, typer.Option(help="Requests/s to scale to, or a statistic of the windows: mean, max, p99, ...")
    ] = None
    window: Annotated[str | None, typer.Option(help="Window length for the --rate statistic, for example 5m.")] = None
    start: Annotated[
        str | None,
        typer.Option("--from", help="Start of the time range: 10m after the first request, or a date and time."),
    ] = None
    end: Annotated[str | None, typer.Option("--to", help="End of the time range; same format as --from.")] = None
    over: Annotated[
        str | None, typer.Option(help="Read the traffic over time, for melange schedule: hours of a day or a week.")
    ] = None
    time_zone: Annotated[
        str | None, typer.Option(help="With --over: time zone of the users, such as Europe/Berlin (default: UTC).")
    ] = None
    rates: Annotated[str | None, typer.Option(help="A table of rates by window: start,rate.")] = None
    sizes: Annotated[
        str | None,
        typer.Option(help="With --rates: shares of sizes by period: start,input_tokens_upto,output_tokens_upto,share."),
    ] = None
    empty_windows: Annotated[
        str | None,
        typer.Option(help="Windows without requests: missing (a gap in the log; default) or zero."),
    ] = None
    columns: Annotated[
        str | None, typer.Option(help="Names of the columns: arrival=ts,input=prompt,output=completion.")
    ] = None
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=VALUE", help="Only rows with this value, for example model=llama (repeatable)."),
    ] = None
    log_format: Annotated[str | None, typer.Option("--format", help="Format of the log, if it is not recognized.")] = (
        None
    )
    input_edges: Annotated[str | None, typer.Option(help="Upper edges of the input buckets: 100,1000,8000.")] = None
    output_edges: Annotated[str | None, typer.Option(help="Upper edges of the output buckets.")] = None
    size: Annotated[str, typer.Option(help="Size that a bucket is planned at: mean, or upper (its upper edge).")] = (
        "mean"
    )

    def refuse_beside(self, service: Path, context: typer.Context) -> None:
        """Reject flags that would have no effect, because a service describes its own traffic."""
        called = {one.name: one.opts[0] for one in context.command.params}
        for one in fields(self):
            if getattr(self, one.name) != one.default:
                raise InputError(
                    f"{called[one.name]}: {service} describes its own traffic",
                    hint="--set workload.KEY=VALUE overrides a service, for example --set workload.rate=3",
                )

    def section(self, trace: Path | None) -> dict[str, Any]:
        """The section that the flags describe."""
        from melange.parsing import parse_yaml

        edges = {"input": _parse_edges(self.input_edges), "output": _parse_edges(self.output_edges)}
        return {
            "trace": str(trace) if trace else None,
            "table": self.table,
            "connection": self.connection,
            "dataset": parse_yaml(self.dataset, "--dataset") if self.dataset else None,
            "histogram": self.histogram,
            "metrics": self.metrics or None,
            "rate": parse_yaml(self.rate, "--rate") if self.rate else None,
            "window": self.window,
            "from": self.start,
            "to": self.end,
            "over": self.over,
            "time_zone": self.time_zone,
            "rates": self.rates,
            "sizes": self.sizes,
            "empty_windows": self.empty_windows,
            "format": self.log_format,
            "columns": parse_columns(self.columns),
            "where": parse_where(self.where),
            "model": self.model or None,
            "buckets": edges if self.input_edges is not None or self.output_edges is not None else None,
            "size": self.size,
        }


@with_flags
def workload(
    context: typer.Context,
    flags: _Flags,
    source: Annotated[
        Path | None, typer.Argument(help="A request log (Parquet, CSV, JSONL), or a service.yaml.")
    ] = None,
    list_datasets: Annotated[
        bool, typer.Option("--list", help="List the bundled data sets with their sources.")
    ] = False,
    settings: SetOption = None,
    out: OutOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Summarize traffic: request rates by input and output length."""
    from melange.present.terminal import inputs
    from melange.service.session import Session, is_service

    if list_datasets:
        _print_datasets(as_json)
        return
    with events() as listener:
        if source is not None and is_service(source):
            flags.refuse_beside(source, context)
            session = Session(source, settings=settings or (), listener=listener)
        else:
            session = Session(flags={"workload": flags.section(source)}, settings=settings or (), listener=listener)
        over = flags.over if session.service is None else session.service.workload.over
        result = session.workload() if over is None else session.demand()
    from melange.present.terminal.demand_page import demand_page

    page = inputs.workload_page if over is None else lambda noun: demand_page(noun, over)
    save_and_print(result, out, as_json, page)


def _parse_edges(text: str | None) -> list[str] | None:
    """Comma-separated edges; they are checked later, with the service."""
    return [edge.strip() for edge in text.split(",")] if text is not None else None


def _print_datasets(as_json: bool) -> None:
    from melange.workload.datasets import datasets

    if as_json:
        typer.echo(json.dumps(dict(datasets())))
        return
    from melange.present.terminal import layout

    terminal = layout.console()
    for name, about in datasets().items():
        terminal.print(f"{name}: {about}", markup=False)
