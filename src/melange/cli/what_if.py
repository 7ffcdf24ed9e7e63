"""The command that plans a service under other assumptions and compares the answers."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from melange.cli.flags import with_flags
from melange.cli.terminal import Inputs, JsonFlag, QuickFlag, events, keep_text

if TYPE_CHECKING:
    from rich.console import RenderableType


@with_flags
def what_if(
    inputs: Inputs,
    prices: Annotated[
        list[str] | None,
        typer.Option("--price", metavar="NAME=CHANGE", help="Change prices: H100=-30%, 'H100 spot=-30%' (repeatable)."),
    ] = None,
    rates: Annotated[
        list[str] | None, typer.Option("--rate", metavar="CHANGE", help="Change the traffic: x2, +20% or requests/s.")
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            "--without", metavar="NAME", help="Exclude an accelerator, replica type, provider, region or market."
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--change", metavar="KEY=VALUE", help="Change a key of the service: slo.tpot_ms=100."),
    ] = None,
    save: Annotated[
        str | None,
        typer.Option(
            "--save", metavar="SHARE", help="Find single changes that save this share of the cost, for example 20%."
        ),
    ] = None,
    quick: QuickFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Compare a service under other prices, traffic or limits.

    Each option is a scenario; with several, their combination is planned too. A scenario without a plan is a row that
    says why. Exit code: 0 if the service was compared, 2 if it or an option is invalid.
    """
    from rich.text import Text

    from melange.errors import InputError
    from melange.present.terminal import layout, what_if_page
    from melange.service import what_if as asked
    from melange.service.relax import Relaxation, relaxations

    if not (prices or rates or without or changes or save):
        raise InputError("what-if: no change is given", hint="for example --price H100=-30%, --rate x2, --save 20%")
    wanted = None if save is None else _share(save)
    with events() as listener:
        open_session = partial(inputs.session, listener)
        session = open_session()
        asked.read(session)  # its own faults are not those of a change
        variants = [
            *(asked.price_variant(session, one) for one in prices or ()),
            *(asked.rate_variant(session, one) for one in rates or ()),
            *(asked.without_variant(session, one) for one in without or ()),
            *(asked.change_variant(open_session, one) for one in changes or ()),
        ]
        if len(variants) > 1:
            with suppress(InputError):  # variants such as two rates cannot be combined: each is answered separately
                variants.append(asked.together(variants))
        base = asked.answer(open_session, asked.Variant(label=asked.BASE), quick=quick)
        answers = [base, *(asked.answer(open_session, one, quick=quick) for one in variants)]
        found: tuple[Relaxation, ...] = ()
        if wanted is not None:
            if base.plan is None:
                raise InputError(f"--save {save}: the unchanged service has no plan: {base.reason}")
            found = relaxations(open_session, base, wanted, quick=quick)
    kind = "by closed form; nothing was simulated" if quick else "simulated"
    parts: list[RenderableType] = [what_if_page.side_by_side(answers, kind)]
    if wanted is not None:
        parts += [Text(""), what_if_page.relaxed(found, wanted, kind)]
    if as_json:
        shown = {"answers": [one.to_json() for one in answers], "relaxations": [one.to_json() for one in found]}
        typer.echo(json.dumps(shown | {"is_simulated": not quick}))
        keep_text(lambda: parts)
        return
    layout.console().print(*parts, sep="\n")


def _share(text: str) -> float:
    """A share as a flag writes it: ``20%`` or ``0.2``."""
    from melange.errors import InputError

    number = text.strip().removesuffix("%")
    try:
        value = float(number) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise InputError(f"--save {text}: must be a share of the cost, such as 20%")
    return value
