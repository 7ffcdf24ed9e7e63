"""The ``melange`` command and its subcommands."""

from __future__ import annotations

from typing import Annotated

import typer

from melange.cli.balance import balance
from melange.cli.catalog import catalog
from melange.cli.deploy import deploy
from melange.cli.explore import explore
from melange.cli.init import init
from melange.cli.mcp import mcp
from melange.cli.measure import measure
from melange.cli.operate import operate
from melange.cli.placeholders import with_placeholders
from melange.cli.plan import plan
from melange.cli.profile import profile
from melange.cli.schedule import schedule
from melange.cli.serve import serve
from melange.cli.ui import ui
from melange.cli.validate import validate
from melange.cli.what_if import what_if
from melange.cli.workload import workload

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
        from melange.installed import version

        typer.echo(f"melange {version()}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Find the cheapest mix of accelerators that serves a language model within its latency objective."""


for command in (
    init,
    catalog,
    workload,
    profile,
    plan,
    schedule,
    explore,
    what_if,
    measure,
    validate,
    deploy,
    balance,
    operate,
    serve,
    mcp,
    ui,
):
    app.command()(with_placeholders(command))
