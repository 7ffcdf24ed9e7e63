"""One command a stage."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from melange.cli.balance import balance
from melange.cli.deploy import deploy
from melange.cli.measure import measure
from melange.cli.stages import (
    certified_plan,
    estimator,
    first_stages,
    is_service,
    parse_columns,
    parse_edges,
    plan_inputs,
    source_and_anchors,
    study_of,
    title_of,
    with_anchors,
    with_uncertainty,
)
from melange.cli.terminal import JsonFlag, OutOption, ProfileOption, SetOption, WorkloadOption, finish, progress
from melange.cli.validate import validate
from melange.errors import InputError

app = typer.Typer(
    name="melange",
    help="Find the cheapest mix of accelerators that serves a language model within its latency objective.",
    epilog="Start with: melange init, then melange plan service.yaml",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        typer.echo(f"melange {version('melange')}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Find the cheapest mix of accelerators that serves a language model within its latency objective."""


class Subject(StrEnum):
    """What ``melange catalog`` lists."""

    accelerators = "accelerators"
    offers = "offers"
    models = "models"


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("service.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Write a commented service.yaml to start from."""
    from importlib.resources import files

    from melange.files import write_text

    if path.exists() and not force:
        raise InputError(f"{path}: exists already", hint="--force replaces it")
    write_text(path, files("melange").joinpath("service.template.yaml").read_text(encoding="utf-8"))
    typer.echo(f"{path} written; edit it, then: melange plan {path}")


@app.command()
def catalog(
    subject: Annotated[Subject, typer.Argument(help="What to list.")] = Subject.offers,
    gpu: Annotated[list[str] | None, typer.Option(help="Only these accelerators (repeatable).")] = None,
    provider: Annotated[list[str] | None, typer.Option(help="Only these providers (repeatable).")] = None,
    region: Annotated[list[str] | None, typer.Option(help="Only these regions (repeatable).")] = None,
    market: Annotated[list[str] | None, typer.Option(help="on-demand, spot or reserved (repeatable).")] = None,
    file: Annotated[Path | None, typer.Option(help="Own offers: offers.csv, a SkyPilot or a gpuhunt catalog.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List accelerators, offers or models."""
    from dataclasses import replace

    from melange.catalog.catalog import load_catalog
    from melange.present.terminal import layout, listings

    whole = load_catalog()
    if file is not None:
        from melange.catalog.readers import read_price_list

        own = read_price_list(file)
        whole = replace(whole, offers=own.offers)
        if own.cautions:
            layout.console(stderr=True).print(layout.cautions(own.cautions))
    chosen = whole.select(gpus=gpu, providers=provider, markets=market, regions=region)
    if as_json:
        typer.echo(json.dumps(chosen.to_json()[subject.value]))
        return
    pages = {
        Subject.accelerators: lambda: listings.accelerators_page(chosen.accelerators.values()),
        Subject.offers: lambda: listings.offers_page(chosen.offers),
        Subject.models: lambda: listings.models_page(chosen.models.values()),
    }
    layout.console().print(pages[subject]())


@app.command()
def workload(
    source: Annotated[
        Path | None, typer.Argument(help="A request log (Parquet, CSV, JSONL), or a service.yaml.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="A bundled data set, or a mixture: '{arena: 0.8, sharegpt: 0.2}'.")
    ] = None,
    histogram: Annotated[str | None, typer.Option(help="A table of rates or shares by size.")] = None,
    metrics: Annotated[
        list[str] | None, typer.Option(help="The text of a vLLM server's /metrics; twice: earlier, later.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(help="Requests/s to scale to; or, of the windows: mean, max, p99, ...")
    ] = None,
    window: Annotated[str | None, typer.Option(help="Length of the windows that --rate looks at: 5m.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="First moment: 10m after the start, or a date and time.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Last moment, likewise.")] = None,
    columns: Annotated[
        str | None, typer.Option(help="Names of the columns: arrival=ts,input=prompt,output=completion.")
    ] = None,
    log_format: Annotated[
        str | None, typer.Option("--format", help="Format of the log, where it cannot be told.")
    ] = None,
    input_edges: Annotated[str | None, typer.Option(help="Upper edges of the input buckets: 100,1000,8000.")] = None,
    output_edges: Annotated[str | None, typer.Option(help="Upper edges of the output buckets.")] = None,
    size: Annotated[
        str, typer.Option(help="Plan a bucket at its mean size, or at its upper edge: mean, upper.")
    ] = "mean",
    list_datasets: Annotated[
        bool, typer.Option("--list", help="List the bundled data sets with their sources.")
    ] = False,
    settings: SetOption = None,
    out: OutOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Read traffic: how often requests of which size arrive."""
    import yaml

    from melange.present.terminal import inputs
    from melange.service.schema import read_section, read_service
    from melange.service.stages import workload_of

    if list_datasets:
        _print_datasets(as_json)
        return
    if source is not None and is_service(source):
        service = read_service(source, settings or ())
        with progress("reading the traffic") as tell:
            result = workload_of(service.workload, service.path, tell)
    else:
        given = {
            "trace": str(source) if source else None,
            "dataset": yaml.safe_load(dataset) if dataset else None,
            "histogram": histogram,
            "metrics": metrics or None,
            "rate": yaml.safe_load(rate) if rate else None,
            "window": window,
            "from": start,
            "to": end,
            "format": log_format,
            "columns": parse_columns(columns),
            "buckets": {"input": parse_edges(input_edges), "output": parse_edges(output_edges)}
            if input_edges or output_edges
            else None,
            "size": size,
        }
        section = read_section(given, settings or ())
        with progress("reading the traffic") as tell:
            result = workload_of(section, Path, tell)
    finish(result, out, as_json, inputs.workload_page)


@app.command()
def profile(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE",
            help="A service.yaml, or another tool's profile (Mélange release, AIBrix). With --anchor, more results.",
        ),
    ],
    workload_file: WorkloadOption = None,
    anchors: Annotated[
        list[str] | None,
        typer.Option(
            "--anchor",
            help="Load-test results that correct the estimates: PATH, or NAME=PATH to say what was measured.",
        ),
    ] = None,
    suggest: Annotated[
        int, typer.Option("--suggest-measurements", min=0, help="Name so many measurements that are worth most.")
    ] = 0,
    settings: SetOption = None,
    out: OutOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what one replica of each type can serve within the SLO."""
    from melange.present.terminal import inputs
    from melange.workload.workload import Workload

    source, anchors = source_and_anchors(files, anchors or [])
    traffic = Workload.read(workload_file) if workload_file else None
    if not is_service(source):
        from melange.profile.formats.profiles import read_profile

        if anchors or suggest:
            raise InputError(f"{source}: --anchor and --suggest-measurements need a service.yaml")
        finish(read_profile(source), out, as_json, lambda noun: inputs.profile_page(noun, traffic))
        return
    from melange.service.schema import read_service

    service = with_anchors(read_service(source, settings or ()), anchors)
    traffic, result = first_stages(service, traffic, None)
    if not suggest:
        finish(result, out, as_json, lambda noun: inputs.profile_page(noun, traffic))
        return
    from melange.catalog.catalog import load_catalog
    from melange.present.terminal.suggestions import suggestions_page
    from melange.service.stages import suggestions_of

    with progress("asking what a measurement would change"):
        suggestions = suggestions_of(service, traffic, result, load_catalog(), suggest)
    finish(
        result,
        out,
        as_json,
        lambda noun: inputs.profile_page(noun, traffic),
        more={"suggested_measurements": [one.to_json() for one in suggestions]},
        more_page=suggestions_page(suggestions),
    )


@app.command()
def plan(
    source: Annotated[
        Path | None, typer.Argument(help="A service.yaml, or a configuration of the authors' release.")
    ] = None,
    workload_file: WorkloadOption = None,
    profile_files: ProfileOption = None,
    drop_unservable: Annotated[
        bool, typer.Option("--drop-unservable", help="Plan for the rest when some sizes cannot be served.")
    ] = False,
    explained: Annotated[
        bool, typer.Option("--explain", help="Say what would change the answer, and by how much.")
    ] = False,
    certified: Annotated[
        bool, typer.Option("--certify", help="Simulate, and buy exactly the headroom that the SLO needs.")
    ] = False,
    burstiness: Annotated[
        float, typer.Option(help="With --certify: coefficient of variation of the times between arrivals.")
    ] = 1.0,
    report: Annotated[
        Path | None, typer.Option("--report", help="Write the plan's own page, with pictures, as one HTML file.")
    ] = None,
    settings: SetOption = None,
    out: OutOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Find the cheapest mix that carries the traffic within the SLO."""
    from melange.plan.solve import solve
    from melange.present.terminal import plan_tables as tables
    from melange.service.stages import with_price_cautions

    chosen = [*(settings or ()), *(["plan.drop_unservable=true"] if drop_unservable else [])]
    traffic, capacities, options = plan_inputs(source, workload_file, profile_files, chosen)
    if burstiness != 1.0 and not certified:
        raise InputError("--burstiness is of the requests that --certify simulates", hint="add --certify")
    if certified:
        found = certified_plan(traffic, capacities, options, source, chosen, burstiness)
    else:
        with progress("solving for the cheapest mix") as tell:
            found = solve(traffic, capacities, options, progress=tell)
    result = with_price_cautions(found, datetime.now(UTC).date())
    if options.confidence is not None:
        with progress("asking what not knowing costs"):
            result = with_uncertainty(result, traffic, capacities, options, source, chosen)
    if report is not None:
        from melange.files import write_text
        from melange.present.pages.plan_page import report_page, report_pictures

        with progress("drawing") as tell:
            study = study_of(
                result, traffic, capacities, options, estimator(source, traffic, profile_files, chosen), tell
            )
            write_text(report, report_page(study, report_pictures(study), title_of(source)))
    if not explained:
        finish(result, out, as_json, tables.plan_page)
        return
    from melange.plan.explain import explain
    from melange.present.terminal.explanation import explanation_page

    with progress("asking what would change the answer"):
        reasons = explain(result, traffic, capacities, options)
    finish(
        result,
        out,
        as_json,
        tables.plan_page,
        more={"explain": reasons.to_json()},
        more_page=explanation_page(reasons, result),
    )


@app.command()
def explore(
    source: Annotated[
        Path | None, typer.Argument(help="A service.yaml, or a configuration of the authors' release.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="The page to write (replaced atomically).")] = Path("explore.html"),
    workload_file: WorkloadOption = None,
    profile_files: ProfileOption = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="A folder for the pictures as files (melange[images], Chromium).")
    ] = None,
    image_format: Annotated[str, typer.Option("--format", help="Of the pictures as files: png, svg.")] = "png",
    settings: SetOption = None,
) -> None:
    """Show the service from every side, as one HTML page: by request size, by rate, by SLO."""
    from melange.files import write_text
    from melange.plan.solve import solve
    from melange.present.figures.images import check_images, write_images
    from melange.present.pages.explore_page import explore_page, explore_pictures
    from melange.service.stages import with_price_cautions

    if images is not None:
        check_images(images, image_format)
    chosen = [*(settings or ())]
    traffic, capacities, options = plan_inputs(source, workload_file, profile_files, chosen)
    with progress("planning") as tell:
        result = with_price_cautions(solve(traffic, capacities, options, progress=tell), datetime.now(UTC).date())
        study = study_of(result, traffic, capacities, options, estimator(source, traffic, profile_files, chosen), tell)
        pictures = explore_pictures(study)
        write_text(out, explore_page(study, pictures, title_of(source)))
    typer.echo(f"{out} written; open it in a browser")
    if images is not None:
        with progress("drawing images"):
            files = write_images(pictures, images, image_format)
        typer.echo(f"{len(files)} pictures written to {images}")


app.command()(measure)
app.command()(validate)
app.command()(deploy)
app.command()(balance)


def _print_datasets(as_json: bool) -> None:
    from melange.workload.datasets import datasets

    if as_json:
        typer.echo(json.dumps(dict(datasets())))
        return
    for name, about in datasets().items():
        typer.echo(f"{name}: {about}")
