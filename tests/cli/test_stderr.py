"""Errors on a real terminal: wrapped at its width, with commands and paths in one piece."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

FOLDER = "a-folder-with-a-name-that-is-long-enough-to-matter"


def on_terminal(code: str, columns: int, folder: Path) -> list[str]:
    """The lines that code prints to a terminal of this width, with stdout in a file."""
    above, below = pty.openpty()
    fcntl.ioctl(below, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.DEVNULL,
        stderr=below,
        cwd=folder,
        env=environment,
        check=False,
        timeout=60,
    )
    os.close(below)
    shown = os.read(above, 65_536).decode()
    os.close(above)
    return shown.replace("\r\n", "\n").splitlines()


def test_an_error_of_the_command_is_wrapped_at_the_terminals_width(tmp_path: Path) -> None:
    """Stdout may be a file: the width is that of the terminal that shows the error."""
    code = "import sys; sys.argv = ['melange', 'deploy', 'service.yaml', '--to', 'kubernetes']\n"
    code += "from melange.cli import main; main()"
    assert on_terminal(code, 50, tmp_path) == [
        "error: service.yaml is a service, not a plan",
        "hint: melange plan service.yaml --out plan.json,",
        "  then melange deploy plan.json --to kubernetes",
    ]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "hint: in the clone of Melange: pip install '.[live]'",
            ["hint: in the clone of Melange:", "  pip install '.[live]'"],
        ),
        (
            "hint: --set 'engine={name: sglang, max_num_seqs: 8}'",
            ["hint:", "  --set 'engine={name: sglang, max_num_seqs: 8}'"],
        ),
        ("hint: melange init writes one, in the folder", ["hint: melange init writes one, in the", "  folder"]),
        (
            f"error: /tmp/{FOLDER}/x.yaml: cannot be read: no such file",
            ["error:", f"  /tmp/{FOLDER}/x.yaml:", "  cannot be read: no such file"],
        ),
        ("first line\nsecond line", ["first line", "second line"]),
    ],
)
def test_commands_and_paths_stay_whole(tmp_path: Path, text: str, lines: list[str]) -> None:
    """So that they can be copied; prose wraps between words."""
    code = f"from melange.cli.stderr import say; say({text!r})"
    assert on_terminal(code, 40, tmp_path) == lines


def test_a_line_that_is_not_for_a_terminal_stays_whole() -> None:
    """Scripts search it."""
    code = "from melange.cli.stderr import say; say('error: ' + 'word ' * 60)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == f"error: {'word ' * 60}\n"
