"""Run the commands named in the README and store what they print below them.

A block reads ``<!-- run: COMMAND -->`` ... ``<!-- end -->``; whatever stands between is replaced.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"<!-- run: (?P<command>.*?) -->\n.*?<!-- end -->", re.DOTALL)


def block(found: re.Match[str]) -> str:
    """One block with fresh output."""
    command = found["command"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "COLUMNS": "118"}
    done = subprocess.run(shlex.split(command), cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    output = "\n".join(line.rstrip() for line in done.stdout.rstrip().splitlines())
    kind = "yaml" if command.endswith(".yaml") and command.startswith("cat ") else "text"
    prompt = "" if kind == "yaml" else f"$ {command}\n"
    return f"<!-- run: {command} -->\n```{kind}\n{prompt}{output}\n```\n<!-- end -->"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(BLOCK.sub(block, readme.read_text()))
