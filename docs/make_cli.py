"""Write docs/cli.md from the commands' own help texts, or check that it is up to date (``--check``)."""

import sys
from pathlib import Path

import typer
from typer.testing import CliRunner

from melange.cli.app import app

PAGE = Path(__file__).with_name("cli.md")
COMMANDS = tuple(typer.main.get_command(app).commands)  # type: ignore[attr-defined] # it is a group


def page() -> str:
    """The page, one section a command."""
    runner = CliRunner(env={"COLUMNS": "110", "TERM": "dumb", "NO_COLOR": "1"})
    sections = ["# Command line\n\nWritten by `make docs` from the commands' own help texts.\n"]
    for command in ("", *COMMANDS):
        result = runner.invoke(app, [*command.split(), "--help"], prog_name="melange")
        text = "\n".join(line.rstrip() for line in result.output.strip().splitlines())
        sections.append(f"## melange {command}".rstrip() + f"\n\n```text\n{text}\n```\n")
    return "\n".join(sections)


if __name__ == "__main__":
    if "--check" in sys.argv:
        if not PAGE.exists() or PAGE.read_text() != page():
            sys.exit("docs/cli.md is out of date: run make docs")
    else:
        PAGE.write_text(page())
