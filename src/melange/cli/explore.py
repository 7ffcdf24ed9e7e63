"""The command that explores a service by size, rate and SLO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from melange.cli.flags import with_flags
from melange.cli.terminal import Inputs, JsonFlag, OnOption, QuickFlag, events, file_to_write, keep_text
from melange.processes import on_cluster
from melange.units import count_of


@with_flags
def explore(
    inputs: Inputs,
    quick: QuickFlag = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="The page to write (replaced atomically); default: explore.html, and none with --json.",
            callback=file_to_write,
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", help="Also save the pictures to this folder (needs the images extra and Chromium)."),
    ] = None,
    on: OnOption = None,
    image_format: Annotated[str, typer.Option("--format", help="File format of the pictures: png, svg.")] = "png",
    as_json: JsonFlag = False,
) -> None:
    """Explore a service by size, rate and SLO, as one HTML page."""
    from datetime import UTC, datetime

    from melange.files import write_text
    from melange.present.figures.images import check_images, write_images
    from melange.present.pages.explore_page import explore_page, explore_pictures
    from melange.present.study import Study, compared_types
    from melange.present.terminal import layout
    from melange.present.terminal.exploration_page import exploration_page

    if images is not None:
        check_images(images, image_format)
    with on_cluster(on), events() as listener:
        session = inputs.session(listener)
        plan = session.plan() if quick else session.answer()
        study = Study(exploration=session.explore(plan, compared_types(plan)), day=datetime.now(UTC).date())
    page = out or (None if as_json else Path("explore.html"))
    if page is not None or images is not None:
        with events("drawing"):
            pictures = explore_pictures(study)
            if page is not None:
                write_text(page, explore_page(study, pictures, session.name))
                typer.echo(f"{page} written; open it in a browser", err=as_json)
    if images is not None:
        with events("drawing images"):
            files = write_images(pictures, images, image_format)
        typer.echo(f"{count_of(len(files), 'picture')} written to {images}", err=as_json)
    if as_json:
        typer.echo(json.dumps(study.exploration.to_json()))
        keep_text(lambda: [exploration_page(study.exploration)])
    else:
        layout.console().print(exploration_page(study.exploration))
