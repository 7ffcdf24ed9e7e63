"""The documents, taken apart: pages, what stands in backticks, blocks; and what they are held against."""

import re
import tomllib
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import typer

from melange.cli.app import app

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "melange"
PAGES = tuple(sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("src/**/*.md")]))
# What is written by hand; docs/cli.md comes from the help texts themselves.
WRITTEN = tuple(path for path in PAGES if path.name != "cli.md")
FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```", re.DOTALL | re.MULTILINE)
CODE_ENDINGS = {".py", ".toml", ".yaml", ".csv", ".json"}

T = TypeVar("T")


def page(name: str) -> str:
    """The text of a file, by its path from the root."""
    return (ROOT / name).read_text()


def prose(text: str) -> str:
    """A page without its blocks."""
    return FENCE.sub("", text)


def spans(text: str) -> list[str]:
    """What stands in backticks in the prose of a page, each on one line."""
    return [re.sub(r"\s+", " ", span) for span in re.findall(r"`([^`]+)`", prose(text))]


def blocks(text: str, *languages: str) -> list[str]:
    """The blocks of a page that are in one of these languages."""
    return [found["text"] for found in FENCE.finditer(text) if found["language"] in languages]


def everywhere(find: Callable[[str], Iterable[T]], pages: Sequence[Path] = PAGES) -> list[tuple[str, T]]:
    """All that is found in each page, with the page's path."""
    return [(str(path.relative_to(ROOT)), one) for path in pages for one in find(path.read_text())]


@cache
def project() -> dict[str, Any]:
    """The contents of pyproject.toml."""
    return tomllib.loads(page("pyproject.toml"))


@cache
def code() -> str:
    """All code, settings and tables of the repository, as one text."""
    files = [path for folder in ("src", "bench", "tests", "examples", "docs") for path in (ROOT / folder).rglob("*")]
    texts = [path.read_text() for path in sorted(files) if path.suffix in CODE_ENDINGS]
    return "\n".join([*texts, page("Makefile"), page("pyproject.toml"), page(".ci/run")])


@cache
def commands() -> dict[str, Any]:
    """The commands of ``melange``, by name."""
    return dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined] # it is a group


def flags_of(command: Any) -> set[str]:
    """The flags that a command takes."""
    return {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
