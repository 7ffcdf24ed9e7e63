"""Every command that a page shows runs, and prints what stands below it; others say what they need."""

import difflib
import re
from pathlib import Path

import pytest
from page_runs import ROOT, STEP, played
from shell_blocks import GIVEN, LANGUAGES, NEEDS, bare, commands, needs

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]


def shell_commands(path: Path) -> list[str]:
    """The commands of a page's shell blocks."""
    found = [step for step in STEP.finditer(path.read_text()) if step["language"] in LANGUAGES]
    return [command for step in found for command in commands(step["text"], step["language"])]


def steady(page: str) -> str:
    """A page without what differs from run to run: times, ages of prices, dates, and columns aligned by them."""
    masked = re.sub(r"\d[\d,.]* (ms|s|days)\b", r"N \1", page)
    return re.sub(r"[ \t]+", " ", re.sub(r"on 20\d\d-\d\d-\d\d", "on DATE", masked))


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_a_page_reads_as_it_says(path: Path, tmp_path: Path) -> None:
    """From its beginning to its end, as a reader would follow it; the outputs stored on it are today's."""
    if not shell_commands(path) and "<!-- run: " not in path.read_text():
        pytest.skip("shows no commands")
    old, new = steady(path.read_text()).splitlines(), steady(played(path, tmp_path)).splitlines()
    assert "\n".join(difflib.unified_diff(old, new, "stored", "today", lineterm="")) == "", "run make docs"


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_what_does_not_run_says_what_it_needs(path: Path) -> None:
    """A list to read with pytest -rs."""
    left = [f"{command}: {reason}" for command in shell_commands(path) if (reason := needs(command))]
    if left:
        pytest.skip("; ".join(left))


def test_no_exception_is_left_over() -> None:
    """Each reason for not running a command is needed by some page, and each given page exists."""
    shown = [bare(command) for path in PAGES for command in shell_commands(path)]
    assert len(shown) > 80
    assert [pattern for pattern, _ in NEEDS if not any(re.search(pattern, command) for command in shown)] == []
    assert set(GIVEN) <= set(NAMES)
