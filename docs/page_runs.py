"""Run the commands that pages show and store what they print below them: ``python docs/page_runs.py [PAGE ...]``.

A block reads ``<!-- run: COMMAND -->`` ... ``<!-- end -->``; whatever stands between is replaced. With
``<!-- run: COMMAND (only: WORD, WORD) -->`` it shows the first paragraph, those that begin with one of the words, and
dots for the others. ``<!-- file: NAME -->`` above a block says that the reader saves the block under that name.

Each page runs from its beginning to its end in a folder of its own, with the examples in it; so do the commands of its
shell blocks (``shell_blocks.py``). ``make test-docs`` runs every page again, and compares.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from shell_blocks import GIVEN, LANGUAGES, run_all

ROOT = Path(__file__).resolve().parents[1]
FENCED = r"```(?P<{0}language>\w*)[^\n]*\n(?P<{0}text>.*?)^```$"
RUN = r"<!-- run: (?P<command>[^(\n]*?)(?: \(only: (?P<only>[^)]*)\))? -->\n(?P<stored>.*?)<!-- end -->"
STEP = re.compile(
    rf"{RUN}|<!-- file: (?P<file>\S+) -->\n{FENCED.format('file_')}|^{FENCED.format('')}", re.DOTALL | re.MULTILINE
)
SHARED = ("examples", "bench", "src")
LIMIT_S = 600.0


def pages() -> list[Path]:
    """The pages that have commands with outputs."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path for path in found if "<!-- run: " in path.read_text()]


def prepare(folder: Path) -> None:
    """Put the repository's examples into a folder, as in its root."""
    for name in SHARED:
        (folder / name).symlink_to(ROOT / name, target_is_directory=True)


def run(command: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a command as a reader would, with the environment of this Python and the bundled prices."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "COLUMNS": "80", "MELANGE_DATA": str(folder / ".no-fetched-prices")}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=LIMIT_S
    )


def shown(command: str, only: str, folder: Path) -> str:
    """The block of a command with what it prints."""
    done = run(shlex.split(command), folder)
    if done.returncode:
        raise RuntimeError(f"{command}: exit code {done.returncode}\n{done.stderr}")
    printed = done.stdout or done.stderr  # files that were written are listed on stderr
    output = "\n".join(line.rstrip() for line in printed.rstrip().splitlines())
    if only:
        output = chosen(output, only.split(", "))
    kind = "yaml" if command.endswith(".yaml") and command.startswith("cat ") else "text"
    prompt = "" if kind == "yaml" else f"$ {command}\n"
    return f"```{kind}\n{prompt}{output}\n```\n"


def chosen(output: str, words: list[str]) -> str:
    """The first paragraph, those that begin with one of some words, and dots where others are left out."""
    first, *others = output.split("\n\n")
    shown = [first]
    for paragraph in others:
        if paragraph.lstrip("\n").startswith(tuple(words)):
            shown.append(paragraph.lstrip("\n"))
        elif shown[-1] != "...":
            shown.append("...")
    return "\n".join(shown)


def played(path: Path, folder: Path) -> str:
    """Read a page as its reader would, in a folder: save its files, run its commands; the page with fresh outputs."""
    prepare(folder)
    for command in GIVEN.get(path.relative_to(ROOT).as_posix(), ()):
        run_all(command, "sh", run, folder)

    def fresh(found: re.Match[str]) -> str:
        if found["file"]:
            (folder / found["file"]).write_text(found["file_text"])
        if found["language"] in LANGUAGES:
            run_all(found["text"], found["language"], run, folder)
        if not found["command"]:
            return found[0]
        only = f" (only: {found['only']})" if found["only"] else ""
        output = shown(found["command"], found["only"] or "", folder)
        return f"<!-- run: {found['command']}{only} -->\n{output}<!-- end -->"

    return STEP.sub(fresh, path.read_text())


if __name__ == "__main__":
    for page in [Path(name).resolve() for name in sys.argv[1:]] or pages():
        with tempfile.TemporaryDirectory() as name:
            page.write_text(played(page, Path(name)))
        print(page.relative_to(ROOT))
