"""The command that lists accelerators, offers and models, and fetches current prices."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melange.cli.flags import with_flags
from melange.cli.terminal import JsonFlag, events
from melange.errors import InputError, some_of

if TYPE_CHECKING:
    from melange.catalog.catalog import Catalog


class _Subject(StrEnum):
    """What ``melange catalog`` lists or does."""

    accelerators = "accelerators"
    offers = "offers"
    models = "models"
    update = "update"


@dataclass(frozen=True)
class _Flags:
    """Filters for offers."""

    gpu: Annotated[list[str] | None, typer.Option(help="Only these accelerators (repeatable).")] = None
    provider: Annotated[list[str] | None, typer.Option(help="Only these providers (repeatable).")] = None
    region: Annotated[list[str] | None, typer.Option(help="Only these regions (repeatable).")] = None
    market: Annotated[list[str] | None, typer.Option(help="on-demand, spot or reserved (repeatable).")] = None
    file: Annotated[Path | None, typer.Option(help="Your own offers: offers.csv, a SkyPilot or a gpuhunt catalog.")] = (
        None
    )


@dataclass(frozen=True)
class _UpdateFlags:
    """The source of current prices."""

    source: Annotated[
        str | None,
        typer.Option("--from", help="update: skypilot (the default), gpuhunt, karpenter, gpurentalprices or a URL."),
    ] = None
    mirror: Annotated[str | None, typer.Option(help="update: another base URL for a named source.")] = None
    accept_jumps: Annotated[
        bool,
        typer.Option("--accept-jumps", help="update: also accept prices that changed by more than a factor of two."),
    ] = False


@with_flags
def catalog(
    flags: _Flags,
    update_flags: _UpdateFlags,
    subject: Annotated[
        _Subject, typer.Argument(help="What to list; update: fetch current prices into your data folder.")
    ] = _Subject.offers,
    as_json: JsonFlag = False,
) -> None:
    """List accelerators, offers or models, or fetch current prices."""
    if subject is _Subject.update:
        _refuse(flags, ("gpu", "market", "file"), "melange catalog update takes --provider and --region")
        _update(flags, update_flags, as_json)
        return
    _refuse(update_flags, [one.name for one in fields(update_flags)], "it belongs to melange catalog update")
    _list(flags, subject, as_json)


def _refuse(flags: object, names: tuple[str, ...] | list[str], hint: str) -> None:
    """Reject flags that would have no effect."""
    called = {"source": "--from"}
    for name in names:
        if getattr(flags, name):
            raise InputError(f"{called.get(name, '--' + name.replace('_', '-'))} does not apply here", hint=hint)


def _list(flags: _Flags, subject: _Subject, as_json: bool) -> None:
    """Print one of the lists."""
    from dataclasses import replace

    from melange.catalog.catalog import load_catalog
    from melange.present.terminal import layout, listings

    whole = load_catalog()
    if flags.file is not None:
        from melange.catalog.readers import read_price_list

        own = read_price_list(flags.file)
        whole = replace(whole, offers=own.offers)
        if own.cautions:
            layout.console(stderr=True).print(layout.cautions(own.cautions))
    chosen = whole.select(gpus=flags.gpu, providers=flags.provider, markets=flags.market, regions=flags.region)
    if as_json:
        typer.echo(json.dumps(chosen.to_json()[subject.value]))
        return
    if subject is _Subject.offers and not chosen.offers:
        typer.echo(_none_match(flags, whole))
        return
    pages = {
        _Subject.accelerators: lambda: listings.accelerators_page(chosen.accelerators.values(), layout.console().width),
        _Subject.offers: lambda: listings.offers_page(chosen.offers, layout.console().width),
        _Subject.models: lambda: listings.models_page(chosen.models.values()),
    }
    layout.console().print(pages[subject]())


def _none_match(flags: _Flags, whole: Catalog) -> str:
    """The filters that no offer passes, and the offers that pass some of them."""
    given = {"gpu": flags.gpu, "provider": flags.provider, "region": flags.region, "market": flags.market}
    filters = [f"--{name} {value}" for name, values in given.items() for value in values or ()]
    said = f"no offers match {' '.join(filters)}" if filters else "no offers"
    if not flags.market:
        return said
    providers = sorted({one.provider for one in whole.select(markets=flags.market).offers})
    return f"{said}; {' and '.join(flags.market)} offers are known from {some_of(providers) or 'no provider'}"


def _update(flags: _Flags, update_flags: _UpdateFlags, as_json: bool) -> None:
    """Fetch prices and print what changed."""
    from melange.catalog.update import update_prices
    from melange.present.terminal import layout, prices

    source = update_flags.source or "skypilot"
    with events(f"fetching prices from {source}"):
        update = update_prices(
            source,
            providers=flags.provider or (),
            regions=flags.region or (),
            accept_jumps=update_flags.accept_jumps,
            mirror=update_flags.mirror,
        )
    if as_json:
        typer.echo(json.dumps(update.to_json()))
        return
    layout.console().print(prices.update_page(update))
    if update.cautions:
        layout.console(stderr=True).print(layout.cautions(update.cautions))
