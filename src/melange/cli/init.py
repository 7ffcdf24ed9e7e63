"""The command that writes a service to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from melange.errors import InputError


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
