"""The command that writes a starting service.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from melange.errors import InputError


def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("service.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented service.yaml as a starting point."""
    from importlib.resources import files

    from melange.files import write_text

    if path.exists() and not force:
        raise InputError(f"{path}: already exists", hint="--force overwrites it")
    write_text(path, files("melange").joinpath("service.template.yaml").read_text(encoding="utf-8"))
    typer.echo(f"{path} written; edit it, then: melange plan {path}")
