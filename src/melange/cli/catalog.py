"""The command that lists what can be rented and served."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from melange.cli.flags import with_flags
from melange.cli.terminal import JsonFlag


class _Listing(StrEnum):
    """What ``melange catalog`` lists."""

    accelerators = "accelerators"
    offers = "offers"
    models = "models"


@dataclass(frozen=True)
class _Flags:
    """Which offers."""

    gpu: Annotated[list[str] | None, typer.Option(help="Only these accelerators (repeatable).")] = None
    provider: Annotated[list[str] | None, typer.Option(help="Only these providers (repeatable).")] = None
    region: Annotated[list[str] | None, typer.Option(help="Only these regions (repeatable).")] = None
    market: Annotated[list[str] | None, typer.Option(help="on-demand, spot or reserved (repeatable).")] = None
    file: Annotated[Path | None, typer.Option(help="Own offers: offers.csv, a SkyPilot or a gpuhunt catalog.")] = None


@with_flags
def catalog(
    flags: _Flags,
    subject: Annotated[_Listing, typer.Argument(help="What to list.")] = _Listing.offers,
    as_json: JsonFlag = False,
) -> None:
    """List accelerators, offers or models."""
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
    pages = {
        _Listing.accelerators: lambda: listings.accelerators_page(chosen.accelerators.values()),
        _Listing.offers: lambda: listings.offers_page(chosen.offers),
        _Listing.models: lambda: listings.models_page(chosen.models.values()),
    }
    layout.console().print(pages[subject]())
