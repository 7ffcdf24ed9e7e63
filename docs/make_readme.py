"""Run the commands named in the README and store what they print below them.

A block reads ``<!-- run: COMMAND -->`` ... ``<!-- end -->``; whatever stands between is replaced. With
``<!-- run: COMMAND (only: WORD, WORD) -->`` it shows the first paragraph, those that begin with one of the words, and
dots for the others.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"<!-- run: (?P<command>[^(\n]*?)(?: \(only: (?P<only>[^)]*)\))? -->\n.*?<!-- end -->", re.DOTALL)


def block(found: re.Match[str]) -> str:
    """One block with fresh output."""
    command = found["command"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "COLUMNS": "80"}
    done = subprocess.run(shlex.split(command), cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    output = "\n".join(line.rstrip() for line in done.stdout.rstrip().splitlines())
    if found["only"]:
        output = chosen(output, found["only"].split(", "))
    kind = "yaml" if command.endswith(".yaml") and command.startswith("cat ") else "text"
    prompt = "" if kind == "yaml" else f"$ {command}\n"
    only = f" (only: {found['only']})" if found["only"] else ""
    return f"<!-- run: {command}{only} -->\n```{kind}\n{prompt}{output}\n```\n<!-- end -->"


def chosen(output: str, words: list[str]) -> str:
    """The first paragraph, those that begin with one of some words, and dots where others are left out."""
    first, *others = output.split("\n\n")
    shown = [first]
    for paragraph in others:
        if paragraph.startswith(tuple(words)):
            shown.append(paragraph)
        elif shown[-1] != "...":
            shown.append("...")
    return "\n".join(shown)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(BLOCK.sub(block, readme.read_text()))
